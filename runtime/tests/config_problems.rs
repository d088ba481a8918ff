//! Each rule of the reader, by a document that breaks it.

use std::path::Path;

use serde_json::{Value, json};
use tare::config::Config;

/// The smallest document that is right.
fn smallest() -> Value {
    json!({
        "ociVersion": "1.0.0",
        "process": {"args": ["sh"], "cwd": "/"},
        "root": {"path": "rootfs"},
    })
}

/// The smallest document with some properties (of the top level) replaced.
fn with(patch: &Value) -> String {
    fn merge(into: &mut Value, patch: &Value) {
        match patch {
            Value::Object(properties) => {
                if !into.is_object() {
                    *into = json!({});
                }
                for (key, value) in properties {
                    merge(&mut into[key], value);
                }
            }
            other => *into = other.clone(),
        }
    }
    let mut document = smallest();
    merge(&mut document, patch);
    document.to_string()
}

fn problems(document: &str) -> String {
    match Config::from_slice(document.as_bytes(), Path::new("c"), Path::new("/b")) {
        Ok(_) => "none".into(),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check(cases: &[(Value, &str)]) {
    for (patch, expected) in cases {
        assert_eq!(problems(&with(patch)), *expected, "{patch}");
    }
}

fn process(properties: Value) -> Value {
    json!({"process": properties})
}

fn linux(properties: Value) -> Value {
    json!({"linux": properties})
}

#[test]
fn the_smallest_document_is_right() {
    assert_eq!(problems(&smallest().to_string()), "none");
}

#[test]
fn top_level() {
    check(&[
        (json!({"ociVersion": null}), "c /ociVersion: is missing"),
        (json!({"ociVersion": ""}), "c /ociVersion: \"\" is not a version such as 1.2.0"),
        (json!({"ociVersion": "1.0"}), "c /ociVersion: \"1.0\" is not a version such as 1.2.0"),
        (json!({"ociVersion": "one"}), "c /ociVersion: \"one\" is not a version such as 1.2.0"),
        (json!({"ociVersion": 1}), "c /ociVersion: 1 is not a string"),
        (
            json!({"ociVersion": "2.0.0"}),
            "c /ociVersion: \"2.0.0\" is not a version of the specification that is known here (1.x)",
        ),
        (json!({"ociVersion": "1.0.2-dev"}), "none"),
        (json!({"ociVersion": "1.1.0-rc.3+dev.1"}), "none"),
        (json!({"process": null}), "c /process: process property must not be empty"),
        (json!({"process": []}), "c /process: an array is not an object"),
        (json!({"root": null}), "c /root: root property must not be empty"),
        (json!({"root": {"path": ""}}), "c /root/path: path of the root must not be empty"),
        (json!({"root": {"path": null}}), "c /root/path: path of the root must not be empty"),
        (json!({"root": {"path": 1}}), "c /root/path: 1 is not a string"),
        (json!({"root": {"path": "a\0b"}}), "c /root/path: \"a\\u0000b\" has a NUL byte in it"),
        (json!({"root": {"readonly": "yes"}}), "c /root/readonly: \"yes\" is neither true nor false"),
        (json!({"annotations": {"a": {}}}), "c /annotations/a: an object is not a string"),
        (json!({"mounts": {}}), "c /mounts: an object is not an array"),
    ]);
}

#[test]
fn processes() {
    check(&[
        (process(json!({"args": null})), "c /process/args: args must not be empty"),
        (process(json!({"args": []})), "c /process/args: args must not be empty"),
        (process(json!({"args": "sh"})), "c /process/args: \"sh\" is not an array"),
        (process(json!({"args": ["sh", 1]})), "c /process/args/1: 1 is not a string"),
        (process(json!({"args": ["sh", null]})), "c /process/args/1: null is not a string"),
        (process(json!({"args": ["a\0"]})), "c /process/args/0: \"a\\u0000\" has a NUL byte in it"),
        (process(json!({"cwd": null})), "c /process/cwd: Cwd must be an absolute path, but is missing"),
        (process(json!({"cwd": ""})), "c /process/cwd: Cwd must be an absolute path, \"\" is none"),
        (process(json!({"cwd": "tmp"})), "c /process/cwd: Cwd must be an absolute path, \"tmp\" is none"),
        (process(json!({"cwd": 7})), "c /process/cwd: 7 is not a string"),
        (process(json!({"env": ["A=1", "B"]})), "c /process/env/1: \"B\" is not NAME=value"),
        (process(json!({"env": ["=x"]})), "c /process/env/0: \"=x\" is not NAME=value"),
        (process(json!({"env": ["A="]})), "none"),
        (process(json!({"terminal": 1})), "c /process/terminal: 1 is neither true nor false"),
        (
            process(json!({"consoleSize": {"height": 65536, "width": 80}})),
            "c /process/consoleSize/height: 65536 is not an integer from 0 to 65535",
        ),
        (process(json!({"user": "root"})), "c /process/user: \"root\" is not an object"),
        (
            process(json!({"user": {"uid": -1}})),
            "c /process/user/uid: -1 is not an integer from 0 to 4294967295",
        ),
        (
            process(json!({"user": {"uid": 1.5}})),
            "c /process/user/uid: 1.5 is not an integer from 0 to 4294967295",
        ),
        (
            process(json!({"user": {"uid": 1.0}})),
            "c /process/user/uid: 1.0 is not an integer from 0 to 4294967295",
        ),
        (
            process(json!({"user": {"uid": "0"}})),
            "c /process/user/uid: \"0\" is not an integer from 0 to 4294967295",
        ),
        (
            process(json!({"user": {"gid": 4294967295u32}})),
            "c /process/user/gid: 4294967295 is not an id: to the kernel it means no change",
        ),
        (
            process(json!({"user": {"gid": 4294967296u64}})),
            "c /process/user/gid: 4294967296 is not an integer from 0 to 4294967295",
        ),
        (
            process(json!({"user": {"additionalGids": [1, -1]}})),
            "c /process/user/additionalGids/1: -1 is not an integer from 0 to 4294967295",
        ),
        (process(json!({"user": {"umask": 512}})), "c /process/user/umask: 512 is not from 0 to 511"),
        (process(json!({"user": {"umask": 511}})), "none"),
        (process(json!({"oomScoreAdj": 1001})), "c /process/oomScoreAdj: 1001 is not from -1000 to 1000"),
        (process(json!({"oomScoreAdj": -1001})), "c /process/oomScoreAdj: -1001 is not from -1000 to 1000"),
        (process(json!({"oomScoreAdj": -1000})), "none"),
        (
            process(json!({"capabilities": {"effective": ["CAP_KILL"]}})),
            "c /process/capabilities/effective/0: \"CAP_KILL\" is effective but not permitted",
        ),
        (
            process(json!({"capabilities": ["CAP_KILL"]})),
            "c /process/capabilities: an array is not an object",
        ),
        (process(json!({"apparmorProfile": "p", "selinuxLabel": "l"})), "none"),
        (process(json!({"apparmorProfile": 1})), "c /process/apparmorProfile: 1 is not a string"),
        (
            process(json!({"selinuxLabel": "l\u{0}"})),
            "c /process/selinuxLabel: \"l\\u0000\" has a NUL byte in it",
        ),
    ]);
}

#[test]
fn rlimits() {
    let rlimits = |list: Value| process(json!({"rlimits": list}));
    check(&[
        (
            rlimits(json!([{"type": "NOFILE", "soft": 1, "hard": 1}])),
            "c /process/rlimits/0/type: \"NOFILE\" is not a resource limit; known are RLIMIT_AS, RLIMIT_CORE, \
             RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_LOCKS, RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE, \
             RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RSS, RLIMIT_RTPRIO, RLIMIT_RTTIME, RLIMIT_SIGPENDING, RLIMIT_STACK",
        ),
        (
            rlimits(json!([
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ])),
            "c /process/rlimits/1/type: \"RLIMIT_CORE\" is given twice",
        ),
        (
            rlimits(json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])),
            "c /process/rlimits/0/soft: 2 is above the hard limit 1",
        ),
        (
            rlimits(json!([{"type": "RLIMIT_CORE", "soft": -1, "hard": 1}])),
            "c /process/rlimits/0/soft: -1 is not an integer from 0 to 18446744073709551615",
        ),
        (rlimits(json!([{"type": "RLIMIT_CORE", "soft": 0}])), "c /process/rlimits/0/hard: is missing"),
        (rlimits(json!([{"soft": 0, "hard": 0}])), "c /process/rlimits/0/type: is missing"),
        (rlimits(json!([{"type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX}])), "none"),
    ]);
}

#[test]
fn scheduling() {
    let scheduler = |properties: Value| process(json!({"scheduler": properties}));
    check(&[
        (scheduler(json!({"nice": 1})), "c /process/scheduler/policy: is missing"),
        (
            scheduler(json!({"policy": "FIFO"})),
            "c /process/scheduler/policy: \"FIFO\" is not a scheduling policy; known are SCHED_OTHER, SCHED_FIFO, \
             SCHED_RR, SCHED_BATCH, SCHED_ISO, SCHED_IDLE, SCHED_DEADLINE",
        ),
        (
            scheduler(json!({"policy": "SCHED_OTHER", "nice": 20})),
            "c /process/scheduler/nice: 20 is not from -20 to 19",
        ),
        (
            scheduler(json!({"policy": "SCHED_OTHER", "priority": 1})),
            "c /process/scheduler/priority: 1 is for SCHED_FIFO and SCHED_RR only",
        ),
        (scheduler(json!({"policy": "SCHED_RR"})), "c /process/scheduler/priority: 0 is not from 1 to 99"),
        (
            scheduler(json!({"policy": "SCHED_RR", "priority": 100})),
            "c /process/scheduler/priority: 100 is not from 1 to 99",
        ),
        (
            scheduler(json!({"policy": "SCHED_BATCH", "runtime": 1})),
            "c /process/scheduler/runtime: 1 is for SCHED_DEADLINE only",
        ),
        (scheduler(json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 2})), "none"),
        (
            scheduler(json!({"policy": "SCHED_OTHER", "flags": ["X"]})),
            "c /process/scheduler/flags/0: \"X\" is not a flag of a scheduler; known are SCHED_FLAG_RESET_ON_FORK, \
             SCHED_FLAG_RECLAIM, SCHED_FLAG_DL_OVERRUN, SCHED_FLAG_KEEP_POLICY, SCHED_FLAG_KEEP_PARAMS, \
             SCHED_FLAG_UTIL_CLAMP_MIN, SCHED_FLAG_UTIL_CLAMP_MAX",
        ),
        (
            process(json!({"ioPriority": {"class": "RT", "priority": 0}})),
            "c /process/ioPriority/class: \"RT\" is not an I/O class; known are IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, \
             IOPRIO_CLASS_IDLE",
        ),
        (
            process(json!({"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 8}})),
            "c /process/ioPriority/priority: 8 is not from 0 to 7",
        ),
        (
            process(json!({"execCPUAffinity": {"final": "3-1"}})),
            "c /process/execCPUAffinity/final: \"3-1\" is not a list of CPUs such as 0-3,5",
        ),
    ]);
}

#[test]
fn mounts() {
    let mounts = |mount: Value| json!({"mounts": [mount]});
    let mapping = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    check(&[
        (mounts(json!({"type": "proc"})), "c /mounts/0/destination: is missing"),
        (
            mounts(json!({"type": "proc", "destination": ""})),
            "c /mounts/0/destination: destination must not be empty",
        ),
        (
            mounts(json!({"destination": "/x", "source": "/y"})),
            "c /mounts/0/type: is missing, and the options have neither bind nor rbind",
        ),
        (mounts(json!({"destination": "/x", "source": "/y", "options": ["rbind"]})), "none"),
        (mounts(json!({"destination": "/x", "type": "bind", "source": "/y"})), "none"),
        (
            mounts(json!({"destination": "/x", "type": "proc", "options": ["ro", true]})),
            "c /mounts/0/options/1: true is not a string",
        ),
        (
            mounts(json!({"destination": "/x", "type": "proc", "options": "ro"})),
            "c /mounts/0/options: \"ro\" is not an array",
        ),
        (mounts(json!("proc")), "c /mounts/0: \"proc\" is not an object"),
        (
            mounts(json!({"destination": "/x", "type": "bind", "uidMappings": mapping})),
            "c /mounts/0: has one of uidMappings and gidMappings, but needs both or none",
        ),
        (
            mounts(
                json!({"destination": "/x", "type": "tmpfs", "uidMappings": mapping, "gidMappings": mapping}),
            ),
            "c /mounts/0/uidMappings: id mappings are for bind mounts only",
        ),
        (
            mounts(json!({"destination": "/x", "type": "bind", "options": ["idmap"]})),
            "c /mounts/0/options: an id-mapped mount needs mappings: its own, or those of a user namespace",
        ),
    ]);
}

#[test]
fn hooks() {
    let hook = |hook: Value| json!({"hooks": {"poststop": [hook]}});
    check(&[
        (hook(json!({})), "c /hooks/poststop/0/path: is missing"),
        (hook(json!({"path": "bin/x"})), "c /hooks/poststop/0/path: \"bin/x\" is not an absolute path"),
        (
            hook(json!({"path": "/x", "timeout": 0})),
            "c /hooks/poststop/0/timeout: 0 is not from 1 to 4294967295",
        ),
        (
            hook(json!({"path": "/x", "timeout": -1})),
            "c /hooks/poststop/0/timeout: -1 is not an integer from 0 to 4294967295",
        ),
        (hook(json!({"path": "/x", "args": [1]})), "c /hooks/poststop/0/args/0: 1 is not a string"),
        (json!({"hooks": {"prestart": {}}}), "c /hooks/prestart: an object is not an array"),
    ]);
}

#[test]
fn namespaces() {
    let user = json!([{"type": "user"}]);
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    check(&[
        (
            linux(json!({"namespaces": [{"type": "net"}]})),
            "c /linux/namespaces/0/type: \"net\" is not a type of namespace; known are user, mount, pid, network, \
             ipc, uts, cgroup, time",
        ),
        (
            linux(json!({"namespaces": [{"type": "pid"}, {"type": "pid", "path": "/p"}]})),
            "c /linux/namespaces/1/type: \"pid\" is given twice",
        ),
        (
            linux(json!({"namespaces": [{"type": "pid", "path": "p"}]})),
            "c /linux/namespaces/0/path: \"p\" is not an absolute path",
        ),
        (linux(json!({"namespaces": [{}]})), "c /linux/namespaces/0/type: is missing"),
        (json!({"hostname": "h"}), "c /hostname: unable to set hostname without a private UTS namespace"),
        (
            json!({"domainname": "d"}),
            "c /domainname: unable to set domainname without a private UTS namespace",
        ),
        (json!({"hostname": "h", "linux": {"namespaces": [{"type": "uts", "path": "/n"}]}}), "none"),
        (
            json!({"hostname": "h".repeat(65), "linux": {"namespaces": [{"type": "uts"}]}}),
            "c /hostname: \"hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh\" has more than 64 bytes",
        ),
        (
            linux(json!({"uidMappings": mapping})),
            "c /linux/uidMappings: id mappings are given, but no user namespace",
        ),
        (
            linux(json!({"namespaces": user, "uidMappings": mapping})),
            "c /linux/gidMappings: a new user namespace needs id mappings, there are none",
        ),
        (linux(json!({"namespaces": user, "uidMappings": mapping, "gidMappings": mapping})), "none"),
        (linux(json!({"namespaces": [{"type": "user", "path": "/u"}], "uidMappings": mapping})), "none"),
        (
            linux(json!({"timeOffsets": {"monotonic": {"secs": 1}}})),
            "c /linux/timeOffsets: time offsets need a new time namespace",
        ),
        (
            linux(json!({"timeOffsets": {"monotonic": {}}, "namespaces": [{"type": "time", "path": "/t"}]})),
            "c /linux/timeOffsets: time offsets need a new time namespace",
        ),
        (
            linux(json!({"timeOffsets": {"realtime": {}}, "namespaces": [{"type": "time"}]})),
            "c /linux/timeOffsets/realtime: \"realtime\" is not a clock; known are monotonic, boottime",
        ),
        (
            linux(
                json!({"timeOffsets": {"boottime": {"nanosecs": 1000000000}}, "namespaces": [{"type": "time"}]}),
            ),
            "c /linux/timeOffsets/boottime/nanosecs: 1000000000 is not from 0 to 999999999",
        ),
        (
            linux(json!({"maskedPaths": ["/proc/kcore"]})),
            "c /linux/maskedPaths: unable to restrict paths without a private mount namespace",
        ),
    ]);
}

#[test]
fn id_mappings() {
    let with = |list: Value| {
        let whole = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        linux(json!({"namespaces": [{"type": "user"}], "uidMappings": list, "gidMappings": whole}))
    };
    check(&[
        (
            with(json!([{"containerID": 0, "hostID": 0, "size": 0}])),
            "c /linux/uidMappings/0/size: 0 maps no id",
        ),
        (with(json!([{"containerID": 0, "hostID": 0}])), "c /linux/uidMappings/0/size: is missing"),
        (
            with(
                json!([{"containerID": 0, "hostID": 0, "size": 10}, {"containerID": 9, "hostID": 10, "size": 1}]),
            ),
            "c /linux/uidMappings/1/containerID: 9 overlaps with mapping 0 of this list",
        ),
        (
            with(
                json!([{"containerID": 0, "hostID": 5, "size": 10}, {"containerID": 10, "hostID": 0, "size": 6}]),
            ),
            "c /linux/uidMappings/1/hostID: 0 overlaps with mapping 0 of this list",
        ),
        (
            with(
                json!([{"containerID": 0, "hostID": 5, "size": 10}, {"containerID": 10, "hostID": 0, "size": 5}]),
            ),
            "none",
        ),
        (
            with(json!([{"containerID": 0, "hostID": 4294967290u32, "size": 10}])),
            "c /linux/uidMappings/0/hostID: 4294967290 and 10 ids from there go beyond 2^32-1",
        ),
    ]);
}

#[test]
fn devices_and_paths() {
    let device = |device: Value| linux(json!({"devices": [device]}));
    check(&[
        (
            device(json!({"path": "/dev/x", "type": "x"})),
            "c /linux/devices/0/type: \"x\" is not a type of device; known are c, u, b, p",
        ),
        (device(json!({"path": "/dev/x", "type": "c", "minor": 0})), "c /linux/devices/0/major: is missing"),
        (
            device(json!({"path": "/dev/x", "type": "b", "major": 4096, "minor": 0})),
            "c /linux/devices/0/major: 4096 is not from 0 to 4095",
        ),
        (
            device(json!({"path": "dev/x", "type": "p"})),
            "c /linux/devices/0/path: \"dev/x\" is not an absolute path",
        ),
        (device(json!({"path": "/dev/x", "type": "p"})), "none"),
        (device(json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 8630})), "none"),
        (
            linux(json!({"readonlyPaths": ["proc"], "namespaces": [{"type": "mount"}]})),
            "c /linux/readonlyPaths/0: \"proc\" is not an absolute path",
        ),
        (
            linux(json!({"rootfsPropagation": "rw"})),
            "c /linux/rootfsPropagation: \"rw\" is not a mount propagation; known are private, rprivate, slave, \
             rslave, shared, rshared, unbindable, runbindable",
        ),
        (
            linux(json!({"personality": {"domain": "linux32"}})),
            "c /linux/personality/domain: \"linux32\" is not a personality; known are LINUX, LINUX32",
        ),
        (
            linux(json!({"personality": {"domain": "LINUX32", "flags": ["X"]}})),
            "c /linux/personality/flags/0: \"X\" is not a flag of a personality; none is defined",
        ),
    ]);
}

#[test]
fn resources() {
    let resources = |properties: Value| linux(json!({"resources": properties}));
    check(&[
        (
            resources(json!({"devices": [{"access": "rwm"}]})),
            "c /linux/resources/devices/0/allow: is missing",
        ),
        (
            resources(json!({"devices": [{"allow": true, "type": "p", "access": "rwm"}]})),
            "c /linux/resources/devices/0/type: \"p\" is not a type of device; known are a, c, b",
        ),
        (
            resources(json!({"devices": [{"allow": true, "type": "c", "access": "rx"}]})),
            "c /linux/resources/devices/0/access: \"rx\" has other letters than r, w and m",
        ),
        (
            resources(json!({"devices": [{"allow": true, "type": "c", "major": -2, "access": "r"}]})),
            "c /linux/resources/devices/0/major: -2 is not from -1 to 4294967295",
        ),
        (
            resources(json!({"memory": {"limit": -2}})),
            "c /linux/resources/memory/limit: -2 is not from -1 to 9223372036854775807",
        ),
        (
            resources(json!({"memory": {"limit": 4096, "swap": 1024}})),
            "c /linux/resources/memory/swap: 1024 is memory and swap together, but below the memory limit 4096",
        ),
        (resources(json!({"memory": {"limit": 4096, "swap": -1}})), "none"),
        (resources(json!({"memory": {"limit": 4096, "swap": 0}})), "none"),
        (
            resources(json!({"memory": {"swappiness": 101}})),
            "c /linux/resources/memory/swappiness: 101 is not from 0 to 100",
        ),
        (resources(json!({"cpu": {"idle": 2}})), "c /linux/resources/cpu/idle: 2 is not from 0 to 1"),
        (
            resources(json!({"cpu": {"shares": -1}})),
            "c /linux/resources/cpu/shares: -1 is not an integer from 0 to 18446744073709551615",
        ),
        (
            resources(json!({"unified": {"../memory.max": "1"}})),
            "c /linux/resources/unified/..~1memory.max: \"../memory.max\" is not the name of a file of a cgroup",
        ),
        (
            resources(json!({"unified": {"memory.max": 1}})),
            "c /linux/resources/unified/memory.max: 1 is not a string",
        ),
        (linux(json!({"netDevices": {"eth0": {}}})), "c /linux/netDevices: not supported yet by tare"),
        (
            linux(json!({"memoryPolicy": {"mode": "MPOL_BIND"}})),
            "c /linux/memoryPolicy: not supported yet by tare",
        ),
        (linux(json!({"mountLabel": "l"})), "none"),
    ]);
}

#[test]
fn block_devices() {
    let block_io = |properties: Value| linux(json!({"resources": {"blockIO": properties}}));
    check(&[
        (block_io(json!({"weight": 10, "leafWeight": 1000})), "none"),
        (block_io(json!({"weight": 9})), "c /linux/resources/blockIO/weight: 9 is not from 10 to 1000"),
        (
            block_io(json!({"leafWeight": 1001})),
            "c /linux/resources/blockIO/leafWeight: 1001 is not from 10 to 1000",
        ),
        (
            block_io(json!({"weightDevice": [{"major": 8, "minor": 0}]})),
            "c /linux/resources/blockIO/weightDevice/0: has neither weight nor leafWeight",
        ),
        (
            block_io(json!({"weightDevice": [{"major": 8, "weight": 5}]})),
            "c /linux/resources/blockIO/weightDevice/0/minor: is missing; \
             c /linux/resources/blockIO/weightDevice/0/weight: 5 is not from 10 to 1000",
        ),
        (
            block_io(json!({"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]})),
            "c /linux/resources/blockIO/throttleReadBpsDevice/0/major: -1 is not an integer from 0 to 4294967295",
        ),
        (
            block_io(json!({"throttleWriteBpsDevice": [{"major": 8, "minor": 0}]})),
            "c /linux/resources/blockIO/throttleWriteBpsDevice/0/rate: is missing",
        ),
        (
            block_io(json!({"throttleReadIOPSDevice": [
                {"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 16, "rate": 1}, {"major": 8, "minor": 0, "rate": 2}
            ]})),
            "c /linux/resources/blockIO/throttleReadIOPSDevice/2: device 8:0 is there twice",
        ),
        (
            block_io(json!({"throttleWriteIOPSDevice": {}})),
            "c /linux/resources/blockIO/throttleWriteIOPSDevice: an object is not an array",
        ),
    ]);
}

#[test]
fn huge_pages() {
    let limits = |limits: Value| linux(json!({"resources": {"hugepageLimits": limits}}));
    let size = |size: &str| limits(json!([{"pageSize": size, "limit": 0}]));
    let at = "c /linux/resources/hugepageLimits";
    for known in ["64KB", "2MB", "1GB", "512MB", "16GB"] {
        check(&[(size(known), "none")]);
    }
    for unknown in
        ["2M", "2Mi", "2mb", "MB", "", "0MB", "-2MB", "+2MB", "2.0MB", "2 MB", "99999999999999999999GB", "é"]
    {
        let why = format!("{at}/0/pageSize: \"{unknown}\" is not a page size such as 64KB, 2MB or 1GB");
        check(&[(size(unknown), &why)]);
    }
    for (text, kernels) in [("2048KB", "2MB"), ("1024MB", "1GB"), ("02MB", "2MB")] {
        let why = format!("{at}/0/pageSize: \"{text}\" is not as the kernel writes it, which is {kernels}");
        check(&[(size(text), &why)]);
    }
    check(&[
        (limits(json!([{"limit": 1}])), &format!("{at}/0/pageSize: is missing")),
        (limits(json!([{"pageSize": "2MB"}])), &format!("{at}/0/limit: is missing")),
        (
            limits(json!([{"pageSize": "2MB", "limit": -1}])),
            &format!("{at}/0/limit: -1 is not an integer from 0 to 18446744073709551615"),
        ),
        (
            limits(json!([{"pageSize": "2MB", "limit": 1}, {"pageSize": "2MB", "limit": 2}])),
            &format!("{at}/1/pageSize: \"2MB\" is there twice"),
        ),
    ]);
}

#[test]
fn network_and_rdma() {
    let resources = |properties: Value| linux(json!({"resources": properties}));
    let priority =
        |name: &str| resources(json!({"network": {"priorities": [{"name": name, "priority": 1}]}}));
    for name in ["eth0", "fifteen-letters", "br-1a2b.100"] {
        check(&[(priority(name), "none")]);
    }
    for name in ["", "sixteen-letters!", "a b", "a/b", "a:b", ".", ".."] {
        let why = format!(
            "c /linux/resources/network/priorities/0/name: \"{name}\" is not the name of a network interface"
        );
        check(&[(priority(name), &why)]);
    }
    check(&[
        (
            resources(json!({"network": {"classID": 4294967296u64, "priorities": [{"name": "lo"}]}})),
            "c /linux/resources/network/priorities/0/priority: is missing; \
             c /linux/resources/network/classID: 4294967296 is not an integer from 0 to 4294967295",
        ),
        (
            resources(json!({"network": {"priorities": [
                {"name": "lo", "priority": 1}, {"name": "lo", "priority": 2}
            ]}})),
            "c /linux/resources/network/priorities/1/name: \"lo\" is there twice",
        ),
        (resources(json!({"rdma": {"mlx5_1": {"hcaHandles": 0}}})), "none"),
        (
            resources(json!({"rdma": {"mlx5_1": {}}})),
            "c /linux/resources/rdma/mlx5_1: has neither hcaHandles nor hcaObjects",
        ),
        (
            resources(json!({"rdma": {"mlx5_1": {"hcaObjects": -1}}})),
            "c /linux/resources/rdma/mlx5_1/hcaObjects: -1 is not an integer from 0 to 4294967295",
        ),
        (
            resources(json!({"rdma": {"a b": {"hcaObjects": 1}, "c": 1}})),
            "c /linux/resources/rdma/a b: \"a b\" is not the name of an RDMA device; \
             c /linux/resources/rdma/c: 1 is not an object",
        ),
    ]);
}

#[test]
fn sysctls_belong_to_a_namespace_of_the_container() {
    let namespaces = json!([
        {"type": "ipc"}, {"type": "network"}, {"type": "uts"},
        {"type": "user", "path": "/run/user-namespace"},
    ]);
    for (name, namespace) in [
        ("net.ipv4.ip_forward", "network"),
        ("net/core/somaxconn", "network"),
        ("kernel.shmmax", "IPC"),
        ("fs.mqueue.msg_max", "IPC"),
        ("kernel.domainname", "UTS"),
        ("user.max_net_namespaces", "user"),
    ] {
        let with_namespaces = linux(json!({"namespaces": namespaces, "sysctl": {name: "1"}}));
        assert_eq!(problems(&with(&with_namespaces)), "none", "{name}");
        let pointer = name.replace('/', "~1");
        assert_eq!(
            problems(&with(&linux(json!({"sysctl": {name: "1"}})))),
            format!(
                "c /linux/sysctl/{pointer}: sysctl {name:?} is not allowed without a private {namespace} namespace"
            ),
        );
    }
    for (name, why) in [
        ("kernel.core_pattern", "is not in a separate kernel namespace"),
        ("vm.overcommit_memory", "is not in a separate kernel namespace"),
        ("fs.mqueuex.a", "is not in a separate kernel namespace"),
        ("kernel.shmmax.x", "is not in a separate kernel namespace"),
        ("netx.a", "is not in a separate kernel namespace"),
        ("kernel.hostname", "is not allowed, use the property hostname"),
    ] {
        assert_eq!(
            problems(&with(&linux(json!({"namespaces": namespaces, "sysctl": {name: "1"}})))),
            format!("c /linux/sysctl/{name}: sysctl {name:?} {why}"),
        );
    }
    let escape = "net.//.kernel.core_pattern";
    assert_eq!(
        problems(&with(&linux(json!({"namespaces": namespaces, "sysctl": {escape: "1"}})))),
        "c /linux/sysctl/net.~1~1.kernel.core_pattern: \"net.//.kernel.core_pattern\" is not the name of a sysctl",
    );
    check(&[
        (
            linux(json!({"namespaces": namespaces, "sysctl": {"net.a": "1", "net/a": "2"}})),
            "c /linux/sysctl/net~1a: \"net/a\" is given twice, with dots and with slashes",
        ),
        (linux(json!({"sysctl": {"net.a": 1}})), "c /linux/sysctl/net.a: 1 is not a string"),
    ]);
}

#[test]
fn seccomp() {
    let seccomp = |properties: Value| linux(json!({"seccomp": properties}));
    let rule = |rule: Value| {
        let mut whole = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW"});
        for (key, value) in rule.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        linux(json!({"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [whole]}}))
    };
    let errno_only = "is for the actions SCMP_ACT_ERRNO and SCMP_ACT_TRACE only";
    check(&[
        (seccomp(json!({})), "c /linux/seccomp/defaultAction: is missing"),
        (
            seccomp(json!({"defaultAction": "ALLOW"})),
            "c /linux/seccomp/defaultAction: \"ALLOW\" is not an action; known are SCMP_ACT_KILL, \
             SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_TRAP, SCMP_ACT_ERRNO, SCMP_ACT_TRACE, \
             SCMP_ACT_ALLOW, SCMP_ACT_LOG, SCMP_ACT_NOTIFY",
        ),
        (
            seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1})),
            &format!("c /linux/seccomp/defaultErrnoRet: 1 {errno_only}"),
        ),
        (
            seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["LOG"]})),
            "c /linux/seccomp/flags/0: \"LOG\" is not a flag of a filter; known are SECCOMP_FILTER_FLAG_TSYNC, \
             SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ),
        (
            seccomp(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "agent"})),
            "c /linux/seccomp/listenerPath: \"agent\" is not an absolute path",
        ),
        (rule(json!({"names": []})), "c /linux/seccomp/syscalls/0/names: has no name of a syscall"),
        (
            rule(json!({"names": [""]})),
            "c /linux/seccomp/syscalls/0/names/0: \"\" is not the name of a syscall",
        ),
        (rule(json!({"names": ["no_such_syscall"]})), "none"),
        (rule(json!({"action": null})), "c /linux/seccomp/syscalls/0/action: is missing"),
        (rule(json!({"errnoRet": 1})), &format!("c /linux/seccomp/syscalls/0/errnoRet: 1 {errno_only}")),
        (
            rule(json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 65536})),
            "c /linux/seccomp/syscalls/0/errnoRet: 65536 is not from 0 to 65535",
        ),
        (
            rule(json!({"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "c /linux/seccomp/syscalls/0/args/0/index: 6 is not from 0 to 5",
        ),
        (
            rule(json!({"args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]})),
            "c /linux/seccomp/syscalls/0/args/0/value: -1 is not an integer from 0 to 18446744073709551615",
        ),
        (
            rule(json!({"args": [{"index": 0, "value": 0}]})),
            "c /linux/seccomp/syscalls/0/args/0/op: is missing",
        ),
    ]);
    let arch = problems(&with(&seccomp(json!({"defaultAction": "SCMP_ACT_LOG", "architectures": ["x86"]}))));
    assert!(
        arch.starts_with("c /linux/seccomp/architectures/0: \"x86\" is not an architecture; known are"),
        "{arch}"
    );
}

#[test]
fn a_value_of_the_wrong_type_is_one_problem() {
    check(&[
        (
            process(json!({"capabilities": {"effective": [1]}})),
            "c /process/capabilities/effective/0: 1 is not a string",
        ),
        (
            process(json!({"scheduler": {"policy": "SCHED_RR", "priority": "1"}})),
            "c /process/scheduler/priority: \"1\" is not an integer from 0 to 4294967295",
        ),
        (
            linux(json!({"namespaces": [{"type": "pid", "path": 1}]})),
            "c /linux/namespaces/0/path: 1 is not a string",
        ),
        (linux(json!({"rootfsPropagation": 1})), "c /linux/rootfsPropagation: 1 is not a string"),
        (
            linux(json!({"resources": {"devices": [{"allow": true, "type": 1}]}})),
            "c /linux/resources/devices/0/type: 1 is not a string",
        ),
        (json!({"mounts": [{"destination": "/x", "type": 1}]}), "c /mounts/0/type: 1 is not a string"),
        (
            json!({"mounts": [{"destination": "/x", "type": "tmpfs", "options": ["mode=1\0"]}]}),
            "c /mounts/0/options/0: \"mode=1\\u0000\" has a NUL byte in it",
        ),
        // What hangs on the namespaces is not said when those could not be read.
        (
            json!({"hostname": "h", "linux": {"namespaces": "uts", "sysctl": {"net.a": "1"}}}),
            "c /linux/namespaces: \"uts\" is not an array",
        ),
    ]);
}
