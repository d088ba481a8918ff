//! What containerd says at a start, in both of its dialects.
//!
//! Since 2.3 all of it comes as `BootstrapParams` on standard input. Before, it comes as options and
//! environment, and standard input has the runtime's options or nothing.

use super::words::Words;
use crate::error::{Error, Result};
use crate::options;
use crate::wire::decode;
use crate::wire::messages::bootstrap::BootstrapParams;
use crate::wire::messages::{Any, runc};

/// Values of `containerd.runtime.bootstrap.v1.LogLevel` from this one down ask for debugging.
const DEBUG: i32 = -4;
/// Where containerd itself would put the sockets.
pub const SOCKET_DIR: &str = "/run/containerd/s";

#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    pub debug: bool,
    /// containerd's gRPC socket: a part of the name of ours.
    pub address: String,
    /// Where events go.
    pub ttrpc_address: String,
    pub socket_dir: String,
    pub options: runc::Options,
}

impl Params {
    pub fn read(words: &Words, stdin: &[u8], environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let given = |name: &str| environment(name).filter(|value| !value.is_empty());
        if let Some(params) = newer(words, stdin) {
            return Self::of_newer(words, params);
        }
        let address = if words.address.is_empty() {
            given("GRPC_ADDRESS").unwrap_or_default()
        } else {
            words.address.clone()
        };
        Ok(Self {
            debug: words.debug,
            ttrpc_address: given("TTRPC_ADDRESS").unwrap_or_else(|| format!("{address}.ttrpc")),
            address,
            socket_dir: SOCKET_DIR.to_owned(),
            options: options(stdin)?,
        })
    }

    fn of_newer(words: &Words, params: BootstrapParams) -> Result<Self> {
        let mut options = runc::Options::default();
        for extension in &params.extensions {
            if let Some(found) = options::read(&extension.value)? {
                options = found;
            }
        }
        // The name of the socket is made of what `-address` says: `delete` knows no more than that.
        let address = if words.address.is_empty() {
            params.containerd_grpc_address.clone()
        } else {
            words.address.clone()
        };
        let ttrpc_address = match params.containerd_ttrpc_address.as_str() {
            "" => format!("{address}.ttrpc"),
            given => given.to_owned(),
        };
        Ok(Self {
            debug: words.debug || params.log_level.value() <= DEBUG,
            address,
            ttrpc_address,
            socket_dir: params
                .socket_dir
                .filter(|dir| !dir.is_empty())
                .unwrap_or_else(|| SOCKET_DIR.to_owned()),
            options,
        })
    }
}

/// The runtime's options read as `BootstrapParams` too, because unknown fields are passed over: only when
/// the names in it are those of the command line is it one (`pkg/shim/compat.go` of containerd).
fn newer(words: &Words, stdin: &[u8]) -> Option<BootstrapParams> {
    let params: BootstrapParams = decode(stdin).ok()?;
    (!stdin.is_empty() && params.instance_id == words.id && params.namespace == words.namespace)
        .then_some(params)
}

/// The runtime's options in an Any, as `start` (before 2.3) and `-info` have them on standard input.
pub fn options(stdin: &[u8]) -> Result<runc::Options> {
    let any: Any = decode(stdin).map_err(|torn| Error::invalid(format!("runtime options: {torn}")))?;
    Ok(options::read(&any)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::bootstrap::{Extension, LogLevel};
    use crate::wire::{EnumOrUnknown, MessageField, encode, pack};

    fn words() -> Words {
        Words { id: "c1".into(), namespace: "ns".into(), address: "/run/c.sock".into(), ..Words::default() }
    }

    fn set(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn packed() -> Any {
        pack(&runc::Options { root: "/r".into(), binary_name: "crun".into(), ..Default::default() })
            .expect("packed")
    }

    #[test]
    fn before_2_3_without_options() {
        let params = Params::read(&words(), b"", set(&[("TTRPC_ADDRESS", "/run/t.sock")])).expect("read");
        assert_eq!((params.address.as_str(), params.ttrpc_address.as_str()), ("/run/c.sock", "/run/t.sock"));
        assert_eq!(params.socket_dir, "/run/containerd/s");
        assert_eq!(params.options, runc::Options::default());
        let params = Params::read(&words(), b"", set(&[])).expect("read");
        assert_eq!(params.ttrpc_address, "/run/c.sock.ttrpc");
    }

    #[test]
    fn before_2_3_with_options() {
        let stdin = encode(&packed()).expect("encoded");
        let params = Params::read(&words(), &stdin, set(&[])).expect("read");
        assert_eq!((params.options.root.as_str(), params.options.binary_name.as_str()), ("/r", "crun"));
        assert!(!params.debug);
    }

    #[test]
    fn since_2_3_all_is_in_the_message() {
        let message = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "ns".into(),
            log_level: LogLevel::LOG_LEVEL_DEBUG.into(),
            containerd_ttrpc_address: "unix:///run/t.sock".into(),
            containerd_grpc_address: "/run/g.sock".into(),
            socket_dir: Some("/run/k3s/s".into()),
            extensions: vec![
                Extension {
                    value: MessageField::some(Any { type_url: "x.Other".into(), ..Any::default() }),
                    ..Default::default()
                },
                Extension { value: MessageField::some(packed()), ..Default::default() },
            ],
            ..Default::default()
        };
        let stdin = encode(&message).expect("encoded");
        let params = Params::read(&words(), &stdin, set(&[("TTRPC_ADDRESS", "/other")])).expect("read");
        assert!(params.debug);
        assert_eq!(params.ttrpc_address, "unix:///run/t.sock");
        assert_eq!((params.socket_dir.as_str(), params.options.root.as_str()), ("/run/k3s/s", "/r"));
        // An open enumeration: what lies between the known values counts too.
        for (level, debug) in [(-8, true), (-5, true), (-3, false), (0, false), (12, false)] {
            let message = BootstrapParams { log_level: EnumOrUnknown::from_i32(level), ..message.clone() };
            let stdin = encode(&message).expect("encoded");
            assert_eq!(Params::read(&words(), &stdin, set(&[])).expect("read").debug, debug, "{level}");
        }
    }

    #[test]
    fn a_message_for_somebody_else_is_taken_for_options() {
        let message =
            BootstrapParams { instance_id: "c2".into(), namespace: "ns".into(), ..Default::default() };
        let params = Params::read(&words(), &encode(&message).expect("encoded"), set(&[])).expect("read");
        assert_eq!(params.options, runc::Options::default());
    }

    #[test]
    fn torn_input_is_an_error() {
        let mut stdin = encode(&packed()).expect("encoded");
        stdin.pop();
        let error = Params::read(&words(), &stdin, set(&[])).expect_err("torn");
        assert!(error.text().starts_with("runtime options: "), "{error}");
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::wire::messages::bootstrap::Extension;
    use crate::wire::{MessageField, encode, pack};

    /// Standard input of `start`, in either dialect.
    #[test]
    fn standard_input() {
        let words =
            Words { id: "c1".into(), namespace: "ns".into(), address: "/c.sock".into(), ..Words::default() };
        let options = runc::Options { root: "/r".into(), binary_name: "crun".into(), ..Default::default() };
        let any = pack(&options).expect("packed");
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "ns".into(),
            containerd_grpc_address: "/c.sock".into(),
            socket_dir: Some("/s".into()),
            extensions: vec![Extension { value: MessageField::some(any.clone()), ..Default::default() }],
            ..Default::default()
        };
        // Its path of a file is left out: what is in a file is the same.
        let mut table = b"\x0a\x01t\x1a\x0dIoUid = 7\x0a# x".to_vec();
        table.truncate(18);
        let generic = Any { type_url: "runtimeoptions.v1.Options".into(), value: table, ..Any::default() };
        let seeds = [encode(&params), encode(&any), encode(&generic)].map(|bytes| bytes.expect("encoded"));
        ::fuzz::target("bootstrap").seeds(seeds).seed("").rounds(10_000).run(|bytes| {
            let read = Params::read(&words, bytes, |_| None);
            if let Ok(params) = &read {
                assert!(!params.address.is_empty() && !params.socket_dir.is_empty(), "{params:?}");
            }
            read.is_ok()
        });
    }
}
