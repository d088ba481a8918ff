//! What the words in a mount's options mean. Pure.

use nix::mount::MsFlags;

/// `mount(2)` takes one page of data.
pub(super) const PAGE: usize = 4096;

/// From which size on an overlay's layers are named relative to the folder that they are in. The room
/// is for what comes between the words.
const LONG: usize = PAGE - 512;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) flags: MsFlags,
    /// A call of its own.
    pub(super) propagation: MsFlags,
    /// The source is a file, to be mounted by a loop device.
    pub(super) is_loop: bool,
    pub(super) direct_io: bool,
    /// `uidmap=` and `gidmap=`.
    pub(super) uid_map: Option<String>,
    pub(super) gid_map: Option<String>,
    /// For the file system.
    pub(super) data: Vec<String>,
}

const REC: MsFlags = MsFlags::MS_REC;

/// Containerd's words (`core/mount/mount_linux.go`), and those for propagation.
const SETS: &[(&str, MsFlags)] = &[
    ("bind", MsFlags::MS_BIND),
    ("defaults", MsFlags::empty()),
    ("dirsync", MsFlags::MS_DIRSYNC),
    ("mand", MsFlags::MS_MANDLOCK),
    ("noatime", MsFlags::MS_NOATIME),
    ("nodev", MsFlags::MS_NODEV),
    ("nodiratime", MsFlags::MS_NODIRATIME),
    ("noexec", MsFlags::MS_NOEXEC),
    ("nosuid", MsFlags::MS_NOSUID),
    ("rbind", MsFlags::MS_BIND.union(REC)),
    ("relatime", MsFlags::MS_RELATIME),
    ("remount", MsFlags::MS_REMOUNT),
    ("ro", MsFlags::MS_RDONLY),
    ("strictatime", MsFlags::MS_STRICTATIME),
    ("sync", MsFlags::MS_SYNCHRONOUS),
];

const CLEARS: &[(&str, MsFlags)] = &[
    ("async", MsFlags::MS_SYNCHRONOUS),
    ("atime", MsFlags::MS_NOATIME),
    ("dev", MsFlags::MS_NODEV),
    ("diratime", MsFlags::MS_NODIRATIME),
    ("exec", MsFlags::MS_NOEXEC),
    ("nomand", MsFlags::MS_MANDLOCK),
    ("norelatime", MsFlags::MS_RELATIME),
    ("nostrictatime", MsFlags::MS_STRICTATIME),
    ("rw", MsFlags::MS_RDONLY),
    ("suid", MsFlags::MS_NOSUID),
];

const PROPAGATION: &[(&str, MsFlags)] = &[
    ("private", MsFlags::MS_PRIVATE),
    ("rprivate", MsFlags::MS_PRIVATE.union(REC)),
    ("shared", MsFlags::MS_SHARED),
    ("rshared", MsFlags::MS_SHARED.union(REC)),
    ("slave", MsFlags::MS_SLAVE),
    ("rslave", MsFlags::MS_SLAVE.union(REC)),
    ("unbindable", MsFlags::MS_UNBINDABLE),
    ("runbindable", MsFlags::MS_UNBINDABLE.union(REC)),
];

fn find(table: &[(&str, MsFlags)], word: &str) -> Option<MsFlags> {
    table.iter().find(|(name, _)| *name == word).map(|&(_, flags)| flags)
}

impl Default for Options {
    fn default() -> Self {
        Options {
            flags: MsFlags::empty(),
            propagation: MsFlags::empty(),
            is_loop: false,
            direct_io: false,
            uid_map: None,
            gid_map: None,
            data: Vec::new(),
        }
    }
}

impl Options {
    pub(super) fn parse(words: &[String]) -> Self {
        let mut options = Options::default();
        for word in words {
            if let Some(flags) = find(SETS, word) {
                options.flags |= flags;
            } else if let Some(flags) = find(CLEARS, word) {
                options.flags &= !flags;
            } else if let Some(flags) = find(PROPAGATION, word) {
                options.propagation = flags;
            } else if word == "loop" {
                options.is_loop = true;
            } else if let Some(map) = word.strip_prefix("uidmap=") {
                options.uid_map = Some(map.to_owned());
            } else if let Some(map) = word.strip_prefix("gidmap=") {
                options.gid_map = Some(map.to_owned());
            } else if !word.starts_with("X-containerd.") {
                // Those are containerd's notes for itself.
                options.data.push(word.clone());
            }
        }
        // A word for the loop device, which a file system may know too.
        if options.is_loop {
            options.direct_io = options.data.iter().any(|word| word == "direct-io");
            options.data.retain(|word| word != "direct-io");
        }
        options
    }

    /// Of an overlay with many layers: the folder that they are in, and their names in it.
    pub(super) fn shorten(&mut self) -> Option<String> {
        const LOWER: &str = "lowerdir=";
        if self.data.iter().map(String::len).sum::<usize>() < LONG {
            return None;
        }
        let lower = self.data.iter_mut().find(|word| word.starts_with(LOWER))?;
        // A backslash quotes a colon, which splitting does not understand.
        let layers: Vec<&str> = lower[LOWER.len()..].split(':').collect();
        if layers.len() == 1 || lower.contains('\\') {
            return None;
        }
        let folder = common_folder(&layers)?.to_owned();
        let inside: Option<Vec<&str>> = layers.iter().map(|layer| layer.strip_prefix(&folder)).collect();
        let inside = inside?;
        if folder == "/" || inside.iter().any(|layer| layer.is_empty()) {
            return None;
        }
        *lower = format!("{LOWER}{}", inside.join(":"));
        Some(folder)
    }
}

/// With the slash at its end.
fn common_folder<'a>(paths: &[&'a str]) -> Option<&'a str> {
    let (first, rest) = paths.split_first()?;
    let same = |path: &&str| first.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
    let common = rest.iter().map(same).min()?;
    first[..].get(..common)?.rfind('/').map(|slash| &first[..=slash])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_become_flags_or_data() {
        let empty = MsFlags::empty();
        let (bind, ro) = (MsFlags::MS_BIND, MsFlags::MS_RDONLY);
        for (list, flags, propagation, data) in [
            (&["rbind", "ro"][..], bind | REC | ro, empty, &[][..]),
            (&["ro", "nosuid", "rw", "defaults"], MsFlags::MS_NOSUID, empty, &[]),
            (&["bind", "rslave"], bind, MsFlags::MS_SLAVE | REC, &[]),
            (
                &["index=off", "X-containerd.mkfs.fs=ext4", "lowerdir=a:b"],
                empty,
                empty,
                &["index=off", "lowerdir=a:b"],
            ),
            (&["size=1m", "direct-io"], empty, empty, &["size=1m", "direct-io"]),
        ] {
            let expected = Options { flags, propagation, data: words(data), ..Options::default() };
            assert_eq!(Options::parse(&words(list)), expected, "{list:?}");
        }
        let loops = Options::parse(&words(&["loop", "direct-io", "ro", "errors=panic"]));
        let expected = Options {
            flags: ro,
            is_loop: true,
            direct_io: true,
            data: words(&["errors=panic"]),
            ..Options::default()
        };
        assert_eq!(loops, expected);
        let mapped = Options::parse(&words(&["uidmap=0:1:2", "gidmap=0:3:4"]));
        let expected =
            Options { uid_map: Some("0:1:2".into()), gid_map: Some("0:3:4".into()), ..Options::default() };
        assert_eq!(mapped, expected);
    }

    #[test]
    fn many_layers_are_named_from_their_folder() {
        let layers = |count: usize| (0..count).map(|i| format!("/var/lib/c/snapshots/{}/fs", 10 + i));
        let data = |lower: Vec<String>| Options {
            data: vec!["workdir=/w".to_owned(), format!("lowerdir={}", lower.join(":"))],
            ..Options::default()
        };
        let mut few = data(layers(5).collect());
        assert_eq!((few.shorten(), &few), (None, &data(layers(5).collect())));
        let mut many = data(layers(300).collect());
        assert_eq!(many.shorten().as_deref(), Some("/var/lib/c/snapshots/"));
        assert!(many.data[1].starts_with("lowerdir=10/fs:11/fs:12/fs:") && many.data[1].ends_with(":309/fs"));
        // Nothing in common, and one that is the folder of the others.
        for odd in ["/elsewhere/fs", "/var/lib/c/snapshots/"] {
            let with: Vec<String> = layers(300).chain([odd.to_owned()]).collect();
            let mut options = data(with.clone());
            assert_eq!((options.shorten(), &options), (None, &data(with)), "{odd}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    /// One word in a line.
    #[test]
    fn words() {
        let lower = |folder: &str| (0..200).map(|i| format!("{folder}{i}/fs")).collect::<Vec<_>>().join(":");
        let seeds = [
            "rbind\nro\nnosuid".to_owned(),
            "loop\ndirect-io\nuidmap=0:1:2\nX-containerd.x".to_owned(),
            format!("workdir=/w\nlowerdir={}", lower("/var/lib/c/snapshots/")),
        ];
        ::fuzz::target("mount-words")
            .seeds(seeds)
            .words(&["lowerdir=", "rslave", "strictatime"])
            .rounds(8000)
            .run(|bytes| {
                let Ok(text) = std::str::from_utf8(bytes) else { return false };
                let words: Vec<String> = text.lines().map(str::to_owned).collect();
                let mut options = Options::parse(&words);
                let before = options.data.clone();
                let Some(folder) = options.shorten() else {
                    assert_eq!(options.data, before);
                    return true;
                };
                // Seen from that folder it names the same layers.
                let whole = |word: &String| match word.strip_prefix("lowerdir=") {
                    Some(list) => {
                        let layers = list.split(':').map(|layer| format!("{folder}{layer}"));
                        format!("lowerdir={}", layers.collect::<Vec<_>>().join(":"))
                    }
                    None => word.clone(),
                };
                let changed = options.data.iter().zip(&before).find(|(now, before)| now != before);
                let (now, before) = changed.expect("it was made shorter");
                assert_eq!(whole(now), *before);
                true
            });
    }
}
