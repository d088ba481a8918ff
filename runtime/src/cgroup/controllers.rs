//! Who holds which limit: for each controller its name on v1 and v2, and what is written for it there.

use super::plan::{Step, is_asked};
use super::resources::{self, Problems, Write};
use crate::config::{Memory, Resources};

/// The first limit that is asked for, by its name in the configuration.
pub(super) fn first_limit(resources: &Resources) -> Option<&'static str> {
    let mut ignored = Problems::new();
    CONTROLLERS
        .iter()
        .find(|controller| (controller.on_v1)(resources, &mut ignored).iter().any(is_asked))
        .map(|controller| controller.property)
        .or((!resources.unified.is_empty()).then_some("unified"))
}

type Steps = fn(&Resources, &mut Problems) -> Vec<Step>;

/// Who holds a limit.
pub(super) struct Controller {
    /// In the configuration.
    pub(super) property: &'static str,
    pub(super) v1: &'static str,
    pub(super) v2: &'static str,
    pub(super) on_v1: Steps,
    pub(super) on_v2: Steps,
}

pub(super) const CONTROLLERS: [Controller; 9] = [
    Controller {
        property: "memory",
        v1: "memory",
        v2: "memory",
        on_v1: |r, problems| plain(resources::memory_v1(&r.memory, problems)),
        on_v2: |r, problems| {
            let writes = plain(resources::memory_v2(&r.memory, problems));
            check_usage(&r.memory).into_iter().chain(writes).collect()
        },
    },
    Controller {
        property: "cpu",
        v1: "cpu",
        v2: "cpu",
        on_v1: |r, problems| plain(resources::cpu_v1(&r.cpu, problems)),
        on_v2: |r, problems| plain(resources::cpu_v2(&r.cpu, problems)),
    },
    Controller {
        property: "cpu",
        v1: "cpuset",
        v2: "cpuset",
        on_v1: |r, _| plain(resources::cpuset(&r.cpu)),
        on_v2: |r, _| plain(resources::cpuset(&r.cpu)),
    },
    Controller {
        property: "pids",
        v1: "pids",
        v2: "pids",
        on_v1: |r, _| plain(resources::pids(r.pids_limit)),
        on_v2: |r, _| plain(resources::pids(r.pids_limit)),
    },
    Controller {
        property: "blockIO",
        v1: "blkio",
        v2: "io",
        on_v1: |r, _| resources::blkio(&r.block_io),
        on_v2: |r, problems| resources::io(&r.block_io, problems),
    },
    Controller {
        property: "hugepageLimits",
        v1: "hugetlb",
        v2: "hugetlb",
        on_v1: |r, _| plain(resources::hugetlb_v1(&r.hugepage_limits)),
        on_v2: |r, _| plain(resources::hugetlb_v2(&r.hugepage_limits)),
    },
    Controller {
        property: "network",
        v1: "net_cls",
        v2: "net_cls",
        on_v1: |r, _| plain(resources::net_cls(&r.network)),
        on_v2: |r, _| plain(resources::net_cls(&r.network)),
    },
    Controller {
        property: "network",
        v1: "net_prio",
        v2: "net_prio",
        on_v1: |r, _| plain(resources::net_prio(&r.network)),
        on_v2: |r, _| plain(resources::net_prio(&r.network)),
    },
    Controller {
        property: "rdma",
        v1: "rdma",
        v2: "rdma",
        on_v1: |r, _| plain(resources::rdma(&r.rdma)),
        on_v2: |r, _| plain(resources::rdma(&r.rdma)),
    },
];

fn plain(writes: Vec<Write>) -> Vec<Step> {
    writes.into_iter().map(Step::Write).collect()
}

fn check_usage(memory: &Memory) -> Option<Step> {
    let positive = |value: Option<i64>| value.filter(|&v| v > 0);
    let (limit, swap) = (positive(memory.limit), positive(memory.swap));
    let asked = memory.check_before_update == Some(true) && (limit.is_some() || swap.is_some());
    asked.then_some(Step::CheckUsage { limit, swap })
}
