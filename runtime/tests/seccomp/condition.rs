//! Conditions on arguments, by the specification's words: the judge where libseccomp and we disagree.

use serde_json::Value;

use crate::generate::Random;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    Masked,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition {
    pub(crate) index: usize,
    pub(crate) kind: Kind,
    pub(crate) value: u64,
    pub(crate) two: u64,
}

impl From<&Value> for Condition {
    fn from(v: &Value) -> Self {
        let kind = match v["op"].as_str().unwrap() {
            "SCMP_CMP_NE" => Kind::NotEqual,
            "SCMP_CMP_LT" => Kind::Less,
            "SCMP_CMP_LE" => Kind::LessOrEqual,
            "SCMP_CMP_EQ" => Kind::Equal,
            "SCMP_CMP_GE" => Kind::GreaterOrEqual,
            "SCMP_CMP_GT" => Kind::Greater,
            "SCMP_CMP_MASKED_EQ" => Kind::Masked,
            other => panic!("{other}"),
        };
        let number = |key: &str| v[key].as_u64().unwrap_or(0);
        Self { index: number("index") as usize, kind, value: number("value"), two: number("valueTwo") }
    }
}

impl Condition {
    /// The specification's meaning.
    pub(crate) fn holds(&self, args: &[u64; 6], wide: bool) -> bool {
        let cut = |n: u64| if wide { n } else { n & u64::from(u32::MAX) };
        let (a, b, c) = (cut(args[self.index]), cut(self.value), cut(self.two));
        match self.kind {
            Kind::NotEqual => a != b,
            Kind::Less => a < b,
            Kind::LessOrEqual => a <= b,
            Kind::Equal => a == b,
            Kind::GreaterOrEqual => a >= b,
            Kind::Greater => a > b,
            Kind::Masked => a & b == c & b,
        }
    }

    pub(crate) fn satisfied(&self, random: &mut Random) -> u64 {
        match self.kind {
            Kind::Equal | Kind::LessOrEqual | Kind::GreaterOrEqual => self.value,
            Kind::NotEqual | Kind::Greater => self.value.wrapping_add(1),
            Kind::Less => self.value.wrapping_sub(1),
            Kind::Masked => (self.two & self.value) | (random.next() & !self.value),
        }
    }

    pub(crate) fn edges(&self) -> Vec<u64> {
        const HIGH: u64 = 1 << 32;
        if self.kind == Kind::Masked {
            let at = self.two & self.value;
            let (low, high) =
                (self.value & self.value.wrapping_neg(), 1 << self.value.checked_ilog2().unwrap_or(0));
            return vec![at, at ^ low, at ^ high, at | !self.value, at & 0xffff_ffff, self.two, at ^ HIGH];
        }
        let v = self.value;
        vec![
            v,
            v.wrapping_sub(1),
            v.wrapping_add(1),
            v ^ HIGH,
            v.wrapping_add(HIGH),
            v.wrapping_sub(HIGH),
            v & 0xffff_ffff,
            v | 0xffff_ffff_0000_0000,
            v | 0xffff_ffff,
        ]
    }
}

/// What a rule makes the kernel do.
pub(crate) fn verdict(action: &Value, errno: &Value) -> u32 {
    let data = errno.as_u64().map_or(libc::EPERM as u32, |n| n as u32);
    match action.as_str().unwrap() {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | data,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | data,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_NOTIFY" => libc::SECCOMP_RET_USER_NOTIF,
        other => panic!("{other}"),
    }
}
