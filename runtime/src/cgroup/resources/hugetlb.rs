//! Huge pages: how much memory of each size.
//! <https://docs.kernel.org/admin-guide/cgroup-v1/hugetlb.html>

use super::Write;
use crate::config::HugepageLimit;

pub(in super::super) fn hugetlb_v1(limits: &[HugepageLimit]) -> Vec<Write> {
    both(limits, "limit_in_bytes")
}

pub(in super::super) fn hugetlb_v2(limits: &[HugepageLimit]) -> Vec<Write> {
    both(limits, "max")
}

/// What is used, and what is reserved by `mmap` already: a process that may reserve more than it may
/// use would die by SIGBUS at the first touch.
fn both(limits: &[HugepageLimit], file: &str) -> Vec<Write> {
    let mut writes = Vec::new();
    for HugepageLimit { page_size, limit } in limits {
        writes.push(Write::new(format!("hugetlb.{page_size}.{file}"), limit));
        writes.push(Write::new(format!("hugetlb.{page_size}.rsvd.{file}"), limit));
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::super::tests::show;
    use super::*;

    #[test]
    fn huge_pages_are_limited_in_use_and_in_reservation() {
        let limit = |page_size: &str, limit| HugepageLimit { page_size: page_size.into(), limit };
        let limits = [limit("2MB", 4_194_304), limit("1GB", 0)];
        assert_eq!(
            show(&hugetlb_v1(&limits)),
            [
                "hugetlb.2MB.limit_in_bytes=4194304",
                "hugetlb.2MB.rsvd.limit_in_bytes=4194304",
                "hugetlb.1GB.limit_in_bytes=0",
                "hugetlb.1GB.rsvd.limit_in_bytes=0",
            ]
        );
        assert_eq!(
            show(&hugetlb_v2(&limits)),
            [
                "hugetlb.2MB.max=4194304",
                "hugetlb.2MB.rsvd.max=4194304",
                "hugetlb.1GB.max=0",
                "hugetlb.1GB.rsvd.max=0",
            ]
        );
        assert_eq!(hugetlb_v2(&[]), []);
    }
}
