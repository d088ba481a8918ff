//! The commands of a Docker user through a real dockerd (`docker_commands.sh`), the runtime as its default.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use integration::{call, need, runtime};

/// Cases that a runtime is known to fail, and why. One that passes is an error too: the row is then stale.
const KNOWN: [(&str, &str, &str); 0] = [];

#[test]
fn every_command_of_docker_works() {
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
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new("timeout");
    script.args(["--kill-after=10", &Duration::from_secs(1500).as_secs().to_string()]);
    script.arg(manifest.join("docker_commands.sh")).arg("--runtime").arg(runtime::path());
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
    let listed =
        call(Command::new(manifest.join("docker_commands.sh")).arg("--list")).ok().out.lines().count();
    assert_eq!(passed.len() + failed.len(), listed);
}
