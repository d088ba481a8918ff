//! The conversations with systemd, held with a server of our own; and where it is looked for.

use super::dbus::Server;
use super::dbus::tests::{Peer, with_server};
use super::*;

const LATE: Duration = Duration::from_secs(20);

fn planned() -> Planned {
    let property = |since, name: &str| Versioned { property: Property::new(name, Value::Bool(true)), since };
    Planned {
        unit: Unit { name: "p-n.scope".into(), manager: Manager::System },
        is_slice: false,
        own: vec![property(0, "Delegate"), property(236, "CollectMode")],
        limits: vec![property(244, "AllowedCPUs")],
    }
}

/// The names of the properties that a call gives.
fn names(call: &super::wire::Message) -> Vec<String> {
    let Some(Value::Array(_, list)) = call.body.iter().find(|v| v.signature() == "a(sv)") else {
        panic!("{call:?}")
    };
    let name = |property: &Value| match property {
        Value::Struct(pair) => pair[0].as_str().unwrap().to_owned(),
        other => panic!("{other}"),
    };
    list.iter().map(name).collect()
}

fn finish(peer: &mut Peer, call: &super::wire::Message, result: &str) {
    peer.answer(call, vec![Value::ObjectPath("/job/7".into())]);
    peer.job_removed("/job/7", result);
}

#[test]
fn a_unit_starts_with_its_properties_and_the_process() {
    let serve = |peer: &mut Peer| {
        let call = peer.call().unwrap();
        assert_eq!(call.member, "StartTransientUnit");
        assert_eq!(call.body[..2], [Value::text("p-n.scope"), Value::text("replace")]);
        assert_eq!(names(&call), ["Delegate", "CollectMode", "PIDs", "AllowedCPUs"]);
        assert_eq!(call.body[3], Value::Array("(sa(sv))".into(), vec![]));
        finish(peer, &call, "done");
    };
    with_server(false, LATE, serve, |connection| start(connection, &planned(), 42)).unwrap();
}

#[test]
fn an_old_systemd_is_asked_for_its_version_and_told_what_it_knows() {
    let serve = |peer: &mut Peer| {
        let call = peer.call().unwrap();
        peer.refuse(&call, UNKNOWN_PROPERTY, "Cannot set property AllowedCPUs, or unknown property.");
        let call = peer.call().unwrap();
        assert_eq!(call.member, "Get");
        peer.answer(&call, vec![Value::Variant(Box::new(Value::text("239 (239-82.el8)")))]);
        let call = peer.call().unwrap();
        assert_eq!(names(&call), ["Delegate", "CollectMode", "PIDs"]);
        finish(peer, &call, "done");
    };
    with_server(false, LATE, serve, |connection| start(connection, &planned(), 42)).unwrap();
}

/// Before 252 `CPUWeight` has no 0, which is idle.
#[test]
fn an_old_systemd_is_not_told_a_value_that_it_does_not_know() {
    let serve = |peer: &mut Peer| {
        let call = peer.call().unwrap();
        assert_eq!(names(&call), ["MemoryMax", "CPUWeight"]);
        peer.refuse(&call, INVALID_ARGUMENTS, "Value specified in CPUWeight is out of range");
        let call = peer.call().unwrap();
        assert_eq!(call.member, "Get");
        peer.answer(&call, vec![Value::Variant(Box::new(Value::text("249.11-0ubuntu3.12")))]);
        let call = peer.call().unwrap();
        assert_eq!(names(&call), ["MemoryMax"]);
        peer.answer(&call, vec![]);
    };
    let (properties, _) = properties::of_writes([("cpu.idle", "1"), ("memory.max", "5")]);
    with_server(false, LATE, serve, |connection| {
        understood(connection, &properties, |connection, properties| {
            connection
                .manager("SetUnitProperties", vec![Value::text("p-n.scope"), Value::Bool(true), properties])
        })
    })
    .unwrap();
}

#[test]
fn what_a_new_systemd_does_not_know_is_the_configurations_fault() {
    let serve = |peer: &mut Peer| {
        let call = peer.call().unwrap();
        peer.refuse(&call, UNKNOWN_PROPERTY, "Cannot set property Foo, or unknown property.");
        let call = peer.call().unwrap();
        peer.answer(&call, vec![Value::Variant(Box::new(Value::text("257.8-1")))]);
        assert!(peer.call().is_none());
    };
    let failure = with_server(false, LATE, serve, |connection| start(connection, &planned(), 42));
    assert!(
        matches!(failure, Err(Failure::Refused { text, .. }) if text.starts_with("Cannot set property Foo"))
    );
}

#[test]
fn a_unit_that_failed_before_is_reset_and_started_once_more() {
    for comes_free in [true, false] {
        let serve = move |peer: &mut Peer| {
            let call = peer.call().unwrap();
            peer.refuse(&call, UNIT_EXISTS, "Unit p-n.scope already exists.");
            let call = peer.call().unwrap();
            assert_eq!((&*call.member, &call.body[..]), ("ResetFailedUnit", &[Value::text("p-n.scope")][..]));
            peer.answer(&call, vec![]);
            let call = peer.call().unwrap();
            if comes_free {
                finish(peer, &call, "done");
            } else {
                peer.refuse(&call, UNIT_EXISTS, "Unit p-n.scope already exists.");
            }
        };
        let result = with_server(false, LATE, serve, |connection| start(connection, &planned(), 42));
        match result {
            Ok(()) => assert!(comes_free),
            Err(failure) => assert!(!comes_free && failure.is(UNIT_EXISTS)),
        }
    }
}

#[test]
fn a_job_that_fails_is_an_error_with_its_result() {
    let serve = |peer: &mut Peer| {
        let call = peer.call().unwrap();
        finish(peer, &call, "failed");
    };
    let failure = with_server(false, LATE, serve, |connection| start(connection, &planned(), 42));
    assert!(matches!(failure, Err(Failure::Lost(why)) if why == "the job ended with \"failed\""));
}

#[test]
fn versions_of_systemd() {
    for (text, expected) in [
        ("252.39-1~deb12u1", 252),
        ("v245.4-1.fc32", 245),
        ("239 (239-82.el8)", 239),
        ("256~rc1", 256),
        ("", 0),
        ("unknown", 0),
    ] {
        assert_eq!(version(text), expected, "{text}");
    }
}

#[test]
fn where_systemd_is_looked_for() {
    let show = |servers: Vec<Server>| {
        let show = |server: &Server| format!("{server}{}", if server.is_bus { " (bus)" } else { "" });
        servers.iter().map(show).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(show(servers::of_system()), "/run/systemd/private, /run/dbus/system_bus_socket (bus)");
    for (runtime_dir, bus, expected) in [
        (None, None, ""),
        (Some("/run/user/5"), None, "/run/user/5/systemd/private, /run/user/5/bus (bus)"),
        (
            Some("/run/user/5"),
            Some("unix:path=/a%20b,guid=0;tcp:host=x;unix:abstract=/c"),
            "/run/user/5/systemd/private, /a b (bus), @/c (bus)",
        ),
        (None, Some("unix:guid=0,path=/a%2"), "/a%2 (bus)"),
    ] {
        let servers = servers::of_user(runtime_dir.map(PathBuf::from), bus.map(str::to_owned));
        assert_eq!(show(servers), expected);
    }
}

#[test]
fn where_pid_1_cannot_be_seen_nothing_is_taken_for_its_cgroup() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cgroup");
    let error = system_manager(&file).unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT), "{error}");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
    std::fs::write(&file, "0::/docker/ab/init.scope\n").unwrap();
    assert_eq!(system_manager(&file).unwrap(), Path::new("/docker/ab"));
}
