//! What to do about an error: a table by operation and error number. The text of a message is never
//! looked at; its first word, where it is a step's, is the operation.

use nix::errno::Errno;

use crate::error::{Error, Lifecycle};
use crate::host::Facts;

/// What the table looks at.
struct Case<'a> {
    operation: &'a str,
    object: &'a str,
    errno: Errno,
    in_user_namespace: bool,
}

/// One line, without a full stop; `None` when the message says it all. `facts`, where the host is known.
pub(super) fn hint(error: &Error, facts: Option<&Facts>) -> Option<String> {
    let in_user_namespace = facts.is_some_and(|facts| facts.rootless);
    let case = |operation, object, errno| Case { operation, object, errno, in_user_namespace };
    match error.root() {
        Error::Sys { operation, object, errno } => {
            let (first, rest) = operation.split_once(' ').unwrap_or((operation, object));
            known(&case(first, if object.is_empty() { rest } else { object }, *errno))
        }
        Error::Step { what, errno, .. } => {
            let (operation, object) = what.split_once(' ').unwrap_or((what, ""));
            known(&case(operation.trim_end_matches(','), object, *errno))
        }
        Error::Cgroup { file, errno, .. } => cgroup(&file.to_string_lossy(), *errno),
        Error::Controller { controller, above, errno, .. } => {
            Some(delegation(controller, &above.to_string_lossy(), *errno))
        }
        Error::State { why, id } => state(*why, id),
        Error::Record { .. } => {
            Some("`tare delete --force` removes what the record does not let it undo by name".into())
        }
        Error::Cleanup(errors) => errors.iter().find_map(|error| hint(error, facts)),
        _ => None,
    }
    .or_else(|| facts.and_then(old_kernel).filter(|_| error.errno() == Some(Errno::ENOSYS)))
}

fn known(case: &Case<'_>) -> Option<String> {
    let text = match (case.operation, case.errno) {
        _ if case.object == crate::seal::EXE => {
            "who may not mount runs tare from a copy in memory, which /proc/sys/vm/memfd_noexec may forbid; none \
             is needed where the file is root's and nobody else may write to it"
        }
        ("find", Errno::ENOENT) if case.object.starts_with("the program") => {
            "process.args[0] is looked up in the container's root, along PATH of process.env"
        }
        ("find", Errno::EACCES) if case.object.starts_with("the program") => {
            "the file must be executable for process.user, and its folders searchable"
        }
        ("execve" | "execveat" | "exec", Errno::ENOENT) => {
            "the file may be there and its interpreter not: see its first line (#!), or the dynamic loader \
             that `file` names; both are looked up in the container's root"
        }
        ("execve" | "execveat" | "exec", Errno::EACCES) => {
            "the file must be executable for process.user, its folders searchable, and its mount not noexec"
        }
        ("execve" | "execveat" | "exec", Errno::ENOEXEC) => {
            "the file is made for another architecture, or is a script without an interpreter line (#!)"
        }
        ("execve" | "execveat" | "exec", Errno::EISDIR) => "process.args[0] is a folder",
        ("execve" | "execveat" | "exec", Errno::E2BIG) => {
            "process.args and process.env are too long together"
        }
        ("newuidmap" | "newgidmap", Errno::ENOENT) => {
            "install newuidmap and newgidmap (package uidmap or shadow): without them a user can map only himself"
        }
        ("newuidmap" | "newgidmap", _) => {
            "the mappings must lie in the ranges that /etc/subuid and /etc/subgid give this user"
        }
        (
            "mount" | "bind" | "attach" | "fsmount" | "fsconfig" | "move_mount" | "open_tree",
            Errno::ENOSPC,
        ) => "mount(2) means \"too many mounts\" here; see /proc/sys/fs/mount-max",
        (
            "mount" | "bind" | "change" | "fsopen" | "fsconfig" | "fsmount" | "move_mount" | "mount_setattr",
            Errno::EPERM,
        ) if case.in_user_namespace => {
            "in a user namespace proc and sysfs can be mounted only where the present ones are wholly visible, and \
             flags of the host's mounts cannot be lifted; bind the host's folder instead"
        }
        ("mount" | "fsopen" | "fsconfig", Errno::ENODEV) => {
            "this kernel does not have the filesystem: see /proc/filesystems"
        }
        ("mount" | "fsconfig" | "mount_setattr", Errno::EINVAL) => {
            "an option of this mount is not one of the filesystem's, or this kernel cannot map the ids of this filesystem"
        }
        ("mount" | "open_tree" | "move_mount", Errno::ENOENT) => "the mount's source must exist",
        ("apply", Errno::ENOENT) if case.object.starts_with("apparmor") => {
            "`apparmor_parser --replace FILE` loads the profile that FILE defines; `aa-status` lists those that are loaded"
        }
        ("apply", Errno::EACCES | Errno::EPERM) if case.object.starts_with("apparmor") => {
            "tare is itself confined by a profile, which must allow the change (`change_profile`)"
        }
        ("apply" | "join", Errno::EINVAL) if case.object.contains("label") => {
            "the label must be one of the SELinux policy that is loaded"
        }
        ("apply" | "write" | "open" | "join", Errno::EXDEV)
            if ["label", "profile", "keyring", "proc"].iter().any(|word| case.object.contains(word)) =>
        {
            "something is mounted over this file of /proc, or /proc is no proc file system: nothing is written there"
        }
        ("pivot_root", Errno::EINVAL) => "a rootfs on the initial ramdisk cannot be left: use --no-pivot",
        ("open" | "openat2" | "chdir" | "stat" | "open_tree", Errno::EACCES)
            if case.in_user_namespace && !case.object.starts_with("/proc/") =>
        {
            "root of the user namespace must be able to search every parent folder of the bundle and of the rootfs"
        }
        ("make", Errno::ENOSPC) if case.object.starts_with("a user namespace") => {
            "too many namespaces: see /proc/sys/user/max_user_namespaces"
        }
        ("clone" | "clone3" | "unshare", Errno::ENOSPC) => {
            "too many namespaces: see /proc/sys/user/max_*_namespaces"
        }
        ("clone" | "clone3" | "unshare", Errno::EPERM) if case.in_user_namespace => {
            "user namespaces are off for users here: see /proc/sys/kernel/unprivileged_userns_clone and \
             /proc/sys/kernel/apparmor_restrict_unprivileged_userns"
        }
        ("clone" | "clone3" | "fork", Errno::EAGAIN) => {
            "a limit on processes is reached: RLIMIT_NPROC or pids.max"
        }
        ("connect", Errno::ENOENT | Errno::ECONNREFUSED) => {
            "nobody listens on this socket: who is to receive from it must be there before the container"
        }
        ("load", Errno::EBUSY) if case.object.starts_with("the notifying seccomp filter") => {
            "a filter around this runtime has a listener already, and the kernel allows one for a process"
        }
        ("pidfd_getfd", Errno::EPERM) => {
            "to take the listener of a filter out of the container's process the runtime needs CAP_SYS_PTRACE, or a \
             profile that allows sendmsg, by which the process then sends it"
        }
        ("connect", Errno::ENAMETOOLONG) => "the path of a socket has at most 107 bytes",
        ("setns", Errno::EINVAL) => {
            "the path is not a namespace of this kind, or this process is in it already"
        }
        ("prlimit64" | "setrlimit", Errno::EPERM) => {
            "raising a hard limit needs CAP_SYS_RESOURCE in the initial user namespace"
        }
        ("open", Errno::ENOENT) if case.object.ends_with("/config.json") => {
            "`tare spec` writes one to start from; `--bundle` names the bundle's folder"
        }
        (_, Errno::EMFILE) => "the limit on open files (RLIMIT_NOFILE) of the caller is reached",
        (_, Errno::EROFS) if case.operation == "mkdir" => {
            "this file system is read-only; `--root DIR` keeps the state elsewhere"
        }
        ("mkdir", Errno::EACCES) => "`--root DIR` keeps the state where this user may write",
        _ => return None,
    };
    Some(text.into())
}

fn cgroup(file: &str, errno: Errno) -> Option<String> {
    let name = file.rsplit('/').next().unwrap_or_default();
    let text = match (name, errno) {
        ("cgroup.procs" | "tasks", Errno::ENOSPC) => {
            "a cpuset must have CPUs and memory nodes before a process can be in it: cpuset.cpus and cpuset.mems"
        }
        ("cgroup.procs" | "cgroup.threads", Errno::EBUSY) => {
            "on cgroup v2 a cgroup with children that have controllers cannot hold processes"
        }
        ("cgroup.subtree_control", Errno::EBUSY) => {
            "on cgroup v2 controllers cannot be given to the children of a cgroup that holds processes"
        }
        ("cgroup.procs" | "cgroup.subtree_control", Errno::EACCES | Errno::EPERM) => {
            "the cgroup must be delegated to this user: run under `systemd-run --user --scope -p Delegate=yes`, or use \
             --systemd-cgroup"
        }
        ("memory.limit_in_bytes" | "memory.max", Errno::EBUSY) => {
            "more memory is in use than the new limit allows, and cannot be reclaimed"
        }
        ("cpu.rt_runtime_us", Errno::EINVAL) => {
            "the parent cgroup gives no real-time budget that would suffice: each cgroup above needs one in its own \
             cpu.rt_runtime_us, from the root down"
        }
        (
            "io.bfq.weight" | "blkio.bfq.weight_device" | "blkio.weight_device" | "io.weight",
            Errno::EOPNOTSUPP,
        ) => {
            "a device has a weight of its own while its scheduler is bfq (`echo bfq >/sys/block/DEVICE/queue/scheduler`), or, \
             without bfq, while io.cost.qos is enabled for it"
        }
        ("blkio.leaf_weight" | "blkio.leaf_weight_device", Errno::ENOENT) => {
            "weights of leaves went with the CFQ scheduler, in Linux 5.0"
        }
        ("io.weight" | "blkio.bfq.weight" | "blkio.bfq.weight_device", Errno::ENOENT) => {
            "the kernel shares block devices by weight with the bfq scheduler (`modprobe bfq`), and on cgroup v2 with \
             CONFIG_BLK_CGROUP_IOCOST; the io controller must be enabled for this cgroup"
        }
        (
            "cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.cfs_burst_us" | "cpu.max" | "cpu.max.burst",
            Errno::EINVAL,
        ) => {
            "period and quota are 1000 microseconds at least, the period 1000000 at most, a burst is not above its quota, \
             and on cgroup v1 quota in period not above that of the cgroup above"
        }
        ("cpuset.cpus" | "cpuset.mems", Errno::EINVAL | Errno::ERANGE | Errno::EACCES) => {
            "the list may have only what the cgroup above has: see its cpuset.cpus.effective and cpuset.mems.effective, on \
             cgroup v1 cpuset.cpus and cpuset.mems"
        }
        ("memory.memsw.limit_in_bytes" | "memory.limit_in_bytes", Errno::EINVAL) => {
            "memory and swap together, memory.memsw.limit_in_bytes, cannot be less than memory.limit_in_bytes: give both"
        }
        ("rdma.max", Errno::ENODEV) => "the RDMA devices of this host are in /sys/class/infiniband",
        ("net_prio.ifpriomap", Errno::ENODEV) => {
            "the interface must be one of the host's first network namespace"
        }
        (file, Errno::ENODEV) if file.starts_with("io.") || file.starts_with("blkio.") => {
            "MAJOR:MINOR must be a whole disk of this host, no partition: see /sys/block/*/dev"
        }
        (file, Errno::ENOENT) if file.starts_with("hugetlb.") => {
            "the sizes of huge pages on this host are in /sys/kernel/mm/hugepages; the hugetlb controller must be enabled \
             for this cgroup"
        }
        (_, Errno::ENOENT) => {
            "this kernel or this cgroup does not have the controller: see cgroup.controllers of its parent"
        }
        _ => return None,
    };
    Some(text.into())
}

/// Who has to write which line, so that a controller comes down to us.
fn delegation(controller: &str, above: &str, errno: Errno) -> String {
    match errno {
        Errno::EACCES | Errno::EPERM | Errno::EROFS => format!(
            "controller {controller} must be delegated: with systemd by the line \
             \"Delegate=cpu cpuset io memory pids\" below [Service] in \
             /etc/systemd/system/user@.service.d/delegate.conf, `systemctl daemon-reload` and a new login; else by \
             `echo +{controller} >{above}/cgroup.subtree_control` as root"
        ),
        Errno::EBUSY => format!(
            "a cgroup that hands down controllers cannot hold processes itself: move those of {above} into a \
             cgroup below it"
        ),
        _ => format!("see {above}/cgroup.controllers: what is not in it must be handed down from above"),
    }
}

fn state(why: Lifecycle, id: &str) -> Option<String> {
    match why {
        Lifecycle::AlreadyExists => Some(format!("`tare delete {id}` frees the id of a stopped container")),
        Lifecycle::NotStopped(_) => Some(format!("`tare delete --force {id}` kills it first")),
        Lifecycle::DoesNotExist => Some(
            "`tare list` shows the containers of this root; engines have their own (`--root DIR`)".into(),
        ),
        _ => None,
    }
}

/// Below the floor of KERNEL.md: clone3 5.3, openat2 5.6, mount_setattr 5.12.
fn old_kernel(facts: &Facts) -> Option<String> {
    let (major, minor) = facts.kernel;
    (facts.kernel < (5, 12)).then(|| format!("this is Linux {major}.{minor}; tare needs 5.12"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::CgroupLayout;

    fn facts(euid: u32, kernel: (u32, u32)) -> Facts {
        Facts {
            kernel,
            euid,
            egid: euid,
            capabilities: 0,
            last_capability: 40,
            in_user_namespace: false,
            apparmor: false,
            selinux: false,
            cgroup: CgroupLayout::default(),
            systemd_cgroup: None,
            newuidmap: None,
            newgidmap: None,
            rootless: euid != 0,
            setgroups_denied: false,
            full_mounts: Vec::new(),
        }
    }

    fn step(what: &str, errno: Errno) -> Error {
        Error::Step { index: 1, count: 2, what: what.into(), errno, detail: String::new() }
    }

    fn written(file: &str, errno: Errno) -> Error {
        Error::Cgroup { file: file.into(), value: "1".into(), errno }
    }

    fn undelegated(errno: Errno) -> Error {
        Error::Controller {
            controller: "cpu".into(),
            file: "/sys/fs/cgroup/u/c/cpu.max".into(),
            value: "1 2".into(),
            above: "/sys/fs/cgroup/u".into(),
            errno,
        }
    }

    fn is(why: Lifecycle) -> Error {
        Error::State { id: "web".into(), why }
    }

    #[test]
    fn each_row_is_found_by_an_error_of_its_kind() {
        let user = Some(facts(1000, (6, 1)));
        let root = Some(facts(0, (6, 1)));
        let old = Some(facts(0, (5, 4)));
        let rows: Vec<(Error, &Option<Facts>, &str)> = vec![
            (step("find the program: sh", Errno::ENOENT), &None, "PATH"),
            (step("find the program: sh", Errno::EACCES), &None, "executable"),
            (step("bind /a on /b", Errno::ENOSPC), &root, "mount-max"),
            (step("pivot_root, and detach the old root", Errno::EINVAL), &root, "--no-pivot"),
            (Error::sys("make a user namespace", "", Errno::ENOSPC), &user, "max_user_namespaces"),
            (Error::sys("make a copy of", crate::seal::EXE, Errno::EACCES), &user, "memfd_noexec"),
            (step("execve", Errno::ENOENT), &None, "interpreter"),
            (
                step("load the notifying seccomp filter of 9 instructions", Errno::EBUSY),
                &root,
                "listener already",
            ),
            (Error::sys("pidfd_getfd", "the seccomp listener", Errno::EPERM), &user, "CAP_SYS_PTRACE"),
            (step("execve /bin/x", Errno::EACCES), &None, "noexec"),
            (step("execve /bin/x", Errno::ENOEXEC), &None, "architecture"),
            (step("execve /bin", Errno::EISDIR), &None, "folder"),
            (step("execve /bin/x", Errno::E2BIG), &None, "too long"),
            (Error::sys("newuidmap", "", Errno::ENOENT), &user, "package uidmap"),
            (Error::sys("newgidmap", "", Errno::EPERM), &user, "/etc/subgid"),
            (step("mount tmpfs on /dev/shm", Errno::ENOSPC), &root, "mount-max"),
            (step("mount proc on /proc", Errno::EPERM), &user, "user namespace"),
            (step("fsopen foofs", Errno::ENODEV), &root, "/proc/filesystems"),
            (step("fsconfig tmpfs", Errno::EINVAL), &root, "option"),
            (Error::sys("open_tree", "/nowhere", Errno::ENOENT), &root, "source must exist"),
            (step("pivot_root", Errno::EINVAL), &root, "--no-pivot"),
            (step("apply apparmor profile p at exec", Errno::ENOENT), &root, "apparmor_parser"),
            (step("apply apparmor profile p at exec", Errno::EACCES), &root, "change_profile"),
            (step("apply selinux label l at exec", Errno::EINVAL), &root, "policy"),
            (step("join session keyring _ses.a labelled l", Errno::EINVAL), &root, "policy"),
            (step("write 1 to /proc/sys/net/x", Errno::EXDEV), &root, "mounted over"),
            (Error::sys("write 5 to", "/proc/7/oom_score_adj", Errno::EXDEV), &root, "mounted over"),
            (Error::sys("open", "/home/a/rootfs", Errno::EACCES), &user, "parent folder"),
            (Error::sys("clone3", "", Errno::ENOSPC), &root, "max_*_namespaces"),
            (Error::sys("clone3", "", Errno::EPERM), &user, "unprivileged_userns_clone"),
            (Error::sys("clone3", "", Errno::EAGAIN), &root, "RLIMIT_NPROC"),
            (Error::sys("connect", "/run/s", Errno::ECONNREFUSED), &root, "listens"),
            (Error::sys("connect", "/run/s", Errno::ENAMETOOLONG), &root, "107"),
            (step("setns /proc/1/ns/net", Errno::EINVAL), &root, "not a namespace"),
            (Error::sys("prlimit64", "RLIMIT_NOFILE", Errno::EPERM), &root, "CAP_SYS_RESOURCE"),
            (Error::sys("open", "/b/config.json", Errno::ENOENT), &root, "tare spec"),
            (Error::sys("socket", "", Errno::EMFILE), &root, "RLIMIT_NOFILE"),
            (Error::sys("mkdir", "/run/tare", Errno::EROFS), &root, "--root"),
            (Error::sys("mkdir", "/run/tare", Errno::EACCES), &user, "--root"),
            (written("/sys/fs/cgroup/cpuset/a/cgroup.procs", Errno::ENOSPC), &root, "cpuset.mems"),
            (written("/sys/fs/cgroup/a/cgroup.procs", Errno::EBUSY), &root, "cannot hold processes"),
            (written("/sys/fs/cgroup/a/cgroup.subtree_control", Errno::EBUSY), &root, "holds processes"),
            (written("/sys/fs/cgroup/a/cgroup.procs", Errno::EACCES), &user, "Delegate"),
            (written("/sys/fs/cgroup/a/memory.max", Errno::EBUSY), &root, "reclaimed"),
            (written("/sys/fs/cgroup/a/cpu.rt_runtime_us", Errno::EINVAL), &root, "real-time"),
            (written("/sys/fs/cgroup/a/pids.max", Errno::ENOENT), &root, "controller"),
            (written("/sys/fs/cgroup/a/io.weight", Errno::ENOENT), &root, "modprobe bfq"),
            (written("/sys/fs/cgroup/a/io.bfq.weight", Errno::EOPNOTSUPP), &root, "queue/scheduler"),
            (written("/sys/fs/cgroup/a/io.weight", Errno::EOPNOTSUPP), &root, "io.cost.qos"),
            (written("/sys/fs/cgroup/blkio/a/blkio.leaf_weight", Errno::ENOENT), &root, "CFQ"),
            (written("/sys/fs/cgroup/a/io.max", Errno::ENODEV), &root, "whole disk"),
            (written("/sys/fs/cgroup/blkio/a/blkio.throttle.read_bps_device", Errno::ENODEV), &root, "disk"),
            (written("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", Errno::EINVAL), &root, "1000 microseconds"),
            (written("/sys/fs/cgroup/a/cpu.max.burst", Errno::EINVAL), &root, "not above its quota"),
            (written("/sys/fs/cgroup/a/cpuset.cpus", Errno::ERANGE), &root, "cpuset.cpus.effective"),
            (
                written("/sys/fs/cgroup/memory/a/memory.memsw.limit_in_bytes", Errno::EINVAL),
                &root,
                "give both",
            ),
            (written("/sys/fs/cgroup/a/rdma.max", Errno::ENODEV), &root, "infiniband"),
            (written("/sys/fs/cgroup/a/net_prio.ifpriomap", Errno::ENODEV), &root, "interface"),
            (written("/sys/fs/cgroup/a/hugetlb.3MB.max", Errno::ENOENT), &root, "/sys/kernel/mm/hugepages"),
            (undelegated(Errno::EACCES), &user, "Delegate=cpu cpuset io memory pids"),
            (undelegated(Errno::EACCES), &user, "echo +cpu >/sys/fs/cgroup/u/cgroup.subtree_control"),
            (undelegated(Errno::EBUSY), &root, "move those of /sys/fs/cgroup/u"),
            (undelegated(Errno::ENOENT), &root, "/sys/fs/cgroup/u/cgroup.controllers"),
            (is(Lifecycle::AlreadyExists), &root, "tare delete web"),
            (is(Lifecycle::NotStopped("running")), &root, "--force web"),
            (is(Lifecycle::DoesNotExist), &root, "tare list"),
            (Error::Record { path: "/x".into(), why: "torn".into() }, &root, "delete --force"),
            (Error::sys("openat2", "/x", Errno::ENOSYS), &old, "Linux 5.4; tare needs 5.12"),
            (
                Error::Cleanup(vec![Error::Usage("x".into()), step("pivot_root", Errno::EINVAL)]),
                &root,
                "--no-pivot",
            ),
            (step("pivot_root", Errno::EINVAL).context("a").context("b"), &root, "--no-pivot"),
        ];
        for (error, facts, needle) in rows {
            let hint = hint(&error, facts.as_ref()).unwrap_or_else(|| panic!("no hint for {error}"));
            assert!(hint.contains(needle), "{error}: {hint}");
            assert!(!hint.contains('\n') && !hint.ends_with('.'), "{hint}");
            // What Docker, Podman, CRI-O and containerd look for in stderr must come from the error alone.
            for word in [
                "not found",
                "no such",
                "not permitted",
                "permission denied",
                "does not exist",
                "not running",
            ] {
                assert!(!hint.to_lowercase().contains(word), "{hint}");
            }
        }
    }

    #[test]
    fn where_nothing_is_known_nothing_is_said() {
        let root = facts(0, (6, 1));
        for error in [
            Error::Usage("execve".into()),
            Error::Protocol("mount".into()),
            step("mount proc on /proc", Errno::EPERM),
            step("sethostname x", Errno::EPERM),
            Error::sys("openat2", "/x", Errno::ENOSYS),
            is(Lifecycle::StartRunning),
        ] {
            assert_eq!(hint(&error, Some(&root)), None, "{error}");
        }
    }
}
