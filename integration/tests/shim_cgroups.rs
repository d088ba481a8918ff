//! What a shim tells of its container's cgroups: that memory ran out, and statistics. On any version of cgroups.

use std::path::PathBuf;
use std::time::Duration;

use integration::proto::{Fields, Message};
use integration::shim::{self, Stage, Streams, Task};
use integration::story::{SIGKILL, shims, to_the_end};
use integration::{eventually, need, story};
use serde_json::{Value, json};

story! {
    fn killed_for_want_of_memory(stage) {
        let bundle = stage.bundle("c", &["sh", "-c", WANTS_MEMORY], little_memory);
        let task = stage.created(bundle, Streams::default());
        task.start("").expect("start");
        to_the_end(&task, 137);
    }
    tells {
        let end = ["exit c id=c pid=init status=137", "delete c id= pid=init status=137"];
        // containerd's own forgets this event when the container's end overtakes it (1.6), or tells it late (1.7).
        let late = stage.told().iter().skip(2).position(|line| line == "oom c");
        let at = if shim::is_stock(&stage.shim) { late } else { Some(0) };
        let mut told = ["create c pid=init", "start c pid=init"].into_iter().chain(end).collect::<Vec<_>>();
        at.into_iter().for_each(|at| told.insert(2 + at, "oom c"));
        told
    }
}

story! {
    /// One process of several: the container goes on.
    fn one_process_killed_for_want_of_memory(stage) {
        let script = format!("sh -c '{WANTS_MEMORY}'; echo $? > /tmp/status; sleep 1000");
        let task = stage.created(stage.bundle("c", &["sh", "-c", &script], little_memory), Streams::default());
        task.start("").expect("start");
        let status = stage.sandbox.path("rootfs/tmp/status");
        eventually("one was killed", || std::fs::read_to_string(&status).ok().filter(|status| status == "137\n"));
        eventually("the event", || stage.told().contains(&"oom c".to_owned()).then_some(()));
        assert_eq!(task.status(""), "RUNNING");
        task.kill("", SIGKILL).expect("kill");
        to_the_end(&task, 137);
    }
    tells [
        "create c pid=init", "start c pid=init", "oom c",
        "exit c id=c pid=init status=137", "delete c id= pid=init status=137",
    ]
}

const WANTS_MEMORY: &str = "a=x; while true; do a=$a$a; done";

fn little_memory(config: &mut Value) {
    config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
}

/// Each field with its value, whatever the order of what is repeated. Bytes that happen to be a message are shown as one;
/// that is no matter where both shims send the same.
fn fields_of(prefix: &str, fields: &Fields, found: &mut Vec<String>) {
    for number in fields.numbers() {
        let path = format!("{prefix}.{number}");
        for bytes in fields.all(number) {
            match Fields::decode(bytes) {
                Ok(inner) if !inner.is_empty() => fields_of(&path, &inner, found),
                _ => found.push(format!("{path}={bytes:?}")),
            }
        }
        if fields.number(number) != 0 {
            found.push(format!("{path}={}", fields.number(number)));
        }
    }
    found.sort();
}

/// A container that has read and written, and used the processor in both modes, and now sleeps.
fn resting<'s>(stage: &'s Stage, cgroups_path: &str) -> Task<'s> {
    let script = "i=0; while [ $i -lt 60 ]; do cat /bin/busybox > /tmp/$$; [ $((i % 4)) = 0 ] && sync; i=$((i+1)); done; sleep 1000";
    let bundle = stage.bundle("c", &["sh", "-c", script], |config| {
        config["linux"]["cgroupsPath"] = json!(cgroups_path);
        config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "reservation": 32 << 20 });
        config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    });
    let task = stage.created(bundle, Streams::default());
    task.start("").expect("start");
    eventually("it rests", || {
        // The stage's own, and the container's.
        (stage.processes().iter().filter(|(.., name)| name == "sleep").count() == 2).then_some(())
    });
    task
}

/// A cgroup of two containers is removed by neither of them.
struct Shared(String);

impl Drop for Shared {
    fn drop(&mut self) {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|e| e.path());
        for top in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let folder = top.join(self.0.trim_start_matches('/'));
            // Busy until the killed are gone.
            eventually("the cgroup's end", || {
                (!folder.exists() || std::fs::remove_dir(&folder).is_ok()).then_some(())
            });
        }
    }
}

/// Fields of v2 that containerd's library did not know before version 1.7: pressure, bursts, peaks.
const NEWER: [&str; 7] = [".2.7.", ".2.8=", ".2.9=", ".4.36=", ".4.37=", ".4.38.", ".6.2."];

/// What an older stock shim could not tell is not asked of ours.
fn without_what_is_newer(ours: &mut Vec<String>, stocks: &[String]) {
    let newer = |field: &String| NEWER.iter().any(|number| field.starts_with(number));
    if stocks.iter().any(|field| field.contains("cgroups.v2")) && !stocks.iter().any(newer) {
        ours.retain(|field| !newer(field));
    }
}

/// The stock shim's container is put into the same cgroups as that of the shim under test, so that both speak of the
/// same processes.
#[test]
fn statistics_are_the_stock_shims_field_by_field() {
    need!(root, program(shim::STOCK), program("runc"), program("busybox"));
    let path = format!("/statistics-{}", std::process::id());
    // Before the stages, and so dropped after them.
    let _cgroup = Shared(path.clone());
    // The other way round tare would refuse: the cgroup is in use.
    let ours = Stage::new(shim::path());
    let ours = resting(&ours, &path);
    let stock = Stage::new(shims().last().expect("a shim"));
    let stock = resting(&stock, &path);
    let statistics = |task: &Task<'_>| {
        let any = task.call("Stats", &Message::new().bytes(1, "c")).expect("stats").message(1);
        let mut found = vec![any.text(1)];
        fields_of("", &any.message(2), &mut found);
        found
    };
    let mut seen = (Vec::new(), Vec::new());
    // At rest nothing changes but what the kernel has not summed up yet.
    for _ in 0..50 {
        seen = (statistics(&ours), statistics(&stock));
        without_what_is_newer(&mut seen.0, &seen.1);
        if seen.0 == seen.1 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(seen.0.len() > 20, "{seen:?}");
    assert_eq!(seen.0, seen.1);
}
