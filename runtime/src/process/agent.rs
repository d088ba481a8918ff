//! The seccomp agent: another process, which answers the syscalls of which a filter notifies
//! (`SCMP_ACT_NOTIFY`). It gets the filter's listener, with word of whose it is.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#containerprocessstate>
//!
//! The listener is made inside the process that is filtered from then on. That process only says the
//! number, by `write`, and the runtime takes the descriptor out of it: to send it, the process would
//! need `sendmsg`, which a profile may forbid, or notify of, and then nobody could answer. It sends it
//! all the same where the runtime has not the privilege to take it, and the profile lets `sendmsg` pass.

use std::os::fd::{AsFd, RawFd};
use std::path::Path;

use super::parent::Init;
use crate::config::OCI_VERSION;
use crate::error::{Error, Result};
use crate::plan::step::Step;
use crate::seccomp::Agent;
use crate::sys::scm::send_with_fds;
use crate::terminal::socket::connect_to;

/// Whom the filter among the steps notifies.
pub fn of(steps: &[Step]) -> Result<&Agent> {
    let agent = steps.iter().find_map(|step| match step {
        Step::Seccomp(filter) => filter.agent.as_ref(),
        _ => None,
    });
    agent.ok_or_else(|| Error::Protocol("a listener came of a filter that notifies nobody".into()))
}

/// `state` is the container's, as JSON.
pub fn hand_over(process: &Init, listener: RawFd, agent: &Agent, state: &[u8]) -> Result<()> {
    // The process lets go of it with this, before there is an agent: the answer to its next call may be his.
    let listener = process.take_listener(listener, agent.sendmsg)?;
    let message = process_state(process.pid, agent, state);
    let stream = connect_to("seccomp agent", &agent.path)?;
    let failed = |errno| sent_in_vain(&agent.path, errno);
    let mut sent = send_with_fds(stream.as_fd(), &message, &[listener.as_fd()]).map_err(failed)?;
    while sent < message.len() {
        sent += send_with_fds(stream.as_fd(), &message[sent..], &[]).map_err(failed)?;
    }
    process.agent_told()
}

fn sent_in_vain(path: &Path, errno: nix::errno::Errno) -> Error {
    Error::sys("send the seccomp listener to", path.display(), errno)
}

/// The specification's `ContainerProcessState`.
fn process_state(pid: i32, agent: &Agent, state: &[u8]) -> Vec<u8> {
    let mut message = format!("{{\"ociVersion\":\"{OCI_VERSION}\",\"fds\":[\"seccompFd\"],\"pid\":{pid}");
    if let Some(metadata) = &agent.metadata {
        message.push_str(",\"metadata\":");
        message.push_str(&serde_json::Value::from(metadata.as_str()).to_string());
    }
    message.push_str(",\"state\":");
    let mut message = message.into_bytes();
    message.extend_from_slice(state);
    message.push(b'}');
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_the_specifications_document() {
        let state = br#"{"ociVersion":"1.2.0","id":"a","status":"creating","pid":7,"bundle":"/b"}"#;
        let read = |metadata: Option<&str>| -> oci_spec::runtime::ContainerProcessState {
            let agent = Agent { path: "/a".into(), metadata: metadata.map(str::to_owned), sendmsg: true };
            serde_json::from_slice(&process_state(8, &agent, state)).unwrap()
        };
        let plain = read(None);
        assert_eq!((plain.version().as_str(), *plain.pid()), (OCI_VERSION, 8));
        assert_eq!(plain.fds(), &["seccompFd"]);
        assert_eq!((plain.state().id().as_str(), *plain.state().pid()), ("a", Some(7)));
        let text = "quotes \" and \n ends";
        assert_eq!(read(Some(text)).metadata().as_deref(), Some(text));
    }
}
