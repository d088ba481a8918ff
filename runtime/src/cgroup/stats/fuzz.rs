//! Files of control groups as no kernel writes them.

use super::*;

/// The files in an input: the name of each stands in a line of its own, after two equal signs.
struct Files<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Files<'a> {
    fn of(text: &'a str) -> Self {
        let parts = text.split("== ").skip(1);
        Self(parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect())
    }
}

impl super::Files for Files<'_> {
    fn text(&self, file: &str) -> Result<Option<String>> {
        Ok(self.0.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned()))
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.0.iter().map(|(name, _)| (*name).to_owned());
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }
}

const V1: [&str; 4] = [
    "== cpu.stat\nnr_periods 10\nnr_throttled 2\nthrottled_time 3500\nnr_bursts 4\nburst_time 50\n\
     == cpuacct.stat\nuser 3\nsystem 2\n== cpuacct.usage\n15087219\n== cpuacct.usage_percpu\n12439892 2647327 \n\
     == cpuacct.usage_all\ncpu user system\n0 4000000 8000000\n1 0 4000000\n",
    "== memory.usage_in_bytes\n4096\n== memory.limit_in_bytes\n9223372036854771712\n== memory.stat\ncache 8192\n\
     hierarchical_memory_limit 1\ntotal_cache 3\n== memory.max_usage_in_bytes\n9\n== memory.failcnt\n0\n\
     == memory.use_hierarchy\n1\n== pids.max\nmax\n== pids.current\n3\n",
    "== blkio.throttle.io_service_bytes\n8:0 Read 4096\n8:0 Write 1\nTotal 4097\n== blkio.io_serviced_recursive\n\
     8:0 7\n== blkio.bfq.io_serviced\n8:0 Sync 1\n== hugetlb.2MB.usage_in_bytes\n0\n== hugetlb.2MB.failcnt\n1\n",
    "== cpuset.cpus\n0-2,4\n== cpuset.mems\n0\n== cpuset.cpu_exclusive\n0\n== rdma.current\nmlx5_0 hca_handle=2 \
     hca_object=max\n",
];

const V2: [&str; 3] = [
    "== cpu.stat\nusage_usec 7\nuser_usec 3\nsystem_usec 4\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\n\
     == cpu.pressure\nsome avg10=0.00 avg60=0.01 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n\
     == pids.current\n1\n== pids.max\n100\n",
    "== memory.current\n4096\n== memory.max\nmax\n== memory.stat\nanon 1\nfile 2\ninactive_file 3\n\
     == memory.events\nlow 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n== memory.swap.current\n0\n== memory.swap.max\nmax\n\
     == memory.peak\n5\n",
    "== io.stat\n8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 cost.vrate=100.00\n\
     == hugetlb.2MB.current\n0\n== hugetlb.2MB.events\nmax 3\n== hugetlb.2MB.max\nmax\n\
     == rdma.max\nmlx5_0 hca_handle=max hca_object=max\n",
];

#[test]
fn of_v1() {
    let controllers = ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "rdma"];
    ::fuzz::target("stats-v1").seeds(V1).rounds(5000).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut stats = Stats::default();
        controllers.iter().all(|controller| v1::read(&Files::of(&text), controller, &mut stats).is_ok())
    });
}

#[test]
fn of_v2() {
    ::fuzz::target("stats-v2").seeds(V2).rounds(5000).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        v2::read(&Files::of(&text), |_| true, &mut Stats::default()).is_ok()
    });
}

#[test]
fn lists_of_processors() {
    ::fuzz::target("cpu-lists").seeds(["0-2,4", "", "0-65535"]).rounds(5000).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        parse::list(text).is_some()
    });
}
