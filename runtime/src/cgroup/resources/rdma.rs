//! What may be taken of RDMA devices: the same file on v1 and v2.
//! <https://docs.kernel.org/admin-guide/cgroup-v1/rdma.html>

use std::collections::BTreeMap;

use super::Write;
use crate::config::RdmaLimit;

pub(in super::super) fn rdma(devices: &BTreeMap<String, RdmaLimit>) -> Vec<Write> {
    let mut writes = Vec::new();
    for (device, limit) in devices {
        let mut line = device.clone();
        for (key, value) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        }
        writes.push(Write::new("rdma.max", line));
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::super::tests::show;
    use super::*;

    #[test]
    fn one_line_for_each_device() {
        let devices = BTreeMap::from([
            ("mlx5_1".to_owned(), RdmaLimit { hca_handles: Some(3), hca_objects: Some(10_000) }),
            ("mlx4_0".to_owned(), RdmaLimit { hca_handles: None, hca_objects: Some(0) }),
        ]);
        assert_eq!(
            show(&rdma(&devices)),
            ["rdma.max=mlx4_0 hca_object=0", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"]
        );
    }
}
