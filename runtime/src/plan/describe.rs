//! A plan in words: for `tare plan`, for the golden files, and for the message when a step fails.

use std::ffi::CStr;
use std::fmt::{self, Display, Formatter};

use super::Plan;
use super::step::{Step, Sync};
use crate::lsm::Label;
use crate::namespace::Kind;
use crate::namespace::idmap::{IdMaps, Writer};
use crate::namespace::plan::Joiner;
use crate::rootfs::devices::{How, Node};
use crate::rootfs::plan::mapping_text;
use crate::rootfs::{Change, MountStep, NewMount, Rule, Source, Target, Tree, UserNamespace};
use crate::seccomp::Program;
use crate::sys::mount::{MountAttr, attr};

/// What both sides do, each in its order.
pub struct Description {
    /// The runtime, from the first effect to the last before `start`.
    pub parent: Vec<String>,
    /// The short-lived process between the two, where there is one.
    pub joiner: Vec<String>,
    /// The container's first process; its numbers are those of error messages.
    pub child: Vec<String>,
}

impl Plan {
    pub fn describe(&self) -> Description {
        Description {
            parent: self.describe_parent(),
            joiner: self.namespaces.joiner.as_ref().map(|j| self.describe_joiner(j)).unwrap_or_default(),
            child: self.steps.iter().map(Step::to_string).collect(),
        }
    }

    fn describe_parent(&self) -> Vec<String> {
        let mut lines = vec!["record the container as being created".to_owned()];
        if !self.cgroup.needs_process() {
            lines.extend(self.cgroup.describe());
        }
        lines.extend(self.trees.iter().map(|(_, tree)| format!("open {tree}")));
        let joins = self.namespaces.joiner.as_ref().map_or(&self.namespaces.joins, |j| &j.joins);
        lines.extend(joins.iter().map(|j| format!("open {} namespace {}", j.kind.word(), show(&j.path))));
        let born = self.cgroup.bears_inside();
        if self.namespaces.joiner.is_some() {
            lines.push("clone the joiner, which clones the container's first process".into());
        } else {
            let into = if born { " into its cgroup" } else { "" };
            lines.push(format!(
                "clone the container's first process{into} with {}",
                flags(self.namespaces.clone_flags)
            ));
        }
        if let Some(maps) = &self.id_maps {
            lines.extend(describe_maps(maps));
        }
        if !self.timens_offsets.is_empty() {
            lines.push(format!("set clocks: {}", self.timens_offsets.trim_end().replace('\n', ", ")));
        }
        if self.cgroup.needs_process() {
            lines.extend(self.cgroup.describe());
        } else if !born && !self.cgroup.describe().is_empty() {
            lines.push("move it into its cgroups".into());
        }
        lines.extend(self.limits.describe());
        lines.push("record its pid".into());
        lines.push("let it go; wait for its mounts".into());
        lines.extend(self.limits.describe_rlimits());
        for (kind, hooks) in [("prestart", &self.prestart), ("createRuntime", &self.create_runtime)] {
            lines.extend(
                hooks.iter().enumerate().map(|(n, h)| format!("run {kind} hook #{n} {}", show(&h.path))),
            );
        }
        lines.push("let it go on; wait until it is ready".into());
        lines.extend(self.steps.iter().filter_map(|step| match step {
            Step::Seccomp(Program { agent: Some(agent), .. }) => {
                Some(format!("meanwhile take its seccomp listener; send it to {}", agent.path.display()))
            }
            _ => None,
        }));
        lines.push("record the container as created".into());
        lines
    }

    fn describe_joiner(&self, joiner: &Joiner) -> Vec<String> {
        let mut lines: Vec<_> = joiner
            .joins
            .iter()
            .map(|j| format!("join {} namespace {}", j.kind.word(), show(&j.path)))
            .collect();
        if joiner.unshare_user {
            lines.push("make the user namespace; wait for its id maps".into());
        }
        if joiner.unshare_time {
            lines.push("make the time namespace; wait for its offsets".into());
        }
        lines
            .push(format!("clone the container's first process with {}", flags(self.namespaces.clone_flags)));
        lines
    }
}

fn describe_maps(maps: &IdMaps) -> Vec<String> {
    let by = |writer: &Writer| match writer {
        Writer::Ourselves => String::new(),
        Writer::Program(path) => format!(" by {}", path.display()),
    };
    let mut lines = Vec::new();
    if maps.deny_setgroups {
        lines.push("deny setgroups".into());
    }
    lines.push(format!("map gids {}{}", mapping_text(&maps.gids), by(&maps.gid_writer)));
    lines.push(format!("map uids {}{}", mapping_text(&maps.uids), by(&maps.uid_writer)));
    lines
}

/// `CLONE_NEWNS|CLONE_NEWPID`
fn flags(bits: u64) -> String {
    let names = Kind::ALL.into_iter().filter(|kind| bits & kind.flag() as u64 != 0).map(|kind| match kind {
        Kind::User => "CLONE_NEWUSER",
        Kind::Mount => "CLONE_NEWNS",
        Kind::Pid => "CLONE_NEWPID",
        Kind::Network => "CLONE_NEWNET",
        Kind::Ipc => "CLONE_NEWIPC",
        Kind::Uts => "CLONE_NEWUTS",
        Kind::Cgroup => "CLONE_NEWCGROUP",
        Kind::Time => "CLONE_NEWTIME",
    });
    let names: Vec<_> = names.collect();
    if names.is_empty() { "no new namespaces".into() } else { names.join("|") }
}

fn show(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}

/// A list of layers may be thousands of bytes; its beginning tells which it is.
fn shorten(text: &str) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}… ({} bytes)", &text[..cut], text.len()),
        None => text.to_owned(),
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Step::CloseFds { preserved: 0 } => {
                f.write_str("close all descriptors but 0, 1, 2 and the plan's")
            }
            Step::CloseFds { preserved } => {
                write!(f, "close all descriptors but 0 to {} and the plan's", preserved + 2)
            }
            Step::RestoreSignals => f.write_str("restore the signal mask and SIGPIPE"),
            Step::Sync(Sync::Go) => f.write_str("wait until the runtime says go"),
            Step::Sync(Sync::Mounts) => {
                f.write_str("tell the runtime that the mounts are there; wait for its hooks")
            }
            Step::Sync(Sync::Executing) => f.write_str("tell the runtime that only the program is left"),
            Step::Sync(Sync::Ready) => f.write_str("tell the runtime that all is ready"),
            Step::Undumpable => f.write_str("forbid others to look into this process"),
            Step::SetupIds { uid, gid } => write!(f, "become {uid}:{gid} of the user namespace"),
            Step::NewSession => f.write_str("setsid"),
            Step::Join(join) => write!(f, "join {} namespace {}", join.kind.word(), show(&join.path)),
            Step::NewCgroupNamespace => f.write_str("make a cgroup namespace"),
            Step::SessionKeyring { name, label, .. } => {
                write!(f, "join session keyring {}", show(name))?;
                label.iter().try_for_each(|label| write!(f, " labelled {}", show(label)))
            }
            Step::Loopback => f.write_str("bring up the loopback interface"),
            Step::Hostname(name) => write!(f, "sethostname {}", show(name)),
            Step::Domainname(name) => write!(f, "setdomainname {}", show(name)),
            Step::IsolateMounts { receive: false } => f.write_str("make all mounts of the host private here"),
            Step::IsolateMounts { receive: true } => f.write_str("make all mounts of the host slaves here"),
            Step::OpenRoot(tree) => write!(f, "open {tree} as root"),
            Step::AttachRoot => f.write_str("attach the root"),
            Step::Mount(mount) => mount.fmt(f),
            Step::OpenDev => f.write_str("open /dev"),
            Step::Umask(mask) => write!(f, "umask {mask:04o}"),
            Step::Node(node) => node.fmt(f),
            Step::Link { name, to } => write!(f, "link /dev/{} to {}", show(name), show(to)),
            Step::Ptmx => f.write_str("link /dev/ptmx to pts/ptmx"),
            Step::MakeDirectory(path) => write!(f, "make directory {} if missing", show(path)),
            Step::Hook { kind, index, hook } => {
                write!(f, "run {} hook #{index} {}", kind.word(), show(&hook.program.path))
            }
            Step::OpenNull => f.write_str("open /dev/null of the host"),
            Step::OpenProc => f.write_str("open proc"),
            Step::CloseProc => f.write_str("close proc"),
            Step::Label(Label::AppArmor(profile)) => {
                write!(f, "apply apparmor profile {} at exec", show(profile.name()))
            }
            Step::Label(Label::SELinux(label)) => write!(f, "apply selinux label {} at exec", show(label)),
            Step::Pivot => f.write_str("pivot_root, and detach the old root"),
            Step::MoveRoot(full) => {
                f.write_str("chroot into the attached root")?;
                full.iter().try_for_each(|path| write!(f, "; unmount {} of the host before", show(path)))
            }
            Step::ChangeRoot(path) => write!(f, "chroot to {}", show(path)),
            Step::Console { size, bind } => {
                f.write_str("make a pty, send its master to the console socket")?;
                if let Some(size) = size {
                    write!(f, ", {}x{}", size.width, size.height)?;
                }
                if *bind { f.write_str(", bind it on /dev/console") } else { Ok(()) }
            }
            Step::ControllingTerminal => f.write_str("make it the controlling terminal"),
            Step::GiveStdio(uid) => write!(f, "give the standard streams to user {uid}"),
            Step::Sysctl(write) => write!(f, "write {} to /proc/{}", show(&write.value), show(&write.path)),
            Step::ReadonlyPath(path) => write!(f, "make {} read-only if it exists", show(path)),
            Step::MaskPath { path, label } => {
                write!(
                    f,
                    "hide {} if it exists (an empty directory over a directory, else /dev/null)",
                    show(path)
                )?;
                label.iter().try_for_each(|label| write!(f, ", labelled {}", show(label)))
            }
            Step::SetRoot(change) => write!(f, "make the root{change}"),
            Step::Personality(persona) => write!(f, "personality {persona:#x}"),
            Step::FindHome { uid } => write!(f, "find the home of user {uid} in /etc/passwd (else /)"),
            Step::NoNewPrivs => f.write_str("set no_new_privs"),
            Step::Seccomp(filter) => {
                let kind = if filter.agent.is_some() { "notifying seccomp filter" } else { "seccomp filter" };
                write!(f, "load the {kind} of {} instructions", filter.filter.len())
            }
            Step::DropBounding(privilege) => {
                write!(f, "drop {} capabilities from the bounding set", privilege.drop.len())
            }
            Step::TryCwd(path) => write!(f, "chdir to cwd {:?} if that is permitted now", show(path)),
            Step::BecomeUser(privilege) => {
                match &privilege.groups {
                    Some(groups) => write!(f, "setgroups {groups:?}, ")?,
                    None => f.write_str("keep groups, ")?,
                }
                write!(f, "become {}:{}", privilege.uid, privilege.gid)
            }
            Step::Capabilities(privilege) => {
                let c = &privilege.capabilities;
                write!(
                    f,
                    "capabilities effective {:x}, permitted {:x}, inheritable {:x}, ambient {:x}",
                    c.effective, c.permitted, c.inheritable, c.ambient
                )
            }
            Step::Cwd(path) => write!(f, "chdir to cwd {:?} (inside the root)", show(path)),
            Step::FindProgram { candidates, .. } => {
                f.write_str("find the program:")?;
                candidates.iter().try_for_each(|path| write!(f, " {}", show(path)))
            }
            Step::Birth => f.write_str("clone: what was prepared goes on as a process of the container"),
            Step::WaitForStart => f.write_str("wait for start"),
            Step::Exec => f.write_str("execve"),
        }
    }
}

impl Display for MountStep {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            MountStep::New(new) => new.fmt(f),
            MountStep::Attach { source: Source::Parent { source, .. }, target } => {
                write!(f, "attach {} on {target}", show(source))
            }
            MountStep::Attach { source: Source::Child(tree), target } => {
                write!(f, "bind {tree} on {target}")
            }
            MountStep::SetAttr { path, changes } => {
                write!(f, "change {}:", show(path))?;
                listed(f, changes)
            }
            MountStep::Symlink { path, to } => write!(f, "link {} to {}", show(path), show(to)),
        }
    }
}

impl Display for NewMount {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "mount {} on {}", show(&self.fs_type), self.target)?;
        let attrs = MountAttr { set: self.attrs, ..MountAttr::default() };
        attrs.fmt(f)?;
        for (key, value) in &self.parameters {
            write!(f, " {}", show(key))?;
            if let Some(value) = value {
                write!(f, "={}", shorten(&show(value)))?;
            }
        }
        listed(f, &self.changes)?;
        if self.long_data.is_some() {
            f.write_str(" (by mount(2))")?;
        }
        if let Some(label) = &self.label {
            write!(f, " labelled {}", show(label))?;
        }
        if self.copy_up {
            f.write_str(" with a copy of what it covers")?;
        }
        match &self.fallback {
            Some(tree) => write!(f, " (or, where that is forbidden, bind {tree})"),
            None => Ok(()),
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.path))?;
        if self.nofollow {
            f.write_str(" (not followed)")?;
        }
        match self.rule {
            Rule::Ordinary => f.write_str(" (through no symbolic link)"),
            Rule::ProcAlone => f.write_str(" (proc alone)"),
            Rule::Usual | Rule::KnownProcFile => Ok(()),
        }
    }
}

impl Display for Tree {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.source))?;
        if let Some(instead) = &self.instead {
            write!(f, " (or, where it may not be made, {})", show(instead))?;
        }
        if self.recursive {
            f.write_str(" and all below")?;
        }
        if self.nofollow {
            f.write_str(" (not followed)")?;
        }
        if let Some(idmap) = &self.idmap {
            f.write_str(if idmap.recursive { ", all idmapped" } else { ", idmapped" })?;
            match &idmap.userns {
                UserNamespace::Mapped { uids, gids } => {
                    write!(f, " uids {} gids {}", mapping_text(uids), mapping_text(gids))?;
                }
                UserNamespace::At(path) => write!(f, " as {}", show(path))?,
            }
        }
        listed(f, &self.changes)
    }
}

/// In their order, with commas between them.
fn listed(f: &mut Formatter<'_>, changes: &[Change]) -> fmt::Result {
    changes.iter().enumerate().try_for_each(|(n, change)| match n {
        0 => change.fmt(f),
        _ => write!(f, ",{change}"),
    })
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.recursive {
            f.write_str(" recursively")?;
        }
        self.attr.fmt(f)
    }
}

impl Display for MountAttr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const NAMES: [(u64, &str, &str); 6] = [
            (attr::RDONLY, " ro", " rw"),
            (attr::NOSUID, " nosuid", " suid"),
            (attr::NODEV, " nodev", " dev"),
            (attr::NOEXEC, " noexec", " exec"),
            (attr::NODIRATIME, " nodiratime", " diratime"),
            (attr::NOSYMFOLLOW, " nosymfollow", " symfollow"),
        ];
        for (bit, on, off) in NAMES {
            if self.set & bit != 0 {
                f.write_str(on)?;
            } else if self.clear & bit != 0 {
                f.write_str(off)?;
            }
        }
        match (self.set & attr::ATIME, self.clear & attr::ATIME) {
            (attr::NOATIME, _) => f.write_str(" noatime")?,
            (attr::STRICTATIME, _) => f.write_str(" strictatime")?,
            (_, 0) => {}
            _ => f.write_str(" relatime")?,
        }
        f.write_str(match self.propagation {
            libc::MS_PRIVATE => " private",
            libc::MS_SLAVE => " slave",
            libc::MS_SHARED => " shared",
            libc::MS_UNBINDABLE => " unbindable",
            _ => "",
        })
    }
}

impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let device = &self.device;
        let path = show(&device.path);
        match &self.how {
            How::Mknod => {
                let kind = match device.kind {
                    crate::config::DeviceKind::Char => "c",
                    crate::config::DeviceKind::Block => "b",
                    crate::config::DeviceKind::Fifo => return write!(f, "mkfifo {path} {:o}", device.mode),
                };
                let (major, minor) = (device.major, device.minor);
                write!(
                    f,
                    "mknod {path} {kind} {major}:{minor} {:o} {}:{}",
                    device.mode, device.uid, device.gid
                )
            }
            How::Bind(source) => write!(f, "bind {} of the host on {path}", show(source.path())),
        }
    }
}
