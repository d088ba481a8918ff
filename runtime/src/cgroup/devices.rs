//! The rules of `linux.resources.devices` in normal form: a default, and what departs from it.
//! The same form becomes lines for v1's `devices.allow` and `devices.deny` or a program for v2
//! (`devices_bpf`), so that both mean the same.
//!
//! <https://docs.kernel.org/admin-guide/cgroup-v1/devices.html>

use std::collections::BTreeMap;
use std::fmt;

use super::resources::{Problems, Write};
use crate::config::{Device, DeviceKind, DeviceRule};
use crate::error::Problem;

/// Bits as in the context that the kernel gives to a program (`BPF_DEVCG_ACC_*`).
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Char,
}

/// Which devices; `None` is any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Devices {
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) kind: Kind,
}

/// All devices are allowed but the exceptions, or none but the exceptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) allow: bool,
    /// Accesses that depart from the default.
    pub(super) exceptions: BTreeMap<Devices, u8>,
}

const fn char(major: u32, minor: Option<u32>) -> (Devices, u8) {
    (Devices { major: Some(major), minor, kind: Kind::Char }, ALL)
}

/// Every container has these, whatever its configuration says, and may make any node (which is of
/// no use without a rule for it). The same list as runc's: engines count on it.
/// <https://github.com/opencontainers/runc/blob/main/libcontainer/specconv/spec_linux.go>
const ALWAYS_ALLOWED: [(Devices, u8); 11] = [
    (Devices { major: None, minor: None, kind: Kind::Char }, MKNOD),
    (Devices { major: None, minor: None, kind: Kind::Block }, MKNOD),
    char(1, Some(3)), // null
    char(1, Some(8)), // random
    char(1, Some(7)), // full
    char(5, Some(0)), // tty
    char(1, Some(5)), // zero
    char(1, Some(9)), // urandom
    char(136, None),  // pts/*
    char(5, Some(2)), // ptmx
    // tun: runc 1.2 took it out, and put it in again when VPNs in containers broke (#4556).
    char(10, Some(200)),
];

impl Policy {
    /// In the order of the rules, and then what is always allowed; before the first rule nothing is.
    /// `nodes` are those that the container's first process makes for itself, under these rules.
    pub(super) fn new(rules: &[DeviceRule], nodes: &[Device], problems: &mut Problems) -> Self {
        let mut policy = Policy::default();
        for (index, rule) in rules.iter().enumerate() {
            if let Err(what) = policy.apply(rule) {
                let pointer = format!("/linux/resources/devices/{index}");
                problems.push(Problem { pointer, what });
            }
        }
        for (devices, access) in ALWAYS_ALLOWED {
            if let Err(what) = policy.set(true, devices, access) {
                problems.push(Problem { pointer: "/linux/resources/devices".into(), what });
            }
        }
        for (index, node) in nodes.iter().enumerate() {
            let kind = match node.kind {
                DeviceKind::Char => Kind::Char,
                DeviceKind::Block => Kind::Block,
                DeviceKind::Fifo => continue,
            };
            let devices = Devices { major: Some(node.major), minor: Some(node.minor), kind };
            if let Err(what) = policy.let_be_made(devices) {
                problems.push(Problem { pointer: format!("/linux/devices/{index}"), what });
            }
        }
        policy
    }

    pub(super) fn allows_everything(&self) -> bool {
        self.allow && self.exceptions.is_empty()
    }

    fn apply(&mut self, rule: &DeviceRule) -> Result<(), String> {
        let kind = match rule.kind {
            // `a` is always about every device and every access: the numbers beside it are not
            // looked at, by the kernel neither.
            None => {
                *self = Policy { allow: rule.allow, exceptions: BTreeMap::new() };
                return Ok(());
            }
            Some(DeviceKind::Char) => Kind::Char,
            Some(DeviceKind::Block) => Kind::Block,
            Some(DeviceKind::Fifo) => return Err("a rule can be for a, b or c, not for p".into()),
        };
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let access = bit(rule.read, READ) | bit(rule.write, WRITE) | bit(rule.mknod, MKNOD);
        if access == 0 {
            return Err("device access field cannot be empty".into());
        }
        self.set(rule.allow, Devices { major: rule.major, minor: rule.minor, kind }, access)
    }

    fn set(&mut self, allow: bool, devices: Devices, access: u8) -> Result<(), String> {
        if allow != self.allow {
            *self.exceptions.entry(devices).or_default() |= access;
            return Ok(());
        }
        // Back to the default. The kernel passes over a wish to take a part out of a wider
        // exception without a word, which would be less than was asked for.
        for wider in [
            Devices { major: None, ..devices },
            Devices { minor: None, ..devices },
            Devices { major: None, minor: None, ..devices },
        ] {
            let held = self.exceptions.get(&wider).copied().unwrap_or(0);
            if wider != devices && held & access != 0 {
                return Err(format!(
                    "{} cannot be taken out of the wider rule before it, {}",
                    Line(devices, access),
                    Line(wider, held)
                ));
            }
        }
        if let Some(held) = self.exceptions.get_mut(&devices) {
            *held &= !access;
            if *held == 0 {
                self.exceptions.remove(&devices);
            }
        }
        Ok(())
    }

    /// A rule that denies mknod would deny it to the first process too. Where nothing is the default,
    /// any node may be made already.
    fn let_be_made(&mut self, node: Devices) -> Result<(), String> {
        if !self.allow {
            return Ok(());
        }
        for devices in [
            node,
            Devices { major: None, ..node },
            Devices { minor: None, ..node },
            Devices { major: None, minor: None, ..node },
        ] {
            let Some(held) = self.exceptions.get_mut(&devices) else { continue };
            // The others that a wider rule denies may be made then as well: of no use while it denies
            // all that can be done with them.
            if devices != node && *held & MKNOD != 0 && *held != ALL {
                let (node, denied) = (Line(node, MKNOD), Line(devices, *held));
                return Err(format!("{node} is denied by a rule for more than this device, {denied}"));
            }
            *held &= !MKNOD;
            if *held == 0 {
                self.exceptions.remove(&devices);
            }
        }
        Ok(())
    }

    /// `a` first, and then each exception: a new v1 cgroup begins with what its parent has.
    pub(super) fn writes(&self) -> Vec<Write> {
        let (default, exception) =
            if self.allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        let mut writes = vec![Write::new(default, "a")];
        // A child may never have more than its parent: to take all is a wish that a nested runtime
        // is refused, and it is no wish at all in a new cgroup.
        writes[0].default = self.allow;
        writes.extend(self.exceptions.iter().map(|(d, a)| Write::new(exception, Line(*d, *a))));
        writes
    }
}

/// `c 1:3 rwm`
struct Line(Devices, u8);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line(devices, access) = self;
        f.write_str(if devices.kind == Kind::Char { "c " } else { "b " })?;
        match devices.major {
            Some(number) => write!(f, "{number}:")?,
            None => f.write_str("*:")?,
        }
        match devices.minor {
            Some(number) => write!(f, "{number} ")?,
            None => f.write_str("* ")?,
        }
        for (bit, letter) in [(READ, "r"), (WRITE, "w"), (MKNOD, "m")] {
            if access & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `+c 1:3 rwm`, `-a`: as a rule of the configuration.
    pub(in super::super) fn rule(text: &str) -> DeviceRule {
        let (allow, text) = (text.starts_with('+'), &text[1..]);
        let mut fields = text.split([' ', ':']);
        let kind = match fields.next().unwrap() {
            "c" => Some(DeviceKind::Char),
            "b" => Some(DeviceKind::Block),
            "p" => Some(DeviceKind::Fifo),
            _ => None,
        };
        let major = fields.next().and_then(|n| n.parse().ok());
        let minor = fields.next().and_then(|n| n.parse().ok());
        let access = fields.next().unwrap_or("rwm");
        DeviceRule {
            allow,
            kind,
            major,
            minor,
            read: access.contains('r'),
            write: access.contains('w'),
            mknod: access.contains('m'),
        }
    }

    pub(in super::super) fn policy(rules: &[&str]) -> Policy {
        let rules: Vec<DeviceRule> = rules.iter().map(|r| rule(r)).collect();
        let mut problems = Problems::new();
        let policy = Policy::new(&rules, &[], &mut problems);
        assert_eq!(problems, []);
        policy
    }

    fn lines(rules: &[&str]) -> Vec<String> {
        shown(&policy(rules))
    }

    fn shown(policy: &Policy) -> Vec<String> {
        policy.writes().iter().map(|w| format!("{} {}", w.file, w.value)).collect()
    }

    /// `c 10:200`: as an entry of `linux.devices`.
    fn node(text: &str) -> Device {
        let DeviceRule { kind, major, minor, .. } = rule(&format!("+{text}"));
        Device {
            path: c"/dev/x".into(),
            kind: kind.unwrap(),
            major: major.unwrap(),
            minor: minor.unwrap(),
            mode: 0o666,
            uid: 0,
            gid: 0,
        }
    }

    const ALWAYS: [&str; 11] = [
        "devices.allow b *:* m",
        "devices.allow c *:* m",
        "devices.allow c 1:3 rwm",
        "devices.allow c 1:5 rwm",
        "devices.allow c 1:7 rwm",
        "devices.allow c 1:8 rwm",
        "devices.allow c 1:9 rwm",
        "devices.allow c 5:0 rwm",
        "devices.allow c 5:2 rwm",
        "devices.allow c 10:200 rwm",
        "devices.allow c 136:* rwm",
    ];

    #[test]
    fn without_rules_the_standard_devices_are_there() {
        for rules in [&[][..], &["-a"]] {
            assert_eq!(lines(rules), [&["devices.deny a"], &ALWAYS[..]].concat());
        }
    }

    #[test]
    fn rules_count_in_their_order() {
        let rules = ["-a", "+c 10:100 rwm", "+b 8:* r", "-c 10:100 w", "+c 10:229 rw"];
        let lines = lines(&rules);
        for expected in ["devices.allow c 10:100 rm", "devices.allow b 8:* r", "devices.allow c 10:229 rw"] {
            assert!(lines.iter().any(|l| l == expected), "{expected} in {lines:?}");
        }
        assert_eq!(lines.len(), 1 + ALWAYS.len() + 3);
    }

    #[test]
    fn a_privileged_container_has_all() {
        let policy = policy(&["-a", "+a"]);
        assert!(policy.allows_everything());
        assert_eq!(policy.writes(), [Write { default: true, ..Write::new("devices.allow", "a") }]);
    }

    #[test]
    fn all_but_one() {
        assert_eq!(lines(&["+a", "-b 8:0 rw"]), ["devices.allow a", "devices.deny b 8:0 rw"]);
        assert_eq!(lines(&["+a", "-b 8:0 rw", "+b 8:0 w"]), ["devices.allow a", "devices.deny b 8:0 r"]);
    }

    #[test]
    fn nodes_of_the_container_can_be_made_whatever_is_denied() {
        for (rules, nodes, expected) in [
            (&["+a", "-c 10:229 rwm"][..], &["c 10:229"][..], &["devices.deny c 10:229 rw"][..]),
            (&["+a", "-b 8:0 m"], &["b 8:0"], &[]),
            (&["+a", "-c 240:* rwm"], &["c 240:5"], &["devices.deny c 240:* rw"]),
            // Of other kinds and numbers the denial stays.
            (&["+a", "-b 8:0 m"], &["c 8:0", "b 8:1", "p 8:0"], &["devices.deny b 8:0 m"]),
        ] {
            let rules: Vec<DeviceRule> = rules.iter().map(|r| rule(r)).collect();
            let nodes: Vec<Device> = nodes.iter().map(|n| node(n)).collect();
            let mut problems = Problems::new();
            let policy = Policy::new(&rules, &nodes, &mut problems);
            assert_eq!(shown(&policy)[1..], *expected);
            assert_eq!(problems, []);
        }
        let rules = ["+a", "-c 240:* m"].map(rule);
        let mut problems = Problems::new();
        Policy::new(&rules, &["c 1:1", "c 240:5"].map(node), &mut problems);
        let what = "c 240:5 m is denied by a rule for more than this device, c 240:* m".into();
        assert_eq!(problems, [Problem { pointer: "/linux/devices/1".into(), what }]);
        // Where nothing is the default, nothing changes.
        let nodes = ["c 10:200"].map(node);
        assert_eq!(Policy::new(&[], &nodes, &mut Problems::new()), policy(&[]));
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        for (rules, expected) in [
            (
                &["-a", "+c 10:* rw", "-c 10:229 w"][..],
                "c 10:229 w cannot be taken out of the wider rule before it, c 10:* rw",
            ),
            (&["+p 1:1 rwm"], "a rule can be for a, b or c, not for p"),
            (&["+c 1:1 x"], "device access field cannot be empty"),
        ] {
            let rules: Vec<DeviceRule> = rules.iter().map(|r| rule(r)).collect();
            let mut problems = Problems::new();
            Policy::new(&rules, &[], &mut problems);
            let pointer = format!("/linux/resources/devices/{}", rules.len() - 1);
            assert_eq!(problems, [Problem { pointer, what: expected.into() }]);
        }
    }
}
