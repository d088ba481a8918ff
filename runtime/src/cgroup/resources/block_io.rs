//! Block devices: shares by weight, and limits of bytes and operations in a second.
//! <https://docs.kernel.org/admin-guide/cgroup-v1/blkio-controller.html>,
//! <https://docs.kernel.org/block/bfq-iosched.html>

use std::collections::BTreeMap;

use super::super::plan::Step;
use super::{Problems, Write, refuse};
use crate::config::{BlockIo, ThrottleDevice};

/// v1's `blkio`.
pub(in super::super) fn blkio(block_io: &BlockIo) -> Vec<Step> {
    let mut steps = Vec::new();
    let leaf = |file: &'static str, value: String| Step::Write(Write::new(file, value));
    // Where the kernel has weights, they are those of BFQ; some distributions keep the old name.
    let either = |old: &'static str, bfq: &'static str, value: String| {
        Step::FirstThere(vec![Write::new(old, value.clone()), Write::new(bfq, value)])
    };
    if let Some(weight) = set(block_io.weight) {
        steps.push(either("blkio.weight", "blkio.bfq.weight", weight.to_string()));
    }
    if let Some(weight) = set(block_io.leaf_weight) {
        steps.push(leaf("blkio.leaf_weight", weight.to_string()));
    }
    for device in &block_io.weight_device {
        let line = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = set(device.weight) {
            steps.push(either("blkio.weight_device", "blkio.bfq.weight_device", line(weight)));
        }
        if let Some(weight) = set(device.leaf_weight) {
            steps.push(leaf("blkio.leaf_weight_device", line(weight)));
        }
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &block_io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &block_io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &block_io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &block_io.throttle_write_iops_device),
    ] {
        for &ThrottleDevice { major, minor, rate } in devices {
            let write = Write::new(file, format!("{major}:{minor} {rate}")).default_if(rate == 0);
            steps.push(Step::Write(write));
        }
    }
    steps
}

/// v2's `io`.
pub(in super::super) fn io(block_io: &BlockIo, problems: &mut Problems) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(weight) = set(block_io.weight) {
        steps.push(weighted("", weight));
    }
    if set(block_io.leaf_weight).is_some() {
        refuse(problems, "blockIO/leafWeight", NO_LEAF_WEIGHT);
    }
    for (index, device) in block_io.weight_device.iter().enumerate() {
        if let Some(weight) = set(device.weight) {
            steps.push(weighted(&format!("{}:{} ", device.major, device.minor), weight));
        }
        if set(device.leaf_weight).is_some() {
            refuse(problems, &format!("blockIO/weightDevice/{index}/leafWeight"), NO_LEAF_WEIGHT);
        }
    }
    // One line for each device, which the kernel takes or leaves as a whole.
    let mut lines: BTreeMap<(u32, u32), (String, bool)> = BTreeMap::new();
    for (key, devices) in [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ] {
        for &ThrottleDevice { major, minor, rate } in devices {
            let (line, default) =
                lines.entry((major, minor)).or_insert_with(|| (format!("{major}:{minor}"), true));
            // v1's 0 for "no limit" is refused here.
            let rate = if rate == 0 { "max".into() } else { rate.to_string() };
            *default &= rate == "max";
            line.push_str(&format!(" {key}={rate}"));
        }
    }
    let write = |(line, default)| Step::Write(Write::new("io.max", line).default_if(default));
    steps.extend(lines.into_values().map(write));
    steps
}

const NO_LEAF_WEIGHT: &str = "cgroup v2 has no weight for the processes of a cgroup beside its children";

/// 0 and absent both mean "not set" (runc).
fn set(weight: Option<u16>) -> Option<u16> {
    weight.filter(|&weight| weight != 0)
}

/// BFQ has v1's scale; where it is not loaded, the cost model's scale goes from 1 to 10000. The
/// straight line between the two is runc's and crun's.
fn weighted(device: &str, weight: u16) -> Step {
    let converted = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
    Step::FirstThere(vec![
        Write::new("io.bfq.weight", format!("{device}{weight}")),
        Write::new("io.weight", format!("{device}{converted}")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WeightDevice;

    fn show(steps: &[Step]) -> Vec<String> {
        steps.iter().map(Step::describe).collect()
    }

    fn rate(major: u32, minor: u32, rate: u64) -> Vec<ThrottleDevice> {
        vec![ThrottleDevice { major, minor, rate }]
    }

    #[test]
    fn weights_go_where_the_kernel_has_them() {
        let device = |minor, weight, leaf_weight| WeightDevice { major: 8, minor, weight, leaf_weight };
        let mut weights = BlockIo {
            weight: Some(500),
            leaf_weight: Some(300),
            weight_device: vec![device(0, Some(10), Some(20)), device(16, Some(1000), None)],
            ..BlockIo::default()
        };
        assert_eq!(
            show(&blkio(&weights)),
            [
                "write blkio.weight = 500, or blkio.bfq.weight = 500: the first that is there",
                "write blkio.leaf_weight = 300",
                "write blkio.weight_device = 8:0 10, or blkio.bfq.weight_device = 8:0 10: the first that is there",
                "write blkio.leaf_weight_device = 8:0 20",
                "write blkio.weight_device = 8:16 1000, or blkio.bfq.weight_device = 8:16 1000: the first that is there",
            ]
        );
        let mut problems = Problems::new();
        io(&weights, &mut problems);
        let pointers: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            ["/linux/resources/blockIO/leafWeight", "/linux/resources/blockIO/weightDevice/0/leafWeight"]
        );
        (weights.leaf_weight, weights.weight_device[0].leaf_weight) = (Some(0), None);
        problems.clear();
        assert_eq!(
            show(&io(&weights, &mut problems)),
            [
                "write io.bfq.weight = 500, or io.weight = 4950: the first that is there",
                "write io.bfq.weight = 8:0 10, or io.weight = 8:0 1: the first that is there",
                "write io.bfq.weight = 8:16 1000, or io.weight = 8:16 10000: the first that is there",
            ]
        );
        assert_eq!(problems, []);
    }

    #[test]
    fn rates_of_one_device_are_one_line_on_v2() {
        let rates = BlockIo {
            throttle_read_bps_device: [rate(254, 0, 1_048_576), rate(8, 0, 0)].concat(),
            throttle_write_bps_device: rate(254, 0, 2_097_152),
            throttle_read_iops_device: rate(254, 0, 0),
            throttle_write_iops_device: rate(254, 0, 200),
            ..BlockIo::default()
        };
        assert_eq!(
            show(&blkio(&rates)),
            [
                "write blkio.throttle.read_bps_device = 254:0 1048576",
                "write blkio.throttle.read_bps_device = 8:0 0 (unless it is new)",
                "write blkio.throttle.write_bps_device = 254:0 2097152",
                "write blkio.throttle.read_iops_device = 254:0 0 (unless it is new)",
                "write blkio.throttle.write_iops_device = 254:0 200",
            ]
        );
        let mut problems = Problems::new();
        assert_eq!(
            show(&io(&rates, &mut problems)),
            [
                "write io.max = 8:0 rbps=max (unless it is new)",
                "write io.max = 254:0 rbps=1048576 wbps=2097152 riops=max wiops=200",
            ]
        );
        assert_eq!(problems, []);
    }

    #[test]
    fn zeros_are_not_set() {
        let unset = BlockIo { weight: Some(0), leaf_weight: Some(0), ..BlockIo::default() };
        assert_eq!(blkio(&unset), []);
        assert_eq!(io(&unset, &mut Problems::new()), []);
    }
}
