//! Names of capabilities.

use std::str::FromStr;

use super::Capabilities;
use super::read::Node;

/// The bit of a capability in a set: bit N for number N of `linux/capability.h`. Upper or lower
/// case; `None` for a name that is none of `CAP_CHOWN` (0) to `CAP_CHECKPOINT_RESTORE` (40).
pub fn capability_bit(name: &str) -> Option<u64> {
    let known = caps::Capability::from_str(name)
        .or_else(|_| caps::Capability::from_str(&name.to_ascii_uppercase()))
        .ok()?;
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
    use super::capability_bit;

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
