//! `mounts` of `config.json` to [`MountStep`]s, in the order that they are listed (config.md,
//! "Mounts"), and the trees that the parent opens for them. Pure.

mod parameters;
mod words;

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Change, Idmap, MountStep, NewMount, Rule, Source, Target, Tree, UserNamespace};
use crate::config::{Config, IdMapping, Mount, Namespace, Propagation};
use crate::error::Problem;
use crate::sys::mount::{MountAttr, attr};
use crate::sys::slots::{self, Slot};

use words::Words;

/// What the mounts depend on beside the configuration.
pub struct Input<'a> {
    pub config: &'a Config,
    pub bundle: &'a Path,
    /// The parent may open and change trees of the host: it has `CAP_SYS_ADMIN` in its namespaces.
    pub privileged: bool,
    /// Where the container's cgroups are on the host, for mounts of type `cgroup`.
    pub cgroups: &'a CgroupMounts,
    pub kernel: (u32, u32),
    /// The first slot for trees.
    pub first_slot: Slot,
}

/// What a mount of type `cgroup` shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupMounts {
    /// They are made when the container's process is there: the parent cannot open them before.
    pub late: bool,
    /// The container's folder in the unified hierarchy, where that is the only one.
    pub unified: Option<Shown>,
    /// For each v1 hierarchy: the name of its folder, and what is in it.
    pub hierarchies: Vec<(String, Shown)>,
    /// `cpu` to `cpu,cpuacct`.
    pub links: Vec<(String, String)>,
}

/// One hierarchy in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The container's folder on the host.
    pub folder: PathBuf,
    /// Ours, which it stays in when it may have none of its own.
    pub own: Option<PathBuf>,
}

/// All that `mounts` asks for.
#[derive(Debug, Default)]
pub struct Mounts {
    /// For the parent: what to open, into which slot.
    pub trees: Vec<(Slot, Tree)>,
    pub steps: Vec<MountStep>,
    /// Read-only now that everything is written.
    pub late: Vec<MountStep>,
    /// `/dev` is the host's: nothing is made in it.
    pub dev_is_bound: bool,
}

/// The container's root, as the parent (or an unprivileged child) opens it.
pub fn root_tree(config: &Config, path: CString) -> Tree {
    // Private, always: were it a peer of the host's mount, everything mounted in it would show up
    // on the host. What is mounted below it may receive from the host.
    let private = Change { recursive: false, attr: propagation_attr(libc::MS_PRIVATE) };
    let mut changes = Vec::new();
    changes.extend(inherited_propagation(config));
    changes.push(private);
    Tree { source: path, recursive: true, nofollow: true, changes, idmap: None, instead: None }
}

pub fn plan(input: &Input<'_>) -> Result<Mounts, Vec<Problem>> {
    let mut out = Mounts::default();
    let mut problems = Vec::new();
    for (index, mount) in input.config.mounts.iter().enumerate() {
        let pointer = format!("/mounts/{index}");
        match Words::read(mount).and_then(|words| add(input, mount, &words, &mut out)) {
            Ok(()) => {}
            Err((below, what)) => problems.push(Problem { pointer: pointer + below, what }),
        }
    }
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

/// A pointer below the mount, and what is wrong.
type Wrong = (&'static str, String);

fn add(input: &Input<'_>, mount: &Mount, words: &Words, out: &mut Mounts) -> Result<(), Wrong> {
    if words.remount {
        let mut changes = words.attr_changes();
        changes.extend(words.own_propagation());
        out.steps.push(MountStep::SetAttr { path: mount.destination.clone(), changes });
        return Ok(());
    }
    if let Some(recursive) = words.bind {
        return bind(input, mount, words, recursive, out);
    }
    match mount.kind.as_deref() {
        Some(kind) if kind != c"proc" && is_proc(&mount.destination) => {
            Err(("/type", "must be proc: nothing else is mounted on /proc".into()))
        }
        Some(kind) if kind == c"cgroup" || kind == c"cgroup2" => cgroup(input, mount, words, out),
        Some(kind) => {
            let new = new_mount(input, mount, words, kind, out)?;
            out.steps.push(MountStep::New(Box::new(new)));
            Ok(())
        }
        None => Err(("/type", "is missing".into())),
    }
}

fn bind(
    input: &Input<'_>,
    mount: &Mount,
    words: &Words,
    recursive: bool,
    out: &mut Mounts,
) -> Result<(), Wrong> {
    if let Some(word) = words.data.first() {
        return Err(("/options", format!("{word:?} is not an option of a bind mount")));
    }
    if mount.destination.as_c_str() == c"/dev" {
        out.dev_is_bound = true;
    }
    let source = mount.source.as_deref().unwrap_or(c"");
    let mut tree = Tree {
        source: absolute(input.bundle, source),
        recursive,
        nofollow: words.source_nofollow,
        changes: bind_changes(input, words, recursive),
        idmap: None,
        instead: None,
    };
    if let Some(recursive) = words.idmap {
        if !input.privileged {
            return Err(("/options", "idmap needs the privilege of the host's root".into()));
        }
        let userns = idmap_namespace(input.config, mount)?;
        tree.idmap = Some(Idmap { recursive, userns });
    }
    let target = target(mount, words);
    push_bind(input.privileged, input, tree, target, out);
    Ok(())
}

/// `by_parent`: with the host's privilege, and so before the clone.
fn push_bind(by_parent: bool, input: &Input<'_>, tree: Tree, target: Target, out: &mut Mounts) {
    let source = if by_parent {
        let slot = input.first_slot + out.trees.len();
        let source = tree.source.clone();
        out.trees.push((slot, tree));
        Source::Parent { slot, source }
    } else {
        Source::Child(tree)
    };
    out.steps.push(MountStep::Attach { source, target });
}

/// What is done to a tree before it is attached. First what it would have inherited had it been
/// bound in the container's own mount namespace, then what the mount's own options say.
fn bind_changes(input: &Input<'_>, words: &Words, recursive: bool) -> Vec<Change> {
    let own = words.own_propagation();
    let mut changes = Vec::new();
    let own_is_final =
        own.is_some_and(|own| own.attr.propagation == libc::MS_PRIVATE && (own.recursive || !recursive));
    // Everything private makes what came before irrelevant; the same again is nothing.
    if !own_is_final {
        changes.extend(inherited_propagation(input.config).filter(|inherited| Some(*inherited) != own));
    }
    changes.extend(words.attr_changes());
    changes.extend(own);
    changes
}

/// `rootfsPropagation` as it acts on a copy of a host's mount; slave when not given, so that the
/// host never sees the container's mounts.
fn inherited_propagation(config: &Config) -> Option<Change> {
    let (kind, recursive) = match config.linux.rootfs_propagation {
        None => (libc::MS_SLAVE, true),
        Some(Propagation::Shared | Propagation::Rshared) => return None,
        Some(other) => propagation_flags(other),
    };
    // An unbindable tree could not be attached: that word acts on the root alone, later.
    let kind = if kind == libc::MS_UNBINDABLE { libc::MS_PRIVATE } else { kind };
    Some(Change { recursive: recursive || kind == libc::MS_PRIVATE, attr: propagation_attr(kind) })
}

/// The kernel's flag, and whether for all below too.
pub fn propagation_flags(word: Propagation) -> (u64, bool) {
    match word {
        Propagation::Private => (libc::MS_PRIVATE, false),
        Propagation::Rprivate => (libc::MS_PRIVATE, true),
        Propagation::Slave => (libc::MS_SLAVE, false),
        Propagation::Rslave => (libc::MS_SLAVE, true),
        Propagation::Shared => (libc::MS_SHARED, false),
        Propagation::Rshared => (libc::MS_SHARED, true),
        Propagation::Unbindable => (libc::MS_UNBINDABLE, false),
        Propagation::Runbindable => (libc::MS_UNBINDABLE, true),
    }
}

pub fn propagation_attr(kind: u64) -> MountAttr {
    MountAttr { propagation: kind, ..MountAttr::default() }
}

fn idmap_namespace(config: &Config, mount: &Mount) -> Result<UserNamespace, Wrong> {
    if !mount.uid_mappings.is_empty() {
        return Ok(UserNamespace::Mapped {
            uids: mount.uid_mappings.clone(),
            gids: mount.gid_mappings.clone(),
        });
    }
    match &config.linux.namespaces.user {
        Namespace::New => Ok(UserNamespace::Mapped {
            uids: config.linux.uid_mappings.clone(),
            gids: config.linux.gid_mappings.clone(),
        }),
        Namespace::Join(path) => Ok(UserNamespace::At(path.clone())),
        Namespace::Inherit => {
            Err(("/options", "idmap needs uidMappings and gidMappings, or a user namespace".into()))
        }
    }
}

fn new_mount(
    input: &Input<'_>,
    mount: &Mount,
    words: &Words,
    kind: &CStr,
    out: &mut Mounts,
) -> Result<NewMount, Wrong> {
    let mut attrs = (words.set | words.recursive_set) & !attr::RDONLY;
    let read_only = (words.set | words.recursive_set) & attr::RDONLY != 0;
    // What is still written to: devices in /dev, the copy in a tmpfs. runc waits for both as well.
    if read_only && (kind == c"tmpfs" || mount.destination.as_c_str() == c"/dev") {
        let change =
            Change { recursive: false, attr: MountAttr { set: attr::RDONLY, ..MountAttr::default() } };
        out.late.push(MountStep::SetAttr { path: mount.destination.clone(), changes: vec![change] });
    } else if read_only {
        attrs |= attr::RDONLY;
    }
    let proc = kind == c"proc";
    let mut target = target(mount, words);
    if proc || kind == c"sysfs" {
        target.rule = Rule::Ordinary;
    }
    // Only of a file system on a device that may be read-only itself. The superblocks of most others are
    // shared with the host, which would lose the right to write, too; theirs the mount's flag is enough.
    let on_a_device =
        kind != c"devtmpfs" && mount.source.as_ref().is_some_and(|s| s.as_bytes().starts_with(b"/"));
    let mut parameters = parameters::of(words, read_only && on_a_device)?;
    let mut label = None;
    if let Some(wanted) = &input.config.linux.mount_label {
        match kind.to_bytes() {
            // Their files are labelled by the policy alone.
            b"proc" | b"sysfs" => {}
            b"mqueue" => label = Some(wanted.clone()),
            // A mount with a word of its own has that.
            _ if parameters.iter().any(|(key, _)| parameters::is_context(key)) => {}
            _ => parameters.push((c"context".to_owned(), Some(wanted.clone()))),
        }
    }
    if kind == c"overlay" && input.kernel >= parameters::LOWERDIR_PLUS {
        parameters = parameters.into_iter().flat_map(parameters::split_layers).collect();
    }
    Ok(NewMount {
        fs_type: kind.to_owned(),
        source: mount.source.clone(),
        long_data: parameters::too_long_for_fsconfig(&parameters)?,
        attrs,
        changes: words.own_propagation().into_iter().collect(),
        copy_up: words.copy_up,
        label,
        inherit_mode: kind == c"tmpfs" && !parameters.iter().any(|(key, _)| key.as_c_str() == c"mode"),
        target,
        keep: (proc && mount.destination.as_c_str() == c"/proc").then_some(slots::PROC),
        fallback: fallback(input, kind, attrs),
        parameters,
    })
}

/// A user namespace may make new instances of these only for namespaces that it owns; where the
/// container keeps the host's, the host's own mount is what it would see anyway.
fn fallback(input: &Input<'_>, kind: &CStr, attrs: u64) -> Option<Tree> {
    let namespaces = &input.config.linux.namespaces;
    if namespaces.user == Namespace::Inherit && input.privileged {
        return None;
    }
    let (owner, path) = match kind.to_bytes() {
        b"sysfs" => (&namespaces.network, c"/sys"),
        b"proc" => (&namespaces.pid, c"/proc"),
        b"mqueue" => (&namespaces.ipc, c"/dev/mqueue"),
        _ => return None,
    };
    if *owner != Namespace::Inherit {
        return None;
    }
    let attr = MountAttr { set: attrs, ..MountAttr::default() };
    let changes = if attrs == 0 { Vec::new() } else { vec![Change { recursive: true, attr }] };
    Some(Tree {
        source: path.to_owned(),
        recursive: true,
        nofollow: false,
        changes,
        idmap: None,
        instead: None,
    })
}

/// The container's own cgroups, bound. With a cgroup namespace a new instance of the file system
/// would show just the same folders; a bind shows them without one too, and never the host's.
fn cgroup(input: &Input<'_>, mount: &Mount, words: &Words, out: &mut Mounts) -> Result<(), Wrong> {
    let tree = |shown: &Shown| Tree {
        source: path_c(&shown.folder),
        instead: shown.own.as_deref().map(path_c),
        recursive: false,
        nofollow: false,
        changes: bind_changes(input, words, false),
        idmap: None,
    };
    let by_parent = input.privileged && !input.cgroups.late;
    if let Some(path) = &input.cgroups.unified {
        push_bind(by_parent, input, tree(path), target(mount, words), out);
        return Ok(());
    }
    if input.cgroups.hierarchies.is_empty() {
        return Err(("/type", "this host has no cgroup mounted that the container could see".into()));
    }
    // v1: a tmpfs with one folder for each hierarchy.
    let read_only = words.set & attr::RDONLY != 0;
    let mut parameters = vec![(c"mode".to_owned(), Some(c"755".to_owned()))];
    let label = &input.config.linux.mount_label;
    parameters.extend(label.iter().map(|label| (c"context".to_owned(), Some(label.clone()))));
    let folder = NewMount {
        fs_type: c"tmpfs".to_owned(),
        source: Some(c"tmpfs".to_owned()),
        parameters,
        long_data: None,
        attrs: words.set & !attr::RDONLY,
        changes: words.own_propagation().into_iter().collect(),
        copy_up: false,
        inherit_mode: false,
        label: None,
        target: target(mount, words),
        keep: None,
        fallback: None,
    };
    out.steps.push(MountStep::New(Box::new(folder)));
    for (name, path) in &input.cgroups.hierarchies {
        let target = Target { path: below(mount, name)?, rule: Rule::Usual, nofollow: false };
        push_bind(by_parent, input, tree(path), target, out);
    }
    for (name, to) in &input.cgroups.links {
        out.steps.push(MountStep::Symlink { path: below(mount, name)?, to: parameters::c_string(to)? });
    }
    if read_only {
        let change =
            Change { recursive: false, attr: MountAttr { set: attr::RDONLY, ..MountAttr::default() } };
        out.late.push(MountStep::SetAttr { path: mount.destination.clone(), changes: vec![change] });
    }
    Ok(())
}

fn below(mount: &Mount, name: &str) -> Result<CString, Wrong> {
    let mut path = mount.destination.as_bytes().to_vec();
    path.push(b'/');
    path.extend_from_slice(name.as_bytes());
    CString::new(path).map_err(|_| ("/destination", "holds a NUL byte".into()))
}

fn target(mount: &Mount, words: &Words) -> Target {
    let rule = match mount.destination.as_c_str() {
        path if is_proc(path) => Rule::ProcAlone,
        path if is_known_proc_file(path) => Rule::KnownProcFile,
        _ => Rule::Usual,
    };
    Target { path: mount.destination.clone(), rule, nofollow: words.destination_nofollow }
}

/// `/proc`, however it is written; links are the kernel's business.
fn is_proc(path: &CStr) -> bool {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.to_bytes().split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names == [b"proc"]
}

/// What may be covered in `/proc`: lxcfs does, and nothing in them decides what a process may do.
/// The same list as runc's.
fn is_known_proc_file(path: &CStr) -> bool {
    const KNOWN: [&[u8]; 9] = [
        b"/proc/cpuinfo",
        b"/proc/diskstats",
        b"/proc/meminfo",
        b"/proc/stat",
        b"/proc/swaps",
        b"/proc/uptime",
        b"/proc/loadavg",
        b"/proc/slabinfo",
        b"/proc/sys/kernel/ns_last_pid",
    ];
    KNOWN.contains(&path.to_bytes())
}

fn absolute(bundle: &Path, source: &CStr) -> CString {
    path_c(&bundle.join(std::ffi::OsStr::from_bytes(source.to_bytes())))
}

/// A path that came out of C strings and joins of them holds no NUL.
fn path_c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// `0 1000 1, 1 100000 65536`: the lines of a uid_map, for descriptions.
pub fn mapping_text(mappings: &[IdMapping]) -> String {
    let lines: Vec<_> =
        mappings.iter().map(|m| format!("{} {} {}", m.container_id, m.host_id, m.size)).collect();
    lines.join(", ")
}

#[cfg(test)]
mod tests;
