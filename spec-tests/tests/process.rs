//! config.md, process: arguments, environment, working directory, terminal; and what a process must not inherit.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use spec_tests::call::{LIMIT, call, through_shell};
use spec_tests::socket::Listener;
use spec_tests::terminal::Terminal;
use spec_tests::{Bundle, Container, Value, crun, differs, json, need, runc, runc_before};

/// The first of the words through a script, for descriptors and signals that the caller has.
fn run_through_shell(container: &Container, script: &str, options: &[&str]) -> spec_tests::Output {
    let mut command = container.command(["run", "--bundle"]);
    command.arg(container.bundle_path()).args(options).arg(container.id());
    call(through_shell(&command, script))
}

#[test]
fn arguments_arrive_as_they_are() {
    need!(root);
    let args =
        ["/probe", "facts", ",", "print", "", ",", "print", " a b ", ",", "print", "Zürich\n\t\"'\\$HOME"];
    let out = Bundle::new().args(args).run().ok();
    let (facts, rest) = out.stdout.split_once('\n').unwrap();
    let facts: Value = serde_json::from_str(facts).unwrap();
    assert_eq!(facts["args"], json!(args));
    assert_eq!(rest, "\n a b \nZürich\n\t\"'\\$HOME\n");
}

#[test]
fn the_environment_is_what_is_configured_and_home() {
    need!(root);
    let container = Bundle::new()
        .process(|p| p["env"] = json!(["A=1", "EMPTY=", "EQUALS=a=b", "LINES=a\nb"]))
        .container();
    let mut command = container.command(["run", "--bundle"]);
    command.arg(container.bundle_path()).arg(container.id()).env("OF_THE_CALLER", "1");
    let facts = call(command).ok().json();
    let mut env: BTreeMap<String, Value> = serde_json::from_value(facts["env"].clone()).unwrap();
    env.remove("HOME");
    let expected = json!({ "A": "1", "EMPTY": "", "EQUALS": "a=b", "LINES": "a\nb" });
    assert_eq!(json!(env), expected);
}

#[test]
fn the_last_of_two_variables_of_a_name_counts() {
    need!(root);
    let out = Bundle::new()
        .process(|p| p["env"] = json!(["A=first", "B=1", "A=last"]))
        .probe(["try", "read", "/proc/self/environ"])
        .run()
        .ok()
        .json();
    let environ = out["ok"].as_str().unwrap();
    let a: Vec<&str> = environ.split('\0').filter(|v| v.starts_with("A=")).collect();
    assert_eq!(a.last(), Some(&"A=last"), "{environ:?}");
}

#[test]
fn a_program_without_a_slash_is_looked_up_in_the_path_of_the_container() {
    need!(root);
    let facts = Bundle::new()
        .rootfs(|r| {
            fs::create_dir_all(r.join("opt/bin")).unwrap();
            fs::create_dir_all(r.join("first")).unwrap();
            // Not executable, so the search goes on.
            fs::write(r.join("first/program"), "").unwrap();
            symlink("/probe", r.join("opt/bin/program")).unwrap();
        })
        .process(|p| p["env"] = json!(["PATH=/nowhere:/first:/opt/bin"]))
        .args(["program", "facts"])
        .facts();
    assert_eq!(facts["args"], json!(["program", "facts"]));
    assert_eq!(facts["exe"], "/probe");
}

#[test]
fn a_program_with_a_slash_is_relative_to_the_working_directory() {
    need!(root);
    let facts = Bundle::new()
        .rootfs(|r| symlink("/probe", r.join("data/program")).unwrap())
        .process(|p| p["cwd"] = json!("/data"))
        .args(["./program", "facts"])
        .facts();
    assert_eq!(facts["cwd"], "/data");
}

#[test]
fn a_script_runs_with_its_interpreter() {
    need!(root);
    let out = Bundle::new()
        .rootfs(|r| {
            fs::write(r.join("script"), "#!/probe print\n").unwrap();
            fs::set_permissions(r.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        })
        .args(["/script"])
        .run()
        .ok();
    assert_eq!(out.stdout, "/script\n");
}

#[test]
fn the_working_directory_is_set_through_links_of_the_container() {
    need!(root);
    let facts = Bundle::new()
        .rootfs(|r| symlink("/data", r.join("link")).unwrap())
        .process(|p| p["cwd"] = json!("/link"))
        .facts();
    assert_eq!(facts["cwd"], "/data");
}

#[test]
fn a_missing_working_directory_is_made() {
    need!(root);
    let facts = Bundle::new().process(|p| p["cwd"] = json!("/data/some/where")).facts();
    assert_eq!(facts["cwd"], "/data/some/where");
}

#[test]
fn the_process_leads_its_session_and_has_a_clean_start() {
    need!(root);
    let facts = Bundle::new().facts();
    for (fact, expected) in [
        ("pid", json!(1)),
        ("ppid", json!(0)),
        ("sid", json!(1)),
        ("pgid", json!(1)),
        ("tracer", json!(0)),
        ("parent_death_signal", json!(0)),
        ("ignored", json!([])),
        ("blocked", json!([])),
        ("dumpable", json!(1)),
        ("seccomp", json!(0)),
    ] {
        assert_eq!(facts[fact], expected, "{fact}");
    }
}

/// What the runtime itself blocks or ignores (Rust's start ignores SIGPIPE) survives execve.
#[test]
fn no_signal_is_ignored_or_blocked_in_any_way_to_start_a_process() {
    need!(root);
    let container = Bundle::new().probe(["facts", ",", "wait"]).start();
    container.wait_for_stdout("ready");
    let created: Value = serde_json::from_str(container.stdout().lines().next().unwrap()).unwrap();
    let executed = container.exec(["facts"]).ok().json();
    for facts in [created, executed] {
        assert_eq!((&facts["ignored"], &facts["blocked"]), (&json!([]), &json!([])));
        assert_eq!(facts["parent_death_signal"], 0);
    }
}

fn numbers(facts: &Value) -> Vec<&str> {
    facts["fds"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn only_the_three_standard_descriptors_are_passed() {
    need!(root);
    let container = Bundle::new().container();
    let facts =
        run_through_shell(&container, "exec \"$@\" 3</etc/hostname 5</etc/passwd 9</", &[]).ok().json();
    assert_eq!(numbers(&facts), ["0", "1", "2"]);
}

#[test]
fn exec_passes_only_the_three_standard_descriptors() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).start();
    let mut command = container.command(["exec"]);
    command.args([container.id(), "/probe", "facts"]);
    let facts = call(through_shell(&command, "exec \"$@\" 3</etc/hostname 7</")).ok().json();
    assert_eq!(numbers(&facts), ["0", "1", "2"]);
}

#[test]
fn preserve_fds_passes_so_many_descriptors_from_3_on() {
    need!(root);
    let container = Bundle::new().container();
    fs::write(container.dir().join("three"), "").unwrap();
    fs::write(container.dir().join("four"), "").unwrap();
    let facts =
        run_through_shell(&container, "exec \"$@\" 3<three 4<four 5</etc/passwd", &["--preserve-fds", "2"])
            .ok()
            .json();
    assert_eq!(numbers(&facts), ["0", "1", "2", "3", "4"]);
    assert!(facts["fds"]["3"].as_str().unwrap().ends_with("three"), "{}", facts["fds"]);
    assert!(facts["fds"]["4"].as_str().unwrap().ends_with("four"), "{}", facts["fds"]);
}

#[test]
fn preserve_fds_of_a_descriptor_that_is_not_open_is_refused() {
    need!(root);
    let container = Bundle::new().container();
    let out = run_through_shell(&container, "exec \"$@\" 3<&- 4<&-", &["--preserve-fds=2"]);
    differs([runc("finds descriptors of its own there"), crun("passes none")], || {
        out.fails(1);
    });
    assert_eq!(container.remains(), Vec::<String>::new());
}

#[test]
fn listen_fds_are_passed_with_their_variables() {
    need!(root);
    let container = Bundle::new().container();
    fs::write(container.dir().join("three"), "").unwrap();
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<three 4</etc/passwd";
    let facts = run_through_shell(&container, script, &[]).ok().json();
    assert_eq!(numbers(&facts), ["0", "1", "2", "3"]);
    differs([crun("sets no variables")], || {
        assert_eq!(facts["env"]["LISTEN_FDS"], "1");
        assert_eq!(facts["env"]["LISTEN_PID"], "1");
    });
}

#[test]
fn listen_fds_for_another_process_are_not_passed() {
    need!(root);
    let container = Bundle::new().container();
    let facts = run_through_shell(&container, "LISTEN_PID=1 LISTEN_FDS=1 exec \"$@\" 3</etc/passwd", &[]);
    let facts = facts.ok().json();
    differs([crun("does not look at LISTEN_PID")], || {
        assert_eq!(numbers(&facts), ["0", "1", "2"]);
        assert_eq!(facts["env"]["LISTEN_FDS"], json!(null));
    });
}

fn in_terminal(size: Value) -> Bundle {
    Bundle::new().process(|p| {
        p["terminal"] = json!(true);
        p["consoleSize"] = size;
    })
}

/// `create` with a console socket, and what came over it.
fn with_console(bundle: Bundle) -> (Container, Terminal, Vec<u8>) {
    let mut container = bundle.container();
    let path = container.dir().join("console");
    let listener = Listener::bind(&path);
    container.create_with(["--console-socket", path.to_str().unwrap()]).silent();
    let (name, mut fds) = listener.receive();
    assert_eq!(fds.len(), 1, "one descriptor");
    (container, Terminal::from(fds.remove(0)), name)
}

#[test]
fn a_terminal_is_the_controlling_one_with_the_configured_size() {
    need!(root);
    let (container, mut master, name) = with_console(in_terminal(json!({ "height": 33, "width": 121 })));
    assert!(!name.is_empty() && name.len() < 4096, "conmon refuses an empty name");
    let target = fs::read_link(format!("/proc/self/fd/{}", master.as_fd().as_raw_fd())).unwrap();
    assert!(target.to_str().unwrap().ends_with("ptmx"), "{target:?}");
    container.start().silent();
    let facts: Value = serde_json::from_str(master.read_all()).unwrap();
    let tty = &facts["tty"];
    for fact in ["stdin", "stdout", "stderr", "controlling"] {
        assert_eq!(tty[fact], true, "{fact}");
    }
    assert_eq!(tty["size"], json!([33, 121]));
    // /dev/pts/0, which crun shows by its other name /dev/console.
    assert!(["/dev/pts/0", "/dev/console"].contains(&tty["name"].as_str().unwrap()), "{tty}");
    assert_eq!(numbers(&facts), ["0", "1", "2"]);
}

#[test]
fn a_terminal_has_a_console_device_and_works_both_ways() {
    need!(root);
    let bundle = in_terminal(json!(null)).probe(["try", "stat", "/dev/console", ",", "wait"]);
    let (container, mut master, _) = with_console(bundle);
    container.start().silent();
    let text = master.read_until("ready").to_owned();
    let stat: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(stat["ok"]["type"], "char");
    // Major 136 is that of a pty's slave.
    assert_eq!(stat["ok"]["device"][0], 136);
    // ^C reaches the foreground process group.
    master.write(b"\x03");
    assert!(master.read_all().contains("signal 2"));
}

#[test]
fn the_settings_of_a_terminal_are_left_to_the_holder_of_the_master() {
    need!(root);
    let (container, mut master, _) = with_console(in_terminal(json!(null)).probe(["print", "a\nb"]));
    container.start().silent();
    assert_eq!(master.read_all(), "a\r\nb\r\n");
}

/// `run` in the foreground copies between two terminals; each newline gets one carriage return, not two.
#[test]
fn a_terminal_in_the_foreground_is_copied_and_has_the_size_of_the_callers() {
    need!(root);
    let size = nix::pty::Winsize { ws_row: 22, ws_col: 88, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let container = in_terminal(json!(null))
        .probe(["print", "a\nb", ",", "sleep", "0.2", ",", "facts", ",", "exit", "5"])
        .container();
    let mut command = container.command(["run", "--bundle"]);
    command.arg(container.bundle_path()).arg(container.id());
    let slave = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    // The command holds copies of the slave.
    drop(command);
    let mut master = Terminal::from(pty.master);
    let text = master.read_until("}\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let facts = text.strip_prefix("a\r\nb\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let facts: Value = serde_json::from_str(facts).unwrap();
    differs([crun("sets no size")], || assert_eq!(facts["tty"]["size"], json!([22, 88])));
    // Raw mode is taken back.
    assert_eq!(nix::sys::termios::tcgetattr(&pty.slave).unwrap(), before);
}

#[test]
fn a_terminal_belongs_to_the_user_of_the_process() {
    need!(root);
    let bundle = in_terminal(json!(null))
        .process(|p| p["user"] = json!({ "uid": 1000, "gid": 1000 }))
        .probe(["try", "stat", "/dev/pts/0", ",", "try", "open", "/dev/tty", "rw"]);
    let (container, mut master, _) = with_console(bundle);
    container.start().silent();
    let text = master.read_all();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["ok"]["uid"], 1000);
    assert_eq!(lines[1], json!({ "ok": true }));
}

#[test]
fn exec_in_a_terminal_of_its_own() {
    need!(root);
    // With the latter, tare's process comes to be when its terminal is there already.
    for capability in ["CAP_CHOWN", "CAP_SYS_PTRACE"] {
        let container = Bundle::new().capabilities([capability]).probe(["wait"]).start();
        let path = container.dir().join("console");
        let listener = Listener::bind(&path);
        let mut command = container.command(["exec", "--tty", "--detach", "--console-socket"]);
        command.arg(&path).args([container.id(), "/probe", "facts"]);
        call(command).ok();
        let (_, mut fds) = listener.receive();
        let facts: Value = serde_json::from_str(Terminal::from(fds.remove(0)).read_all()).unwrap();
        for fact in ["controlling", "stdin", "stdout", "stderr"] {
            assert_eq!(facts["tty"][fact], true, "{capability}: {fact}");
        }
        assert_eq!(numbers(&facts), ["0", "1", "2"]);
    }
}

#[test]
fn a_terminal_without_a_console_socket_is_refused_when_detached() {
    need!(root);
    let out = in_terminal(json!(null)).create_fails();
    differs([crun("its own words, which no engine reads")], || {
        out.says("cannot allocate tty if ").says(" will detach without setting console socket");
    });
}

#[test]
fn a_console_socket_without_a_terminal_is_refused() {
    need!(root);
    let mut container = Bundle::new().container();
    let path = container.dir().join("console");
    let _listener = Listener::bind(&path);
    let out = container.create_with(["--console-socket", path.to_str().unwrap()]);
    differs([crun("leaves the socket alone")], || {
        out.fails(1).says("cannot use console socket if ").says(" will not detach or allocate tty");
    });
}

#[test]
fn a_console_socket_that_does_not_answer_is_an_error_and_leaves_nothing() {
    need!(root);
    let mut container = in_terminal(json!(null)).container();
    container.create_with(["--console-socket", "/nowhere/socket"]).fails(1);
    container.delete_by_force();
    assert_eq!(container.remains(), Vec::<String>::new());
}

#[test]
fn a_pidfd_socket_gets_the_pidfd_of_init() {
    need!(root);
    differs([runc_before("1.2", "has no --pidfd-socket"), crun("has no --pidfd-socket")], || {
        let mut container = Bundle::new().probe(["wait"]).container();
        let path = container.dir().join("pidfd");
        let listener = Listener::bind(&path);
        container.create_with(["--pidfd-socket", path.to_str().unwrap()]).silent();
        let (message, fds) = listener.receive();
        assert_eq!(message, b"standard");
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fds[0].as_raw_fd())).unwrap();
        assert!(info.contains(&format!("Pid:\t{}\n", container.pid())), "{info}");
    });
}

/// sd_notify(3): the runtime relays READY=1, tells the main process by its pid on the host, and then returns.
#[test]
fn readiness_is_relayed_to_the_notify_socket_of_the_caller() {
    need!(root);
    differs([crun("has the socket elsewhere and tells no MAINPID")], || {
        let mut container = Bundle::new()
            .probe([
                "sleep",
                "0.1",
                ",",
                "try",
                "send",
                "/run/notify/notify.sock",
                "READY=1\n",
                ",",
                "facts",
                ",",
                "wait",
            ])
            .container();
        let path = container.dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        // Read at once: the runtime may send BARRIER=1 with a descriptor, and wait until the receiver closes it.
        let reader = std::thread::spawn(move || {
            let (mut text, mut part) = (String::new(), [0; 4096]);
            while !(text.contains("READY=1") && text.contains("MAINPID=") && text.contains("BARRIER=1")) {
                let Ok(n) = socket.recv(&mut part) else { break };
                text += std::str::from_utf8(&part[..n]).unwrap();
                text.push('\n');
            }
            text
        });
        let mut command = container.command(["run", "--detach", "--bundle"]);
        command.arg(container.bundle_path()).arg(container.id()).env("NOTIFY_SOCKET", &path);
        container.create_by(command).ok();
        let text = reader.join().unwrap();
        assert!(text.contains(&format!("MAINPID={}\n", container.pid())), "{text}");
        container.wait_for_stdout("ready");
        let facts: Value = serde_json::from_str(container.stdout().lines().nth(1).unwrap()).unwrap();
        assert_eq!(facts["env"]["NOTIFY_SOCKET"], "/run/notify/notify.sock");
    });
}

#[test]
fn the_session_keyring_is_new_and_named_after_the_container() {
    need!(root);
    let bundle = Bundle::new();
    let name = format!(";_ses.{}", bundle.id());
    let facts = bundle.facts();
    differs([crun("the id alone")], || {
        assert!(facts["keyring"].as_str().unwrap().ends_with(&name), "{}", facts["keyring"]);
    });
}

#[test]
fn no_new_keyring_keeps_that_of_the_caller() {
    need!(root);
    let container = Bundle::new().container();
    let facts = container.run_with(["--no-new-keyring"]).ok().json();
    assert!(!facts["keyring"].to_string().contains(container.id()), "{}", facts["keyring"]);
}

/// As runc: with the rights of the caller, or else with those of the user (a home on NFS).
#[test]
fn a_working_directory_is_entered_by_whoever_may() {
    need!(root);
    for owner in [0, 1000] {
        let home = move |r: &Path| {
            fs::create_dir(r.join("home")).unwrap();
            chown(r.join("home"), Some(owner), Some(owner)).unwrap();
            fs::set_permissions(r.join("home"), fs::Permissions::from_mode(0o700)).unwrap();
        };
        let change = |p: &mut Value| {
            p["cwd"] = json!("/home");
            p["user"] = json!({ "uid": 1000, "gid": 1000 });
            p["capabilities"] = json!({});
        };
        let facts = Bundle::new().rootfs(home).process(change).facts();
        assert_eq!(facts["cwd"], "/home", "of {owner}");
        let container = Bundle::new().rootfs(home).process(change).probe(["wait"]).start();
        differs([crun("is in / instead")], || {
            assert_eq!(container.exec(["facts"]).ok().json()["cwd"], "/home", "of {owner}");
        });
    }
}
