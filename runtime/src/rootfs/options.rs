//! What the words in `mounts[].options` mean. A table, nothing else: the words are those of
//! runtime-spec 1.3 (config.md, "Linux mount options"), which are `mount(8)`'s; what is not here is
//! data for the file system.

use crate::sys::mount::attr;

/// The meaning of one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Accepted, changes nothing.
    Nothing,
    /// Flags of this mount.
    Attr {
        set: u64,
        clear: u64,
    },
    /// Flags of this mount and of all below it.
    RecursiveAttr {
        set: u64,
        clear: u64,
    },
    /// A flag of the file system itself (`fsconfig(2)`).
    Superblock(&'static str),
    Bind {
        recursive: bool,
    },
    Propagation {
        kind: u64,
        recursive: bool,
    },
    Idmap {
        recursive: bool,
    },
    Remount,
    /// tmpfs: begins with a copy of what it covers.
    CopyUp,
    /// The source may be a symbolic link, which is then mounted itself.
    SourceNofollow,
    /// The destination may be a symbolic link, which is then covered itself.
    DestinationNofollow,
}

use Word::{Attr, Bind, Idmap, Nothing, Propagation, RecursiveAttr, Superblock};

const fn set(bits: u64) -> Word {
    Attr { set: bits, clear: 0 }
}

const fn clear(bits: u64) -> Word {
    Attr { set: 0, clear: bits }
}

const fn rset(bits: u64) -> Word {
    RecursiveAttr { set: bits, clear: 0 }
}

const fn rclear(bits: u64) -> Word {
    RecursiveAttr { set: 0, clear: bits }
}

/// One of the three access time modes: the others must be cleared with it (`mount_setattr(2)`).
const fn atime(mode: u64) -> Word {
    Attr { set: mode, clear: attr::ATIME }
}

const fn ratime(mode: u64) -> Word {
    RecursiveAttr { set: mode, clear: attr::ATIME }
}

const fn propagation(kind: libc::c_ulong, recursive: bool) -> Word {
    Propagation { kind, recursive }
}

/// Sorted by word.
pub const WORDS: &[(&str, Word)] = &[
    ("acl", Superblock("acl")),
    ("async", Superblock("async")),
    ("atime", atime(0)),
    ("bind", Bind { recursive: false }),
    ("defaults", Nothing),
    ("dest-nofollow", Word::DestinationNofollow),
    ("dev", clear(attr::NODEV)),
    ("diratime", clear(attr::NODIRATIME)),
    ("dirsync", Superblock("dirsync")),
    ("exec", clear(attr::NOEXEC)),
    ("idmap", Idmap { recursive: false }),
    ("iversion", Superblock("iversion")),
    ("lazytime", Superblock("lazytime")),
    ("loud", Nothing),
    ("mand", Superblock("mand")),
    ("noacl", Superblock("noacl")),
    ("noatime", atime(attr::NOATIME)),
    ("nodev", set(attr::NODEV)),
    ("nodiratime", set(attr::NODIRATIME)),
    ("noexec", set(attr::NOEXEC)),
    ("noiversion", Superblock("noiversion")),
    ("nolazytime", Superblock("nolazytime")),
    ("nomand", Superblock("nomand")),
    ("norelatime", atime(attr::STRICTATIME)),
    ("nostrictatime", atime(0)),
    ("nosuid", set(attr::NOSUID)),
    ("nosymfollow", set(attr::NOSYMFOLLOW)),
    ("private", propagation(libc::MS_PRIVATE, false)),
    ("ratime", ratime(0)),
    ("rbind", Bind { recursive: true }),
    ("rdev", rclear(attr::NODEV)),
    ("rdiratime", rclear(attr::NODIRATIME)),
    ("relatime", atime(0)),
    ("remount", Word::Remount),
    ("rexec", rclear(attr::NOEXEC)),
    ("ridmap", Idmap { recursive: true }),
    ("rnoatime", ratime(attr::NOATIME)),
    ("rnodev", rset(attr::NODEV)),
    ("rnodiratime", rset(attr::NODIRATIME)),
    ("rnoexec", rset(attr::NOEXEC)),
    ("rnorelatime", ratime(attr::STRICTATIME)),
    ("rnostrictatime", ratime(0)),
    ("rnosuid", rset(attr::NOSUID)),
    ("rnosymfollow", rset(attr::NOSYMFOLLOW)),
    ("ro", set(attr::RDONLY)),
    ("rprivate", propagation(libc::MS_PRIVATE, true)),
    ("rrelatime", ratime(0)),
    ("rro", rset(attr::RDONLY)),
    ("rrw", rclear(attr::RDONLY)),
    ("rshared", propagation(libc::MS_SHARED, true)),
    ("rslave", propagation(libc::MS_SLAVE, true)),
    ("rstrictatime", ratime(attr::STRICTATIME)),
    ("rsuid", rclear(attr::NOSUID)),
    ("rsymfollow", rclear(attr::NOSYMFOLLOW)),
    ("runbindable", propagation(libc::MS_UNBINDABLE, true)),
    ("rw", clear(attr::RDONLY)),
    ("shared", propagation(libc::MS_SHARED, false)),
    ("silent", Nothing),
    ("slave", propagation(libc::MS_SLAVE, false)),
    ("src-nofollow", Word::SourceNofollow),
    ("strictatime", atime(attr::STRICTATIME)),
    ("suid", clear(attr::NOSUID)),
    ("symfollow", clear(attr::NOSYMFOLLOW)),
    ("sync", Superblock("sync")),
    ("tmpcopyup", Word::CopyUp),
    ("unbindable", propagation(libc::MS_UNBINDABLE, false)),
];

pub fn lookup(word: &str) -> Option<Word> {
    WORDS.binary_search_by_key(&word, |(name, _)| name).ok().map(|at| WORDS[at].1)
}

/// What `features` lists.
pub fn names() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_it_can_be_searched() {
        assert!(WORDS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn every_recursive_flag_has_its_plain_one() {
        for (name, word) in WORDS {
            let RecursiveAttr { set, clear } = *word else { continue };
            assert_eq!(lookup(&name[1..]), Some(Attr { set, clear }), "{name}");
        }
    }

    #[test]
    fn an_unknown_word_is_data() {
        assert_eq!(lookup("size=64k"), None);
        assert_eq!(lookup("mode=755"), None);
    }
}
