//! Names of capabilities.

use std::str::FromStr;

use caps::Capability;

use super::Capabilities;
use super::read::Node;

/// All of them, by number. (`caps::all` has them in a set that needs random numbers, and panics where there are none.)
pub const ALL: [Capability; 41] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_LINUX_IMMUTABLE,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_BROADCAST,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_IPC_OWNER,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_PACCT,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_BOOT,
    Capability::CAP_SYS_NICE,
    Capability::CAP_SYS_RESOURCE,
    Capability::CAP_SYS_TIME,
    Capability::CAP_SYS_TTY_CONFIG,
    Capability::CAP_MKNOD,
    Capability::CAP_LEASE,
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_AUDIT_CONTROL,
    Capability::CAP_SETFCAP,
    Capability::CAP_MAC_OVERRIDE,
    Capability::CAP_MAC_ADMIN,
    Capability::CAP_SYSLOG,
    Capability::CAP_WAKE_ALARM,
    Capability::CAP_BLOCK_SUSPEND,
    Capability::CAP_AUDIT_READ,
    Capability::CAP_PERFMON,
    Capability::CAP_BPF,
    Capability::CAP_CHECKPOINT_RESTORE,
];

/// The bit of a capability in a set: bit N for number N of `linux/capability.h`. Upper or lower
/// case; `None` for a name that is none of `CAP_CHOWN` (0) to `CAP_CHECKPOINT_RESTORE` (40).
pub fn capability_bit(name: &str) -> Option<u64> {
    let known =
        Capability::from_str(name).or_else(|_| Capability::from_str(&name.to_ascii_uppercase())).ok()?;
    Some(1 << known.index())
}

pub(super) fn read(process: &Node) -> Option<Capabilities> {
    let sets = process.object("capabilities")?;
    let set = |key| set(&sets, key, |_, _| ());
    let permitted = set("permitted");
    // capset(2) answers EPERM to this, whoever asks. (An ambient capability that is not
    // inheritable is dropped quietly instead: runc's own default document has three.)
    let effective = self::set(&sets, "effective", |item, bit| {
        if permitted & bit == 0 {
            item.refuse("is effective but not permitted");
        }
    });
    Some(Capabilities {
        bounding: set("bounding"),
        effective,
        inheritable: set("inheritable"),
        permitted,
        ambient: set("ambient"),
    })
}

/// A name that nobody knows is reported and left out, as runc does it: an engine may be newer than
/// its runtime.
fn set(sets: &Node, key: &str, check: impl Fn(&Node, u64)) -> u64 {
    let bits = sets.each(key, |item| {
        let name = item.as_str()?;
        let bit = capability_bit(name);
        match bit {
            Some(bit) => check(item, bit),
            None => item.warn(format_args!("unknown capability {name:?} is ignored")),
        }
        bit
    });
    bits.into_iter().fold(0, |set, bit| set | bit)
}

#[cfg(test)]
mod tests {
    use super::{ALL, capability_bit};

    #[test]
    fn all_are_there_in_the_order_of_their_numbers() {
        assert_eq!(ALL.map(|capability| usize::from(capability.index())), std::array::from_fn(|index| index));
        assert_eq!(ALL.len(), caps::all().len());
    }

    #[test]
    fn names_have_the_numbers_of_the_kernel() {
        for (name, number) in [
            ("CAP_CHOWN", 0),
            ("CAP_KILL", 5),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_AUDIT_READ", 37),
            ("CAP_PERFMON", 38),
            ("CAP_BPF", 39),
            ("CAP_CHECKPOINT_RESTORE", 40),
            ("cap_net_raw", 13),
        ] {
            assert_eq!(capability_bit(name), Some(1 << number), "{name}");
        }
        for name in ["", "CHOWN", "CAP_", "CAP_FOO", "CAP_CHOWN ", "0"] {
            assert_eq!(capability_bit(name), None, "{name}");
        }
    }
}
