//! The words that containerd starts the shim with, in the syntax of Go's `flag`.

use std::ffi::OsString;

use crate::error::{Error, Result};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// `start`, `delete`, or empty: the server itself.
    pub action: String,
    pub id: String,
    pub namespace: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// Only with `delete`; otherwise the working directory is the bundle.
    pub bundle: String,
    /// Taken and not used: events go over ttrpc.
    pub publish_binary: String,
    pub socket: String,
    pub debug_socket: String,
    pub debug: bool,
    pub version: bool,
    pub info: bool,
}

impl Words {
    /// The first word that is no option ends the options, as in Go.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut parsed = Self::default();
        let mut words = words.into_iter().map(|word| {
            word.into_string().map_err(|word| Error::invalid(format!("argument {word:?} is not UTF-8")))
        });
        while let Some(word) = words.next() {
            let word = word?;
            let Some(option) = word.strip_prefix('-').filter(|option| !option.is_empty()) else {
                parsed.action = word;
                break;
            };
            let option = option.strip_prefix('-').unwrap_or(option);
            if option.is_empty() {
                parsed.action = words.next().transpose()?.unwrap_or_default();
                break;
            }
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            if let Some(flag) = parsed.flag(name) {
                *flag = truth(name, value.unwrap_or("true"))?;
            } else if let Some(text) = parsed.text(name) {
                *text = match value {
                    Some(value) => value.to_owned(),
                    None => words
                        .next()
                        .transpose()?
                        .ok_or_else(|| Error::invalid(format!("flag needs an argument: -{name}")))?,
                };
            } else {
                return Err(Error::invalid(format!("flag provided but not defined: -{name}")));
            }
        }
        Ok(parsed)
    }

    fn flag(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "debug" => &mut self.debug,
            "v" | "version" => &mut self.version,
            "info" => &mut self.info,
            _ => return None,
        })
    }

    fn text(&mut self, name: &str) -> Option<&mut String> {
        Some(match name {
            "id" => &mut self.id,
            "namespace" => &mut self.namespace,
            "address" => &mut self.address,
            "bundle" => &mut self.bundle,
            "publish-binary" => &mut self.publish_binary,
            "socket" => &mut self.socket,
            "debug-socket" => &mut self.debug_socket,
            _ => return None,
        })
    }

    /// What every action but `-v` and `-info` needs.
    pub fn check(&self) -> Result<()> {
        if self.namespace.is_empty() {
            return Err(Error::invalid("shim namespace cannot be empty"));
        }
        if self.id.is_empty() {
            return Err(Error::invalid("shim id cannot be empty"));
        }
        Ok(())
    }
}

/// What Go's `strconv.ParseBool` takes.
fn truth(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("invalid boolean value {value:?} for -{name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Words> {
        Words::parse(words.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_words_of_each_containerd() {
        let words = parse(
            "-namespace ns -address /run/c.sock -publish-binary /usr/bin/containerd -id c1 -debug start",
        );
        let words = words.expect("parsed");
        assert_eq!(
            (words.action.as_str(), words.namespace.as_str(), words.id.as_str()),
            ("start", "ns", "c1")
        );
        assert_eq!(words.address, "/run/c.sock");
        assert!(words.debug && !words.info);
        let words =
            parse("-namespace ns -address a -publish-binary b -id c1 -bundle /x/c1 delete").expect("parsed");
        assert_eq!((words.action.as_str(), words.bundle.as_str(), words.debug), ("delete", "/x/c1", false));
    }

    #[test]
    fn options_are_spelt_in_any_of_gos_ways() {
        for words in ["-id x start", "--id x start", "-id=x start", "--id=x start", "-id x -- start"] {
            let parsed = parse(words).expect(words);
            assert_eq!((parsed.id.as_str(), parsed.action.as_str()), ("x", "start"), "{words}");
        }
        for (words, debug) in
            [("-debug", true), ("--debug=true", true), ("-debug=0", false), ("-debug=F", false)]
        {
            assert_eq!(parse(words).expect(words).debug, debug, "{words}");
        }
        assert_eq!(parse("-id= start").expect("parsed").id, "");
        assert_eq!(parse("start -id x").expect("parsed").id, "", "the first other word ends the options");
        assert!(parse("-v").expect("parsed").version && parse("--version").expect("parsed").version);
    }

    #[test]
    fn what_go_refuses_is_refused_in_its_words() {
        for (words, text) in [
            ("-nope", "flag provided but not defined: -nope"),
            ("-id", "flag needs an argument: -id"),
            ("-debug=maybe", "invalid boolean value \"maybe\" for -debug"),
        ] {
            assert_eq!(parse(words).expect_err(words).text(), text);
        }
        assert!(parse("-id x start").expect("parsed").check().is_err());
    }
}

#[cfg(test)]
mod fuzz {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn command_lines() {
        let seeds = ["-namespace\nns\n-id=c1\n-address\n/s\nstart", "--debug=false\n-info\n--\ndelete", "-v"];
        ::fuzz::target("shim-words")
            .seeds(seeds)
            .words(&["bundle", "socket", "publish-binary"])
            .rounds(10_000)
            .run(|bytes| {
                let words = bytes.split(|b| *b == b'\n').map(|word| OsString::from_vec(word.to_vec()));
                Words::parse(words).is_ok()
            });
    }
}
