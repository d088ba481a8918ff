//! config.md, Linux process: scheduler, I/O priority, processors of exec, OOM score; config-linux.md, personality.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use spec_tests::call::eventually;
use spec_tests::{
    Bundle, Value, crun, crun_before, differs, differs_at_times, json, need, runc_before, tare_not_yet,
};

const NO_SCHEDULER: &str = "knows no scheduler";
const NO_PRIORITY: &str = "knows no ioPriority";

fn scheduler(scheduler: Value) -> Bundle {
    Bundle::new().process(|p| p["scheduler"] = scheduler)
}

fn seen(bundle: Bundle) -> (i64, i64, i64, u64) {
    let facts = bundle.facts();
    let s = &facts["scheduler"];
    let number = |key: &str| s[key].as_i64().unwrap_or_else(|| panic!("{s}"));
    (number("policy"), number("nice"), number("priority"), s["flags"].as_u64().unwrap())
}

#[test]
fn the_policies_without_special_rights_are_set() {
    need!(root);
    differs([runc_before("1.2", NO_SCHEDULER), crun_before("1.9", NO_SCHEDULER)], || {
        for (policy, number) in [("SCHED_OTHER", 0), ("SCHED_BATCH", 3), ("SCHED_IDLE", 5)] {
            assert_eq!(seen(scheduler(json!({ "policy": policy }))).0, number, "{policy}");
        }
        let (policy, nice, ..) = seen(scheduler(json!({ "policy": "SCHED_OTHER", "nice": 7 })));
        assert_eq!((policy, nice), (0, 7));
        let (policy, nice, ..) = seen(scheduler(json!({ "policy": "SCHED_BATCH", "nice": 19 })));
        assert_eq!((policy, nice), (3, 19));
    });
}

/// With CONFIG_RT_GROUP_SCHED a new cpu cgroup has no real-time budget at all, and on v2 none can be given to it; no
/// file tells.
fn a_new_cgroup_takes_real_time_processes() -> bool {
    let top = Path::new("/sys/fs/cgroup/cpu");
    let top = if top.exists() { top } else { Path::new("/sys/fs/cgroup") };
    let cgroup = top.join(format!("spec-real-time-{}", std::process::id()));
    fs::create_dir(&cgroup).unwrap();
    let status = Command::new("sh")
        .args(["-c", "echo $$ > \"$1/cgroup.procs\" && exec chrt --fifo 1 true 2> /dev/null", "sh"])
        .arg(&cgroup)
        .status()
        .unwrap();
    // Busy for a moment: the process ended, and has not left yet.
    eventually("an empty cgroup is removed", || fs::remove_dir(&cgroup).is_ok());
    status.success()
}

/// CAP_SYS_NICE.
#[test]
fn real_time_policies_are_set() {
    need!(root, capability(23));
    differs([runc_before("1.2", NO_SCHEDULER), crun_before("1.9", NO_SCHEDULER)], || {
        if a_new_cgroup_takes_real_time_processes() {
            assert_eq!(seen(scheduler(json!({ "policy": "SCHED_FIFO", "priority": 7 }))).2, 7);
            assert_eq!(seen(scheduler(json!({ "policy": "SCHED_RR", "priority": 1 }))).0, 2);
        } else {
            scheduler(json!({ "policy": "SCHED_FIFO", "priority": 7 })).create_fails();
        }
    });
}

#[test]
fn the_flags_of_the_scheduler_are_set() {
    need!(root);
    differs([runc_before("1.2", NO_SCHEDULER), crun_before("1.9", NO_SCHEDULER)], || {
        let flags = json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
        assert_eq!(seen(scheduler(flags)).3 & 1, 1);
    });
}

#[test]
fn an_unknown_policy_or_flag_is_refused() {
    need!(root);
    differs([runc_before("1.2", NO_SCHEDULER), crun_before("1.9", NO_SCHEDULER)], || {
        scheduler(json!({ "policy": "SCHED_NONSENSE" })).create_fails();
        scheduler(json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONSENSE"] })).create_fails();
    });
}

#[test]
fn a_scheduler_is_not_inherited_from_the_caller_when_it_is_set() {
    need!(root);
    differs([runc_before("1.2", NO_SCHEDULER), crun_before("1.9", NO_SCHEDULER)], || {
        let container = scheduler(json!({ "policy": "SCHED_OTHER", "nice": 3 })).container();
        let mut command = container.command(["run", "--bundle"]);
        command.arg(container.bundle_path()).arg(container.id());
        let out = spec_tests::call::call(spec_tests::call::through_shell(&command, "exec nice -n 1 \"$@\""));
        assert_eq!(out.ok().json()["scheduler"]["nice"], 3);
    });
}

#[test]
fn a_process_of_exec_has_the_scheduler_of_its_document() {
    need!(root);
    // crun sets it while the process begins, or too late.
    differs_at_times([runc_before("1.2", NO_SCHEDULER), crun("sets it too late")], || {
        let container = Bundle::new().probe(["wait"]).start();
        let process = container.dir().join("process.json");
        let document = json!({
            "args": ["/probe", "facts"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "scheduler": { "policy": "SCHED_BATCH" },
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 },
        });
        fs::write(&process, document.to_string()).unwrap();
        let out =
            container.call(["exec", "--process", process.to_str().unwrap(), container.id()]).ok().json();
        assert_eq!((&out["scheduler"]["policy"], &out["ioprio"]), (&json!(3), &json!(2 << 13 | 6)));
    });
}

#[test]
fn the_priority_of_input_and_output_is_set() {
    need!(root);
    differs([runc_before("1.2", NO_PRIORITY), crun_before("1.9", NO_PRIORITY)], || {
        for (class, priority, expected) in [
            ("IOPRIO_CLASS_BE", 0, 2 << 13),
            ("IOPRIO_CLASS_BE", 7, 2 << 13 | 7),
            ("IOPRIO_CLASS_IDLE", 0, 3 << 13),
        ] {
            let facts = Bundle::new()
                .process(|p| p["ioPriority"] = json!({ "class": class, "priority": priority }))
                .facts();
            assert_eq!(facts["ioprio"], expected, "{class} {priority}");
        }
    });
}

#[test]
fn an_unknown_class_or_priority_is_refused() {
    need!(root);
    differs([runc_before("1.2", NO_PRIORITY), crun_before("1.9", NO_PRIORITY)], || {
        for io in [
            json!({ "class": "IOPRIO_CLASS_NONSENSE", "priority": 0 }),
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            json!({ "class": "IOPRIO_CLASS_BE", "priority": -1 }),
            json!({ "priority": 4 }),
        ] {
            Bundle::new().process(|p| p["ioPriority"] = io.clone()).create_fails();
        }
    });
}

// Processors of exec.

#[test]
fn exec_runs_on_the_final_processors() {
    need!(root, cpus(2));
    differs(
        [runc_before("1.3", "knows no execCPUAffinity"), crun_before("1.22", "knows no execCPUAffinity")],
        || {
            let container = Bundle::new()
                .process(|p| p["execCPUAffinity"] = json!({ "initial": "0-1", "final": "1" }))
                .probe(["facts", ",", "wait"])
                .start();
            container.wait_for_stdout("ready");
            let created: Value = serde_json::from_str(container.stdout().lines().next().unwrap()).unwrap();
            assert!(created["affinity"].as_array().unwrap().len() > 1, "only exec is bound");
            assert_eq!(container.exec(["facts"]).ok().json()["affinity"], json!([1]));
        },
    );
}

#[test]
fn processors_that_make_no_list_are_refused() {
    need!(root);
    differs(
        [runc_before("1.3", "knows no execCPUAffinity"), crun_before("1.22", "knows no execCPUAffinity")],
        || {
            for list in ["nonsense", "1-", "3-1", "-1"] {
                Bundle::new().process(|p| p["execCPUAffinity"] = json!({ "final": list })).create_fails();
            }
        },
    );
}

// OOM score.

#[test]
fn the_oom_score_is_set_and_otherwise_left_alone() {
    need!(root);
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(Bundle::new().facts()["oom_score_adj"], own);
    // Raising is always allowed; lowering needs CAP_SYS_RESOURCE.
    for score in [own, (own + 1).min(1000), 1000] {
        let facts = Bundle::new().process(|p| p["oomScoreAdj"] = json!(score)).facts();
        assert_eq!(facts["oom_score_adj"], score);
    }
}

/// CAP_SYS_RESOURCE.
#[test]
fn the_oom_score_can_be_lowered() {
    need!(root, capability(24));
    let facts = Bundle::new().process(|p| p["oomScoreAdj"] = json!(-500)).facts();
    assert_eq!(facts["oom_score_adj"], -500);
}

#[test]
fn a_score_beyond_the_range_is_refused() {
    need!(root);
    for score in [1001, -1001] {
        Bundle::new().process(|p| p["oomScoreAdj"] = json!(score)).create_fails();
    }
}

#[test]
fn a_process_of_exec_has_the_score_of_the_container() {
    need!(root);
    let container = Bundle::new().process(|p| p["oomScoreAdj"] = json!(777)).probe(["wait"]).start();
    differs([crun("leaves it alone")], || {
        assert_eq!(container.exec(["facts"]).ok().json()["oom_score_adj"], 777);
    });
}

// Personality.

const PER_LINUX32: i64 = 8;

#[test]
fn the_personality_is_set() {
    need!(root);
    differs([runc_before("1.2", "knows no personality")], || {
        for (domain, number) in [("LINUX", 0), ("LINUX32", PER_LINUX32)] {
            let facts = Bundle::new().linux(|l| l["personality"] = json!({ "domain": domain })).facts();
            assert_eq!(facts["personality"], number, "{domain}");
        }
    });
}

#[test]
fn a_process_of_exec_has_the_personality_of_the_container() {
    need!(root);
    differs([runc_before("1.2", "knows no personality")], || {
        let container = Bundle::new()
            .linux(|l| l["personality"] = json!({ "domain": "LINUX32" }))
            .probe(["wait"])
            .start();
        assert_eq!(container.exec(["facts"]).ok().json()["personality"], PER_LINUX32);
    });
}

#[test]
fn an_unknown_domain_is_refused() {
    need!(root);
    differs([runc_before("1.2", "knows no personality")], || {
        Bundle::new().linux(|l| l["personality"] = json!({ "domain": "NONSENSE" })).create_fails();
    });
}

// Memory policy.

#[test]
fn the_memory_policy_is_set() {
    need!(root);
    differs(
        [
            runc_before("1.4", "knows no memoryPolicy"),
            crun("knows no memoryPolicy"),
            tare_not_yet("memoryPolicy is not built yet"),
        ],
        || {
            let policy = json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" });
            let facts = Bundle::new().linux(|l| l["memoryPolicy"] = policy).facts();
            assert_eq!(facts["memory_policy"], json!({ "mode": 3, "nodes": 1 }));
        },
    );
}

#[test]
fn an_unknown_memory_policy_is_refused() {
    need!(root);
    differs([runc_before("1.4", "knows no memoryPolicy"), crun("knows no memoryPolicy")], || {
        Bundle::new().linux(|l| l["memoryPolicy"] = json!({ "mode": "MPOL_NONSENSE" })).create_fails();
    });
}
