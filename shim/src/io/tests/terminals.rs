//! Terminals.

use super::*;

// Terminals

#[test]
fn all_bytes_of_a_terminal_arrive() {
    let client = Client::new();
    let file = format!("file://{}", client.name("file"));
    let logger = format!("binary://{}", client.script("logger", CAT));
    for (output, result) in [(client.name("stdout"), "stdout"), (file, "file"), (logger, "out")] {
        let mut stdio = starting(|| Stdio::open(&terminal("", &output))).unwrap();
        wait(&mut stdio, Stdio::is_ready);
        let slave = attach(&mut stdio);
        let reader = (result == "stdout").then(|| receive(client.reader("stdout")));
        serve_while(&mut stdio, send(MUCH, slave));
        stdio.process_ended().unwrap();
        wait(&mut stdio, Stdio::is_drained);
        let ended = client.path("ended");
        let got = match reader {
            Some(reader) => reader.join().unwrap(),
            None => {
                wait(&mut stdio, |_| result == "file" || ended.exists());
                Got::all_of(client.reader(result))
            }
        };
        assert_eq!(got, MUCH, "{output}");
        stdio.close().unwrap();
        wait(&mut stdio, Stdio::is_closed);
    }
}

#[test]
fn all_bytes_of_the_input_reach_a_terminal() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal(&client.name("stdin"), "")).unwrap();
    let mut slave = attach(&mut stdio);
    let sent = MUCH / 10;
    let container = spawn(move || {
        let (mut got, mut buffer) = (Got::default(), vec![0; 4096]);
        while got.0 < sent {
            let count = slave.read(&mut buffer).unwrap();
            got.add(&buffer[..count]);
            // A reader that is slower than the writer.
            if got.0 % 7 == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        (got.0, slave)
    });
    let writer = send(sent, client.writer("stdin"));
    let (got, _slave) = serve_while(&mut stdio, container);
    writer.join().unwrap();
    assert_eq!(got, sent);
}

#[test]
fn a_terminal_whose_reader_has_stopped_waits_and_loses_nothing() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal("", &client.name("stdout"))).unwrap();
    let mut slave = attach(&mut stdio);
    fcntl(&slave, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (mut source, mut written, mut pending) = (bytes(usize::MAX), 0, [0; 512]);
    let (mut idle, limit) = (0, Instant::now() + Duration::from_secs(60));
    // As if it wrote for ever: what is taken is what the terminal and the FIFO hold. How fast bytes come through the
    // terminal is the kernel's affair, but the FIFO is full in the end.
    let fifo = nonblocking(&client.path("stdout"), true);
    let takes_more = |idle| idle < 20 || pump::has_room(fifo.as_fd(), "stdout").unwrap();
    while takes_more(idle) {
        stdio.ready().unwrap();
        source.read_exact(&mut pending).unwrap();
        let mut rest = &pending[..];
        idle = 0;
        while !rest.is_empty() && takes_more(idle) {
            match slave.write(rest) {
                Ok(count) => {
                    written += count;
                    rest = &rest[count..];
                    idle = 0;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    idle += 1;
                    assert!(Instant::now() < limit, "it takes {written} bytes");
                    std::thread::sleep(Duration::from_millis(5));
                    stdio.ready().unwrap();
                }
            }
        }
    }
    assert!(written < 300_000, "{written} bytes were taken");
    drop((slave, fifo));
    stdio.process_ended().unwrap();
    assert!(!stdio.is_drained());
    let reader = receive(client.reader("stdout"));
    let got = serve_while(&mut stdio, reader);
    assert_eq!(got, written);
    assert!(stdio.is_drained());
}

#[test]
fn a_terminal_that_is_closed_by_all_can_be_opened_again() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal("", &client.name("stdout"))).unwrap();
    let mut slave = attach(&mut stdio);
    let name = fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
    let mut reader = nonblocking(&client.path("stdout"), false);
    let mut text = String::new();
    for words in ["one ", "two ", "three"] {
        slave.write_all(words.as_bytes()).unwrap();
        drop(slave);
        wait(&mut stdio, |_| {
            let mut buffer = [0; 64];
            if let Ok(count) = reader.read(&mut buffer) {
                text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            }
            text.ends_with(words)
        });
        rest(&mut stdio);
        slave = open_terminal(&name);
    }
    assert_eq!(text, "one two three");
}

#[test]
fn at_the_end_of_its_process_a_terminal_is_drained_though_others_have_it_open() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal("", &client.name("stdout"))).unwrap();
    let mut slave = attach(&mut stdio);
    let mut reader = client.reader("stdout");
    slave.write_all(b"last words").unwrap();
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
}

#[test]
fn a_terminals_size_is_set() {
    let mut stdio = Stdio::open(&terminal("", "")).unwrap();
    stdio.resize(1, 1).unwrap();
    let slave = attach(&mut stdio);
    stdio.resize(132, 43).unwrap();
    let size = crate::sys::io::terminal_size(slave.as_fd()).unwrap();
    assert_eq!(size, (132, 43));
}

#[test]
fn a_terminal_is_hung_up_when_its_input_has_ended() {
    let client = Client::new();
    let mut stdio = Stdio::open(&terminal(&client.name("stdin"), &client.name("stdout"))).unwrap();
    let mut slave = attach(&mut stdio);
    let mut reader = client.reader("stdout");
    slave.write_all(b"prompt").unwrap();
    // A client that goes away is no end, only CloseIO after it is.
    let mut writer = client.writer("stdin");
    writer.write_all(b"x").unwrap();
    drop(writer);
    let mut byte = [0];
    let container = spawn(move || {
        slave.read_exact(&mut byte).unwrap();
        slave
    });
    let mut slave = serve_while(&mut stdio, container);
    stdio.ready().unwrap();
    assert!(!stdio.is_drained());
    stdio.close_stdin();
    wait(&mut stdio, Stdio::is_drained);
    let mut all = Vec::new();
    // Hung up: no more to read.
    assert!(slave.read_to_end(&mut all).map_or(true, |count| count == 0));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "prompt");
}

#[test]
fn a_runtime_that_sends_no_terminal_is_an_error() {
    let mut stdio = Stdio::open(&terminal("", "")).unwrap();
    let Some(Given::ConsoleSocket(path)) = stdio.take_given() else { panic!("no console") };
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    let error = stdio.attach().unwrap_err().to_string();
    assert!(error.contains("no terminal"), "{error}");
    assert!(!path.parent().unwrap().exists());
}
