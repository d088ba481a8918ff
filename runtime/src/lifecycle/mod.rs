//! The verbs: one file each, beside what several of them share. What a verb needs comes in its request and goes out in its result;
//! nothing here keeps global state, exits, or changes its caller's folder, umask, signal mask or
//! environment without putting it back: the shim calls these in a process that lives for weeks.

mod birth;
mod checks;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod kill;
mod lent;
pub mod list;
pub mod pause;
mod pid_file;
pub mod plan;
mod process;
pub mod ps;
pub mod run;
pub mod start;
pub mod state;
pub mod status;
pub mod update;

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::cgroup::Driver;
use crate::config::User;
use crate::config::id::ContainerId;
use crate::process::listen_fds::Listen;
use crate::process::parent::Parentage;

/// What all verbs share: the global options, and what there is to say of a verb that succeeded.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where the state of containers is kept, absolute: `/run/tare`, or `$XDG_RUNTIME_DIR/tare`.
    pub root: PathBuf,
    pub cgroup_manager: Driver,
    /// `--rootless`: whether to go on without cgroups that may not be made; `None`: to be found out.
    pub rootless: Option<bool>,
    /// Whose child a new process of a container becomes.
    pub parentage: Parentage,
    warnings: RefCell<Vec<String>>,
}

impl Runtime {
    pub fn new(root: PathBuf, cgroup_manager: Driver, rootless: Option<bool>) -> Self {
        let parentage = Parentage::Ours;
        Self { root, cgroup_manager, rootless, parentage, warnings: RefCell::default() }
    }

    /// What was not as asked, though the verb succeeded.
    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.borrow_mut().push(text.into());
    }

    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }
}

#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub id: ContainerId,
    /// Absolute.
    pub bundle: PathBuf,
    /// `--config`; `config.json` of the bundle when `None`.
    pub config: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub preserve_fds: u32,
    /// `LISTEN_FDS` and `LISTEN_PID` of the caller's environment.
    pub listen: Listen,
    /// `NOTIFY_SOCKET` of the caller's environment.
    pub notify_socket: Option<OsString>,
}

#[derive(Debug, Clone)]
pub struct RunRequest {
    pub create: CreateRequest,
    pub detach: bool,
    pub keep: bool,
    pub no_subreaper: bool,
}

#[derive(Debug, Clone)]
pub struct ExecRequest {
    pub id: ContainerId,
    pub process: ExecProcess,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub detach: bool,
    pub preserve_fds: u32,
    /// `LISTEN_FDS` and `LISTEN_PID` of the caller's environment.
    pub listen: Listen,
    pub ignore_paused: bool,
    /// `--cgroup`: (controllers, path below the container's cgroup); controllers empty: all.
    pub cgroup: Vec<(Vec<String>, String)>,
}

/// What to execute: a whole process document, or the container's own with changes.
#[derive(Debug, Clone)]
pub enum ExecProcess {
    /// `--process FILE`
    File(PathBuf),
    /// What would be in that file.
    Document(Vec<u8>),
    Changes(Box<ExecChanges>),
}

#[derive(Debug, Clone, Default)]
pub struct ExecChanges {
    pub args: Vec<String>,
    pub cwd: Option<String>,
    /// Added after the container's own.
    pub env: Vec<String>,
    pub terminal: bool,
    /// uid, and the gid when `--user` had one.
    pub user: Option<(u32, Option<u32>)>,
    pub additional_gids: Vec<u32>,
    /// Added to the bounding, effective and permitted sets.
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub apparmor: Option<String>,
    pub process_label: Option<String>,
}

/// The user of an exec request, merged with the container's.
impl ExecChanges {
    pub fn user(&self, container: &User) -> User {
        let mut user = container.clone();
        if let Some((uid, gid)) = self.user {
            user.uid = uid;
            if let Some(gid) = gid {
                user.gid = gid;
            }
        }
        user.additional_gids.extend(&self.additional_gids);
        user
    }
}
