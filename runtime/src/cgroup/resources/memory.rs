//! Memory and swap.
//! <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>

use super::{Problems, Write, asked, or_max, refuse};
use crate::config::Memory;

/// `useHierarchy` has nothing to do: below our floor of Linux 5.12 lies 5.11, since which every memory
/// cgroup counts what is below it (bef8620cd8e0), and runc does not look at it either.
pub(in super::super) fn memory_v1(memory: &Memory, problems: &mut Problems) -> Vec<Write> {
    let mut writes = Vec::new();
    let (limit, swap) = (asked(memory.limit), asked(memory.swap));
    // No limit on memory alone takes the limit with swap away too: "no limit" would fail otherwise.
    let swap_too = limit == Some(-1) && swap.is_none();
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        refuse(problems, "memory/swap", SWAP_BELOW_LIMIT);
    }
    if let Some(limit) = limit {
        writes.push(Write {
            after_next: swap.is_some() || swap_too,
            ..Write::new("memory.limit_in_bytes", limit).default_if(limit == -1)
        });
    }
    if let Some(swap) = swap.or(swap_too.then_some(-1)) {
        writes.push(
            Write::new("memory.memsw.limit_in_bytes", swap).default_if(swap == -1).may_lack_if(swap_too),
        );
    }
    if let Some(reservation) = asked(memory.reservation) {
        writes.push(Write::new("memory.soft_limit_in_bytes", reservation).default_if(reservation == -1));
    }
    match memory.disable_oom_killer {
        Some(true) => writes.push(Write::new("memory.oom_control", 1)),
        Some(false) => writes.push(Write::new("memory.oom_control", 0).default_if(true)),
        None => {}
    }
    match memory.swappiness {
        Some(swappiness @ 0..=100) => writes.push(Write::new("memory.swappiness", swappiness)),
        Some(other) => refuse(
            problems,
            "memory/swappiness",
            format!("invalid value: {other}. valid memory swappiness range is 0-100"),
        ),
        None => {}
    }
    writes
}

const SWAP_BELOW_LIMIT: &str = "memory+swap limit should be >= memory limit";

pub(in super::super) fn memory_v2(memory: &Memory, problems: &mut Problems) -> Vec<Write> {
    let mut writes = Vec::new();
    let (limit, swap) = (asked(memory.limit), asked(memory.swap));
    if let Some(swap) = swap_v2(limit, swap, problems) {
        let plain = swap <= 0;
        // memory.swap.max is not there without swap, and then it is 0 and unlimited at once.
        writes.push(Write::new("memory.swap.max", or_max(swap)).default_if(swap < 0).may_lack_if(plain));
    }
    if let Some(limit) = limit {
        writes.push(Write::new("memory.max", or_max(limit)).default_if(limit < 0));
    }
    if let Some(reservation) = asked(memory.reservation) {
        // Best-effort protection is what comes nearest to a soft limit: runc and crun do the same.
        writes.push(Write::new("memory.low", or_max(reservation)));
    }
    if memory.swappiness.is_some() {
        refuse(problems, "memory/swappiness", "cgroup v2 has no swappiness for a cgroup");
    }
    if memory.disable_oom_killer == Some(true) {
        refuse(problems, "memory/disableOOMKiller", "the OOM killer cannot be disabled on cgroup v2");
    }
    writes
}

/// The specification's `swap` is memory and swap together, v2's is swap alone.
fn swap_v2(limit: Option<i64>, swap: Option<i64>, problems: &mut Problems) -> Option<i64> {
    match (limit, swap) {
        // No limit on memory takes the one on swap away too, as on v1.
        (Some(-1), None) | (_, Some(-1)) => Some(-1),
        (_, None) => None,
        (None | Some(-1), Some(_)) => {
            refuse(problems, "memory/swap", "unable to set swap limit without memory limit");
            None
        }
        (Some(limit), Some(swap)) if swap < limit => {
            refuse(problems, "memory/swap", SWAP_BELOW_LIMIT);
            None
        }
        (Some(limit), Some(swap)) => Some(swap - limit),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ok, refused};
    use super::*;

    fn memory(limit: i64, swap: i64) -> Memory {
        Memory { limit: Some(limit), swap: Some(swap), ..Memory::default() }
    }

    #[test]
    fn memory_and_swap() {
        for (limit, swap, v1, v2) in [
            (0, 0, &[][..], &[][..]),
            (100, 0, &["memory.limit_in_bytes=100"], &["memory.max=100"]),
            (
                100,
                300,
                &["memory.limit_in_bytes=100>", "memory.memsw.limit_in_bytes=300"],
                &["memory.swap.max=200", "memory.max=100"],
            ),
            (
                100,
                100,
                &["memory.limit_in_bytes=100>", "memory.memsw.limit_in_bytes=100"],
                &["memory.swap.max=0~", "memory.max=100"],
            ),
            (
                100,
                -1,
                &["memory.limit_in_bytes=100>", "memory.memsw.limit_in_bytes=-1?"],
                &["memory.swap.max=max?~", "memory.max=100"],
            ),
            (
                -1,
                0,
                &["memory.limit_in_bytes=-1?>", "memory.memsw.limit_in_bytes=-1?~"],
                &["memory.swap.max=max?~", "memory.max=max?"],
            ),
        ] {
            assert_eq!(ok(|p| memory_v1(&memory(limit, swap), p)), v1, "{limit} {swap}");
            assert_eq!(ok(|p| memory_v2(&memory(limit, swap), p)), v2, "{limit} {swap}");
        }
    }

    #[test]
    fn swap_that_cannot_be() {
        let below = ["/linux/resources/memory/swap: memory+swap limit should be >= memory limit"];
        assert_eq!(refused(|p| memory_v1(&memory(100, 99), p)), below);
        assert_eq!(refused(|p| memory_v2(&memory(100, 99), p)), below);
        let alone = ["/linux/resources/memory/swap: unable to set swap limit without memory limit"];
        assert_eq!(refused(|p| memory_v2(&memory(0, 99), p)), alone);
        assert_eq!(refused(|p| memory_v2(&memory(-1, 99), p)), alone);
        assert_eq!(refused(|p| memory_v1(&memory(-1, 99), p)), below);
    }

    #[test]
    fn other_memory_settings() {
        let all = Memory {
            reservation: Some(7),
            swappiness: Some(60),
            disable_oom_killer: Some(true),
            ..Memory::default()
        };
        assert_eq!(
            ok(|p| memory_v1(&all, p)),
            ["memory.soft_limit_in_bytes=7", "memory.oom_control=1", "memory.swappiness=60"]
        );
        assert_eq!(refused(|p| memory_v2(&all, p)).len(), 2);
        let reservation = Memory { reservation: Some(7), ..Memory::default() };
        assert_eq!(ok(|p| memory_v2(&reservation, p)), ["memory.low=7"]);
        let wild = Memory { swappiness: Some(101), ..Memory::default() };
        assert_eq!(refused(|p| memory_v1(&wild, p)).len(), 1);
    }
}
