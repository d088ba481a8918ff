//! `-info`: who we are, and what the runtime can do. containerd reads it since 1.7.

use super::params;
use crate::error::{Error, Result};
use crate::wire::messages::introspection::{RuntimeInfo, RuntimeVersion};
use crate::wire::messages::{Any, runc};
use crate::wire::{FEATURES, MessageField, decode, encode};

pub const NAME: &str = "io.containerd.tare.v2";

/// The build sets it (`TARE_COMMIT=$(git describe --always --dirty)`).
pub fn revision() -> &'static str {
    option_env!("TARE_COMMIT").unwrap_or("unknown")
}

/// The bare `RuntimeInfo`. `features`: the document of the runtime that the options name; `None` when it has none.
pub fn info(
    stdin: &[u8],
    features: impl FnOnce(&runc::Options) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<u8>> {
    let options = params::options(stdin)?;
    let given = if stdin.is_empty() { None } else { decode::<Any>(stdin).ok() };
    let version = RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: revision().to_owned(),
        ..Default::default()
    };
    let document = features(&options)?;
    let info = RuntimeInfo {
        name: NAME.to_owned(),
        version: MessageField::some(version),
        options: MessageField::from_option(given),
        features: MessageField::from_option(document.map(|value| Any {
            type_url: FEATURES.to_owned(),
            value,
            ..Any::default()
        })),
        ..Default::default()
    };
    encode(&info).map_err(|torn| Error::Unknown(torn.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pack;

    #[test]
    fn it_is_a_bare_message_with_the_options_and_the_features_of_their_runtime() {
        let options =
            pack(&runc::Options { binary_name: "crun".into(), ..Default::default() }).expect("packed");
        let stdin = encode(&options).expect("encoded");
        let bytes =
            info(&stdin, |options| Ok(Some(options.binary_name.clone().into_bytes()))).expect("answered");
        let info: RuntimeInfo = decode(&bytes).expect("a RuntimeInfo");
        assert_eq!(info.name, "io.containerd.tare.v2");
        assert_eq!(info.version.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(info.options.as_ref(), Some(&options));
        assert_eq!(
            (info.features.type_url.as_str(), info.features.value.as_slice()),
            (FEATURES, b"crun".as_slice())
        );
    }

    #[test]
    fn nothing_on_standard_input_is_no_options() {
        let bytes = info(b"", |_| Ok(None)).expect("answered");
        let info: RuntimeInfo = decode(&bytes).expect("a RuntimeInfo");
        assert!(info.options.is_none() && info.features.is_none());
        assert!(super::info(&[10, 200], |_| Ok(None)).is_err());
    }
}
