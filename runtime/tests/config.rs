//! Documents that engines write are read whole, and what is wrong with a document is said with its
//! place and value.

#![allow(clippy::unwrap_used)] // a test fails by it

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tare::config::{Config, Namespace, Process, Resources};

/// `docker-default` and `docker-options` were written by dockerd, `spec` and `spec-rootless` by
/// runc; `everything` has each property that is built.
const DOCUMENTS: &[&str] =
    &["spec", "spec-rootless", "docker-default", "docker-options", "kubernetes-pod", "everything"];

fn document(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan").join(name).join("config.json");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read(bytes: &[u8]) -> Result<Config, String> {
    Config::from_slice(bytes, Path::new("config.json"), Path::new("/bundle"))
        .map_err(|error| error.to_string())
}

fn value(name: &str) -> Value {
    serde_json::from_slice(&document(name)).unwrap()
}

/// Puts a value at a JSON pointer; objects on the way are made.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut at = document;
    for key in pointer.split('/').skip(1) {
        at = match at {
            Value::Array(items) => &mut items[key.parse::<usize>().unwrap()],
            object => {
                if !object.is_object() {
                    *object = json!({});
                }
                &mut object[key]
            }
        };
    }
    *at = value;
}

/// The everything document with some values changed.
fn changed(changes: &[(&str, Value)]) -> Result<Config, String> {
    let mut document = value("everything");
    for (pointer, value) in changes {
        set(&mut document, pointer, value.clone());
    }
    read(document.to_string().as_bytes())
}

#[test]
fn documents_of_engines_are_read_without_a_warning() {
    for name in DOCUMENTS {
        let config = read(&document(name)).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(config.warnings, [""; 0], "{name}");
    }
}

/// The types of the oci-spec crate were written by others: both must find the same in a document.
#[test]
fn the_types_of_oci_spec_agree() {
    for name in DOCUMENTS {
        let bytes = document(name);
        let ours = read(&bytes).unwrap();
        // oci-spec 0.10 has another name for this flag than the specification and Go's types.
        let text =
            String::from_utf8(bytes).unwrap().replace("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK");
        let theirs: oci_spec::runtime::Spec = serde_json::from_str(&text).unwrap();
        assert_eq!(&ours.oci_version, theirs.version(), "{name}");

        let process = theirs.process().as_ref().unwrap();
        let strings = |list: &[std::ffi::CString]| -> Vec<String> {
            list.iter().map(|text| text.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(&strings(&ours.process.args), process.args().as_ref().unwrap(), "{name}");
        assert_eq!(&strings(&ours.process.env), process.env().as_ref().unwrap(), "{name}");
        assert_eq!(Path::new(ours.process.cwd.to_str().unwrap()), process.cwd(), "{name}");
        assert_eq!(ours.process.user.uid, process.user().uid(), "{name}");
        assert_eq!(ours.process.user.gid, process.user().gid(), "{name}");
        assert_eq!(ours.process.oom_score_adj, process.oom_score_adj(), "{name}");
        let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
        assert_eq!(
            ours.process.capabilities.unwrap().bounding.count_ones() as usize,
            bounding.len(),
            "{name}"
        );
        let rlimits = process.rlimits().as_ref().map_or(0, Vec::len);
        assert_eq!(ours.process.rlimits.len(), rlimits, "{name}");

        let mounts = theirs.mounts().as_ref().unwrap();
        assert_eq!(ours.mounts.len(), mounts.len(), "{name}");
        for (our, their) in ours.mounts.iter().zip(mounts) {
            assert_eq!(Path::new(our.destination.to_str().unwrap()), their.destination(), "{name}");
            assert_eq!(Some(&our.options).filter(|o| !o.is_empty()), their.options().as_ref(), "{name}");
            assert_eq!(our.kind.as_deref().map(|k| k.to_str().unwrap()), their.typ().as_deref(), "{name}");
        }

        let linux = theirs.linux().as_ref().unwrap();
        let resources = linux.resources().as_ref();
        let memory =
            resources.and_then(|r| r.memory().as_ref()).and_then(oci_spec::runtime::LinuxMemory::limit);
        assert_eq!(ours.linux.resources.memory.limit, memory, "{name}");
        let rules = resources.and_then(|r| r.devices().as_ref()).map_or(0, Vec::len);
        assert_eq!(ours.linux.resources.devices.len(), rules, "{name}");
        assert_eq!(ours.linux.sysctl.len(), linux.sysctl().as_ref().map_or(0, |s| s.len()), "{name}");
        assert_eq!(ours.linux.seccomp.is_some(), linux.seccomp().is_some(), "{name}");
        if let (Some(our), Some(their)) = (&ours.linux.seccomp, linux.seccomp()) {
            let their = their.syscalls().as_ref().unwrap();
            assert_eq!(our.syscalls.len(), their.len(), "{name}");
            for (our, their) in our.syscalls.iter().zip(their) {
                assert_eq!(&our.names, their.names(), "{name}");
                assert_eq!(our.errno_ret, their.errno_ret(), "{name}");
                assert_eq!(our.args.len(), their.args().as_ref().map_or(0, Vec::len), "{name}");
            }
        }
    }
}

#[test]
fn the_default_document_is_what_it_says() {
    let config = read(&document("spec")).unwrap();
    assert_eq!(config.root.path, PathBuf::from("/bundle/rootfs"));
    assert!(config.root.readonly && config.process.terminal && config.process.no_new_privileges);
    assert_eq!(config.process.args, [c"sh".to_owned()]);
    assert_eq!(config.linux.namespaces.network, Namespace::New);
    assert_eq!(config.linux.namespaces.user, Namespace::Inherit);
    assert_eq!(config.process.capabilities.unwrap().bounding, 1 << 5 | 1 << 10 | 1 << 29);
}

/// The whole of what was read, field by field: a property that is dropped or mixed up with another
/// shows here.
#[test]
fn everything_is_read_into_its_place() {
    let config = read(&document("everything")).unwrap();
    let read = format!("{config:#?}\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan/everything/read.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &read).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert_eq!(read, expected, "run with BLESS=1 when this is meant");
}

#[test]
fn null_is_absent() {
    let absent = [
        "/hostname",
        "/domainname",
        "/hooks",
        "/annotations",
        "/process/terminal",
        "/process/consoleSize",
        "/process/user/umask",
        "/process/env",
        "/process/capabilities",
        "/process/rlimits",
        "/process/oomScoreAdj",
        "/process/scheduler",
        "/process/ioPriority",
        "/process/execCPUAffinity",
        "/linux/devices",
        "/linux/resources",
        "/linux/resources/memory",
        "/linux/resources/pids",
        "/linux/resources/cpu/quota",
        "/linux/sysctl",
        "/linux/seccomp",
        "/linux/seccomp/syscalls/0/args",
        "/linux/seccomp/syscalls/0/errnoRet",
        "/linux/personality",
        "/linux/maskedPaths",
        "/linux/timeOffsets",
        "/linux/cgroupsPath",
        "/linux/rootfsPropagation",
        "/linux/intelRdt",
        "/mounts/0/options",
        "/root/readonly",
    ];
    for pointer in absent {
        assert_eq!(changed(&[(pointer, Value::Null)]).err(), None, "{pointer}");
    }
    let config = changed(&absent.map(|pointer| (pointer, Value::Null))[..1]).unwrap();
    assert_eq!(config.hostname, None);
}

#[test]
fn what_sets_nothing_is_accepted() {
    for (pointer, value) in [
        ("/linux/resources/blockIO", json!({"weight": 0, "weightDevice": [], "throttleReadBpsDevice": null})),
        ("/linux/resources/hugepageLimits", json!([])),
        ("/linux/resources/network", json!({"classID": 0, "priorities": null})),
        ("/linux/resources/rdma", json!({})),
        ("/linux/intelRdt", json!({})),
        ("/linux/memoryPolicy", json!({"mode": "", "nodes": "", "flags": []})),
        ("/linux/netDevices", json!({})),
        ("/linux/mountLabel", json!("")),
        ("/process/apparmorProfile", json!("")),
        ("/process/selinuxLabel", json!("")),
        ("/linux/resources/memory/kernel", json!(0)),
        ("/linux/resources/memory/swappiness", json!(u64::MAX)),
        ("/hostname", json!("")),
        ("/linux/cgroupsPath", json!("")),
        ("/linux/rootfsPropagation", json!("")),
        ("/linux/seccomp/syscalls/0/errnoRet", json!(0)),
        ("/process/execCPUAffinity", json!({"initial": "", "final": ""})),
        ("/unknownProperty", json!({"of": ["a", "later", "version"]})),
        ("/linux/namespaces/0/path", json!("")),
    ] {
        let config = changed(&[(pointer, value)]).unwrap_or_else(|problems| panic!("{pointer}: {problems}"));
        assert_eq!(config.warnings, [""; 0], "{pointer}");
    }
}

#[test]
fn what_cannot_be_honoured_but_does_no_harm_is_warned_about() {
    for (pointer, value, warning) in [
        (
            "/process/capabilities/bounding",
            json!(["CAP_CHOWN", "CAP_FROM_THE_FUTURE"]),
            "/process/capabilities/bounding/1: unknown capability \"CAP_FROM_THE_FUTURE\" is ignored",
        ),
        (
            "/linux/resources/memory/kernelTCP",
            json!(4096),
            "/linux/resources/memory/kernelTCP: a limit of kernel memory is obsolete, it is ignored",
        ),
        (
            "/mounts/7/destination",
            json!("data"),
            "/mounts/7/destination: a relative destination is deprecated, it is taken below /",
        ),
    ] {
        let config = changed(&[(pointer, value)]).unwrap_or_else(|problems| panic!("{pointer}: {problems}"));
        assert_eq!(config.warnings, [warning], "{pointer}");
    }
    let config = changed(&[("/mounts/7/destination", json!("data"))]).unwrap();
    assert_eq!(config.mounts[7].destination.as_c_str(), c"/data");
}

#[test]
fn all_problems_are_reported_at_once_with_their_places() {
    let problems = changed(&[
        ("/process/args", json!([])),
        ("/process/cwd", json!("tmp")),
        ("/linux/seccomp/syscalls/3/args/0/op", json!("SCMP_CMP_FOO")),
        ("/annotations", json!({"a/b~c": 1})),
        ("/linux/intelRdt", json!({"closID": "x"})),
    ])
    .unwrap_err();
    assert_eq!(
        problems,
        "config.json /process/args: args must not be empty; \
         config.json /process/cwd: Cwd must be an absolute path, \"tmp\" is none; \
         config.json /annotations/a~1b~0c: 1 is not a string; \
         config.json /linux/seccomp/syscalls/3/args/0/op: \"SCMP_CMP_FOO\" is not an operator; known are \
         SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ; \
         config.json /linux/intelRdt: not supported yet by tare"
    );
}

#[test]
fn a_document_of_mistakes_gives_a_message_of_sensible_size() {
    let many = vec![json!(1); 100_000];
    let problems = changed(&[("/process/env", json!(many))]).unwrap_err();
    assert!(
        problems.ends_with("config.json: and 99936 more problems"),
        "{}",
        &problems[problems.len() - 80..]
    );
    let long = "x".repeat(1 << 20);
    let problems = changed(&[("/linux/rootfsPropagation", json!(long))]).unwrap_err();
    assert!(problems.len() < 300, "{}", problems.len());
}

#[test]
fn a_process_document_is_read_as_in_a_configuration() {
    let file = Path::new("process.json");
    let process = value("everything")["process"].to_string();
    let (read, warnings) = Process::from_slice(process.as_bytes(), file).unwrap();
    assert_eq!(read, changed(&[]).unwrap().process);
    assert_eq!(warnings, [""; 0]);
    let problems =
        Process::from_slice(br#"{"apparmorProfile": 7, "cwd": "/"}"#, file).unwrap_err().to_string();
    assert_eq!(
        problems,
        "process.json /args: args must not be empty; process.json /apparmorProfile: 7 is not a string"
    );
    assert!(Process::from_slice(b"[]", file).unwrap_err().to_string().contains("is not an object"));
}

#[test]
fn a_resources_document_is_read_as_in_a_configuration() {
    let file = Path::new("-");
    let resources = value("everything")["linux"]["resources"].to_string();
    let (read, warnings) = Resources::from_slice(resources.as_bytes(), file).unwrap();
    assert_eq!(read, changed(&[]).unwrap().linux.resources);
    assert_eq!(warnings, [""; 0]);
    let problems = Resources::from_slice(br#"{"pids": {"limit": "1"}, "blockIO": {"weight": 9}}"#, file);
    assert_eq!(
        problems.unwrap_err().to_string(),
        "- /pids/limit: \"1\" is not an integer from -9223372036854775808 to 9223372036854775807; \
         - /blockIO/weight: 9 is not from 10 to 1000"
    );
}

/// All JSON pointers of a document, but the one of the whole.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(properties) => {
            properties.iter().map(|(key, child)| (key.replace('~', "~0").replace('/', "~1"), child)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(i, child)| (i.to_string(), child)).collect(),
        _ => return,
    };
    for (key, child) in children {
        let pointer = format!("{at}/{key}");
        pointers(child, &pointer, found);
        found.push(pointer);
    }
}

/// No property is read carelessly: a number that nothing takes is refused wherever it stands.
#[test]
fn a_wrong_value_is_refused_at_every_place_of_the_document() {
    let whole = value("everything");
    let mut places = Vec::new();
    pointers(&whole, "", &mut places);
    assert!(places.len() > 300, "{}", places.len());
    for place in places {
        let mut document = whole.clone();
        *document.pointer_mut(&place).unwrap() = json!(0.5);
        let problems = read(document.to_string().as_bytes()).expect_err(&place);
        let expected = format!("config.json {place}: 0.5 is n");
        assert!(problems.contains(&expected), "{place}: {problems}");
    }
}

/// What is missing is refused or has a default; nothing panics.
#[test]
fn anything_may_be_missing() {
    let whole = value("everything");
    let mut places = Vec::new();
    pointers(&whole, "", &mut places);
    for place in places {
        let mut document = whole.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        if let Value::Object(parent) = document.pointer_mut(parent).unwrap() {
            parent.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        if let Err(problems) = read(document.to_string().as_bytes()) {
            assert!(problems.starts_with("config.json /"), "{place}: {problems}");
        }
    }
}
