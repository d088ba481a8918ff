//! A container's name.

use std::fmt;

use crate::error::{Error, Result};

/// 1 to 1024 of `[A-Za-z0-9_+.-]`, neither `.` nor `..`. The same set as runc's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    pub fn new(id: &str) -> Result<Self> {
        if id.is_empty() {
            return Err(Error::Usage("container id cannot be empty".into()));
        }
        let known = |c: char| c.is_ascii_alphanumeric() || "_+.-".contains(c);
        if id.len() > 1024 || id == "." || id == ".." || !id.chars().all(known) {
            let shown: String = id.chars().take(80).collect();
            return Err(Error::Usage(format!("invalid container ID format: {shown:?}")));
        }
        Ok(Self(id.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_runc_takes_them() {
        for good in ["a", "A-b_c.d+e", "...", &"x".repeat(1024)] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a b", "ü", "a\n", "a\0", &"x".repeat(1025)] {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    /// An id becomes the name of a folder and a part of paths: what is taken is one name and no other place.
    #[test]
    fn ids() {
        ::fuzz::target("ids").seeds(["a", "A-b_c.d+e", "...", ".", ".."]).rounds(20_000).run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return false };
            let Ok(id) = ContainerId::new(text) else { return false };
            assert_eq!(id.as_str(), text);
            assert!(text.len() <= 1024 && !text.contains(|c: char| c.is_control() || c.is_whitespace()));
            let mut components = std::path::Path::new(text).components();
            assert_eq!(components.next(), Some(std::path::Component::Normal(text.as_ref())));
            assert_eq!(components.next(), None);
            true
        });
    }
}
