//! What is planned for a container's cgroups, on hosts that are written down here.
#![allow(clippy::unwrap_used)]

#[path = "cgroup/config.rs"]
mod config;

use std::path::PathBuf;

use config::config;
use tare::cgroup::{self, Driver, Manager, Paths, Unit};
use tare::config::id::ContainerId;
use tare::config::{Config, DeviceRule, HugepageLimit, IdMapping, Mount, Namespace, Resources};
use tare::host::{CgroupLayout, Facts, Hierarchy};

fn facts(cgroup: CgroupLayout) -> Facts {
    Facts {
        kernel: (6, 6),
        euid: 0,
        egid: 0,
        capabilities: u64::MAX,
        last_capability: 40,
        in_user_namespace: false,
        rootless: false,
        apparmor: false,
        selinux: false,
        cgroup,
        systemd_cgroup: None,
        newuidmap: None,
        newgidmap: None,
        setgroups_denied: false,
        full_mounts: Vec::new(),
    }
}

fn hierarchy(controllers: &[&str], mountpoint: &str) -> Hierarchy {
    Hierarchy {
        controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
        mountpoint: mountpoint.into(),
        mount_root: "/".into(),
        own: "/own/scope".into(),
    }
}

fn v1() -> CgroupLayout {
    let folders = [
        (&["cpu", "cpuacct"][..], "/cg/cpu,cpuacct"),
        (&["memory"], "/cg/memory"),
        (&["devices"], "/cg/devices"),
        (&["name=systemd"], "/cg/systemd"),
    ];
    CgroupLayout { v1: folders.iter().map(|(c, m)| hierarchy(c, m)).collect(), v2: None }
}

fn v2() -> CgroupLayout {
    CgroupLayout { v1: vec![], v2: Some(hierarchy(&["cpu", "memory", "pids"], "/cg")) }
}

/// Everything is allowed: no device rules, so that the plan is about the rest.
fn resources() -> Resources {
    let all = DeviceRule {
        allow: true,
        kind: None,
        major: None,
        minor: None,
        read: true,
        write: true,
        mknod: true,
    };
    Resources { devices: vec![all], ..Resources::default() }
}

fn limited() -> Resources {
    let mut resources = resources();
    resources.memory.limit = Some(1000);
    resources.memory.swap = Some(3000);
    resources.cpu.quota = Some(50_000);
    resources
}

fn describe(config: &Config, facts: &Facts) -> Result<Vec<String>, String> {
    let id = ContainerId::new("box").unwrap();
    cgroup::plan(&id, config, facts, Driver::Cgroupfs).map(|plan| plan.describe()).map_err(|e| e.to_string())
}

#[test]
fn limits_on_v1_and_v2() {
    let config = config(Some("/a".into()), limited());
    assert_eq!(
        describe(&config, &facts(v1())).unwrap(),
        [
            "make cgroup /cg/cpu,cpuacct/a",
            "write cpu.cfs_quota_us = 50000",
            "make cgroup /cg/memory/a",
            "write memory.limit_in_bytes = 1000",
            "write memory.memsw.limit_in_bytes = 3000",
            "make cgroup /cg/devices/a",
            "write devices.allow = a (unless it is new)",
            "make cgroup /cg/systemd/a",
        ]
    );
    assert_eq!(
        describe(&config, &facts(v2())).unwrap(),
        [
            "make cgroup /cg/a",
            "enable controllers cpu memory pids above it",
            "write memory.swap.max = 2000",
            "write memory.max = 1000",
            "write cpu.max = 50000 100000",
        ]
    );
}

#[test]
fn on_a_hybrid_host_each_controller_is_where_it_is() {
    let mut layout = v1();
    layout.v1.remove(1);
    layout.v2 = Some(hierarchy(&["memory"], "/cg/unified"));
    let lines = describe(&config(None, limited()), &facts(layout.clone())).unwrap();
    assert!(lines.contains(&"write cpu.cfs_quota_us = 50000".to_owned()), "{lines:?}");
    assert_eq!(
        lines[lines.len() - 4..],
        [
            "make cgroup /cg/unified/own/scope/box",
            "enable controllers memory above it",
            "write memory.swap.max = 2000",
            "write memory.max = 1000",
        ]
    );
    let mut pages = resources();
    pages.hugepage_limits = vec![HugepageLimit { page_size: "2MB".into(), limit: 0 }];
    let mut with_pages = layout.clone();
    with_pages.v2.as_mut().unwrap().controllers.push("hugetlb".into());
    let lines = describe(&config(None, pages), &facts(with_pages)).unwrap();
    assert_eq!(lines[lines.len() - 2..], ["write hugetlb.2MB.max = 0", "write hugetlb.2MB.rsvd.max = 0"]);
    // Without a wish for v2 its controllers stay as the host has them.
    let lines = describe(&config(None, resources()), &facts(layout)).unwrap();
    assert_eq!(lines[lines.len() - 1], "make cgroup /cg/unified/own/scope/box");
}

#[test]
fn devices_on_v2_are_a_program() {
    let config = config(None, Resources::default());
    let lines = describe(&config, &facts(v2())).unwrap();
    assert_eq!(lines[0], "make cgroup /cg/own/box");
    assert!(lines[2].starts_with("attach a device filter of "), "{lines:?}");
    // Whoever is in a user namespace may not load one, and can make no device node.
    let inside = Facts { in_user_namespace: true, ..facts(v2()) };
    assert_eq!(describe(&config, &inside).unwrap().len(), 2);
    // Nor may an unprivileged user, who can open no more devices by that.
    let user = Facts { rootless: true, ..facts(v2()) };
    assert_eq!(describe(&config, &user).unwrap().len(), 2);
}

#[test]
fn what_the_host_has_not_is_an_error_that_names_it() {
    let mut tasks = resources();
    tasks.pids_limit = Some(5);
    let mut files = resources();
    files.unified.insert("misc.max".into(), "1".into());
    let mut weird = resources();
    weird.unified.insert("a/b".into(), "1".into());
    weird.unified.insert("nodot".into(), "1".into());
    let mut class = resources();
    class.network.class_id = Some(5);
    let mut no_class = resources();
    no_class.network.class_id = Some(0);
    let mut pages = resources();
    pages.hugepage_limits = vec![HugepageLimit { page_size: "2MB".into(), limit: 0 }];
    let mut weight = resources();
    weight.block_io.weight = Some(500);
    let mut no_limit = resources();
    no_limit.pids_limit = Some(-1);
    let bare = CgroupLayout::default;
    for (resources, layout, expected) in [
        (tasks.clone(), v1(), "cannot set pids limit: the pids controller is not mounted on this host"),
        (limited(), bare(), "cannot set memory limit: the memory controller is not mounted on this host"),
        (Resources::default(), bare(), "cannot restrict devices: the devices controller is not mounted"),
        (
            files.clone(),
            v2(),
            "unified resource \"misc.max\" can't be set: controller \"misc\" not available",
        ),
        (files, v1(), "linux.resources.unified: invalid configuration: cannot use unified on cgroup v1"),
        (
            weird,
            v2(),
            "config.json /linux/resources/unified/a~1b: unified resource \"a/b\" must be a file name (no slashes); \
             config.json /linux/resources/unified/nodot: unified resource \"nodot\" must be in the form CONTROLLER.PARAMETER",
        ),
        (no_limit, v1(), ""),
        (class.clone(), v1(), "cannot set net_cls limit: the net_cls controller is not mounted on this host"),
        (class, v2(), "cannot set net_cls limit: cgroup v2 has no net_cls controller"),
        (no_class.clone(), v1(), ""),
        (no_class, v2(), ""),
        (pages, v1(), "cannot set hugetlb limit: the hugetlb controller is not mounted on this host"),
        (weight.clone(), v1(), "cannot set blkio limit: the blkio controller is not mounted on this host"),
        (
            weight,
            v2(),
            "cannot set io limit: the io controller is not available: /cg/cgroup.controllers does not list it",
        ),
    ] {
        let answer = describe(&config(None, resources), &facts(layout));
        assert_eq!(answer.err().unwrap_or_default(), expected);
    }
    let mut few = v2();
    few.v2.as_mut().unwrap().controllers.pop();
    let answer = describe(&config(None, tasks), &facts(few)).unwrap_err();
    assert_eq!(
        answer,
        "cannot set pids limit: the pids controller is not available: /cg/cgroup.controllers does not list it"
    );
}

#[test]
fn other_drivers() {
    let id = ContainerId::new("box").unwrap();
    let plan = |resources, driver| cgroup::plan(&id, &config(None, resources), &facts(v2()), driver);
    let disabled = plan(Resources::default(), Driver::Disabled).unwrap();
    assert_eq!(disabled.describe(), [""; 0]);
    assert_eq!(disabled.paths(), Paths { driver: Driver::Disabled, v1: vec![], v2: None, unit: None });
    let error = plan(limited(), Driver::Disabled).unwrap_err().to_string();
    assert_eq!(error, "linux.resources.memory: cannot set limits without cgroups");
    let mut slow = resources();
    slow.block_io.weight = Some(10);
    let error = plan(slow, Driver::Disabled).unwrap_err().to_string();
    assert_eq!(error, "linux.resources.blockIO: cannot set limits without cgroups");
}

#[test]
fn under_systemd_the_unit_is_named_before_it_is_there() {
    let id = ContainerId::new("box").unwrap();
    let config = config(Some("a-b.slice:pre:x".into()), limited());
    let plan = cgroup::plan(&id, &config, &facts(v2()), Driver::Systemd).unwrap();
    let paths = plan.paths();
    assert_eq!(paths.unit, Some(Unit { name: "pre-x.scope".into(), manager: Manager::System }));
    let place = paths.v2.unwrap();
    assert_eq!(place.folder, PathBuf::from("/cg/a.slice/a-b.slice/pre-x.scope"));
    assert_eq!(place.name, PathBuf::from("/a.slice/a-b.slice/pre-x.scope"));
    assert!(plan.needs_process() && !plan.bears_inside());
    // What is written is what systemd is told.
    let lines = plan.describe();
    for expected in ["property MemoryMax=1000", "write memory.max = 1000", "property MemorySwapMax=2000"] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
}

#[test]
fn what_systemd_cannot_have_is_refused_with_its_place() {
    let id = ContainerId::new("box").unwrap();
    let plan = |config: &Config, facts: &Facts| {
        cgroup::plan(&id, config, facts, Driver::Systemd).map(drop).map_err(|e| e.to_string())
    };
    let mut unified = resources();
    unified.unified.insert("memory.max".into(), "lots".into());
    let mut cpus = resources();
    cpus.cpu.cpus = Some("3-1".into());
    let mut layout = v2();
    layout.v2.as_mut().unwrap().controllers.push("cpuset".into());
    for (config, expected) in [
        (
            config(Some("/a".into()), resources()),
            "config.json /linux/cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for \
             systemd cgroups, got \"/a\" instead",
        ),
        (
            config(Some("system.slice:p:-.slice".into()), resources()),
            "config.json /linux/cgroupsPath: -.slice is the slice of all others: a container needs its own",
        ),
        (
            config(None, unified),
            "config.json /linux/resources/unified/memory.max: systemd cannot be told memory.max: \"lots\" is \
             not a number, or max",
        ),
        (
            config(None, cpus),
            "config.json /linux/resources/cpu/cpus: systemd cannot be told cpuset.cpus: \"3-1\" is not a list \
             of numbers",
        ),
    ] {
        assert_eq!(plan(&config, &facts(layout.clone())), Err(expected.to_owned()));
    }
    let user = Facts { euid: 1000, rootless: true, ..facts(v1()) };
    let refused = plan(&config(None, resources()), &user).unwrap_err();
    assert!(refused.starts_with("cgroups of a user's systemd: they need"), "{refused}");
}

#[test]
fn a_container_that_may_make_cgroups_owns_its_own() {
    let mut config = config(None, resources());
    config.linux.namespaces.cgroup = Namespace::New;
    config.linux.namespaces.user = Namespace::New;
    config.linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 100_000, size: 65_536 }];
    config.process.user.uid = 7;
    let mount = |options: &[&str]| Mount {
        destination: c"/sys/fs/cgroup".into(),
        source: Some(c"cgroup".into()),
        kind: Some(c"cgroup".into()),
        options: options.iter().map(|&o| o.to_owned()).collect(),
        uid_mappings: vec![],
        gid_mappings: vec![],
    };
    for (options, given) in [(&["nosuid", "ro"][..], false), (&["ro", "rw"], true), (&["nosuid"], true)] {
        config.mounts = vec![mount(options)];
        let lines = describe(&config, &facts(v2())).unwrap();
        assert_eq!(lines.contains(&"give it to user 100007".to_owned()), given, "{options:?}");
    }
    config.linux.namespaces.cgroup = Namespace::Inherit;
    assert!(!describe(&config, &facts(v2())).unwrap().iter().any(|l| l.starts_with("give")));
}

#[test]
fn paths_come_back_from_a_state_file() {
    let id = ContainerId::new("box").unwrap();
    let plan = cgroup::plan(&id, &config(None, resources()), &facts(v1()), Driver::Cgroupfs).unwrap();
    let text = serde_json::to_string(&plan.paths()).unwrap();
    assert_eq!(serde_json::from_str::<Paths>(&text).unwrap(), plan.paths());
    assert_eq!(plan.paths().v1[0].folder, PathBuf::from("/cg/cpu,cpuacct/own/scope/box"));
    assert!(!plan.paths().is_unified());
}

#[test]
fn an_update_writes_what_was_asked_for_where_the_container_is() {
    let paths = |layout: CgroupLayout| {
        let id = ContainerId::new("box").unwrap();
        let config = config(Some("/elsewhere".into()), resources());
        cgroup::plan(&id, &config, &facts(layout), Driver::Cgroupfs).unwrap().paths()
    };
    let update = |paths: &Paths, resources: &Resources, layout| {
        cgroup::plan_update(paths, resources, &facts(layout))
            .map(|plan| plan.describe())
            .map_err(|error| error.to_string())
    };
    let mut limits = limited();
    // Rules for devices stay as they are.
    limits.devices[0].allow = false;
    for (layout, expected) in [
        (
            v1(),
            &[
                "make cgroup /cg/cpu,cpuacct/elsewhere",
                "write cpu.cfs_quota_us = 50000",
                "make cgroup /cg/memory/elsewhere",
                "write memory.limit_in_bytes = 1000",
                "write memory.memsw.limit_in_bytes = 3000",
            ][..],
        ),
        (
            v2(),
            &[
                "make cgroup /cg/elsewhere",
                "write memory.swap.max = 2000",
                "write memory.max = 1000",
                "write cpu.max = 50000 100000",
            ],
        ),
    ] {
        assert_eq!(update(&paths(layout.clone()), &limits, layout.clone()).unwrap(), expected);
        assert_eq!(update(&paths(layout.clone()), &Resources::default(), layout).unwrap(), [""; 0]);
    }

    let mut without_memory = paths(v1());
    without_memory.v1.retain(|place| place.controllers != ["memory"]);
    assert_eq!(
        update(&without_memory, &limits, v1()).unwrap_err(),
        "cannot set memory limit: the container has no cgroup of the memory controller"
    );
    let none = Paths::none(Driver::Disabled);
    assert_eq!(
        update(&none, &limits, v2()).unwrap_err(),
        "cannot set memory limit: the container has no cgroup of the memory controller"
    );
    let mut tasks = Resources { pids_limit: Some(5), ..Resources::default() };
    assert_eq!(
        update(&paths(v1()), &tasks, v1()).unwrap_err(),
        "cannot set pids limit: the pids controller is not mounted on this host"
    );
    // No limit needs nothing.
    tasks.pids_limit = Some(-1);
    assert_eq!(update(&paths(v1()), &tasks, v1()).unwrap(), [""; 0]);
}

#[test]
fn the_cgroup_of_all_is_no_place_for_a_container() {
    let id = ContainerId::new("box").unwrap();
    for layout in [v1, v2] {
        for path in ["/", "//", "/..", "/a/..", "..", "../../.."] {
            let mut layout = layout();
            for hierarchy in layout.v1.iter_mut().chain(&mut layout.v2) {
                hierarchy.own = "/".into();
            }
            let config = config(Some(path.into()), resources());
            let error = cgroup::plan(&id, &config, &facts(layout), Driver::Cgroupfs).unwrap_err().to_string();
            let expected = format!("config.json /linux/cgroupsPath: {path:?} leads to /cg");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
