//! The shim under test, and a stage on which a test plays containerd to it: the command line, the environment, the
//! bundle and the sockets that containerd gives a shim, and its ttrpc calls.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use crate::containerd::Through;
use crate::proto::{Fields, Message};
use crate::ttrpc::{Client, Envelope, Events, Refusal};
use crate::{Outcome, Sandbox, call, eventually, runtime};

/// containerd's own.
pub const STOCK: &str = "containerd-shim-runc-v2";
pub const TASK_V2: &str = "containerd.task.v2.Task";
pub const TASK_V3: &str = "containerd.task.v3.Task";
const NAMESPACE: &str = "judge";

/// The shim that `SHIM` names, as an absolute path, else the release build of this workspace.
///
/// # Panics
/// When there is none.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let named = std::env::var_os("SHIM").filter(|name| !name.is_empty());
        let path = named.map_or_else(|| runtime::built("release/containerd-shim-tare-v2"), PathBuf::from);
        path.canonicalize().unwrap_or_else(|error| {
            panic!(
                "the shim under test, {}: {error}; build containerd-shim-tare-v2 or set SHIM",
                path.display()
            )
        })
    })
}

/// The shim of that kind.
///
/// # Panics
/// When there is none.
pub(crate) fn path_of(through: Through) -> &'static Path {
    match through {
        Through::UnderTest => path(),
        Through::Stock => Path::new("/usr/bin/containerd-shim-runc-v2"),
    }
}

/// Whether the shim under test is containerd's.
pub fn is_stock(shim: &Path) -> bool {
    shim.file_name().is_some_and(|name| name == STOCK)
}

/// containerd's own shim (seen with 1.7) tells of a deletion now and then before the end that it follows.
fn in_order_again(told: &mut [String], wanted: &[&str]) {
    for at in 1..told.len().min(wanted.len()) {
        let is_swapped = told[at - 1] == wanted[at] && told[at] == wanted[at - 1];
        if is_swapped && told[at].starts_with("exit ") && told[at - 1].starts_with("delete ") {
            told.swap(at - 1, at);
        }
    }
}

/// How `start` is asked (the two forms of the bootstrap protocol).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dialect {
    /// Until containerd 2.2: words and the environment, on stdin the runtime's options if there are any.
    Words,
    /// Since containerd 2.3: `BootstrapParams` on stdin as well.
    Params,
}

/// One sandbox, one server of events, one shim binary.
#[derive(Debug)]
pub struct Stage {
    pub sandbox: Sandbox,
    /// Whether containers' cgroups are made by systemd.
    systemd: bool,
    pub events: Events,
    pub shim: PathBuf,
    /// The runtime that the shim is told to call, if any.
    pub binary: Option<PathBuf>,
    /// Where the shims are put before they begin: directories of cgroups.
    pub cgroups: Vec<PathBuf>,
    /// More of containerd's environment.
    pub variables: Vec<(&'static str, &'static str)>,
    /// By pid, for the events: `init`, or an exec's id.
    names: Mutex<BTreeMap<u64, String>>,
}

/// Of one process, in kB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Its share of all that it has mapped.
    pub pss: u64,
    /// What it alone has and has written to.
    pub private_dirty: u64,
}

impl Memory {
    /// From `/proc/PID/smaps_rollup`.
    ///
    /// # Panics
    /// When there is none.
    pub fn read(rollup: &Path) -> Self {
        let text =
            std::fs::read_to_string(rollup).unwrap_or_else(|error| panic!("{}: {error}", rollup.display()));
        let of = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            rest.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Self { pss: of("Pss:"), private_dirty: of("Private_Dirty:") }
    }
}

/// What containerd lays out for one container.
#[derive(Debug)]
pub struct Bundle {
    pub id: String,
    pub dir: PathBuf,
    /// Read and written, so that neither end waits for the other.
    log: File,
}

/// Where a process's stdio goes: paths or URIs, empty for none.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

impl Stage {
    /// # Panics
    /// When the sandbox or the socket cannot be made.
    pub fn new(shim: &Path) -> Self {
        Self::on(Sandbox::new(""), shim, false)
    }

    /// Where containers' cgroups are systemd's: the shim is told so, and bundles name a scope of `system.slice`.
    ///
    /// # Panics
    /// As `new`.
    pub fn with_systemd(shim: &Path) -> Self {
        Self::on(Sandbox::with_systemd(), shim, true)
    }

    fn on(sandbox: Sandbox, shim: &Path, systemd: bool) -> Self {
        crate::busybox(&sandbox.path("rootfs"));
        let events = Events::serve(&sandbox.path("containerd.sock.ttrpc"));
        // The stock shim runs the runtime under test, ours its own.
        let binary = is_stock(shim).then(|| runtime::path().to_owned());
        let (shim, cgroups) = (shim.to_owned(), Vec::new());
        let variables = Vec::new();
        Self { sandbox, systemd, events, shim, binary, cgroups, variables, names: Mutex::default() }
    }

    /// A bundle whose container runs `args` in busybox; `edit` changes its configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn bundle(&self, id: &str, args: &[&str], edit: impl FnOnce(&mut Value)) -> Bundle {
        let dir = self.sandbox.path(&format!("bundles/{id}"));
        std::fs::create_dir_all(&dir).expect("the bundle");
        call(Command::new(runtime::path()).args(["spec", "--bundle"]).arg(&dir)).ok();
        let file = dir.join("config.json");
        let text = std::fs::read_to_string(&file).expect("config.json");
        let mut config: Value = serde_json::from_str(&text).expect("config.json");
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(args);
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["root"] = json!({ "path": self.sandbox.path("rootfs"), "readonly": false });
        config["linux"]["cgroupsPath"] = json!(if self.systemd {
            format!("system.slice:{}:{id}", self.prefix())
        } else {
            format!("{}/{id}", self.sandbox.cgroup)
        });
        edit(&mut config);
        std::fs::write(&file, config.to_string()).expect("config.json");
        let log = fifo(&dir.join("log"));
        Bundle { id: id.to_owned(), dir, log }
    }

    fn prefix(&self) -> &str {
        self.sandbox.cgroup.trim_start_matches('/')
    }

    /// The unit that systemd makes for a container.
    pub fn scope(&self, id: &str) -> String {
        format!("{}-{id}.scope", self.prefix())
    }

    /// The words with which every containerd calls a shim, its directory and its environment.
    pub fn command(&self, bundle: &Bundle, words: &[&str]) -> Command {
        let mut command = self.sandbox.command("sh");
        // The shell stays, as containerd would: a shim asks for its parent's oom_score_adj.
        let joined = self.cgroups.iter().map(|dir| format!("echo 0 > '{}/cgroup.procs' && ", dir.display()));
        let script = joined.collect::<String>() + "cd \"$0\" && \"$@\"; exit $?";
        command.args(["-c", &script]).arg(&bundle.dir).arg(&self.shim);
        command.args(["-namespace", NAMESPACE, "-address"]).arg(self.sandbox.path("containerd.sock"));
        command.args(["-publish-binary", "/usr/bin/containerd"]).args(words);
        command.env("TTRPC_ADDRESS", self.sandbox.path("containerd.sock.ttrpc"));
        command.env("GRPC_ADDRESS", self.sandbox.path("containerd.sock")).env("NAMESPACE", NAMESPACE);
        command.env("MAX_SHIM_VERSION", "2").env("GOMAXPROCS", "2").envs(self.variables.iter().copied());
        command
    }

    /// `start`: what it printed on either stream, as containerd takes both for the reply.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn start_reply(&self, bundle: &Bundle, dialect: Dialect) -> Outcome {
        let mut command = self.command(bundle, &["-id", &bundle.id, "start"]);
        if dialect == Dialect::Params {
            let path = |name: &str| self.sandbox.path(name).to_string_lossy().into_owned();
            let options = Message::new().bytes(1, "containerd.runc.v1.Options").bytes(2, self.options());
            let params = Message::new()
                .bytes(1, &bundle.id)
                .bytes(2, NAMESPACE)
                .bytes(4, "v2.3.0")
                .bytes(5, path("containerd.sock.ttrpc"))
                .bytes(6, path("containerd.sock"))
                .bytes(7, "/usr/bin/containerd")
                .message(8, &Message::new().message(1, &options));
            let mut stdin = tempfile::tempfile().expect("a file");
            stdin
                .write_all(params.as_ref())
                .and_then(|()| std::io::Seek::rewind(&mut stdin))
                .expect("a file");
            command.stdin(stdin);
        }
        call(&mut command)
    }

    /// `start`, and the address where the shim listens.
    ///
    /// # Panics
    /// When it fails, or the reply is not the bare address that every containerd reads.
    #[track_caller]
    pub fn start(&self, bundle: &Bundle) -> PathBuf {
        let reply = self.start_reply(bundle, Dialect::Words).ok();
        assert_eq!(reply.err, "", "containerd takes stderr for a part of the reply");
        let address =
            reply.out.trim().strip_prefix("unix://").unwrap_or_else(|| panic!("no address: {reply:?}"));
        self.sandbox.outside(address)
    }

    /// A task in a shim of its own, created.
    #[track_caller]
    pub fn created(&self, bundle: Bundle, stdio: Streams) -> Task<'_> {
        let task = self.task(bundle, stdio);
        task.create().expect("create");
        task
    }

    /// A shim of its own, and nothing created in it.
    ///
    /// # Panics
    /// When it cannot be reached.
    #[track_caller]
    pub fn task(&self, bundle: Bundle, stdio: Streams) -> Task<'_> {
        let socket = self.start(&bundle);
        Task { stage: self, bundle, stdio, socket, service: TASK_V2 }
    }

    /// What containerd hands `Create`.
    pub fn options(&self) -> Message {
        let binary = self.binary.as_ref().map(|path| path.to_string_lossy().into_owned());
        Message::new().bytes(6, binary.unwrap_or_default()).number(9, self.systemd.into())
    }

    /// The events so far, one line each: the topic and the fields, with names in place of pids.
    pub fn told(&self) -> Vec<String> {
        self.events.all().iter().map(|envelope| self.line(envelope)).collect()
    }

    fn line(&self, envelope: &Envelope) -> String {
        let (message, fields): (&str, &[Field]) = match envelope.topic.as_str() {
            "/tasks/create" => {
                ("TaskCreate", &[Container(1), BundleOf(2), Io(4), Text("checkpoint", 5), Pid(6)])
            }
            "/tasks/start" => ("TaskStart", &[Container(1), Pid(2)]),
            "/tasks/exit" => ("TaskExit", &[Container(1), Id(2), Pid(3), Count("status", 4), Time(5)]),
            "/tasks/delete" => ("TaskDelete", &[Container(1), Id(5), Pid(2), Count("status", 3), Time(4)]),
            "/tasks/exec-added" => ("TaskExecAdded", &[Container(1), Id(2)]),
            "/tasks/exec-started" => ("TaskExecStarted", &[Container(1), Id(2), Pid(3)]),
            "/tasks/paused" => ("TaskPaused", &[Container(1)]),
            "/tasks/resumed" => ("TaskResumed", &[Container(1)]),
            "/tasks/oom" => ("TaskOOM", &[Container(1)]),
            _ => ("", &[]),
        };
        let mut line = envelope.topic.trim_start_matches("/tasks/").to_owned();
        if envelope.type_url != format!("containerd.events.{message}") {
            line += &format!(" of type {}", envelope.type_url);
        }
        if envelope.namespace != NAMESPACE {
            line += &format!(" in namespace {:?}", envelope.namespace);
        }
        if !is_recent(envelope.seconds) {
            line += " at no time";
        }
        for field in fields {
            line += &self.field(field, &envelope.event);
        }
        let known: Vec<_> = fields.iter().map(Field::number).collect();
        for number in envelope.event.numbers().into_iter().filter(|number| !known.contains(number)) {
            line += &format!(" with a field {number}");
        }
        line
    }

    fn field(&self, field: &Field, event: &Fields) -> String {
        match *field {
            Container(number) => format!(" {}", event.text(number)),
            BundleOf(number) => {
                let there = Path::new(&event.text(number)).join("config.json").exists();
                if there { String::new() } else { format!(" with bundle {:?}", event.text(number)) }
            }
            Io(number) => {
                let io = event.message(number);
                let named =
                    [(1, "stdin"), (2, "stdout"), (3, "stderr")].into_iter().filter_map(|(field, name)| {
                        let path = io.text(field);
                        (!path.is_empty())
                            .then(|| format!(" {name}={}", path.rsplit('/').next().unwrap_or_default()))
                    });
                named.chain((io.number(4) != 0).then(|| " terminal".to_owned())).collect()
            }
            Text(name, number) => {
                let text = event.text(number);
                if text.is_empty() { text } else { format!(" {name}={text}") }
            }
            Id(number) => format!(" id={}", event.text(number)),
            Pid(number) => {
                let names = self.names.lock().expect("the names");
                let pid = event.number(number);
                let name = names.get(&pid).cloned();
                format!(" pid={}", name.unwrap_or_else(|| if pid == 0 { "0" } else { "unknown" }.into()))
            }
            Count(name, number) => format!(" {name}={}", event.number(number)),
            Time(number) => {
                if is_recent(event.message(number).number(1)) {
                    String::new()
                } else {
                    " at no time".into()
                }
            }
        }
    }

    /// Waits until as many events have come as are wanted, and a moment for one too many.
    ///
    /// # Panics
    /// When they are others, or in another order.
    #[track_caller]
    pub fn expect_events(&self, wanted: &[&str]) {
        let begun = std::time::Instant::now();
        while self.events.all().len() < wanted.len() && begun.elapsed().as_secs() < 15 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        let mut told = self.told();
        if is_stock(&self.shim) {
            in_order_again(&mut told, wanted);
        }
        assert_eq!(told, wanted, "the events of {}", self.shim.display());
    }

    /// Every process of the sandbox: pid, parent, state, name, as `/proc` inside shows them.
    ///
    /// # Panics
    /// When there is no `/proc`.
    pub fn processes(&self) -> Vec<(u64, u64, char, String)> {
        let entries = std::fs::read_dir(self.sandbox.outside("/proc")).expect("/proc").flatten();
        let stats = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u64>().is_ok());
        // One that has ended meanwhile is none.
        stats
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
            .filter_map(|stat| {
                let (pid, rest) = stat.split_once(" (")?;
                let (name, rest) = rest.rsplit_once(") ")?;
                let mut words = rest.split(' ');
                let (state, parent) = (words.next()?.chars().next()?, words.next()?.parse().ok()?);
                Some((pid.parse().ok()?, parent, state, name.to_owned()))
            })
            .collect()
    }

    /// # Panics
    /// When there is no such process.
    pub fn memory(&self, pid: u64) -> Memory {
        Memory::read(&self.sandbox.outside(&format!("/proc/{pid}/smaps_rollup")))
    }

    /// The pids of the serving shims.
    pub fn shims(&self) -> Vec<u64> {
        let address = self.sandbox.path("containerd.sock");
        let file_name = self.shim.file_name().unwrap_or_default().as_encoded_bytes();
        let short_name = &file_name[..file_name.len().min(15)];
        let is_shim = |pid: u64, name: &str| {
            let cmdline =
                std::fs::read(self.sandbox.outside(&format!("/proc/{pid}/cmdline"))).unwrap_or_default();
            // Of one that ends the command line goes before the socket is closed; the kernel has 15 bytes of its name.
            if cmdline.is_empty() {
                return name.as_bytes() == short_name;
            }
            let mut words = cmdline.split(|byte| *byte == 0);
            words.next().is_some_and(|program| program.ends_with(self.shim.as_os_str().as_encoded_bytes()))
                && words.any(|word| word == address.as_os_str().as_encoded_bytes())
        };
        let running = self.processes().into_iter().filter(|(.., state, _)| !['Z', 'X'].contains(state));
        let alike: Vec<_> = running.filter(|(pid, .., name)| is_shim(*pid, name)).collect();
        // A child of one is a copy that has not become its container's program yet.
        let is_child = |parent| alike.iter().any(|(pid, ..)| *pid == parent);
        alike.iter().filter(|(_, parent, ..)| !is_child(*parent)).map(|(pid, ..)| *pid).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the events: {:#?}", self.told());
        }
    }
}

/// A field of an event, and how it is shown.
enum Field {
    Container(u32),
    BundleOf(u32),
    Io(u32),
    Text(&'static str, u32),
    Id(u32),
    Pid(u32),
    Count(&'static str, u32),
    Time(u32),
}
use Field::{BundleOf, Container, Count, Id, Io, Pid, Text, Time};

impl Field {
    fn number(&self) -> u32 {
        match *self {
            Container(number) | BundleOf(number) | Io(number) | Id(number) | Pid(number) | Time(number) => {
                number
            }
            Text(_, number) | Count(_, number) => number,
        }
    }
}

fn is_recent(seconds: u64) -> bool {
    let now = std::time::UNIX_EPOCH.elapsed().expect("the time").as_secs();
    now.abs_diff(seconds) < 600
}

/// A FIFO, open for both directions without waiting.
///
/// # Panics
/// When it cannot be made.
pub fn fifo(path: &Path) -> File {
    mkfifo(path, Mode::from_bits_truncate(0o700)).expect("a FIFO");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(path).expect("a FIFO")
}

impl Bundle {
    /// What the shim has written to its log.
    pub fn log(&mut self) -> String {
        let mut text = vec![0; 65536];
        // Nothing there, or no more than that: it is shown when a test has failed.
        let len = self.log.read(&mut text).unwrap_or(0);
        String::from_utf8_lossy(&text[..len]).into_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("the log of the shim of {}: {log}", self.id);
        }
    }
}

/// A container in a shim, by the words of the Task service.
#[derive(Debug)]
pub struct Task<'a> {
    pub stage: &'a Stage,
    pub bundle: Bundle,
    pub stdio: Streams,
    pub socket: PathBuf,
    pub service: &'static str,
}

pub type Answer = Result<Fields, Refusal>;

impl Task<'_> {
    /// A connection of its own: a call that waits does not hold another one up.
    ///
    /// # Panics
    /// When the shim does not listen.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket, self.service)
            .unwrap_or_else(|error| panic!("{}: {error}", self.socket.display()))
    }

    #[track_caller]
    pub fn call(&self, method: &str, request: &Message) -> Answer {
        self.client().call(method, request)
    }

    /// A request that begins with the container's id and the exec's.
    pub fn request(&self, exec: &str) -> Message {
        Message::new().bytes(1, &self.bundle.id).bytes(2, exec)
    }

    pub fn create_request(&self) -> Message {
        let stdio = &self.stdio;
        Message::new()
            .bytes(1, &self.bundle.id)
            .bytes(2, self.bundle.dir.to_string_lossy().as_bytes())
            .number(4, stdio.terminal.into())
            .bytes(5, &stdio.stdin)
            .bytes(6, &stdio.stdout)
            .bytes(7, &stdio.stderr)
            .any(10, "containerd.runc.v1.Options", self.stage.options())
    }

    #[track_caller]
    pub fn create(&self) -> Answer {
        self.call("Create", &self.create_request()).inspect(|created| self.named(created.number(1), "init"))
    }

    fn named(&self, pid: u64, name: &str) {
        self.stage.names.lock().expect("the names").insert(pid, name.to_owned());
    }

    /// The container's first process with an empty name, an exec otherwise.
    #[track_caller]
    pub fn start(&self, exec: &str) -> Answer {
        let name = if exec.is_empty() { "init" } else { exec };
        self.call("Start", &self.request(exec)).inspect(|started| self.named(started.number(1), name))
    }

    #[track_caller]
    pub fn exec(&self, exec: &str, args: &[&str]) -> Answer {
        self.exec_with(exec, args, &Streams::default())
    }

    #[track_caller]
    pub fn exec_with(&self, exec: &str, args: &[&str], stdio: &Streams) -> Answer {
        let process = json!({
            "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
            "terminal": stdio.terminal,
        });
        let request = self
            .request(exec)
            .number(3, stdio.terminal.into())
            .bytes(4, &stdio.stdin)
            .bytes(5, &stdio.stdout)
            .bytes(6, &stdio.stderr)
            .any(7, "types.containerd.io/opencontainers/runtime-spec/1/Process", process.to_string());
        self.call("Exec", &request)
    }

    #[track_caller]
    pub fn kill(&self, exec: &str, signal: u64) -> Answer {
        self.call("Kill", &self.request(exec).number(3, signal))
    }

    /// Waits for the end; the exit status.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn wait(&self, exec: &str) -> u64 {
        self.call("Wait", &self.request(exec)).expect("wait").number(1)
    }

    #[track_caller]
    pub fn delete(&self, exec: &str) -> Answer {
        self.call("Delete", &self.request(exec))
    }

    /// `CREATED`, `RUNNING`, …
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn status(&self, exec: &str) -> &'static str {
        let state = self.call("State", &self.request(exec)).expect("state");
        let status = usize::try_from(state.number(4)).expect("a status");
        ["UNKNOWN", "CREATED", "RUNNING", "STOPPED", "PAUSED", "PAUSING"][status]
    }

    /// Asks the shim to end, and waits until it has, and its socket with it.
    ///
    /// # Panics
    /// When it stays.
    #[track_caller]
    pub fn shutdown(&self) {
        // The connection may end before the answer: the shim is ending.
        let request = Message::new().bytes(1, &self.bundle.id);
        let mut client = self.client();
        std::thread::spawn(move || client.call("Shutdown", &request));
        eventually("the shim has ended", || self.stage.shims().is_empty().then_some(()));
        eventually("its socket is gone", || (!self.socket.exists()).then_some(()));
    }
}

/// A file of the sandbox's directory for a stream, as containerd's `file` scheme takes it.
pub fn file_uri(path: &Path) -> String {
    format!("file://{}", path.display())
}
