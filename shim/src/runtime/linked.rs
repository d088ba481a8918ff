//! tare itself, as a library: no program is executed for any verb.
//!
//! A process that a forked copy makes is the shim's own child (`CLONE_PARENT`). If the copy dies, the
//! process sees the end of its channel and ends too.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use tare::cgroup::{Driver, Paths};
use tare::config::Resources;
use tare::config::id::ContainerId;
use tare::error::{Error as Cause, Lifecycle};
use tare::lifecycle::{self, CreateRequest, ExecProcess, ExecRequest};
use tare::process::listen_fds::Listen;
use tare::process::parent::Parentage;
use tare::state::Dir;

use super::copy::{self, Tell};
use super::{Begun, Given, Runtime, Target, Work, kill_error, with_terminal};
use crate::error::{Code, Error, Result};
use crate::mount;

#[derive(Debug)]
pub struct Linked;

impl Runtime for Linked {
    fn begin(&self, target: &Target, work: Work) -> Result<Begun> {
        match work {
            Work::Kill { signal, all: false } if signal != libc::SIGKILL || !has_to_freeze(target) => {
                let (runtime, id) = called(target)?;
                lifecycle::kill::kill(&runtime, &id, signal, false)
                    .map_err(|cause| kill_error(of(&cause)))?;
                Ok(Begun::Done)
            }
            Work::EndRest if !has_to_freeze(target) => end_rest(target).map(|()| Begun::Done),
            other => copy::begin(target, other, run).map(Begun::Job),
        }
    }

    fn cgroup(&self, target: &Target, _init: i32) -> Result<Paths> {
        record(target).map(|record| record.cgroup).map_err(|cause| of(&cause))
    }
}

fn record(target: &Target) -> tare::error::Result<tare::state::Record> {
    Dir::open(&target.root, &ContainerId::new(&target.id)?)?.load()
}

fn called(target: &Target) -> Result<(lifecycle::Runtime, ContainerId)> {
    let driver = if target.systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs };
    let id = ContainerId::new(&target.id).map_err(|cause| of(&cause))?;
    Ok((lifecycle::Runtime::new(target.root.clone(), driver, None), id))
}

/// By the variant, never by the text.
fn of(cause: &Cause) -> Error {
    let code = match cause.root() {
        Cause::Usage(_) | Cause::Config { .. } => Code::InvalidArgument,
        Cause::State { why: Lifecycle::DoesNotExist, .. } => Code::NotFound,
        Cause::State { why: Lifecycle::AlreadyExists, .. } => Code::AlreadyExists,
        Cause::State { .. } => Code::FailedPrecondition,
        _ => Code::Unknown,
    };
    Error::of(code, cause.to_string())
}

/// Whether to kill all of the container is to freeze it before, and to wait for that. What is wrong with its
/// state is said by the verb itself.
fn has_to_freeze(target: &Target) -> bool {
    record(target).is_ok_and(|record| record.shared_pid_namespace && !is_killed_at_once(&record.cgroup))
}

/// By one write (since Linux 5.14), or because there is no cgroup by which somebody could be found.
fn is_killed_at_once(cgroup: &Paths) -> bool {
    match &cgroup.v2 {
        Some(place) if cgroup.is_unified() => place.folder.join("cgroup.kill").exists(),
        _ => cgroup.is_none(),
    }
}

/// In a pid namespace of its own nobody outlives the first process, but what is frozen cannot end.
fn end_rest(target: &Target) -> Result<()> {
    let record = match record(target) {
        Err(Cause::State { why: Lifecycle::DoesNotExist, .. }) => return Ok(()),
        other => other.map_err(|cause| of(&cause))?,
    };
    let done = if record.shared_pid_namespace {
        record.cgroup.kill_all(libc::SIGKILL)
    } else {
        record.cgroup.is_frozen().and_then(|frozen| if frozen { record.cgroup.thaw() } else { Ok(()) })
    };
    done.map_err(|cause| of(&cause).context(Work::EndRest.failure()))
}

/// In the copy.
fn run(target: &Target, work: Work, tell: Tell) -> (Tell, Result<Option<i32>>) {
    let tell = Rc::new(tell);
    let pid = Rc::new(Cell::new(None));
    let announce = {
        let (tell, pid) = (tell.clone(), pid.clone());
        move |born: i32| {
            pid.set(Some(born));
            tell.born(born).map_err(|e| Cause::io("write to", Path::new("the shim"), &e))
        }
    };
    let done = act(target, work, Parentage::OurParents(Rc::new(announce)));
    if let Err(error) = &done {
        log(target, &error.text());
    }
    let done = done.map(|()| pid.get());
    match Rc::try_unwrap(tell) {
        Ok(tell) => (tell, done),
        // Whoever was to announce a process is gone with the verb.
        Err(_) => tare::sys::clone::exit_now(1),
    }
}

fn act(target: &Target, work: Work, parentage: Parentage) -> Result<()> {
    let (mut runtime, id) = called(target)?;
    runtime.parentage = parentage;
    let bundle = PathBuf::from(&target.bundle);
    let console = |given: Given| match given {
        Given::Streams(streams) => {
            // Closed already, by number.
            std::mem::forget(streams);
            None
        }
        Given::ConsoleSocket(path) => Some(path),
    };
    match work {
        Work::Create { rootfs, given } => {
            let console_socket = console(given);
            create(&runtime, id, target, &rootfs, console_socket)
        }
        Work::Start => lifecycle::start::start(&runtime, &id, None).map_err(|cause| of(&cause)),
        Work::Exec { spec, terminal, given, .. } => {
            let request = ExecRequest {
                id,
                process: ExecProcess::Document(with_terminal(&spec, terminal)?),
                console_socket: console(given),
                pidfd_socket: None,
                // Who asks has the pid already.
                pid_file: None,
                detach: true,
                preserve_fds: 0,
                listen: Listen::default(),
                ignore_paused: false,
                cgroup: Vec::new(),
            };
            lifecycle::exec::exec(&runtime, &request)
                .map(drop)
                .map_err(|cause| of(&cause).context("exec failed"))
        }
        Work::Pause => lifecycle::pause::pause(&runtime, &id).map_err(|cause| of(&cause)),
        Work::Resume => lifecycle::pause::resume(&runtime, &id).map_err(|cause| of(&cause)),
        Work::Update(resources) => update(&runtime, &id, &resources).map_err(|cause| of(&cause)),
        Work::Kill { signal, all } => {
            lifecycle::kill::kill(&runtime, &id, signal, all).map_err(|cause| kill_error(of(&cause)))
        }
        Work::EndRest => end_rest(target),
        Work::Delete => delete(&runtime, &id, &bundle),
        Work::TakeBack => take_back(&runtime, &id, target),
    }
}

fn create(
    runtime: &lifecycle::Runtime,
    id: ContainerId,
    target: &Target,
    rootfs: &[super::Mount],
    console_socket: Option<PathBuf>,
) -> Result<()> {
    let bundle = PathBuf::from(&target.bundle);
    let root = bundle.join("rootfs");
    mount::mount_all(rootfs, &root)?;
    let request = CreateRequest {
        id,
        bundle: bundle.clone(),
        config: None,
        console_socket,
        pidfd_socket: None,
        pid_file: Some(bundle.join("init.pid")),
        no_pivot: target.no_pivot_root,
        no_new_keyring: target.no_new_keyring,
        preserve_fds: 0,
        listen: Listen::default(),
        notify_socket: None,
    };
    let created = lifecycle::create::create(runtime, &request);
    let Err(cause) = created else { return Ok(()) };
    let error = of(&cause).context("tare create failed");
    if rootfs.is_empty() {
        return Err(error);
    }
    match mount::unmount_all(&root) {
        Ok(()) => Err(error),
        Err(left) => Err(Error::of(error.code(), format!("{}; {}", error.text(), left.text()))),
    }
}

fn update(runtime: &lifecycle::Runtime, id: &ContainerId, resources: &[u8]) -> tare::error::Result<()> {
    let (resources, _warnings) = Resources::from_slice(resources, Path::new("resources"))?;
    lifecycle::update::update(runtime, id, &resources)
}

fn delete(runtime: &lifecycle::Runtime, id: &ContainerId, bundle: &Path) -> Result<()> {
    match lifecycle::delete::delete(runtime, id, false) {
        // Somebody else has deleted it already: only what is ours is left to do.
        Ok(()) | Err(Cause::State { why: Lifecycle::DoesNotExist, .. }) => {}
        Err(cause) => return Err(of(&cause)),
    }
    mount::unmount_all(&bundle.join("rootfs"))
}

/// Not a container of this name whose bundle is another: that one was there before.
fn take_back(runtime: &lifecycle::Runtime, id: &ContainerId, target: &Target) -> Result<()> {
    let is_ours = record(target).map_or(true, |record| record.bundle == Path::new(&target.bundle));
    if is_ours {
        lifecycle::delete::delete(runtime, id, true).map_err(|cause| of(&cause))?;
    }
    mount::unmount_all(&Path::new(&target.bundle).join("rootfs"))
}

/// Where people look for what a runtime has said last, as a runtime would write it.
fn log(target: &Target, text: &str) {
    let entry = serde_json::json!({
        "level": "error",
        "msg": text,
        "time": tare::state::time::to_rfc3339(SystemTime::now()),
    });
    let file = Path::new(&target.bundle).join("log.json");
    // The caller hears of the failure anyway; this is the second place to find it.
    let _written = File::options()
        .append(true)
        .create(true)
        .open(file)
        .and_then(|mut file| file.write_all(format!("{entry}\n").as_bytes()));
}

/// Ends what still runs and takes all away; for `delete`, where no loop has to go on meanwhile.
pub fn delete_by_force(root: &Path, id: &str, systemd_cgroup: bool) -> Result<()> {
    let driver = if systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs };
    let id = ContainerId::new(id).map_err(|cause| of(&cause))?;
    let runtime = lifecycle::Runtime::new(root.to_owned(), driver, None);
    lifecycle::delete::delete(&runtime, &id, true).map_err(|cause| of(&cause))
}

/// The document of `tare features`.
pub fn features() -> Result<Vec<u8>> {
    tare::cli::features_document().map(String::into_bytes).map_err(|cause| of(&cause))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use tare::cgroup::Place;

    use super::*;

    #[test]
    fn only_a_write_to_cgroup_kill_waits_for_nobody() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = || Place { controllers: Vec::new(), folder: dir.path().into(), name: "/".into() };
        let none = Paths::none(Driver::Cgroupfs);
        let v1 = Paths { v1: vec![place()], ..none.clone() };
        let v2 = Paths { v2: Some(place()), ..none.clone() };
        let hybrid = Paths { v2: Some(place()), ..v1.clone() };
        let answers = || [&none, &v1, &v2, &hybrid].map(is_killed_at_once);
        assert_eq!(answers(), [true, false, false, false]);
        std::fs::write(dir.path().join("cgroup.kill"), "").expect("written");
        assert_eq!(answers(), [true, false, true, false]);
    }

    #[test]
    fn the_kind_of_an_error_is_its_variant() {
        let state = |why| Cause::State { id: "a".into(), why };
        for (cause, code) in [
            (state(Lifecycle::DoesNotExist), Code::NotFound),
            (state(Lifecycle::AlreadyExists), Code::AlreadyExists),
            (state(Lifecycle::NotRunning), Code::FailedPrecondition),
            (state(Lifecycle::NotRunning).context("kill"), Code::FailedPrecondition),
            (Cause::Usage("container does not exist".into()), Code::InvalidArgument),
            (Cause::sys("open", "/x", Errno::ENOENT), Code::Unknown),
        ] {
            assert_eq!(of(&cause).code(), code, "{cause}");
        }
        assert_eq!(
            kill_error(of(&state(Lifecycle::NotRunning))).to_string(),
            "process already finished: not found"
        );
        assert_eq!(
            kill_error(of(&state(Lifecycle::DoesNotExist))).to_string(),
            "no such container: not found"
        );
    }
}
