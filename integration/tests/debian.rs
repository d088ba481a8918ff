//! A whole Debian system as the container: what a person does with it, by a shell, a terminal and pipes.

use std::fs::File;
use std::io::{Read, Write};

use integration::terminal::ConsoleSocket;
use integration::{Container, call, eventually, need};
use serde_json::json;

#[test]
fn a_shell_on_a_terminal() {
    need!(root, program("mmdebstrap"));
    let container = Container::debian(&["bash"]);
    container.configure(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({ "height": 31, "width": 99 });
        config["hostname"] = json!("debian");
    });
    let socket = ConsoleSocket::new(container.dir());
    let path = socket.path.to_string_lossy().into_owned();
    container.call("create", &["--console-socket", &path]).ok();
    let mut terminal = socket.terminal();
    container.call("start", &[]).ok();

    terminal.expect("root@debian:/# ");
    for (line, answer) in [
        ("tty", "/dev/pts/0"),
        ("stty size", "31 99"),
        ("echo $((6 * 7))", "42"),
        ("cat /etc/debian_version", "12."),
        ("ps -o stat= -p $$ 2>/dev/null || echo S", "S"),
    ] {
        terminal.send(line);
        terminal.expect(answer);
        terminal.expect("root@debian:/# ");
    }
    // Job control: the shell leads the session of its terminal, so ^C reaches what runs in front.
    terminal.send("sleep 100");
    std::thread::sleep(std::time::Duration::from_millis(200));
    terminal.press(b'C');
    terminal.expect("^C");
    terminal.expect("root@debian:/# ");
    terminal.send("echo status $?");
    terminal.expect("status 130");
    terminal.send("exit 3");
    terminal.rest();
    eventually("the shell has ended", || (container.state()["status"] == "stopped").then_some(()));
}

#[test]
fn exec_with_a_terminal_of_its_own() {
    need!(root, program("mmdebstrap"));
    let container = Container::debian(&["sleep", "1000"]);
    container.call("run", &["--detach"]).ok();
    let socket = ConsoleSocket::new(container.dir());
    let path = socket.path.to_string_lossy().into_owned();
    let options = ["--tty", "--detach", "--console-socket", &path];
    call(container.command("exec", &options).args(["sh", "-c", "tty; read line; echo got $line"])).ok();
    let mut terminal = socket.terminal();
    terminal.expect("/dev/pts/0");
    terminal.send("this");
    terminal.expect("got this");
    terminal.rest();
}

#[test]
fn apt_get_runs() {
    need!(root, program("mmdebstrap"));
    let container = Container::debian(&["apt-get", "--version"]);
    let run = container.call("run", &[]).ok();
    assert!(run.out.starts_with("apt 2."), "{run:?}");
    container.configure(|config| config["process"]["args"] = json!(["dpkg", "--audit"]));
    assert_eq!(container.call("run", &[]).ok().out, "");
}

#[test]
fn a_mebibyte_goes_in_and_comes_out_intact() {
    need!(root, program("mmdebstrap"));
    let container = Container::debian(&["cat"]);
    // No period that a lost or repeated block could hide behind.
    let mut state = 1_u64;
    let data: Vec<u8> = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    for verb in ["run", "exec"] {
        let mut command = container.command("run", &[]);
        if verb == "exec" {
            container.configure(|config| config["process"]["args"] = json!(["sleep", "1000"]));
            container.call("run", &["--detach"]).ok();
            command = container.command("exec", &[]);
            command.arg("cat");
        }
        let (input, mut writer) = std::io::pipe().expect("pipe");
        let (mut reader, output) = std::io::pipe().expect("pipe");
        let mut child = command.stdin(input).stdout(output).spawn().expect("the runtime");
        // The command holds the container's ends of the pipes.
        drop(command);
        let (sent, received) = std::thread::scope(|scope| {
            let sent = scope.spawn(|| {
                let result = writer.write_all(&data);
                drop(writer);
                result
            });
            let mut received = Vec::new();
            reader.read_to_end(&mut received).expect("read");
            (sent.join().expect("the writer"), received)
        });
        sent.expect("write");
        assert!(received == data, "{verb}: {} of {} bytes came back, or others", received.len(), data.len());
        assert!(child.wait().expect("wait").success());
    }
}

#[test]
fn the_exit_status_is_the_programs() {
    need!(root, program("mmdebstrap"));
    let container = Container::debian(&[]);
    for (script, code) in
        [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("no-such-program", 127), ("/etc/passwd", 126)]
    {
        container.configure(|config| config["process"]["args"] = json!(["sh", "-c", script]));
        assert_eq!(container.call("run", &[]).code, code, "{script}");
    }
    // The first process of a container ignores what it does not catch (pid_namespaces(7)); the one that it waits for does not.
    for signal in [1, 9, 15] {
        container.configure(|config| {
            config["process"]["args"] = json!(["sh", "-c", format!("sh -c 'kill -{signal} $$'; exit $?")]);
        });
        assert_eq!(container.call("run", &[]).code, 128 + signal, "signal {signal}");
    }
}

#[test]
fn a_signal_from_outside_is_128_and_the_signal() {
    need!(root, program("mmdebstrap"));
    let container = Container::debian(&["sleep", "1000"]);
    let mut run = container.command("run", &[]).spawn().expect("run");
    eventually("the container runs", || {
        let state = container.call("state", &[]);
        state.out.contains("\"status\": \"running\"").then_some(())
    });
    let exec = container.command("exec", &[]).args(["sh", "-c", "kill -KILL $$"]).status().expect("exec");
    assert_eq!(exec.code(), Some(128 + 9));
    container.kill("KILL").ok();
    assert_eq!(run.wait().expect("wait").code(), Some(128 + 9));
}

#[test]
fn a_program_that_cannot_be_run_is_an_error() {
    need!(root, program("mmdebstrap"));
    let container = Container::debian(&[]);
    for (program, why) in [
        ("/no/such", "no such file or directory"),
        ("no-such", "executable file not found in $PATH"),
        ("/etc/passwd", "permission denied"),
    ] {
        container.configure(|config| config["process"]["args"] = json!([program]));
        let refused = container.call("run", &[]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains(program) && refused.err.contains(why), "{refused:?}");
        assert_eq!(refused.out, "");
    }
}

#[test]
fn output_to_a_file_is_complete() {
    need!(root, program("mmdebstrap"));
    let container = Container::debian(&["sh", "-c", "seq 100000; seq 100000 >&2"]);
    let (out, err) = (container.dir().join("out"), container.dir().join("err"));
    let mut run = container.command("run", &[]);
    run.stdout(File::create(&out).expect("out")).stderr(File::create(&err).expect("err"));
    assert!(run.status().expect("run").success());
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    for path in [out, err] {
        assert!(std::fs::read_to_string(&path).expect("output") == expected, "{}", path.display());
    }
}
