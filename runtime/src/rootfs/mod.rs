//! The container's file system: what is mounted where (`plan`, pure), and the calls that do it on
//! descriptors (`apply`, run by the child, no allocation).

pub mod apply;
pub mod copy_up;
pub mod devices;
pub mod masked;
pub mod options;
pub mod pivot;
pub mod plan;
pub mod resolve;
pub mod sysctl;

use std::ffi::CString;

use crate::config::IdMapping;
use crate::sys::mount::MountAttr;
use crate::sys::slots::Slot;

/// One `mount_setattr(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub recursive: bool,
    pub attr: MountAttr,
}

/// A piece of the host's file tree: opened, copied and changed while nobody sees it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub source: CString,
    pub recursive: bool,
    /// The source may be a symbolic link, which is then mounted itself.
    pub nofollow: bool,
    pub changes: Vec<Change>,
    pub idmap: Option<Idmap>,
    /// Taken when the source is not there: our own cgroup, for a container that may have none.
    pub instead: Option<CString>,
}

/// `MOUNT_ATTR_IDMAP` with a user namespace of these mappings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idmap {
    pub recursive: bool,
    pub userns: UserNamespace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserNamespace {
    /// One that exists only for this.
    Mapped { uids: Vec<IdMapping>, gids: Vec<IdMapping> },
    /// The one that the container joins.
    At(CString),
}

/// Where something is mounted: a path in the container's root, made when missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub path: CString,
    pub rule: Rule,
    /// The path may end in a symbolic link, which is then covered itself.
    pub nofollow: bool,
}

/// What a target may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Anything but a place in a proc file system.
    Usual,
    /// One of the few files of proc that lxcfs and its like may cover, and nothing that decides
    /// what the process may do (CVE-2019-16884).
    KnownProcFile,
    /// `/proc` itself, where a bind mount may bring another proc and nothing else (CVE-2019-16884).
    ProcAlone,
    /// A folder that is reached through no symbolic link: for proc and sysfs (CVE-2019-19921).
    Ordinary,
}

/// Whose copy of the host's file tree a bind mount takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The parent opened it before the clone, with the host's privilege.
    Parent { slot: Slot, source: CString },
    /// The child opens it, in its own user namespace: the parent may not.
    Child(Tree),
}

impl Source {
    pub fn path(&self) -> &CString {
        match self {
            Source::Parent { source, .. } => source,
            Source::Child(tree) => &tree.source,
        }
    }
}

/// A new instance of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMount {
    pub fs_type: CString,
    pub source: Option<CString>,
    /// For `fsconfig(2)`: flags, and keys with values.
    pub parameters: Vec<(CString, Option<CString>)>,
    /// All parameters as `mount(2)` takes them, when one is longer than `fsconfig(2)` takes.
    pub long_data: Option<CString>,
    /// `MOUNT_ATTR_*` from the start.
    pub attrs: u64,
    pub changes: Vec<Change>,
    pub copy_up: bool,
    /// A tmpfs of which no mode was asked takes that of the folder that it covers, as runc's does.
    pub inherit_mode: bool,
    pub target: Target,
    /// By attribute, where the file system takes no label when it is made.
    pub label: Option<CString>,
    /// The mount's descriptor is kept here for later steps.
    pub keep: Option<Slot>,
    /// What is bound instead when the kernel forbids a new instance to this user namespace.
    pub fallback: Option<Tree>,
}

/// What the child does for `mounts`, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountStep {
    New(Box<NewMount>),
    Attach {
        source: Source,
        target: Target,
    },
    /// `remount`, and the late read-only of what was written to before.
    SetAttr {
        path: CString,
        changes: Vec<Change>,
    },
    Symlink {
        path: CString,
        to: CString,
    },
}
