//! `--regex` of `delete` and `kill`, as crun has it: every id in which the expression is found.

use nix::errno::Errno;
use regex_lite::Regex;

use super::globals::{Context, Root};
use crate::config::id::ContainerId;
use crate::error::{Error, Result};
use crate::state;

/// Goes on after a failure, and returns all of them.
pub(super) fn each(
    context: &Context,
    expression: &str,
    mut act: impl FnMut(&ContainerId) -> Result<()>,
) -> Result<()> {
    let expression = Regex::new(expression)
        .map_err(|e| Error::Usage(format!("{expression:?} is not a regular expression: {e}")))?;
    let ids = match state::list(&context.runtime.root) {
        Err(e) if context.root != Root::Given && e.errno() == Some(Errno::ENOENT) => Vec::new(),
        ids => ids?,
    };
    let matching = ids.iter().filter(|id| expression.is_match(id.as_str()));
    let mut failed: Vec<Error> =
        matching.filter_map(|id| act(id).err().map(|e| e.context(format!("container {id}")))).collect();
    match failed.len() {
        0 => Ok(()),
        1 => Err(failed.remove(0)),
        _ => Err(Error::Cleanup(failed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Driver;
    use crate::lifecycle::Runtime;
    use std::path::Path;

    fn context(root: &Path) -> Context {
        let runtime = Runtime::new(root.to_owned(), Driver::Cgroupfs, None);
        Context { runtime, root: Root::Given }
    }

    #[test]
    fn all_that_match_are_acted_on_even_after_a_failure() {
        let root = tempfile::tempdir().unwrap();
        for id in ["web-1", "web-2", "web-3", "db-1"] {
            std::fs::create_dir(root.path().join(id)).unwrap();
        }
        let context = context(root.path());
        let mut seen = Vec::new();
        let error = each(&context, "^web-[0-9]$", |id| {
            seen.push(id.to_string());
            if id.as_str() == "web-3" { Ok(()) } else { Err(Error::Usage("no".into())) }
        })
        .unwrap_err();
        assert_eq!(seen, ["web-1", "web-2", "web-3"]);
        assert_eq!(error.to_string(), "container web-1: no; container web-2: no");

        seen.clear();
        each(&context, "-1", |id| {
            seen.push(id.to_string());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["db-1", "web-1"], "anywhere in the id");
    }

    #[test]
    fn what_is_no_expression_is_refused_before_anything_is_done() {
        let root = tempfile::tempdir().unwrap();
        let error = each(&context(root.path()), "(", |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error}");
    }
}
