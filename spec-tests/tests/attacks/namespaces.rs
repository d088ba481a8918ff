//! No amount of data makes a container lose a namespace.

use spec_tests::namespaces::own;
use spec_tests::{Bundle, Output, Value, json, need};

/// A clean error, or all that was asked for.
#[track_caller]
fn whole(out: &Output, kinds: &[&str], what: &str) {
    if !out.status.success() {
        assert!(!out.stderr.trim().is_empty(), "{what}: {out:#?}");
        return;
    }
    let facts = out.json();
    for kind in kinds {
        assert_ne!(facts["namespaces"][kind], own(kind), "{what}: {kind} is the host's");
    }
}

const KINDS: [&str; 5] = ["pid", "mnt", "net", "ipc", "uts"];

/// CVE-2021-43784: a length of 16 bits in what runc hands its child wraps at 64 KiB, and the rest is read as other
/// fields.
#[test]
fn more_than_64_kibibytes_of_anything_lose_no_namespace() {
    need!(root, userns);
    // The kernel takes 340 lines that fit into a page (user_namespaces(7)).
    for lines in [200_u32, 341, 2_000, 3_500, 20_000] {
        let map: Vec<Value> =
            (0..lines).map(|n| json!({ "containerID": n, "hostID": 100_000 + n, "size": 1 })).collect();
        let bundle = Bundle::new().userns(100_000, 1).linux(|l| {
            l["uidMappings"] = json!(map);
            l["gidMappings"] = json!(map);
        });
        whole(&bundle.run(), &[&KINDS[..], &["user"]].concat(), &format!("{lines} lines"));
    }
    let padded = format!("/proc/self{}/ns/net", "/.".repeat(33_000));
    whole(
        &Bundle::new().namespace("network", Some(&padded)).run(),
        &["pid", "mnt", "ipc", "uts"],
        "a long path",
    );
    let long = "x".repeat(100_000);
    let mut environment = Bundle::new().env(&format!("LONG={long}"));
    environment.config["annotations"] = json!({ "long": long });
    whole(&environment.run().ok(), &KINDS, "a long environment");
    let mut named = Bundle::new();
    named.config["root"]["path"] = json!(format!("rootfs{}", "/.".repeat(33_000)));
    whole(&named.run(), &KINDS, "a long root");
}
