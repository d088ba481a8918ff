//! FIFOs, with and without a pipe between.

use super::*;

// FIFOs

#[test]
fn all_bytes_of_both_outputs_arrive_in_fifos() {
    let client = Client::new();
    let (mut stdio, [_, out, err]) =
        open(&request("", &client.name("stdout"), &format!("fifo://{}", client.name("stderr"))));
    assert!(stdio.poll_fd().is_none(), "nothing is to be waited for");
    let readers = ["stdout", "stderr"].map(|name| receive(client.reader(name)));
    for writer in [send(MUCH, out), send(MUCH / 10, err)] {
        writer.join().unwrap();
    }
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained());
    let sums = readers.map(|reader| reader.join().unwrap());
    assert_eq!(sums, [MUCH, MUCH / 10]);
}

#[test]
fn all_bytes_of_stdin_arrive_and_end_when_both_sides_have_closed_it() {
    let client = Client::new();
    let (mut stdio, [stdin, ..]) = open(&request(&client.name("stdin"), "", ""));
    let container = receive(stdin);
    // One writer leaves and another comes: that is no end.
    send(MUCH / 2, client.writer("stdin")).join().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!container.is_finished());
    let writer = client.writer("stdin");
    stdio.close_stdin();
    let rest = Bytes { position: MUCH / 2, end: MUCH };
    send_bytes(rest, writer).join().unwrap();
    assert_eq!(container.join().unwrap(), MUCH);
}

#[test]
fn a_reader_that_leaves_is_no_error_and_another_goes_on() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open(&request("", &client.name("stdout"), ""));
    let mut first = client.reader("stdout");
    out.write_all(b"one").unwrap();
    let mut got = [0; 3];
    first.read_exact(&mut got).unwrap();
    drop(first);
    out.write_all(b" two").unwrap();
    let mut second = client.reader("stdout");
    out.write_all(b" three").unwrap();
    drop(out);
    stdio.process_ended().unwrap();
    let mut rest = String::new();
    second.read_to_string(&mut rest).unwrap();
    assert_eq!((&got, rest.as_str()), (b"one", " two three"));
}

#[test]
fn what_nobody_has_read_at_the_end_is_kept_for_a_reader_to_come() {
    let client = Client::new();
    let (mut stdio, [_, mut out, mut err]) =
        open(&request("", &client.name("stdout"), &client.name("stderr")));
    out.write_all(b"last words").unwrap();
    err.write_all(b"and a complaint").unwrap();
    // No copy of the shim's own end is taken for a reader.
    let closed = nothing_starts();
    drop((out, err));
    stdio.process_ended().unwrap();
    drop(closed);
    for (name, words) in [("stderr", "and a complaint"), ("stdout", "last words")] {
        // Opened as clients do: it would wait for a writer if there were none.
        let mut reader = client.reader(name);
        let read = spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(serve_while(&mut stdio, read), words);
    }
}

#[test]
fn a_slow_reader_sees_the_end_without_being_waited_for() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open(&request("", &client.name("stdout"), ""));
    let mut reader = client.reader("stdout");
    out.write_all(b"unread").unwrap();
    drop(out);
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained() && stdio.poll_fd().is_none());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "unread");
}

#[test]
fn the_containers_end_blocks_and_the_clients_flags_are_its_own() {
    let client = Client::new();
    let (_stdio, [stdin, out, _]) = open(&request(&client.name("stdin"), &client.name("stdout"), ""));
    for (end, mode) in [(&stdin, libc::O_RDONLY), (&out, libc::O_WRONLY)] {
        let flags = fcntl(end, FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & (libc::O_NONBLOCK | libc::O_ACCMODE), mode);
    }
}

#[test]
fn one_fifo_can_be_both_outputs() {
    let client = Client::new();
    let name = client.name("stdout");
    let (mut stdio, [_, mut out, mut err]) = open(&request("", &name, &name));
    let mut reader = client.reader("stdout");
    out.write_all(b"a").unwrap();
    err.write_all(b"b").unwrap();
    out.write_all(b"c").unwrap();
    drop((out, err));
    stdio.process_ended().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abc");
}

#[test]
fn a_container_whose_reader_has_stopped_waits() {
    let client = Client::new();
    let (_stdio, [_, out, _]) = open(&request("", &client.name("stdout"), ""));
    let _stopped = client.reader("stdout");
    fcntl(&out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (mut out, page, mut written) = (out, [7; 4096], 0);
    let full = loop {
        match out.write(&page) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!((full.kind(), written), (ErrorKind::WouldBlock, 65536));
}

#[test]
fn a_writer_to_a_process_that_has_ended_is_told() {
    let client = Client::new();
    let (mut stdio, [stdin, ..]) = open(&request(&client.name("stdin"), "", ""));
    let mut writer = client.writer("stdin");
    let _closed = nothing_starts();
    drop(stdin);
    stdio.process_ended().unwrap();
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn fifos_belong_to_whom_the_options_say() {
    let client = Client::new();
    let (stdin, stdout) = (client.name("stdin"), client.name("stdout"));
    let _streams = open(&Request { io_uid: 1234, io_gid: 4321, ..request(&stdin, &stdout, "") });
    for (name, owner) in [("stdin", (1234, 4321)), ("stdout", (1234, 4321)), ("stderr", (0, 0))] {
        let found = fs::metadata(client.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), owner, "{name}");
    }
}

#[test]
fn what_is_not_there_is_an_error_that_names_it() {
    let client = Client::new();
    let (absent, stdout) = (client.name("absent"), client.name("stdout"));
    let table = [
        (request(&absent, "", ""), absent.as_str()),
        (request("", &absent, ""), absent.as_str()),
        (request("", &stdout, &absent), absent.as_str()),
        (request("", "attachablebinary:///x", ""), "attachablebinary"),
        (request("file:///x", "", ""), "file:///x"),
        (request("", "binary:///absent/logger", ""), "/absent/logger"),
        (request("", &stdout, "binary:///bin/true"), "stderr"),
    ];
    for (request, named) in table {
        let error = starting(|| Stdio::open(&request)).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
        assert!(!Path::new(&absent).exists());
    }
}

#[test]
fn no_name_is_dev_null() {
    let (stdio, [mut stdin, mut out, mut err]) = open(&request("", "", ""));
    assert_eq!(stdin.read(&mut [0]).unwrap(), 0);
    out.write_all(b"x").unwrap();
    err.write_all(b"x").unwrap();
    assert!(stdio.is_drained() && stdio.is_closed() && stdio.poll_fd().is_none());
}

#[test]
fn all_bytes_arrive_in_fifos_and_from_them_through_pipes() {
    let client = Client::new();
    let names = ["stdin", "stdout", "stderr"].map(|name| client.name(name));
    let (mut stdio, [stdin, out, err]) = open_with_pipes(&request(&names[0], &names[1], &names[2]));
    let readers = [receive(client.reader("stdout")), receive(client.reader("stderr")), receive(stdin)];
    let writers = [send(MUCH, out), send(MUCH / 10, err), send(MUCH / 10, client.writer("stdin"))];
    stdio.close_stdin();
    for writer in writers {
        serve_while(&mut stdio, writer);
    }
    wait(&mut stdio, |_| readers.iter().all(JoinHandle::is_finished));
    let sums = readers.map(|reader| reader.join().unwrap());
    assert_eq!(sums, [MUCH, MUCH / 10, MUCH / 10]);
    assert!(stdio.relays.iter().all(Relay::has_ended));
    end(stdio);
}

#[test]
fn a_reader_that_has_stopped_makes_a_container_with_pipes_wait_and_loses_nothing() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open_with_pipes(&request("", &client.name("stdout"), ""));
    fcntl(&out, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (mut source, mut written, mut idle) = (bytes(usize::MAX), 0, 0);
    let mut page = [0; 4096];
    source.read_exact(&mut page).unwrap();
    // As if it wrote for ever: what is taken is what the pipe and the FIFO hold.
    while idle < 3 {
        match out.write(&page) {
            Ok(4096) => {
                (written, idle) = (written + 4096, 0);
                source.read_exact(&mut page).unwrap();
            }
            Ok(count) => panic!("a part of a page: {count}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                idle += 1;
                stdio.ready().unwrap();
            }
        }
    }
    assert_eq!(written, 2 * 65536);
    drop(out);
    stdio.process_ended().unwrap();
    assert!(!stdio.is_drained());
    rest(&mut stdio);
    let reader = receive(client.reader("stdout"));
    assert_eq!(serve_while(&mut stdio, reader), written);
    assert!(stdio.is_drained());
    end(stdio);
}

#[test]
fn readers_of_what_comes_through_a_pipe_can_leave_and_come_even_after_the_end() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open_with_pipes(&request("", &client.name("stdout"), ""));
    let mut first = client.reader("stdout");
    out.write_all(b"one").unwrap();
    stdio.ready().unwrap();
    let mut got = [0; 3];
    first.read_exact(&mut got).unwrap();
    let closed = nothing_starts();
    drop(first);
    out.write_all(b" two").unwrap();
    stdio.ready().unwrap();
    out.write_all(b" three").unwrap();
    drop(out);
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained());
    drop(closed);
    let mut second = client.reader("stdout");
    let read = spawn(move || {
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!((&got, serve_while(&mut stdio, read).as_str()), (b"one", " two three"));
    end(stdio);
}

#[test]
fn what_nobody_ever_reads_keeps_nothing_open_after_the_close() {
    let client = Client::new();
    let (mut stdio, [_, mut out, _]) = open_with_pipes(&request("", &client.name("stdout"), ""));
    out.write_all(&[7; 65536]).unwrap();
    stdio.ready().unwrap();
    out.write_all(b"no room for this").unwrap();
    // Somebody that the process has left behind holds its end.
    stdio.process_ended().unwrap();
    assert!(!stdio.is_drained());
    let _closed = nothing_starts();
    stdio.close().unwrap();
    assert!(stdio.is_closed());
    assert_eq!(out.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(nonblocking(&client.path("stdout"), false).read(&mut [0]).unwrap(), 0);
}
