//! Who the process is and what it may do: user, groups, capabilities; and what it finds: its
//! environment and its program.

pub mod apply;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{CStr, CString};

use crate::config::{Capabilities, User};

/// All that [`apply`] needs, as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    pub uid: u32,
    pub gid: u32,
    /// `None`: `setgroups(2)` is denied in this user namespace and nothing was asked for.
    pub groups: Option<Vec<u32>>,
    pub capabilities: Capabilities,
    /// Those that the bounding set loses.
    pub drop: Vec<u8>,
}

impl Privilege {
    /// Capabilities that are not given are none, as with runc.
    pub fn plan(
        user: &User,
        capabilities: Option<Capabilities>,
        last_capability: u8,
        setgroups_denied: bool,
    ) -> Self {
        let capabilities = capabilities.unwrap_or_default();
        let drop = (0..=last_capability).filter(|c| capabilities.bounding >> c & 1 == 0).collect();
        let groups = if setgroups_denied { None } else { Some(user.additional_gids.clone()) };
        Self { uid: user.uid, gid: user.gid, groups, capabilities, drop }
    }
}

/// The environment: of a name given twice the last value counts, in the place of the first.
pub fn environment(env: &[CString]) -> Vec<CString> {
    let mut out: Vec<CString> = Vec::with_capacity(env.len());
    // Kubernetes gives thousands of variables to a container of a namespace with many services.
    let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
    for variable in env {
        match places.entry(name(variable)) {
            Entry::Occupied(place) => out[*place.get()].clone_from(variable),
            Entry::Vacant(place) => {
                place.insert(out.len());
                out.push(variable.clone());
            }
        }
    }
    out
}

fn name(variable: &CStr) -> &[u8] {
    let bytes = variable.to_bytes();
    bytes.split(|b| *b == b'=').next().unwrap_or(bytes)
}

/// The value of `name` in an environment.
pub fn variable<'e>(env: &'e [CString], wanted: &str) -> Option<&'e [u8]> {
    let found = env.iter().rev().find(|v| name(v) == wanted.as_bytes())?;
    found.to_bytes().get(wanted.len() + 1..)
}

/// Where the program may be: itself when it has a slash, else in each folder of PATH, in order.
/// Folders that are not absolute are passed over: what runs must not depend on the folder that the
/// process happens to be in (as Go's `exec.LookPath`, which runc uses).
pub fn candidates(program: &CStr, env: &[CString]) -> Vec<CString> {
    let program = program.to_bytes();
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let path = variable(env, "PATH").unwrap_or_default();
    path.split(|b| *b == b':')
        .filter(|folder| folder.first() == Some(&b'/'))
        .filter_map(|folder| CString::new([folder, b"/", program].concat()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c(text: &[&str]) -> Vec<CString> {
        text.iter().map(|t| CString::new(*t).unwrap()).collect()
    }

    #[test]
    fn the_last_of_two_variables_counts() {
        let env = environment(&c(&["A=1", "PATH=/x", "A=2", "B", "A=3"]));
        assert_eq!(env, c(&["A=3", "PATH=/x", "B"]));
        assert_eq!(variable(&env, "A"), Some(&b"3"[..]));
        assert_eq!(variable(&env, "B"), None);
        assert_eq!(variable(&env, "C"), None);
    }

    #[test]
    fn a_program_is_looked_for_as_go_does() {
        let env = c(&["PATH=/usr/bin:.::rel:/bin"]);
        assert_eq!(candidates(c"sh", &env), c(&["/usr/bin/sh", "/bin/sh"]));
        assert_eq!(candidates(c"/opt/x", &env), c(&["/opt/x"]));
        assert_eq!(candidates(c"./x", &env), c(&["./x"]));
        assert_eq!(candidates(c"sh", &[]), c(&[]));
    }
}
