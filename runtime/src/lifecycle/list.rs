//! `list`: all containers below the root.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::{Runtime, status::status};
use crate::config::id::ContainerId;
use crate::error::{Error, Result};
use crate::state::{self, Dir, State};

/// Each container by its id, in order; one whose record cannot be read does not hide the others.
pub fn list(runtime: &Runtime) -> Result<Vec<(ContainerId, Result<State>)>> {
    let ids = state::list(&runtime.root)?;
    let passwd = read_passwd()?;
    let with_owner = |id: &ContainerId| {
        let dir = Dir::open(&runtime.root, id)?;
        let record = dir.load()?;
        Ok(State::new(&record, status(&dir, &record)?, user_name(&passwd, record.owner)))
    };
    Ok(ids.into_iter().map(|id| (id.clone(), with_owner(&id))).collect())
}

/// A static glibc would load shared objects for `getpwuid(3)`, so the file is read here.
fn read_passwd() -> Result<String> {
    let path = Path::new("/etc/passwd");
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::io("read", path, &e)),
    }
}

/// `passwd(5)`; `#uid`, as runc has it, for a user without a name.
fn user_name(passwd: &str, uid: u32) -> String {
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    };
    passwd.lines().find_map(name).unwrap_or_else(|| format!("#{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Driver;
    use crate::error::Lifecycle;

    #[test]
    fn an_owner_has_the_name_of_passwd_or_a_number() {
        let passwd = "root:x:0:0::/:/bin/sh\n\nbroken\n:x:7:7::/:\nann:x:1000:100::/:\nbob:x:1000:100::/:\n";
        for (uid, name) in [(0, "root"), (1000, "ann"), (7, "#7"), (10, "#10")] {
            assert_eq!(user_name(passwd, uid), name);
        }
    }

    #[test]
    fn a_folder_without_a_record_does_not_hide_the_others() {
        let root = tempfile::tempdir().unwrap();
        for id in ["b", "a"] {
            Dir::create(root.path(), &ContainerId::new(id).unwrap()).unwrap();
        }
        fs::write(root.path().join("b/state.json"), "{").unwrap();
        let runtime = Runtime::new(root.path().to_owned(), Driver::Cgroupfs, None);
        let listed = list(&runtime).unwrap();
        assert_eq!(listed.len(), 2);
        assert!(matches!(&listed[0].1, Err(Error::State { why: Lifecycle::DoesNotExist, .. })));
        assert!(matches!(&listed[1].1, Err(Error::Record { .. })));
    }
}
