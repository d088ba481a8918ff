//! The URIs that say where a stream leads: `/path`, `fifo:///path`, `file:///path`,
//! `binary:///path?key=value`. Read as Go's `net/url` reads them, because containerd writes them so.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// Where a stream leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Null,
    /// A FIFO, or, as with the stock shim, another file at a bare path.
    Path(PathBuf),
    File(PathBuf),
    Logger(Program),
}

/// A logger, from its URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: String,
    /// Of the query: each key, and its value after it.
    pub(super) args: Vec<String>,
    /// Of the query: `env.NAME=value`.
    pub(super) env: Vec<(String, String)>,
    /// `binary-v2`: the logger is ready when it has written a byte, not when it has only let go of the
    /// pipe (which it also does when it dies).
    pub(super) says_ready: bool,
}

impl Target {
    pub(super) fn parse(uri: &str) -> Result<Self> {
        if uri.is_empty() {
            return Ok(Target::Null);
        }
        let Some((scheme, rest)) = scheme(uri) else { return Ok(Target::Path(uri.into())) };
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        // `//host/path`: nobody is named as host; what stands there is no part of the path.
        let location = location.split_once('#').map_or(location, |(location, _)| location);
        let path =
            location.strip_prefix("//").map_or(location, |rest| rest.find('/').map_or("", |at| &rest[at..]));
        let path = unescape(path, false).ok_or_else(|| malformed(uri))?;
        if path.is_empty() {
            return Err(Error::invalid(format!("the stdio URI {uri:?} has no path")));
        }
        match scheme {
            "fifo" => Ok(Target::Path(path.into())),
            "file" => Ok(Target::File(path.into())),
            "binary" | "binary-v2" => {
                let query = query.split_once('#').map_or(query, |(query, _)| query);
                let pairs = pairs(query).ok_or_else(|| malformed(uri))?;
                Ok(Target::Logger(Program::new(path, pairs, scheme == "binary-v2")))
            }
            _ => Err(Error::invalid(format!("unknown STDIO scheme {scheme} in {uri:?}"))),
        }
    }
}

impl Program {
    fn new(path: String, pairs: Vec<(String, String)>, says_ready: bool) -> Self {
        let (mut args, mut env, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for (key, value) in pairs {
            // Of a key that is there twice, the first value counts.
            if seen.contains(&key) {
                continue;
            }
            match key.strip_prefix("env.") {
                // These two are ours to give.
                Some("CONTAINER_ID" | "CONTAINER_NAMESPACE") => {}
                Some(name) => env.push((name.to_owned(), value)),
                None => args.extend([key.clone(), value]),
            }
            seen.push(key);
        }
        Program { path, args, env, says_ready }
    }
}

fn malformed(uri: &str) -> Error {
    Error::invalid(format!("the stdio URI {uri:?} is malformed"))
}

/// `scheme:rest`; a path has none.
fn scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(valid))
        .then_some((scheme, rest))
}

fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescape(key, true)?, unescape(value, true)?))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

/// `%2F`, and in a query `+` for a space.
fn unescape(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
                u8::try_from(value).ok()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logger(args: &[&str], env: &[(&str, &str)], says_ready: bool) -> Target {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Target::Logger(Program {
            path: "/bin/log".into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(owned).collect(),
            says_ready,
        })
    }

    #[test]
    fn a_uri_says_where_a_stream_leads() {
        let table = [
            ("", Target::Null),
            ("/run/c/1-stdout", Target::Path("/run/c/1-stdout".into())),
            ("/run/a%20b?c", Target::Path("/run/a%20b?c".into())),
            ("/run/a:b", Target::Path("/run/a:b".into())),
            ("fifo:///run/c/1-stdout", Target::Path("/run/c/1-stdout".into())),
            ("file:///var/log/a%20b", Target::File("/var/log/a b".into())),
            ("file:///var/log/x?maximum=3#top", Target::File("/var/log/x".into())),
            ("file:/var/log/x", Target::File("/var/log/x".into())),
            ("binary:///bin/log", logger(&[], &[], false)),
            ("binary:///bin/log?id=a+b%2Fc&flag", logger(&["id", "a b/c", "flag", ""], &[], false)),
            ("binary:///bin/log?a=1&a=2&b=3", logger(&["a", "1", "b", "3"], &[], false)),
            (
                "binary-v2:///bin/log?env.HOME=/x&env.CONTAINER_ID=no&b=%3d",
                logger(&["b", "="], &[("HOME", "/x")], true),
            ),
        ];
        for (uri, target) in table {
            assert_eq!(Target::parse(uri).unwrap(), target, "{uri}");
        }
    }

    #[test]
    fn what_is_no_known_uri_is_refused_and_named() {
        for uri in ["http://x/y", "file://", "binary:", "file:///a%2", "file:///a%zz", "binary:///x?a=%"] {
            let error = Target::parse(uri).unwrap_err().to_string();
            assert!(error.contains(uri), "{uri}: {error}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn uris() {
        let seeds = [
            "/run/c/1-stdout",
            "fifo:///run/c/1-stdout",
            "file:///var/log/a%20b?maximum=3#top",
            "binary:///bin/log?id=a+b%2Fc&flag&env.HOME=/x",
            "binary-v2://host/bin/log?a=1&a=2",
        ];
        ::fuzz::target("stdio-uris").seeds(seeds).rounds(20_000).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let target = Target::parse(text);
            if let Ok(Target::Logger(program)) = &target {
                assert!(!program.path.is_empty() && program.args.len().is_multiple_of(2), "{program:?}");
            }
            target.is_ok()
        });
    }
}
