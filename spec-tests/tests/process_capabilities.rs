//! config.md, process.capabilities and noNewPrivileges.

use spec_tests::{Bundle, Value, json, need};

const SETS: [&str; 5] = ["bounding", "effective", "permitted", "inheritable", "ambient"];

fn with(capabilities: Value) -> Bundle {
    Bundle::new().process(|p| p["capabilities"] = capabilities)
}

#[test]
fn every_set_is_as_configured() {
    need!(root);
    // As the process sees them after execve: root gets all of bounding and inheritable (capabilities(7)), so an
    // ordinary user shows what was set, by way of ambient.
    let facts = with(json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
        "ambient": ["CAP_KILL"],
    }))
    .process(|p| p["user"]["uid"] = json!(1000))
    .facts();
    assert_eq!(
        facts["capabilities"],
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"],
            "permitted": ["CAP_KILL"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
            "ambient": ["CAP_KILL"],
        })
    );
}

#[test]
fn root_has_what_the_bounding_set_leaves() {
    need!(root);
    let names = json!(["CAP_CHOWN", "CAP_NET_RAW"]);
    let facts = with(json!({ "bounding": names, "permitted": names, "effective": names })).facts();
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(facts["capabilities"][set], names, "{set}");
    }
    for set in ["inheritable", "ambient"] {
        assert_eq!(facts["capabilities"][set], json!([]), "{set}");
    }
}

#[test]
fn an_ordinary_user_without_ambient_capabilities_has_none() {
    need!(root);
    let names = json!(["CAP_CHOWN", "CAP_NET_RAW"]);
    let facts =
        with(json!({ "bounding": names, "permitted": names, "effective": names, "inheritable": names }))
            .process(|p| p["user"]["uid"] = json!(1000))
            .facts();
    assert_eq!(facts["capabilities"]["bounding"], names);
    for set in ["effective", "permitted", "ambient"] {
        assert_eq!(facts["capabilities"][set], json!([]), "{set}");
    }
}

#[test]
fn absent_or_empty_capabilities_are_none_in_any_set() {
    need!(root);
    for capabilities in [json!(null), json!({}), json!({ "bounding": [], "effective": [] })] {
        let facts = with(capabilities).facts();
        for set in SETS {
            assert_eq!(facts["capabilities"][set], json!([]), "{set}");
        }
    }
}

#[test]
fn without_its_capability_a_call_is_refused_and_with_it_not() {
    need!(root);
    let names = json!(["CAP_SYS_CHROOT"]);
    for (capabilities, answer) in [
        (json!({}), json!({ "errno": "EPERM" })),
        (json!({ "bounding": names, "permitted": names, "effective": names }), json!({ "ok": true })),
    ] {
        let out = with(capabilities).probe(["try", "chroot", "/tmp"]).run();
        assert_eq!(out.ok().json(), answer);
    }
}

/// The specification asks for a warning, so that a profile written for a newer kernel works.
#[test]
fn an_unknown_capability_is_left_out_with_a_warning() {
    need!(root);
    let names = json!(["CAP_CHOWN", "CAP_UNKNOWN"]);
    let facts = with(json!({ "bounding": names, "permitted": names, "effective": names })).facts();
    assert_eq!(facts["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
}

#[test]
fn an_ambient_capability_that_is_not_inheritable_is_not_raised() {
    need!(root);
    let names = json!(["CAP_CHOWN"]);
    let facts = with(json!({ "bounding": names, "permitted": names, "effective": names, "ambient": names }))
        .process(|p| p["user"]["uid"] = json!(1000))
        .facts();
    assert_eq!(facts["capabilities"]["ambient"], json!([]));
}

#[test]
fn no_new_privileges_is_set_as_configured_and_off_by_default() {
    need!(root);
    for (value, expected) in [(json!(true), 1), (json!(false), 0), (json!(null), 0)] {
        let facts = Bundle::new().process(|p| p["noNewPrivileges"] = value).facts();
        assert_eq!(facts["no_new_privs"], expected);
    }
}
