//! Records as earlier releases wrote them (`tests/state/<version>.json`, never changed afterwards) are
//! read by this one.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use tare::config::id::ContainerId;
use tare::state::{Dir, Init, Stage};

#[test]
fn the_record_of_each_release_is_read() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state");
    let mut seen = 0;
    for file in fs::read_dir(files).unwrap() {
        let file = file.unwrap().path();
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::create(root.path(), &ContainerId::new("web").unwrap()).unwrap();
        fs::copy(&file, dir.record_path()).unwrap();
        let record = dir.load().unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(record.stage, Stage::Created);
        assert_eq!(record.init, Some(Init { pid: 4711, start_time: 123_456 }));
        assert_eq!(record.bundle, Path::new("/bundles/web"));
        assert_eq!(record.annotations["org.example/role"], "front");
        assert!(!record.cgroup.is_none() && record.no_new_keyring);
        seen += 1;
    }
    assert!(seen > 0);
}

/// Until the next release, its fixture is what this one writes.
#[test]
fn this_release_writes_what_its_fixture_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(concat!(
        "tests/state/",
        env!("CARGO_PKG_VERSION"),
        ".json"
    ));
    let root = tempfile::tempdir().unwrap();
    let dir = Dir::create(root.path(), &ContainerId::new("web").unwrap()).unwrap();
    fs::copy(&file, dir.record_path()).unwrap();
    dir.save(&dir.load().unwrap()).unwrap();
    assert_eq!(
        fs::read_to_string(dir.record_path()).unwrap().trim(),
        fs::read_to_string(file).unwrap().trim()
    );
}
