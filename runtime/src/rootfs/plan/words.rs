//! The options of one mount, sorted by what becomes of them.

use super::{Wrong, propagation_attr};
use crate::config::Mount;
use crate::rootfs::Change;
use crate::rootfs::options::{self, Word};
use crate::sys::mount::MountAttr;

/// The options of one mount, read.
#[derive(Default)]
pub(super) struct Words {
    pub(super) set: u64,
    pub(super) clear: u64,
    pub(super) recursive_set: u64,
    pub(super) recursive_clear: u64,
    pub(super) propagation: Option<(u64, bool)>,
    pub(super) bind: Option<bool>,
    pub(super) idmap: Option<bool>,
    pub(super) remount: bool,
    pub(super) copy_up: bool,
    pub(super) source_nofollow: bool,
    pub(super) destination_nofollow: bool,
    pub(super) superblock: Vec<&'static str>,
    pub(super) data: Vec<String>,
}

impl Words {
    pub(super) fn read(mount: &Mount) -> Result<Self, Wrong> {
        let mut words = Self::default();
        for option in &mount.options {
            words.add(option);
        }
        if mount.kind.as_deref() == Some(c"bind") && words.bind.is_none() {
            words.bind = Some(false);
        }
        if words.bind.is_none() && !words.remount && mount.kind.is_none() {
            return Err(("/type", "is missing, and the options say neither bind nor rbind".into()));
        }
        if !mount.uid_mappings.is_empty() && words.idmap.is_none() {
            words.idmap = Some(false);
        }
        if words.idmap.is_some() && words.bind.is_none() {
            return Err(("/options", "idmap needs a bind mount: only those can be idmapped".into()));
        }
        if words.copy_up && mount.kind.as_deref() != Some(c"tmpfs") {
            return Err(("/options", "tmpcopyup needs a mount of type tmpfs".into()));
        }
        if words.bind.is_some() && mount.source.is_none() {
            return Err(("/source", "is missing, and a bind mount needs one".into()));
        }
        Ok(words)
    }

    fn add(&mut self, option: &str) {
        match options::lookup(option) {
            None => self.data.push(option.to_owned()),
            Some(Word::Nothing) => {}
            Some(Word::Attr { set, clear }) => change(&mut self.set, &mut self.clear, set, clear),
            Some(Word::RecursiveAttr { set, clear }) => {
                change(&mut self.recursive_set, &mut self.recursive_clear, set, clear);
            }
            Some(Word::Superblock(flag)) => self.superblock.push(flag),
            Some(Word::Bind { recursive }) => self.bind = Some(recursive),
            Some(Word::Propagation { kind, recursive }) => self.propagation = Some((kind, recursive)),
            Some(Word::Idmap { recursive }) => self.idmap = Some(recursive),
            Some(Word::Remount) => self.remount = true,
            Some(Word::CopyUp) => self.copy_up = true,
            Some(Word::SourceNofollow) => self.source_nofollow = true,
            Some(Word::DestinationNofollow) => self.destination_nofollow = true,
        }
    }

    /// Flags of this mount and those below, as calls.
    pub(super) fn attr_changes(&self) -> Vec<Change> {
        let plain = MountAttr { set: self.set, clear: self.clear, ..MountAttr::default() };
        let recursive =
            MountAttr { set: self.recursive_set, clear: self.recursive_clear, ..MountAttr::default() };
        [(false, plain), (true, recursive)]
            .into_iter()
            .filter(|(_, attr)| attr.set != 0 || attr.clear != 0)
            .map(|(recursive, attr)| Change { recursive, attr })
            .collect()
    }

    pub(super) fn own_propagation(&self) -> Option<Change> {
        self.propagation.map(|(kind, recursive)| Change { recursive, attr: propagation_attr(kind) })
    }
}

/// The later word wins.
fn change(set: &mut u64, clear: &mut u64, more_set: u64, more_clear: u64) {
    *set = *set & !more_clear | more_set;
    *clear = *clear & !more_set | more_clear;
}
