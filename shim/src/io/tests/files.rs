//! Files.

use super::*;

#[test]
fn a_file_is_made_with_its_folders_and_appended_to_by_both_in_their_order() {
    let client = Client::new();
    let uri = format!("file://{}", client.name("logs/of/c1.log"));
    for _ in 0..2 {
        let (stdio, [_, mut out, mut err]) = open(&request("", &uri, &uri));
        for _ in 0..500 {
            out.write_all(b"out ").unwrap();
            err.write_all(b"err ").unwrap();
        }
        drop((out, err));
        end(stdio);
    }
    assert_eq!(fs::read_to_string(client.path("logs/of/c1.log")).unwrap(), "out err ".repeat(1000));
}

#[test]
fn all_bytes_of_both_outputs_arrive_in_files() {
    let client = Client::new();
    let uris = ["out", "err"].map(|name| format!("file://{}", client.name(name)));
    let (mut stdio, [_, out, err]) = open(&request("", &uris[0], &uris[1]));
    let writers = [send(MUCH, out), send(MUCH / 10, err)];
    for writer in writers {
        serve_while(&mut stdio, writer);
    }
    end(stdio);
    let sums = ["out", "err"].map(|name| Got::all_of(client.reader(name)));
    assert_eq!(sums, [MUCH, MUCH / 10]);
}

#[test]
fn the_container_cannot_touch_the_file_it_writes_to() {
    let client = Client::new();
    fs::write(client.path("plain"), "before ").unwrap();
    for name in [format!("file://{}", client.name("plain")), client.name("plain")] {
        let (stdio, [_, mut out, mut err]) = open(&request("", &name, &name));
        for stream in [&out, &err] {
            nix::unistd::ftruncate(stream, 0).unwrap_err();
            nix::sys::uio::pwrite(stream, b"x", 0).unwrap_err();
            fcntl(stream, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
            nix::sys::stat::fchmod(stream, Mode::from_bits_truncate(0o777)).unwrap();
            nix::unistd::fchown(stream, Some(nix::unistd::Uid::from_raw(1234)), None).unwrap();
            let link = format!("/proc/self/fd/{}", stream.as_raw_fd());
            let mut again = OpenOptions::new().write(true).truncate(true).open(link).unwrap();
            again.write_all(b"words ").unwrap();
        }
        out.write_all(b"out ").unwrap();
        err.write_all(b"err ").unwrap();
        drop((out, err));
        end(stdio);
    }
    let text = fs::read_to_string(client.path("plain")).unwrap();
    assert_eq!(text, "before words words out err words words out err ");
    let found = fs::metadata(client.path("plain")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o644));
}

#[test]
fn a_file_that_takes_no_more_is_told_of_once_and_does_not_stop_the_container() {
    let (mut stdio, [_, out, _]) = open(&request("", "/dev/full", ""));
    let writer = send(1_000_000, out);
    let mut errors = Vec::new();
    while !(writer.is_finished() && stdio.relays.iter().all(Relay::has_ended)) {
        poll(&mut [PollFd::new(stdio.poll_fd().unwrap(), PollFlags::POLLIN)], PollTimeout::from(20u8))
            .unwrap();
        errors.extend(stdio.ready().err().map(|error| error.to_string()));
    }
    writer.join().unwrap();
    assert!(matches!(&errors[..], [error] if error.contains("/dev/full")), "{errors:?}");
}

#[test]
fn what_a_process_leaves_behind_writes_to_the_file_until_it_ends() {
    let client = Client::new();
    let uri = format!("file://{}", client.name("file"));
    let (mut stdio, [_, mut out, _]) = open(&request("", &uri, ""));
    let mut left = out.try_clone().unwrap();
    out.write_all(b"one ").unwrap();
    drop(out);
    stdio.process_ended().unwrap();
    assert!(stdio.is_drained());
    stdio.close().unwrap();
    assert!(!stdio.is_closed());
    left.write_all(b"two").unwrap();
    drop(left);
    wait(&mut stdio, Stdio::is_closed);
    assert_eq!(fs::read_to_string(client.path("file")).unwrap(), "one two");
}

#[test]
fn a_bare_path_can_be_a_file_that_is_there() {
    let client = Client::new();
    fs::write(client.path("plain"), "before ").unwrap();
    fs::write(client.path("input"), "words").unwrap();
    let (mut stdio, [mut stdin, mut out, _]) =
        open(&request(&client.name("input"), &client.name("plain"), ""));
    let copied = spawn(move || std::io::copy(&mut stdin, &mut out).unwrap());
    assert_eq!(serve_while(&mut stdio, copied), 5);
    end(stdio);
    assert_eq!(fs::read_to_string(client.path("plain")).unwrap(), "before words");
}

/// Nothing may wait for somebody at the other end: the loop would.
#[test]
fn a_fifo_can_be_named_as_a_file_whether_or_not_somebody_reads_it() {
    let client = Client::new();
    let uri = format!("file://{}", client.name("stdout"));
    let (opened, is_opened) = std::sync::mpsc::channel();
    let opener = spawn(move || {
        let streams = open(&request("", &uri, &uri));
        opened.send(()).unwrap();
        streams
    });
    is_opened.recv_timeout(Duration::from_secs(20)).expect("it does not wait for a reader");
    let (stdio, [_, mut out, mut err]) = opener.join().unwrap();
    let reader = client.reader("stdout");
    let read = spawn(move || std::io::read_to_string(reader).unwrap());
    out.write_all(b"one ").unwrap();
    err.write_all(b"two").unwrap();
    drop((out, err));
    end(stdio);
    assert_eq!(read.join().unwrap(), "one two");
}
