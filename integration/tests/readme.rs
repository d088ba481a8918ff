//! The README's "Use it under an engine", as it is written there: each block of configuration goes into the file that it
//! is for, in a sandbox where `make install`'s files lie in their places, and the engine runs a container. What is not
//! tried here says in the README that it is untested.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::containerd::engines;
use integration::proto::{Fields, Message};
use integration::{Outcome, Sandbox, call, eventually, grpc, image, need, runtime, shim};
use serde_json::{Value, json};

/// What begins with one of these bold words is tried by the test of that name.
const TRIED: [(&str, &str); 5] = [
    ("containerd 1.6 and 1.7", "containerd_as_it_is_written"),
    ("containerd 2", "containerd_as_it_is_written"),
    ("Docker", "docker_as_it_is_written"),
    ("Docker's own BuildKit", "buildkit_of_docker_as_it_is_written"),
    ("Podman", "podman_as_it_is_written"),
];
/// No package of these is here; the documents are read.
const UNTRIED: [&str; 3] = ["Kubernetes", "CRI-O", "BuildKit"];

/// What follows one bold word: the text, and the indented blocks.
struct Section {
    name: String,
    text: String,
    blocks: Vec<String>,
}

fn readme() -> Vec<Section> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("README.md");
    let text = std::fs::read_to_string(path).expect("the README");
    let (_, rest) = text.split_once("\n## Use it under an engine\n").expect("the section on engines");
    let (chapter, _) = rest.split_once("\n## ").expect("the next section");
    let (chapter, _table) = chapter.split_once("\n| ").expect("the table");
    let mut sections: Vec<Section> = Vec::new();
    let mut in_block = false;
    for line in chapter.lines() {
        if let Some(begun) = line.strip_prefix("**") {
            let (name, _) = begun.split_once("**").expect("the end of a bold word");
            sections.push(Section { name: name.to_owned(), text: String::new(), blocks: Vec::new() });
        }
        let Some(section) = sections.last_mut() else { continue };
        match line.strip_prefix("    ") {
            Some(code) if in_block => *section.blocks.last_mut().expect("a block") += &format!("{code}\n"),
            Some(code) => section.blocks.push(format!("{code}\n")),
            // An empty line ends no block.
            None if line.is_empty() && in_block => *section.blocks.last_mut().expect("a block") += "\n",
            None => section.text += &format!("{line} "),
        }
        in_block = line.starts_with("    ") || (in_block && line.is_empty());
    }
    for block in sections.iter_mut().flat_map(|section| &mut section.blocks) {
        block.truncate(block.trim_end().len());
        *block += "\n";
    }
    sections
}

impl Section {
    fn named(name: &str) -> Self {
        readme().into_iter().find(|section| section.name == name).expect("a section of the README")
    }

    /// The words of the text's code that begins so, without the dots for what the user adds.
    fn command(&self, begin: &str) -> Vec<String> {
        let code = self.text.split('`').skip(1).step_by(2).find(|code| code.starts_with(begin));
        let code = code.unwrap_or_else(|| panic!("`{begin}` in {}", self.text));
        code.split(' ').filter(|word| *word != "…").map(str::to_owned).collect()
    }

    /// The words of the text's code that begins so, as it is.
    fn code(&self, begin: &str) -> String {
        self.command(begin).join(" ")
    }
}

#[test]
fn every_section_is_tried_or_says_that_it_is_untested() {
    let names: Vec<_> = readme().into_iter().map(|section| section.name).collect();
    let known = || TRIED.iter().map(|(name, _)| *name).chain(UNTRIED);
    assert!(names.iter().all(|name| known().any(|known| known == name)), "{names:?}");
    assert!(known().all(|known| names.iter().any(|name| name == known)), "{names:?}");
    for section in readme() {
        let says_so = section.text.contains("untested");
        assert_eq!(says_so, UNTRIED.contains(&section.name.as_str()), "{}", section.text);
    }
    let own = include_str!("readme.rs");
    assert!(TRIED.iter().all(|(_, test)| own.contains(&format!("fn {test}()"))));
}

/// TOML as JSON; Python knows it.
fn toml(text: &str) -> Value {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, text.as_bytes()).expect("a file");
    let script = "import json, sys, tomllib; json.dump(tomllib.load(open(sys.argv[1], 'rb')), sys.stdout)";
    let read = call(Command::new("/usr/bin/python3").args(["-c", script]).arg(file.path())).ok();
    serde_json::from_str(&read.out).expect("JSON")
}

/// As much of YAML as a manifest of names is made of: maps of words, two spaces deeper each.
fn yaml(lines: &mut std::iter::Peekable<std::str::Lines<'_>>, depth: usize) -> Value {
    let mut map = serde_json::Map::new();
    while let Some(line) = lines.next_if(|line| line.len() - line.trim_start().len() == depth) {
        let (key, value) = line.trim().split_once(':').unwrap_or_else(|| panic!("no map: {line:?}"));
        let value = if value.is_empty() { yaml(lines, depth + 2) } else { json!(value.trim()) };
        assert!(map.insert(key.to_owned(), value).is_none(), "{key} twice");
    }
    Value::Object(map)
}

#[test]
fn what_is_not_tried_is_well_formed_at_least() {
    need!(program("/usr/bin/python3"));
    let crio = Section::named("CRI-O");
    let tare = &toml(&crio.blocks[0])["crio"]["runtime"]["runtimes"]["tare"];
    assert_eq!((&tare["runtime_path"], &tare["runtime_type"]), (&json!(COMMAND), &json!("oci")));
    let buildkit = Section::named("BuildKit");
    let worker = &toml(&buildkit.blocks[0])["worker"];
    assert_eq!(worker["oci"]["binary"], json!(COMMAND));
    assert_eq!(worker["containerd"]["runtime"]["name"], json!("io.containerd.tare.v2"));
    let manifest = manifest();
    assert_eq!(
        (&manifest["apiVersion"], &manifest["kind"]),
        (&json!("node.k8s.io/v1"), &json!("RuntimeClass"))
    );
    // What runtimeClassName names, and what containerd calls its runtime.
    let class = Section::named("Kubernetes").code("runtimeClassName:");
    assert_eq!(
        class,
        format!("runtimeClassName: {}", manifest["metadata"]["name"].as_str().expect("a name"))
    );
}

fn manifest() -> Value {
    let kubernetes = Section::named("Kubernetes");
    let mut lines = kubernetes.blocks[0].trim_end().lines().peekable();
    let manifest = yaml(&mut lines, 0);
    assert_eq!(lines.next(), None, "a line that was not understood");
    manifest
}

/// Where `make install` puts them.
const COMMAND: &str = "/usr/local/sbin/tare";
const SHIM: &str = "/usr/local/bin/containerd-shim-tare-v2";

/// Where Debian has it.
const STOCK: &str = "/usr/bin/containerd-shim-runc-v2";

/// A machine on which only the commands named here are, and this is installed.
struct Machine(Sandbox);

impl Machine {
    /// `broken`: programs that end with 1 here, so that what works works without them.
    fn with_broken(broken: &[&str]) -> Self {
        let broken = broken.iter().map(|name| format!("mount --bind /bin/false \"$(command -v {name})\"; "));
        let setup = format!(
            "export PATH=/usr/sbin:/usr/bin:/sbin:/bin; {engines}
             mkdir $DIR/layers; mount -t tmpfs tmpfs $DIR/layers; mkdir $DIR/layers/upper $DIR/layers/work
             mount -t overlay -o lowerdir=/etc,upperdir=$DIR/layers/upper,workdir=$DIR/layers/work overlay /etc
             for dir in /usr/local /var/lib /opt; do mount -t tmpfs -o mode=755 tmpfs $dir; done
             install -D -m 755 '{command}' {COMMAND}; install -D -m 755 '{shim}' {SHIM}; {broken}",
            engines = engines(),
            command = runtime::path().display(),
            shim = shim::path().display(),
            broken = broken.collect::<String>(),
        );
        let sandbox = Sandbox::new(&setup);
        integration::busybox(&sandbox.path("rootfs"));
        Self(sandbox)
    }

    /// Writes a file where the README says.
    fn write(&self, path: &str, text: &str) {
        let file = self.0.outside(path);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        std::fs::write(file, text).expect("a file of configuration");
    }

    #[track_caller]
    fn call(&self, words: &[&str]) -> Outcome {
        call(self.0.command(words[0]).args(&words[1..]))
    }

    /// A daemon, by a line of shell: what it says is shown when the test fails.
    fn daemon(&self, line: &str) -> Daemon {
        let path = self.0.path("daemon.log");
        let log = std::fs::File::options().create(true).append(true).open(&path).expect("the log");
        let mut shell = self.0.command("sh");
        shell.args(["-c", line]).stdout(log.try_clone().expect("dup")).stderr(log);
        Daemon { process: shell.spawn().expect("the daemon"), log: path }
    }

    fn rootfs(&self) -> PathBuf {
        self.0.path("rootfs")
    }

    /// The programs of the shims that serve.
    fn shims(&self) -> Vec<String> {
        let processes = std::fs::read_dir(self.0.outside("/proc")).expect("/proc").flatten();
        let words = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        let shims = words.filter(|words| words.contains("\0-namespace\0"));
        shims.filter_map(|words| words.split('\0').next().map(str::to_owned)).collect()
    }

    /// One shim there is, and it is this program. A copy of it that executes a container's program is so for a moment.
    fn served_by(&self, program: &str) {
        eventually("one shim alone", || (self.shims().len() == 1).then_some(()));
        assert!(self.shims()[0].ends_with(program), "{:?}, not {program}", self.shims());
    }
}

struct Daemon {
    process: std::process::Child,
    log: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            log.lines().filter(|line| !line.contains("level=info")).for_each(|line| eprintln!("{line}"));
        }
        // The process here is the one that entered the sandbox, whose end ends the daemon.
        let ended = self.process.kill().and_then(|()| self.process.wait());
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// The first number of what `PROGRAM --version` says.
fn generation(machine: &Machine, program: &str) -> u32 {
    let version = machine.call(&[program, "--version"]).ok().out;
    let numbers = version.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|word| word.contains('.'));
    let number = numbers.filter_map(|word| word.split('.').next()?.parse().ok()).next();
    number.unwrap_or_else(|| panic!("no version: {version}"))
}

/// A configuration, and above its tables what a machine needs that lacks CAP_SYS_RESOURCE, AppArmor and controllers.
fn here(plugin: &str, block: &str) -> String {
    let (version, tables) = block.split_once('\n').expect("lines");
    format!(
        "{version}\n[plugins.{plugin}]\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
         tolerate_missing_hugetlb_controller = true\n{tables}"
    )
}

#[test]
fn containerd_as_it_is_written() {
    need!(root, program("containerd"), program("ctr"), program(shim::STOCK), program("busybox"));
    let old = Section::named("containerd 1.6 and 1.7");
    let [shim, command] = &old.blocks[..] else { panic!("two blocks: {:?}", old.blocks) };
    let machine = Machine::with_broken(&["runc", shim::STOCK]);
    if generation(&machine, "containerd") >= 2 {
        let new = Section::named("containerd 2");
        pod(&machine, &here("'io.containerd.cri.v1.runtime'", &new.blocks[0]), SHIM);
    } else {
        pod(&machine, &here("\"io.containerd.grpc.v1.cri\"", shim), SHIM);
        let machine = Machine::with_broken(&["runc"]);
        let lines: Vec<_> = shim.lines().collect();
        let block = format!("{}\n{command}", lines[..lines.len() - 2].join("\n"));
        pod(&machine, &here("\"io.containerd.grpc.v1.cri\"", &block), STOCK);
    }
    // The lines for `ctr`, without any configuration.
    for (line, program) in [
        ("ctr run --runtime io.containerd.tare.v2", SHIM),
        ("ctr run --runtime io.containerd.runc.v2 --runc-binary", STOCK),
    ] {
        let machine = Machine::with_broken(&["runc"]);
        let _daemon = machine.daemon("exec containerd");
        eventually("containerd answers", || (machine.call(&["ctr", "version"]).code == 0).then_some(()));
        let rootfs = machine.rootfs().to_string_lossy().into_owned();
        let cgroup = format!("{}/c", machine.0.cgroup);
        let line = old.command(line);
        let rest = [
            "--detach",
            "--env",
            "PATH=/bin",
            "--cgroup",
            &cgroup,
            "--rootfs",
            &rootfs,
            "c",
            "sleep",
            "1000",
        ];
        machine.call(&[&words(&line)[..], &rest].concat()).ok();
        machine.served_by(program);
        let exec =
            machine.call(&["ctr", "task", "exec", "--exec-id", "e", "c", "sh", "-c", "echo in; exit 3"]);
        assert_eq!((exec.code, exec.out.as_str()), (3, "in\n"), "{exec:?}");
        machine.call(&["ctr", "task", "rm", "--force", "c"]);
        eventually("no shim is left", || machine.shims().is_empty().then_some(()));
    }
}

/// A pod with one container, of the runtime class that the README's manifest names.
fn pod(machine: &Machine, configuration: &str, program: &str) {
    machine.write("/etc/containerd/config.toml", configuration);
    let _daemon = machine.daemon("exec containerd");
    let socket = machine.0.outside("/run/containerd/containerd.sock");
    eventually("containerd answers", || (machine.call(&["ctr", "version"]).code == 0).then_some(()));
    // What a pod's first process is made of.
    let dump = machine.call(&["containerd", "config", "dump"]).ok().out;
    let pause =
        dump.split(['"', '\'']).find(|word| word.contains("/pause:")).expect("the image of a sandbox");
    let archive = image::archive(machine.0.dir(), &machine.rootfs(), pause);
    machine.call(&["ctr", "--namespace", "k8s.io", "image", "import", &archive.to_string_lossy()]).ok();
    let ask = |method: &str, request: &Message| -> Fields {
        grpc::call(&socket, &format!("/runtime.v1.{method}"), request)
            .unwrap_or_else(|refusal| panic!("{method}: {refusal:?}"))
    };
    let image = Message::new().bytes(1, pause);
    eventually("the image is there", || {
        let status = ask("ImageService/ImageStatus", &Message::new().message(1, &image));
        (!status.message(1).is_empty()).then_some(())
    });
    // The namespaces of the node: a network of its own would need CNI.
    let node = Message::new().number(1, 2);
    let security = Message::new().message(1, &node);
    let pod_config = Message::new()
        .message(1, &Message::new().bytes(1, "pod").bytes(2, "uid").bytes(3, "default"))
        .bytes(3, "/run/pod-logs")
        .message(8, &Message::new().bytes(1, &machine.0.cgroup).message(2, &security));
    let handler = manifest()["handler"].as_str().expect("a handler").to_owned();
    let request = Message::new().message(1, &pod_config).bytes(2, &handler);
    let pod = ask("RuntimeService/RunPodSandbox", &request).text(1);
    let security = Message::new().message(2, &Message::new().message(3, &node));
    let config = Message::new()
        .message(1, &Message::new().bytes(1, "c"))
        .message(2, &image)
        .bytes(3, "sleep")
        .bytes(3, "1000")
        .message(15, &security);
    let request = Message::new().bytes(1, &pod).message(2, &config).message(3, &pod_config);
    let of = |id: &str| Message::new().bytes(1, id);
    let container = ask("RuntimeService/CreateContainer", &request).text(1);
    ask("RuntimeService/StartContainer", &of(&container));
    machine.served_by(program);
    let sync = of(&container).bytes(2, "echo").bytes(2, "hello").number(3, 20);
    assert_eq!(ask("RuntimeService/ExecSync", &sync).text(1), "hello\n");
    ask("RuntimeService/StopPodSandbox", &of(&pod));
    ask("RuntimeService/RemovePodSandbox", &of(&pod));
    eventually("no shim is left", || machine.shims().is_empty().then_some(()));
}

#[test]
fn docker_as_it_is_written() {
    need!(root, program("dockerd"), program("/usr/bin/docker"), program(shim::STOCK), program("busybox"));
    let docker = Section::named("Docker");
    let [path, by_type, in_place] = &docker.blocks[..] else { panic!("three blocks: {:?}", docker.blocks) };
    let run = docker.command("docker run --runtime tare");
    docker_runs(&["runc"], path, "exec dockerd", &words(&run), "containerd-shim-runc-v2");

    // For all containers.
    let mut all: Value = serde_json::from_str(path).expect("JSON");
    let added: Value =
        serde_json::from_str(&format!("{{{}}}", docker.code("\"default-runtime\""))).expect("JSON");
    all.as_object_mut().expect("a map").extend(added.as_object().expect("a map").clone());
    docker_runs(&["runc"], &all.to_string(), "exec dockerd", &["docker", "run"], "containerd-shim-runc-v2");

    let machine = Machine::with_broken(&[]);
    if generation(&machine, "dockerd") >= 23 {
        docker_runs(&["runc", shim::STOCK], by_type, "exec dockerd", &["docker", "run"], SHIM);
    } else {
        docker_runs(
            &["runc", shim::STOCK],
            path,
            in_place.trim_end(),
            &words(&run),
            "containerd-shim-runc-v2",
        );
    }
}

/// `line` starts the daemon; `run` is how a container is run.
fn docker_runs(broken: &[&str], configuration: &str, line: &str, run: &[&str], shim: &str) {
    let machine = Machine::with_broken(broken);
    machine.write("/etc/docker/daemon.json", configuration);
    let _daemon = dockerd(&machine, line);
    let rest = ["--detach", "--name", "held", "--network", "none", "box", "sleep", "1000"];
    machine.call(&[run, &rest].concat()).ok();
    machine.served_by(shim);
    let exec = machine.call(&["docker", "exec", "held", "sh", "-c", "echo in; exit 3"]);
    assert_eq!((exec.code, exec.out.as_str()), (3, "in\n"), "{exec:?}");
    let runtime =
        machine.call(&["docker", "inspect", "--format", "{{.HostConfig.Runtime}}", "held"]).ok().out;
    assert_eq!(runtime, "tare\n");
    machine.call(&["docker", "rm", "--force", "held"]).ok();
    eventually("no shim is left", || machine.shims().is_empty().then_some(()));
}

/// With an image, `box`. The network is not the runtime's.
fn dockerd(machine: &Machine, line: &str) -> Daemon {
    let parent = &machine.0.cgroup;
    let daemon = machine.daemon(&format!("{line} --bridge=none --iptables=false --cgroup-parent={parent}"));
    eventually("dockerd answers", || (machine.call(&["docker", "version"]).code == 0).then_some(()));
    let archive = machine.0.path("rootfs.tar");
    image::tar(&archive, &machine.rootfs());
    machine.call(&["docker", "import", "--change", "ENV PATH=/bin", &archive.to_string_lossy(), "box"]).ok();
    daemon
}

#[test]
fn buildkit_of_docker_as_it_is_written() {
    need!(root, program("dockerd"), program("/usr/bin/docker"), program("busybox"));
    let section = Section::named("Docker's own BuildKit");
    let machine = Machine::with_broken(&["runc"]);
    let _daemon = dockerd(&machine, section.blocks[0].trim_end());
    let context = machine.0.path("context");
    std::fs::create_dir(&context).expect("a directory");
    let steps =
        "FROM box\nRUN echo built > /made; cat /proc/self/cgroup >> /made\nCMD [\"cat\", \"/made\"]\n";
    std::fs::write(context.join("Dockerfile"), steps).expect("the Dockerfile");
    let line = section.command("DOCKER_BUILDKIT");
    let (environment, words) = line.split_first().expect("a command");
    let (name, value) = environment.split_once('=').expect("a variable");
    let mut build = machine.0.command(&words[0]);
    build.args(&words[1..]).args(["--network", "none", "--tag", "made"]).arg(&context).env(name, value);
    call(&mut build).ok();
    let made = machine.call(&["docker", "run", "--rm", "--network", "none", "made"]).ok().out;
    // The classic builder's cgroup is a container's.
    assert!(made.starts_with("built\n") && made.contains("/buildkit/"), "{made}");
}

#[test]
fn podman_as_it_is_written() {
    need!(root, program("podman"), program("conmon"), program("busybox"));
    let podman = Section::named("Podman");
    // Without other runtimes: one of them would be the default, for what is not told.
    let machine = Machine::with_broken(&["runc", "crun"]);
    machine.write("/etc/containers/containers.conf.d/tare.conf", &podman.blocks[0]);
    let archive = machine.0.path("rootfs.tar");
    image::tar(&archive, &machine.rootfs());
    let call = |words: &[&str]| {
        let mut command = machine.0.command("podman");
        call(command.args(["--runtime", "tare"]).args(words).stdin(Stdio::null()))
    };
    call(&["import", "--quiet", &archive.to_string_lossy(), "box"]).ok();
    let run = podman.command("podman --runtime tare run");
    let parent = format!("--cgroup-parent={}", machine.0.cgroup);
    // What has no CAP_SYS_RESOURCE cannot raise limits.
    let options = ["--network", "none", "--ulimit", "host"];
    let runs = |more: &[&str]| machine.call(&[&words(&run)[..], &options, more].concat());
    let out = runs(&["--rm", &parent, "box", "sh", "-c", "echo hello; exit 3"]);
    assert_eq!((out.code, out.out.as_str()), (3, "hello\n"), "{out:?}");
    let none = runs(&["--rm", "--cgroups=disabled", "box", "echo", "free"]).ok();
    assert_eq!(none.out, "free\n");
    // An error as JSON is read, and so has Docker's status.
    let wrong = runs(&["--rm", &parent, "box", "/no/such/program"]);
    assert_eq!(wrong.code, 127, "{wrong:?}");
    runs(&["--detach", "--name", "held", &parent, "box", "sleep", "1000"]).ok();
    assert_eq!(call(&["inspect", "--format", "{{.OCIRuntime}}", "held"]).ok().out, "tare\n");
    assert_eq!(call(&["exec", "held", "echo", "in"]).ok().out, "in\n");
    call(&["rm", "--force", "--time", "0", "held"]).ok();
}
