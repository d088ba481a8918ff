//! Who makes and joins which namespace. Pure.

use std::ffi::CString;

use super::Kind;
use crate::config::{Namespace, Namespaces, TimeOffsets};
use crate::sys::slots::Slot;

/// How the container's first process comes into its namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// `CLONE_NEW*` of the clone that makes init.
    pub clone_flags: u64,
    /// A short-lived process goes first, because some namespaces are entered only by children
    /// (pid, time) or must be entered before the clone (user).
    pub joiner: Option<Joiner>,
    /// Entered by init itself, after its birth.
    pub joins: Vec<Join>,
    /// Unshared by init when it is in its cgroup: the root of a cgroup namespace is where its
    /// maker is.
    pub late_cgroup: bool,
    /// A new user namespace is made by the joiner or by the clone.
    pub new_user: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub kind: Kind,
    pub path: CString,
    pub slot: Slot,
}

/// What the joiner does, in this order, before it clones init.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joiner {
    pub joins: Vec<Join>,
    /// A new user namespace that the time namespace belongs to; its maps are then written to the joiner.
    pub unshare_user: bool,
    /// A new time namespace: its clocks can be set only between this and the first process in it.
    pub unshare_time: bool,
}

/// What the plan depends on.
pub struct Input<'a> {
    pub namespaces: &'a Namespaces,
    pub privileged: bool,
    /// Init is born in its cgroup (v2, by `CLONE_INTO_CGROUP`).
    pub born_in_cgroup: bool,
    pub first_slot: Slot,
}

pub fn plan(input: &Input<'_>) -> Plan {
    let all = input.namespaces;
    let new_user = all.user == Namespace::New;
    let joined: Vec<Join> = Kind::ALL
        .into_iter()
        .filter_map(|kind| match of(all, kind) {
            Namespace::Join(path) => Some((kind, path.clone())),
            _ => None,
        })
        .enumerate()
        .map(|(n, (kind, path))| Join { kind, path, slot: input.first_slot + n })
        .collect();
    let new_time = all.time == Namespace::New;
    let first = |join: &Join| matches!(join.kind, Kind::User | Kind::Pid | Kind::Time);
    // In a new user namespace init has no rights over others' namespaces: they come first then.
    let needs_joiner = new_time || joined.iter().any(first) || (new_user && !joined.is_empty());
    let late_cgroup = all.cgroup == Namespace::New && !input.born_in_cgroup;
    let mut plan = Plan { late_cgroup, new_user, ..Plan::default() };
    for kind in Kind::ALL {
        let late = kind == Kind::Cgroup && late_cgroup;
        let by_joiner = kind == Kind::Time || (kind == Kind::User && new_time);
        if *of(all, kind) == Namespace::New && !late && !by_joiner {
            plan.clone_flags |= kind.flag() as u64;
        }
    }
    if needs_joiner {
        let joins = in_joining_order(joined, input.privileged);
        plan.joiner = Some(Joiner { joins, unshare_user: new_user && new_time, unshare_time: new_time });
    } else {
        plan.joins = joined;
    }
    plan
}

/// With the host's privilege the user namespace is entered last: it gives that privilege up, and
/// the others may belong to the host. Without, first: only in it is there any privilege.
fn in_joining_order(mut joins: Vec<Join>, privileged: bool) -> Vec<Join> {
    joins.sort_by_key(|join| (join.kind == Kind::User) == privileged);
    joins
}

pub fn of(namespaces: &Namespaces, kind: Kind) -> &Namespace {
    match kind {
        Kind::User => &namespaces.user,
        Kind::Mount => &namespaces.mount,
        Kind::Pid => &namespaces.pid,
        Kind::Network => &namespaces.network,
        Kind::Ipc => &namespaces.ipc,
        Kind::Uts => &namespaces.uts,
        Kind::Cgroup => &namespaces.cgroup,
        Kind::Time => &namespaces.time,
    }
}

/// The lines of `/proc/<pid>/timens_offsets` (`time_namespaces(7)`).
pub fn timens_offsets(offsets: &TimeOffsets) -> String {
    [("monotonic", offsets.monotonic), ("boottime", offsets.boottime)]
        .into_iter()
        .filter_map(|(clock, offset)| offset.map(|o| format!("{clock} {} {}\n", o.secs, o.nanosecs)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(change: impl FnOnce(&mut Namespaces)) -> Plan {
        let mut namespaces =
            Namespaces { pid: Namespace::New, mount: Namespace::New, ..Namespaces::default() };
        change(&mut namespaces);
        plan(&Input { namespaces: &namespaces, privileged: true, born_in_cgroup: false, first_slot: 20 })
    }

    fn at(path: &str) -> Namespace {
        Namespace::Join(CString::new(path).unwrap())
    }

    #[test]
    fn new_namespaces_are_made_by_the_clone() {
        let plan = plan_of(|n| n.user = Namespace::New);
        let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUSER;
        assert_eq!(plan.clone_flags, flags as u64);
        assert_eq!(plan.joiner, None);
    }

    #[test]
    fn a_network_namespace_of_the_host_is_joined_by_init_itself() {
        let plan = plan_of(|n| n.network = at("/run/netns/x"));
        assert_eq!(plan.joiner, None);
        assert_eq!(plan.joins.len(), 1);
        assert_eq!(plan.joins[0].slot, 20);
    }

    #[test]
    fn pid_and_user_namespaces_are_joined_before_the_clone_the_user_namespace_last() {
        let plan = plan_of(|n| {
            n.user = at("/u");
            n.pid = at("/p");
            n.network = at("/n");
        });
        let kinds: Vec<_> = plan.joiner.unwrap().joins.iter().map(|j| j.kind).collect();
        assert_eq!(kinds, [Kind::Pid, Kind::Network, Kind::User]);
    }

    #[test]
    fn a_new_time_namespace_belongs_to_the_new_user_namespace() {
        let plan = plan_of(|n| {
            n.user = Namespace::New;
            n.time = Namespace::New;
        });
        let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        assert_eq!(plan.clone_flags, flags as u64);
        let joiner = plan.joiner.unwrap();
        assert!(joiner.unshare_user && joiner.unshare_time);
    }

    #[test]
    fn a_cgroup_namespace_is_made_when_the_process_is_in_its_cgroup() {
        let plan = plan_of(|n| n.cgroup = Namespace::New);
        assert!(plan.late_cgroup);
        assert_eq!(plan.clone_flags & libc::CLONE_NEWCGROUP as u64, 0);
    }
}
