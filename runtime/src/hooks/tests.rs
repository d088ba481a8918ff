use super::*;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::Instant;

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn sh(script: &str) -> Hook {
    Hook { path: c("/bin/sh"), args: vec![c("sh"), c("-c"), c(script)], env: vec![], timeout: None }
}

fn run(script: &str) -> Result<()> {
    run_all("prestart", &[sh(script)], b"{}", Path::new("/"))
}

fn why(result: Result<()>) -> String {
    match result.unwrap_err() {
        Error::Hook { kind: "prestart", index: 0, why, .. } => why,
        other => panic!("{other:?}"),
    }
}

fn state(annotations: &[(&str, &str)]) -> StateJson {
    let annotations = annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    StateJson::new("1.3.0", "a \"b\"", "created", Path::new("/b/c"), &annotations)
}

#[test]
fn the_state_is_compact_json_in_the_order_of_the_specification() {
    let text = String::from_utf8(state(&[("k/1", "v")]).with_pid(4_294_967_295)).unwrap();
    assert_eq!(
        text,
        r#"{"ociVersion":"1.3.0","id":"a \"b\"","status":"created","pid":4294967295,"bundle":"/b/c","annotations":{"k/1":"v"}}"#
    );
    let stopped = String::from_utf8(state(&[]).with_pid(0)).unwrap();
    assert_eq!(stopped, r#"{"ociVersion":"1.3.0","id":"a \"b\"","status":"created","bundle":"/b/c"}"#);
}

#[test]
fn the_parts_that_the_child_writes_are_the_same_document() {
    for pid in [1, 9, 10, 12345, u32::MAX] {
        let state = state(&[]);
        let mut member = PidMember::EMPTY;
        assert_eq!(state.parts(pid, &mut member).concat(), state.with_pid(pid));
    }
}

#[test]
fn a_hook_gets_the_state_its_own_environment_only_and_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut hook = sh("cat > in; echo \"$A\" > a; tr '\\0' '\\n' < /proc/$$/environ > env; pwd > cwd");
    hook.env = vec![c("A=one"), c("PATH=/usr/bin:/bin")];
    run_all("prestart", &[hook], b"{\"pid\":7}", folder.path()).unwrap();
    let file = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(file("in"), "{\"pid\":7}");
    assert_eq!(file("a"), "one\n");
    assert_eq!(file("env"), "A=one\nPATH=/usr/bin:/bin\n");
    assert_eq!(Path::new(file("cwd").trim_end()), folder.path());
}

#[test]
fn without_env_the_environment_is_empty() {
    run("test -z \"$(tr -d '\\0' < /proc/$$/environ)\"").unwrap();
}

#[test]
fn a_failure_says_status_and_output() {
    assert_eq!(why(run("echo good; echo bad >&2; exit 3")), "exit status 3, stdout: good, stderr: bad");
    assert_eq!(why(run("kill -TERM $$")), "signal 15, stdout: , stderr: ");
}

#[test]
fn an_absent_program_is_named_with_the_systems_words() {
    let hook = Hook { path: c("/nowhere/hook"), ..sh("") };
    let error = run_all("poststop", &[hook], b"{}", Path::new("/")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error running poststop hook #0: /nowhere/hook: fork/exec: no such file or directory"
    );
}

#[test]
fn hooks_run_in_order_and_the_first_failure_ends_them() {
    let folder = tempfile::tempdir().unwrap();
    let hooks = [sh("echo 1 >> log"), sh("echo 2 >> log; exit 1"), sh("echo 3 >> log")];
    let error = run_all("prestart", &hooks, b"{}", folder.path()).unwrap_err();
    assert!(matches!(error, Error::Hook { index: 1, .. }), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join("log")).unwrap(), "1\n2\n");
}

#[test]
fn past_its_timeout_a_hook_is_killed() {
    let mut hook = sh("echo begun; exec sleep 60");
    hook.timeout = Some(2);
    let begun = Instant::now();
    let text = why(run_all("prestart", &[hook], b"{}", Path::new("/")));
    assert_eq!(text, "hook ran past specified timeout of 2s, stdout: begun, stderr: ");
    let took = begun.elapsed();
    assert!((2.0..30.0).contains(&took.as_secs_f64()), "{took:?}");
}

#[test]
fn a_hook_that_reads_nothing_or_slowly_does_not_disturb() {
    let big = vec![b'x'; 1 << 20];
    run_all("prestart", &[sh("exit 0")], &big, Path::new("/")).unwrap();
    run_all("prestart", &[sh("exec < /dev/null; sleep 0.1")], &big, Path::new("/")).unwrap();
    run_all("prestart", &[sh("sleep 0.1; test $(wc -c) = 1048576")], &big, Path::new("/")).unwrap();
}

#[test]
fn much_output_neither_blocks_nor_grows() {
    let text = why(run("head -c 1000000 /dev/zero | tr '\\0' x; exit 1"));
    assert!((KEPT_OUTPUT..KEPT_OUTPUT + 100).contains(&text.len()), "{}", text.len());
}

#[test]
fn a_grandchild_that_keeps_the_output_open_does_not_hold_us_up() {
    let begun = Instant::now();
    assert_eq!(why(run("sleep 10 & echo here; exit 1")), "exit status 1, stdout: here, stderr: ");
    assert!(begun.elapsed().as_secs() < 8);
}

#[test]
fn a_hook_has_default_sigpipe_no_blocked_signal_and_none_of_our_descriptors() {
    let (inherited, _writer) = nix::unistd::pipe().unwrap();
    let hook = sh(&format!(
        "grep -q '^SigBlk:.0*$' /proc/self/status || exit 1
         test $((0x$(sed -n 's/^SigIgn:.//p' /proc/$$/status) & 0x1000)) = 0 || exit 2
         test ! -e /proc/$$/fd/{} || exit 3",
        inherited.as_raw_fd()
    ));
    let mut mask = nix::sys::signal::SigSet::empty();
    mask.add(nix::sys::signal::Signal::SIGUSR1);
    let before = mask.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).unwrap();
    let result = run_all("prestart", &[hook], b"{}", Path::new("/"));
    before.thread_set_mask().unwrap();
    result.unwrap();
}

#[test]
fn no_zombie_is_left() {
    let children = || fs::read_to_string("/proc/thread-self/children").unwrap();
    let before = children();
    run("exit 0").unwrap();
    run("kill -9 $$").unwrap_err();
    run_all("prestart", &[Hook { path: c("/nowhere"), ..sh("") }], b"{}", Path::new("/")).unwrap_err();
    assert_eq!(children(), before);
}

#[test]
fn in_the_child_the_late_pid_is_in_the_state_and_output_goes_to_the_log() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let hook =
        |script, env: &[CString]| ChildHook { program: Prepared::new(&sh(script), env), state: state(&[]) };
    apply::run_in_child(&hook("cat; echo $ONE >&2", &[c("ONE=two")]), 4321, writer.as_fd()).unwrap();
    let failed = apply::run_in_child(&hook("exit 9", &[]), 1, writer.as_fd());
    assert_eq!(failed, Err(HookFailure::Exited(9)));
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let expected = String::from_utf8(state(&[]).with_pid(4321)).unwrap();
    // `cat` is found by the shell's own default PATH.
    assert_eq!(text, format!("{expected}two\n"));
}

#[test]
fn a_failure_survives_the_wire() {
    for failure in [
        HookFailure::Start(Errno::ENOENT),
        HookFailure::Exited(255),
        HookFailure::Signaled(9),
        HookFailure::TimedOut,
    ] {
        let (kind, number) = failure.to_code();
        assert_eq!(HookFailure::from_code(kind, number), Some(failure));
    }
    assert_eq!(HookFailure::from_code(4, 0), None);
    assert_eq!(HookFailure::from_code(1, 256), None);
}
