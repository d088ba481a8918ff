//! Programs that log.

use super::*;

#[test]
fn a_logger_gets_all_bytes_its_words_and_its_environment() {
    for scheme in ["binary", "binary-v2"] {
        let client = Client::new();
        let uri = format!("{scheme}://{}?k=v&flag&env.GIVEN=x+y", client.script("logger", CAT));
        let (mut stdio, [_, out, err]) = open(&request("", &uri, &uri));
        for writer in [send(MUCH, out), send(1000, err)] {
            writer.join().unwrap();
        }
        stdio.process_ended().unwrap();
        let ended = client.path("ended");
        wait(&mut stdio, |_| ended.exists());
        stdio.close().unwrap();
        wait(&mut stdio, Stdio::is_closed);
        let sums = ["out", "err"].map(|name| Got::all_of(client.reader(name)));
        assert_eq!(sums, [MUCH, 1000]);
        let said = fs::read_to_string(client.path("said")).unwrap();
        // 3 and 4 are closed by then.
        let words = "k v flag \nCONTAINER_ID=c1\nCONTAINER_NAMESPACE=ns\nGIVEN=x y\n0 1 2 5\n";
        assert_eq!(said, words, "{scheme}");
    }
}

#[test]
fn a_logger_is_waited_for_until_it_is_ready() {
    let client = Client::new();
    let script =
        format!("while [ ! -e {} ]; do sleep 0.01; done; exec 5>&-; exec sleep 100", client.name("go"));
    let uri = format!("binary://{}", client.script("logger", &script));
    let mut stdio = starting(|| Stdio::open(&request("", &uri, ""))).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stdio.ready().unwrap();
    assert!(!stdio.is_ready());
    fs::write(client.path("go"), "").unwrap();
    wait(&mut stdio, Stdio::is_ready);
    assert!(!stdio.is_closed());
    // SIGTERM ends it, though the shim's threads may block it.
    stdio.close().unwrap();
    wait(&mut stdio, Stdio::is_closed);
}

#[test]
fn a_logger_of_the_newer_form_that_dies_first_is_an_error() {
    let client = Client::new();
    let uri = format!("binary-v2://{}", client.script("logger", "exit 1"));
    let mut stdio = starting(|| Stdio::open(&request("", &uri, ""))).unwrap();
    let mut fds = [PollFd::new(stdio.poll_fd().unwrap(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::NONE).unwrap();
    let error = stdio.ready().unwrap_err().to_string();
    assert!(error.contains("did not call ready") && error.contains("logger"), "{error}");
}

#[test]
fn a_logger_whose_time_is_up_is_an_error_first_and_killed_at_the_end() {
    let client = Client::new();
    let script = format!("trap '' TERM; : >{}; while :; do sleep 0.01; done", client.name("runs"));
    let uri = format!("binary://{}", client.script("logger", &script));
    let mut stdio = starting(|| Stdio::open(&request("", &uri, ""))).unwrap();
    // The time itself is not waited for.
    let logger = stdio.logger.as_mut().unwrap();
    let error = logger.time_is_up(&stdio.set).unwrap_err().to_string();
    assert!(error.contains("not ready after 30 s"), "{error}");
    let runs = client.path("runs");
    wait(&mut stdio, |_| runs.exists());
    stdio.close().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stdio.ready().unwrap();
    assert!(!stdio.is_closed(), "it ignores SIGTERM");
    stdio.logger.as_mut().unwrap().time_is_up(&stdio.set).unwrap();
    wait(&mut stdio, Stdio::is_closed);
}

#[test]
fn a_logger_does_not_outlive_what_it_is_for() {
    let client = Client::new();
    let script = format!("exec 5>&-; echo $$ >{}; exec sleep 1000", client.name("pid"));
    let uri = format!("binary://{}", client.script("logger", &script));
    let (mut stdio, streams) = open(&request("", &uri, ""));
    let path = client.path("pid");
    wait(&mut stdio, |_| fs::read_to_string(&path).is_ok_and(|pid| pid.ends_with('\n')));
    let pid: i32 = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    drop((stdio, streams));
    // Nobody but us reaps it.
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
    assert!(matches!(status, nix::sys::wait::WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)));
}
