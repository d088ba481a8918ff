//! All that a child can do between its clone and its program. One step is a few system calls; its
//! payload is made before the clone: strings of C, numbers, descriptors by slot.

use std::ffi::CString;

use crate::config::{ConsoleSize, Hook};
use crate::hooks::ChildHook;
use crate::lsm::Label;
use crate::namespace::plan::Join;
use crate::privilege::Privilege;
use crate::rootfs::devices::Node;
use crate::rootfs::sysctl::Write;
use crate::rootfs::{Change, MountStep, Tree};
use crate::seccomp;

#[derive(Debug, Clone)]
pub enum Step {
    /// Nothing is open but 0, 1, 2, those that the caller preserves, and the plan's own.
    CloseFds {
        preserved: u32,
    },
    /// No signal is blocked that the caller had not blocked, and SIGPIPE ends a process again.
    RestoreSignals,
    Sync(Sync),
    /// Nobody of the same user looks into this process (CVE-2016-9962).
    Undumpable,
    /// An id that is mapped in the user namespace, for all that is made until the process becomes its user.
    SetupIds {
        uid: u32,
        gid: u32,
    },
    NewSession,
    Join(Join),
    NewCgroupNamespace,
    SessionKeyring {
        name: CString,
        new: bool,
        label: Option<CString>,
    },
    Loopback,
    Hostname(CString),
    Domainname(CString),
    /// What is mounted in the child's copy of the host's mounts does not reach the host.
    IsolateMounts {
        receive: bool,
    },
    OpenRoot(Tree),
    AttachRoot,
    Mount(MountStep),
    OpenDev,
    Umask(u32),
    Node(Node),
    Link {
        name: CString,
        to: CString,
    },
    Ptmx,
    MakeDirectory(CString),
    Hook {
        kind: HookKind,
        index: usize,
        hook: ChildHook,
    },
    OpenNull,
    /// The root of a proc file system, for what is written to files of proc.
    OpenProc,
    /// Nobody finds it in a container that waits for `start`.
    CloseProc,
    Pivot,
    /// `--no-pivot`, with what is taken off the host's mounts first.
    MoveRoot(Vec<CString>),
    /// Without a mount namespace of its own.
    ChangeRoot(CString),
    /// A pty of the container's own, its other end sent to the console socket.
    Console {
        size: Option<ConsoleSize>,
        bind: bool,
    },
    /// What the standard input is now.
    ControllingTerminal,
    /// The standard streams belong to the user of the process.
    GiveStdio(u32),
    Sysctl(Write),
    ReadonlyPath(CString),
    /// What the process becomes when it executes its program.
    Label(Label),
    MaskPath {
        path: CString,
        /// Of the empty folder that covers folders.
        label: Option<CString>,
    },
    SetRoot(Change),
    Personality(u32),
    FindHome {
        uid: u32,
    },
    NoNewPrivs,
    Seccomp(seccomp::Program),
    DropBounding(Privilege),
    /// While it is still privileged: a folder that only root may enter.
    TryCwd(CString),
    BecomeUser(Privilege),
    Capabilities(Privilege),
    Cwd(CString),
    /// `named`: by its path, not looked for in PATH.
    FindProgram {
        candidates: Vec<CString>,
        named: bool,
    },
    /// The process of the container is born here, with the rights of its program; the one that has prepared all ends.
    Birth,
    WaitForStart,
    Exec,
}

/// Where parent and child meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// The child waits until its ids are mapped and it is in its cgroup; it learns its pid.
    Go,
    /// The mounts are there; the parent runs its hooks and sets limits, then answers.
    Mounts,
    /// Everything that can fail has not; the parent goes.
    Ready,
    /// Only the program is left (exec); the parent stays until it runs. Without this the end of a process that was
    /// killed on its way would look as an `execve` does.
    Executing,
}

/// Hooks that run in the container's namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    CreateContainer,
    StartContainer,
}

impl HookKind {
    pub fn word(self) -> &'static str {
        match self {
            HookKind::CreateContainer => "createContainer",
            HookKind::StartContainer => "startContainer",
        }
    }
}

/// Which hooks of a configuration these are.
pub fn hooks(kind: HookKind, hooks: &crate::config::Hooks) -> &[Hook] {
    match kind {
        HookKind::CreateContainer => &hooks.create_container,
        HookKind::StartContainer => &hooks.start_container,
    }
}
