//! A shim that holds nothing: it answers each call at once and sends the events that every shim has to send. What a
//! start and an exec take through it is containerd's own part, which no shim can make smaller.
//!
//! It runs from this very program, under the name that containerd looks for; of one container only.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use integration::proto::{Fields, Message};
use integration::ttrpc::{self, Client};

pub(crate) const NAME: &str = "containerd-shim-floor-v2";
const EVENTS: &str = "containerd.services.events.ttrpc.v1.Events";
const RUNNING: u64 = 2;

pub(crate) fn is_asked_for() -> bool {
    std::env::args_os().next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new(NAME)))
}

pub(crate) fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let done = match words.last().map(String::as_str) {
        Some("start") => start(&words),
        // An empty message: it was never there.
        Some("delete") => Ok(()),
        _ => serve(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The socket is in the bundle, where containerd runs it.
fn start(words: &[String]) -> std::io::Result<()> {
    let socket = std::env::current_dir()?.join("s");
    let listener = UnixListener::bind(&socket)?;
    Command::new("/proc/self/exe")
        .arg0(NAME)
        .args(&words[..words.len() - 1])
        .process_group(0)
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    print!("unix://{}", socket.display());
    Ok(())
}

fn serve(words: &[String]) -> std::io::Result<()> {
    let after = |name: &str| {
        let at = words.iter().position(|word| word == name);
        at.and_then(|at| words.get(at + 1)).cloned().unwrap_or_default()
    };
    // A copy with a number of its own; the first is never read by anybody else.
    let listener = UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let events = std::env::var_os("TTRPC_ADDRESS").map(PathBuf::from).unwrap_or_default();
    let shim = Arc::new(Mutex::new(Floor {
        id: after("-id"),
        namespace: after("-namespace"),
        stdout: PathBuf::new(),
        events: Client::connect(&events, EVENTS)?,
    }));
    loop {
        let (stream, _) = listener.accept()?;
        let shim = shim.clone();
        std::thread::spawn(move || answer(stream, &shim));
    }
}

struct Floor {
    id: String,
    namespace: String,
    stdout: PathBuf,
    events: Client,
}

/// Until containerd goes, which is no error.
fn answer(mut stream: UnixStream, shim: &Mutex<Floor>) {
    while let Ok((number, _, call)) = ttrpc::read(&mut stream) {
        // Kept until the events are sent, so that they stay in their order; the answer does not wait for them.
        let mut shim = shim.lock().expect("nobody panics with it in hand");
        let request = Fields::decode(call.bytes(3)).unwrap_or_default();
        let method = call.text(2);
        let (reply, events) = shim.answer(&method, &request);
        let reply = Message::new().message(1, &Message::new()).message(2, &reply);
        if ttrpc::write(&mut stream, number, ttrpc::RESPONSE, &reply).is_err() {
            return;
        }
        if method == "Shutdown" {
            std::process::exit(0);
        }
        events.iter().for_each(|(topic, kind)| shim.tell(topic, kind));
    }
}

/// An event by its topic and the name of its message.
type Event = (&'static str, &'static str);

impl Floor {
    fn answer(&mut self, method: &str, request: &Fields) -> (Message, &'static [Event]) {
        let pid = Message::new().number(1, std::process::id().into());
        let is_exec = !request.text(2).is_empty();
        match method {
            "Create" => {
                self.stdout = request.text(6).into();
                (pid, &[("/tasks/create", "TaskCreate")])
            }
            "Start" if is_exec => {
                (pid, &[("/tasks/exec-started", "TaskExecStarted"), ("/tasks/exit", "TaskExit")])
            }
            "Start" => {
                // What the container would say.
                if let Ok(mut stdout) = std::fs::File::options().write(true).open(&self.stdout) {
                    stdout.write_all(b"x").ok();
                }
                (pid, &[("/tasks/start", "TaskStart"), ("/tasks/exit", "TaskExit")])
            }
            "Exec" => (Message::new(), &[("/tasks/exec-added", "TaskExecAdded")]),
            "State" => {
                let state = Message::new().bytes(1, request.text(1)).number(3, std::process::id().into());
                (state.number(4, RUNNING), &[])
            }
            "Wait" => (Message::new().message(2, &now()), &[]),
            "Delete" if is_exec => (pid.message(3, &now()), &[]),
            "Delete" => (pid.message(3, &now()), &[("/tasks/delete", "TaskDelete")]),
            "Connect" => (pid.number(2, std::process::id().into()), &[]),
            _ => (Message::new(), &[]),
        }
    }

    fn tell(&mut self, topic: &str, kind: &str) {
        let event = Message::new().bytes(1, &self.id).number(3, std::process::id().into());
        let envelope = Message::new().message(1, &now()).bytes(2, &self.namespace).bytes(3, topic).any(
            4,
            &format!("containerd.events.{kind}"),
            event,
        );
        // Taken or not: it has cost containerd what it costs.
        self.events.call("Forward", &Message::new().message(1, &envelope)).ok();
    }
}

fn now() -> Message {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Message::new().number(1, since.as_secs()).number(2, since.subsec_nanos().into())
}
