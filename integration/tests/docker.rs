//! The commands of a Docker user through a real dockerd (`docker_commands.sh`), the runtime as its default.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use integration::{call, need, runtime, shim};

/// Cases that a runtime is known to fail, and why. One that passes is an error too: the row is then stale.
const KNOWN: [(&str, &str, &str); 0] = [];

/// The cases in which a shim has a part, for a run that has no time for all of them.
const OF_A_SHIM: &str = "^(runtime_is_used|run_|tty_|ctrl_|logs|stop|exit|start|restart|kill|pause|attach|exec_|top|\
    memory|update|build_run_nginx|build_healthcheck|daemon_restart|userns|port_udp|volume_mount)";

#[test]
fn every_command_of_docker_works_with_the_runtime() {
    play(&[], &all_unless_told("."));
}

/// With the shim under test in the place of containerd's. `DOCKER_CASES=.` plays all cases.
#[test]
fn every_command_of_docker_works_with_the_shim() {
    let shim = shim::path().to_string_lossy().into_owned();
    play(&["--shim", &shim], &all_unless_told(OF_A_SHIM));
}

/// What `DOCKER_CASES`, a regular expression, names.
fn all_unless_told(cases: &str) -> String {
    std::env::var("DOCKER_CASES").ok().filter(|cases| !cases.is_empty()).unwrap_or_else(|| cases.to_owned())
}

fn play(options: &[&str], cases: &str) {
    need!(
        root,
        program("dockerd"),
        program("/usr/bin/docker"),
        program("docker-registry"),
        program("mmdebstrap")
    );
    need!(
        program("busybox"),
        program("iptables"),
        program("ip"),
        program("curl"),
        program("/usr/bin/python3")
    );
    // Two daemons at once only take each other's time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new("timeout");
    script.args(["--kill-after=10", &Duration::from_secs(1500).as_secs().to_string()]);
    script.arg(manifest.join("docker_commands.sh")).arg("--runtime").arg(runtime::path()).args(options);
    script.args(["--only", cases]);
    if let Some(engines) = std::env::var_os("ENGINES").filter(|engines| !engines.is_empty()) {
        script.arg("--engines").arg(engines);
    }
    script.arg("--cache").arg(manifest.with_file_name(".cache").join("docker"));
    let mut child = script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("docker_commands.sh");
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
        let line = line.expect("its output");
        if let Some(name) = line.strip_prefix("ok ") {
            passed.push(name.to_owned());
        } else if let Some(failure) = line.strip_prefix("FAIL ") {
            failed.push(failure.to_owned());
        }
    }
    child.wait().expect("wait");

    let known: Vec<_> = KNOWN.iter().filter(|(name, ..)| *name == runtime::name()).collect();
    let name_of = |failure: &str| failure.split(':').next().unwrap_or_default().to_owned();
    let new: Vec<_> =
        failed.iter().filter(|failure| !known.iter().any(|(_, case, _)| *case == name_of(failure))).collect();
    let stale: Vec<_> = known.iter().filter(|(_, case, _)| passed.iter().any(|name| name == case)).collect();
    assert!(new.is_empty(), "{} passed; failed: {new:#?}", passed.len());
    assert!(stale.is_empty(), "these pass now, take the rows away: {stale:#?}");
    // Every case ended one way or the other: the script was not cut short.
    let listed = call(Command::new(manifest.join("docker_commands.sh")).args(["--list", "--only", cases]));
    assert_eq!(passed.len() + failed.len(), listed.ok().out.lines().count());
}
