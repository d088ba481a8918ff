//! The Task service on the wire: `containerd.task.v2.Task` and `containerd.task.v3.Task` are one
//! service under two names. Decodes, encodes, and decides nothing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::events::Publisher;
use crate::options;
use crate::process::{Exit, Names};
use crate::runtime::{self, Mount, Target};
use crate::task::{Create, Event, Exec, Note, Reply, Request, Status};
use crate::wire::messages::{Any, Empty, Timestamp, events, runc, task};
use crate::wire::{self, Message, MessageField, Named};

pub const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// A request with the names of the container and of the exec.
#[derive(Debug)]
pub struct Decoded {
    pub id: String,
    pub exec_id: String,
    pub request: Request,
}

/// `None`: there is no such method.
pub fn decode(method: &str, payload: &[u8], namespace: &str) -> Option<Result<Decoded>> {
    /// A message that is nothing but names, and the request that it is.
    macro_rules! named {
        ($message:ty, $request:expr) => {
            read::<$message>(payload).map(|m| Decoded { id: m.id, exec_id: String::new(), request: $request })
        };
        ($message:ty, exec, $bind:ident => $request:expr) => {
            read::<$message>(payload).map(|$bind| Decoded {
                id: $bind.id.clone(),
                exec_id: $bind.exec_id.clone(),
                request: $request,
            })
        };
    }
    Some(match method {
        "State" => named!(task::StateRequest, exec, _m => Request::State),
        "Create" => read(payload).and_then(|message| create(message, namespace)),
        "Start" => named!(task::StartRequest, exec, _m => Request::Start),
        "Delete" => named!(task::DeleteRequest, exec, _m => Request::Delete),
        "Pids" => named!(task::PidsRequest, Request::Pids),
        "Pause" => named!(task::PauseRequest, Request::Pause),
        "Resume" => named!(task::ResumeRequest, Request::Resume),
        "Checkpoint" => named!(task::CheckpointTaskRequest, Request::Checkpoint),
        "Kill" => read::<task::KillRequest>(payload).and_then(|m| {
            let signal =
                i32::try_from(m.signal).map_err(|_| Error::invalid(format!("signal {}", m.signal)))?;
            Ok(Decoded { id: m.id, exec_id: m.exec_id, request: Request::Kill { signal, all: m.all } })
        }),
        "Exec" => read::<task::ExecProcessRequest>(payload).map(exec),
        "ResizePty" => named!(task::ResizePtyRequest, exec, m => Request::ResizePty {
            width: u16::try_from(m.width).unwrap_or(u16::MAX),
            height: u16::try_from(m.height).unwrap_or(u16::MAX),
        }),
        "CloseIO" => named!(task::CloseIORequest, exec, _m => Request::CloseIo),
        "Update" => read::<task::UpdateTaskRequest>(payload).map(|m| {
            let resources = m.resources.into_option().unwrap_or_default().value;
            Decoded { id: m.id, exec_id: String::new(), request: Request::Update(resources) }
        }),
        "Wait" => named!(task::WaitRequest, exec, _m => Request::Wait),
        "Stats" => named!(task::StatsRequest, Request::Stats),
        "Connect" => named!(task::ConnectRequest, Request::Connect),
        "Shutdown" => named!(task::ShutdownRequest, Request::Shutdown),
        _ => return None,
    })
}

fn read<M: Message>(payload: &[u8]) -> Result<M> {
    wire::decode(payload).map_err(|torn| Error::invalid(format!("unmarshal request: {torn}")))
}

fn create(message: task::CreateTaskRequest, namespace: &str) -> Result<Decoded> {
    let options = match message.options.as_ref() {
        Some(any) => options::read(any)?,
        None => None,
    };
    let options = options.unwrap_or_default();
    let notes = notes(&options);
    let target = Target {
        id: message.id.clone(),
        bundle: message.bundle,
        root: runtime::state_root(&options.root, namespace),
        binary: runtime::other_binary(&options.binary_name),
        systemd_cgroup: options.systemd_cgroup,
        no_pivot_root: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        io_uid: options.io_uid,
        io_gid: options.io_gid,
    };
    let rootfs = message.rootfs.into_iter().map(|mount| Mount {
        kind: mount.type_,
        source: mount.source,
        target: mount.target,
        options: mount.options,
    });
    let (stdin, stdout, stderr) = (message.stdin, message.stdout, message.stderr);
    let names = Names { stdin, stdout, stderr, terminal: message.terminal };
    let checkpoint = message.checkpoint;
    let create = Create { target, rootfs: rootfs.collect(), names, notes, checkpoint };
    Ok(Decoded { id: message.id, exec_id: String::new(), request: Request::Create(Box::new(create)) })
}

/// What `delete`, which has nothing but the bundle, and people find there: as the stock shim writes them.
fn notes(options: &runc::Options) -> Vec<Note> {
    let mut document = serde_json::Map::new();
    for (name, value) in [
        ("no_pivot_root", options.no_pivot_root),
        ("no_new_keyring", options.no_new_keyring),
        ("systemd_cgroup", options.systemd_cgroup),
    ] {
        if value {
            document.insert(name.into(), true.into());
        }
    }
    for (name, value) in [("io_uid", options.io_uid), ("io_gid", options.io_gid)] {
        if value != 0 {
            document.insert(name.into(), value.into());
        }
    }
    for (name, value) in [
        ("shim_cgroup", &options.shim_cgroup),
        ("binary_name", &options.binary_name),
        ("root", &options.root),
        ("criu_image_path", &options.criu_image_path),
        ("criu_work_path", &options.criu_work_path),
    ] {
        if !value.is_empty() {
            document.insert(name.into(), value.as_str().into());
        }
    }
    let document = serde_json::Value::Object(document).to_string();
    vec![
        Note { name: "options.json", text: document },
        Note { name: "runtime", text: options.binary_name.clone() },
    ]
}

/// Whole or not at all: without its options a container would be looked for where it is not.
pub fn keep(bundle: &Path, note: &Note) -> Result<()> {
    let (temporary, path) = (bundle.join(format!(".{}", note.name)), bundle.join(note.name));
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    open.and_then(|mut file| file.write_all(note.text.as_bytes()))
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(|e| Error::io("write", &path, &e))
}

fn exec(message: task::ExecProcessRequest) -> Decoded {
    let (stdin, stdout, stderr) = (message.stdin, message.stdout, message.stderr);
    let names = Names { stdin, stdout, stderr, terminal: message.terminal };
    let spec = message.spec.into_option().unwrap_or_default().value;
    let request = Request::Exec(Box::new(Exec { names, spec }));
    Decoded { id: message.id, exec_id: message.exec_id, request }
}

fn status(exit: Option<Exit>) -> u32 {
    exit.map_or(0, |exit| exit.status)
}

/// Go's zero time where nothing has ended: what the stock shim sends.
fn at(exit: Option<Exit>) -> MessageField<Timestamp> {
    const YEAR_ONE: i64 = -62_135_596_800;
    MessageField::some(match exit {
        Some(exit) => wire::timestamp(exit.at),
        None => Timestamp { seconds: YEAR_ONE, ..Timestamp::default() },
    })
}

pub fn encode(reply: Reply) -> Result<Vec<u8>> {
    match reply {
        Reply::Empty => write(&Empty::default()),
        Reply::State { id, bundle, pid, status: state, names, exit } => write(&task::StateResponse {
            id,
            bundle,
            pid,
            status: match state {
                Status::Created => task::Status::CREATED,
                Status::Running => task::Status::RUNNING,
                Status::Stopped => task::Status::STOPPED,
                Status::Paused => task::Status::PAUSED,
                Status::Pausing => task::Status::PAUSING,
            }
            .into(),
            stdin: names.stdin,
            stdout: names.stdout,
            stderr: names.stderr,
            terminal: names.terminal,
            exit_status: status(exit),
            exited_at: at(exit),
            ..Default::default()
        }),
        Reply::Created { pid } => write(&task::CreateTaskResponse { pid, ..Default::default() }),
        Reply::Started { pid } => write(&task::StartResponse { pid, ..Default::default() }),
        Reply::Deleted { pid, exit } => write(&task::DeleteResponse {
            pid,
            exit_status: status(exit),
            exited_at: at(exit),
            ..Default::default()
        }),
        Reply::Waited(exit) => write(&task::WaitResponse {
            exit_status: exit.status,
            exited_at: at(Some(exit)),
            ..Default::default()
        }),
        Reply::Pids(pids) => {
            let processes = pids.into_iter().map(|(pid, exec_id)| {
                let info =
                    exec_id.map(|exec_id| pack(&runc::ProcessDetails { exec_id, ..Default::default() }));
                Ok(task::ProcessInfo { pid, info: info.transpose()?.into(), ..Default::default() })
            });
            write(&task::PidsResponse { processes: processes.collect::<Result<_>>()?, ..Default::default() })
        }
        Reply::Stats(stats) => {
            write(&task::StatsResponse { stats: MessageField::some(stats), ..Default::default() })
        }
        Reply::Connected { pid } => write(&task::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: pid,
            ..Default::default()
        }),
    }
}

fn write<M: Message>(message: &M) -> Result<Vec<u8>> {
    wire::encode(message).map_err(|torn| Error::Unknown(torn.to_string()))
}

fn pack<M: Named>(message: &M) -> Result<Any> {
    wire::pack(message).map_err(|torn| Error::Unknown(torn.to_string()))
}

/// Publishes what has just happened.
pub fn tell(publisher: &mut Publisher, event: Event) -> std::result::Result<(), wire::Torn> {
    let now = SystemTime::now();
    let name = |id: &str| id.to_owned();
    match event {
        Event::Create { id, bundle, rootfs, names, pid } => {
            let Names { stdin, stdout, stderr, terminal } = names;
            let io = events::TaskIO { stdin, stdout, stderr, terminal, ..Default::default() };
            let rootfs = rootfs.into_iter().map(|mount| task::Mount {
                type_: mount.kind,
                source: mount.source,
                target: mount.target,
                options: mount.options,
                ..Default::default()
            });
            let (container_id, rootfs, io) = (name(&id), rootfs.collect(), MessageField::some(io));
            let event = events::TaskCreate { container_id, bundle, rootfs, io, pid, ..Default::default() };
            publisher.publish("/tasks/create", &event, now)
        }
        Event::Start { id, pid } => {
            let event = events::TaskStart { container_id: name(&id), pid, ..Default::default() };
            publisher.publish("/tasks/start", &event, now)
        }
        Event::Exit { id, process, pid, exit } => {
            let event = events::TaskExit {
                container_id: name(&id),
                id: process,
                pid,
                exit_status: exit.status,
                exited_at: at(Some(exit)),
                ..Default::default()
            };
            publisher.publish("/tasks/exit", &event, now)
        }
        Event::Delete { id, pid, exit } => {
            let event = events::TaskDelete {
                container_id: name(&id),
                pid,
                exit_status: status(exit),
                exited_at: at(exit),
                ..Default::default()
            };
            publisher.publish("/tasks/delete", &event, now)
        }
        Event::ExecAdded { id, exec_id } => {
            let event = events::TaskExecAdded { container_id: name(&id), exec_id, ..Default::default() };
            publisher.publish("/tasks/exec-added", &event, now)
        }
        Event::ExecStarted { id, exec_id, pid } => {
            let event =
                events::TaskExecStarted { container_id: name(&id), exec_id, pid, ..Default::default() };
            publisher.publish("/tasks/exec-started", &event, now)
        }
        Event::Paused { id } => {
            let event = events::TaskPaused { container_id: name(&id), ..Default::default() };
            publisher.publish("/tasks/paused", &event, now)
        }
        Event::Resumed { id } => {
            let event = events::TaskResumed { container_id: name(&id), ..Default::default() };
            publisher.publish("/tasks/resumed", &event, now)
        }
        Event::Oom { id } => {
            let event = events::TaskOOM { container_id: name(&id), ..Default::default() };
            publisher.publish("/tasks/oom", &event, now)
        }
    }
}

/// Of a process that has ended.
pub fn exit(status: u32) -> Exit {
    Exit { status, at: SystemTime::now() }
}
