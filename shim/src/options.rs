//! The runtime's options, in either of the messages in which they come.
//!
//! Clients and Docker send `containerd.runc.v1.Options`. For a runtime that it does not know by name,
//! containerd's CRI plugin packs the table of its own configuration into a `runtimeoptions.v1.Options`,
//! as TOML.

use crate::error::{Error, Result};
use crate::wire::messages::{Any, runc};
use crate::wire::{text_field, type_name, unpack};

const GENERIC: &str = "runtimeoptions.v1.Options";
/// Older containerd has it under the name that Kubernetes gave it.
const GENERIC_OF_CRI: &str = "cri.runtimeoptions.v1.Options";
/// The fields `config_path` and `config_body` of it.
const CONFIG_PATH: u32 = 2;
const CONFIG_BODY: u32 = 3;

/// `None` when `any` is empty or holds something else.
pub fn read(any: &Any) -> Result<Option<runc::Options>> {
    let torn = |torn| Error::invalid(format!("runtime options: {torn}"));
    if ![GENERIC, GENERIC_OF_CRI].contains(&type_name(any)) {
        return unpack(any).map_err(torn);
    }
    let body = text_field(&any.value, CONFIG_BODY).map_err(torn)?;
    if !body.is_empty() {
        return of_toml(&body).map(Some);
    }
    match text_field(&any.value, CONFIG_PATH).map_err(torn)?.as_str() {
        "" => Ok(Some(runc::Options::default())),
        path => {
            let path = std::path::Path::new(path);
            let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
            of_toml(&text).map(Some)
        }
    }
}

/// The lines `Key = value` of a table, which is all that containerd writes here: the keys are those of
/// its own configuration. A key that is not an option of ours is an error: it would be passed over.
fn of_toml(text: &str) -> Result<runc::Options> {
    let mut options = runc::Options::default();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') || line.starts_with('[') {
            continue;
        }
        let wrong = |why: &str| Error::invalid(format!("runtime options: {line:?}: {why}"));
        let (key, value) = line.split_once('=').ok_or_else(|| wrong("no key = value"))?;
        let value = value.trim();
        let text = || {
            serde_json::from_str::<String>(value)
                .or_else(|_| literal(value).ok_or(()))
                .map_err(|()| wrong("not a string"))
        };
        let truth = || value.parse::<bool>().map_err(|_| wrong("not a boolean"));
        let number = || value.parse::<u32>().map_err(|_| wrong("not a number"));
        match key.trim() {
            "NoPivotRoot" => options.no_pivot_root = truth()?,
            "NoNewKeyring" => options.no_new_keyring = truth()?,
            "ShimCgroup" => options.shim_cgroup = text()?,
            "IoUid" => options.io_uid = number()?,
            "IoGid" => options.io_gid = number()?,
            "BinaryName" => options.binary_name = text()?,
            "Root" => options.root = text()?,
            "SystemdCgroup" => options.systemd_cgroup = truth()?,
            "CriuImagePath" => options.criu_image_path = text()?,
            "CriuWorkPath" => options.criu_work_path = text()?,
            // Of older configurations, and empty in them.
            "CriuPath" => drop(text()?),
            _ => return Err(wrong("not an option of this shim")),
        }
    }
    Ok(options)
}

/// TOML's other kind of string.
fn literal(value: &str) -> Option<String> {
    let inner = value.strip_prefix('\'')?.strip_suffix('\'')?;
    (!inner.contains('\'')).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pack;

    fn generic(field: u32, text: &str) -> Any {
        let mut value = b"\x0a\x01t".to_vec();
        value.extend_from_slice(&[(field << 3 | 2) as u8, text.len() as u8]);
        value.extend_from_slice(text.as_bytes());
        Any { type_url: GENERIC.into(), value, ..Any::default() }
    }

    #[test]
    fn the_cri_plugins_table_is_understood() {
        let any =
            generic(3, "BinaryName = \"/usr/bin/crun\"\nRoot = '/r'\n\nSystemdCgroup = true\nIoUid = 7\n");
        let options = read(&any).expect("read").expect("options");
        assert_eq!((options.binary_name.as_str(), options.root.as_str()), ("/usr/bin/crun", "/r"));
        assert!(options.systemd_cgroup && !options.no_pivot_root);
        assert_eq!(options.io_uid, 7);
        let older = Any { type_url: GENERIC_OF_CRI.into(), ..any };
        assert_eq!(read(&older).expect("read"), Some(options));
    }

    #[test]
    fn it_may_be_in_a_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# a comment\n[options]\nNoNewKeyring = true\n").expect("written");
        let options =
            read(&generic(2, file.path().to_str().expect("a path"))).expect("read").expect("options");
        assert!(options.no_new_keyring);
        assert!(read(&generic(2, "/nowhere")).expect_err("absent").to_string().contains("/nowhere"));
    }

    #[test]
    fn runcs_own_message_is_read_as_before_and_others_are_none() {
        let options = runc::Options { root: "/x".into(), ..Default::default() };
        assert_eq!(read(&pack(&options).expect("packed")).expect("read"), Some(options));
        assert_eq!(read(&Any::default()).expect("read"), None);
    }

    #[test]
    fn what_cannot_be_an_option_is_an_error() {
        for text in ["Nope = 1", "SystemdCgroup = \"yes\"", "BinaryName = crun", "IoUid = -1", "just words"] {
            let error = read(&generic(3, text)).expect_err(text).to_string();
            assert!(error.starts_with("runtime options: "), "{error}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    /// What the CRI plugin makes of its configuration.
    #[test]
    fn tables() {
        let seeds = [
            "BinaryName = \"/usr/bin/crun\"\nRoot = '/r'\n\nSystemdCgroup = true\nIoUid = 7\n",
            "# a comment\n[options]\nNoNewKeyring = true\nCriuPath = \"\"\nShimCgroup = \"/a\\u00e9\"\n",
        ];
        ::fuzz::target("options-toml")
            .seeds(seeds)
            .words(&["IoGid", "NoPivotRoot", "CriuWorkPath"])
            .rounds(20_000)
            .run(|bytes| {
                let Ok(text) = std::str::from_utf8(bytes) else { return false };
                of_toml(text).is_ok()
            });
    }
}
