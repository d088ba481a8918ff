//! Input that no engine writes and every runtime meets: one clear line, runc's exit code, nothing left behind.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use spec_tests::call::{LIMIT, Output, Running, call};
use spec_tests::{
    Bundle, Container, Value, crun, crun_since, differs, differs_at_times, json, need, runc, runc_before,
};

/// `create` by a `config.json` with these bytes.
fn create_from(text: &[u8]) -> Output {
    let mut container = Bundle::new().container();
    fs::write(container.bundle_path().join("config.json"), text).unwrap();
    clean_failure(&mut container)
}

/// `create` fails, quickly and without a trace; also a second time, as the first left nothing.
fn clean_failure(container: &mut Container) -> Output {
    container.create().refused();
    let out = container.create().refused();
    let lines = out.stderr.lines().filter(|l| !l.trim().is_empty()).count();
    assert!(lines <= 2, "one clear line, with a hint at most: {out:#?}");
    assert!(!out.stderr.contains("panic"), "{out:#?}");
    assert!(out.elapsed < LIMIT / 2, "{out:#?}");
    assert_eq!(container.remains(), Vec::<String>::new(), "{out:#?}");
    out
}

fn one_failure(bundle: Bundle) -> Output {
    clean_failure(&mut bundle.container())
}

#[test]
fn a_configuration_that_is_not_json_is_refused() {
    need!(root);
    let whole = serde_json::to_vec(&Bundle::new().config).unwrap();
    let half = &whole[..whole.len() / 2];
    for text in [&b""[..], b" ", b"\0", b"{", b"nonsense", half, b"\xff\xfe{}", b"{\"ociVersion\":\"\xff\"}"]
    {
        create_from(text);
    }
}

#[test]
fn json_of_another_shape_is_refused() {
    need!(root);
    for text in ["[]", "7", "\"text\"", "true", "{}", "{\"ociVersion\":7}", "{\"ociVersion\":\"1.0.0\"}"] {
        create_from(text.as_bytes());
    }
}

#[test]
fn a_null_configuration_is_refused_without_a_crash() {
    need!(root);
    differs([runc("follows a nil pointer")], || {
        create_from(b"null");
    });
}

#[test]
fn trailing_garbage_after_the_configuration_is_refused() {
    need!(root);
    differs([runc("stops reading at the end of the object")], || {
        let mut text = serde_json::to_vec(&Bundle::new().config).unwrap();
        text.extend_from_slice(b"}");
        create_from(&text);
    });
}

#[test]
fn deeply_nested_json_is_refused_without_a_crash() {
    need!(root);
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 200_000;
        let mut text = "{\"annotations\":".to_owned();
        text += &open.repeat(depth);
        text += "1";
        text += &close.repeat(depth);
        text += "}";
        create_from(text.as_bytes());
    }
}

#[test]
fn a_configuration_of_100_megabytes_is_refused_in_time_or_taken() {
    need!(root);
    let container = Bundle::new().probe(["exit", "0"]).container();
    let path = container.bundle_path().join("config.json");
    let mut text = fs::read(&path).unwrap();
    text.resize(100 << 20, b' ');
    fs::write(&path, text).unwrap();
    // Either is sane; neither is a crash, a hang or a leak.
    let out = container.run();
    assert!([0, 1].contains(&out.code()), "{out:#?}");
}

#[test]
fn a_missing_configuration_is_named() {
    need!(root);
    let mut container = Bundle::new().container();
    fs::remove_file(container.bundle_path().join("config.json")).unwrap();
    clean_failure(&mut container).says("config.json");
}

#[test]
fn a_configuration_that_is_a_directory_a_fifo_or_a_dangling_link_is_refused() {
    need!(root);
    let kinds: [fn(&Path); 2] = [|p| fs::create_dir(p).unwrap(), |p| symlink("/nowhere", p).unwrap()];
    for kind in kinds {
        let mut container = Bundle::new().container();
        let path = container.bundle_path().join("config.json");
        fs::remove_file(&path).unwrap();
        kind(&path);
        clean_failure(&mut container);
    }
}

#[test]
fn a_missing_bundle_is_refused() {
    need!(root);
    let mut container = Bundle::new().container();
    let mut command = container.command(["create", "--bundle", "/nowhere/bundle"]);
    command.arg(container.id());
    container.create_by(command).refused().says("/nowhere/bundle");
    assert_eq!(container.remains(), Vec::<String>::new());
}

#[test]
fn values_of_a_wrong_type_are_refused() {
    need!(root);
    let wrong: [(&str, Value); 16] = [
        ("/process", json!("text")),
        ("/process/args", json!("text")),
        ("/process/args", json!([1])),
        ("/process/env", json!({ "A": "1" })),
        ("/process/cwd", json!(7)),
        ("/process/terminal", json!("true")),
        ("/process/user/uid", json!(-1)),
        ("/process/user/uid", json!(1.5)),
        ("/process/user/uid", json!(4_294_967_296_u64)),
        ("/process/user", json!("root")),
        ("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": -1, "hard": -1 }])),
        ("/root", json!("rootfs")),
        ("/root/readonly", json!("yes")),
        ("/mounts", json!({ "destination": "/proc" })),
        ("/linux/namespaces", json!(["pid"])),
        ("/linux/maskedPaths", json!("/proc/kcore")),
    ];
    differs([crun("takes some")], || {
        for (pointer, value) in wrong {
            one_failure(with(pointer, value));
        }
    });
}

fn without(object: &str, key: &str) -> Bundle {
    Bundle::new().config(|c| {
        c.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    })
}

fn with(pointer: &str, value: Value) -> Bundle {
    Bundle::new().config(|c| *c.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value)
}

#[test]
fn process_args_are_required() {
    need!(root);
    differs([crun("takes none")], || {
        one_failure(without("/process", "args"));
        one_failure(with("/process/args", json!([])));
    });
}

/// config.md asks for it when `start` is called; runc looks at `create`, where nothing is made yet.
#[test]
fn the_process_is_required() {
    need!(root);
    differs([crun_since("1.21", "creates a container that cannot be started")], || {
        one_failure(without("", "process"));
    });
}

#[test]
fn annotations_that_are_not_strings_are_refused() {
    need!(root);
    one_failure(Bundle::new().config(|c| c["annotations"] = json!({ "key": { "deep": 1 } })));
}

#[test]
fn annotations_of_any_name_are_taken() {
    need!(root);
    Bundle::new().config(|c| c["annotations"] = json!({ "org.example.nobody/knows": "this" })).facts();
}

#[test]
fn an_empty_program_is_refused() {
    need!(root);
    one_failure(with("/process/args", json!([""])));
}

#[test]
fn process_cwd_is_required_and_absolute() {
    need!(root);
    differs([crun("takes both")], || {
        one_failure(without("/process", "cwd"));
        one_failure(with("/process/cwd", json!("relative")));
    });
}

#[test]
fn the_root_is_required() {
    need!(root);
    one_failure(without("", "root"));
}

#[test]
fn the_path_of_the_root_is_required() {
    need!(root);
    one_failure(without("/root", "path"));
}

/// config.md: "The configuration MUST be valid for the specified version."
#[test]
fn the_version_is_required_and_one_that_we_know() {
    need!(root);
    differs([runc("takes any"), crun_since("1.21", "needs none")], || {
        one_failure(without("", "ociVersion"));
        one_failure(with("/ociVersion", json!("2.0.0")));
        one_failure(with("/ociVersion", json!("nonsense")));
    });
}

#[test]
fn an_unknown_namespace_is_refused() {
    need!(root);
    one_failure(with("/linux/namespaces", json!([{ "type": "mount" }, { "type": "nonsense" }])));
}

#[test]
fn a_namespace_that_stands_twice_is_refused() {
    need!(root);
    one_failure(with(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "pid" }, { "type": "pid" }]),
    ));
}

/// config.md, extensibility: "Runtimes MUST NOT generate an error but MUST ignore unknown properties."
#[test]
fn unknown_properties_are_ignored() {
    need!(root);
    Bundle::new()
        .config(|c| {
            for place in ["", "/process", "/process/user", "/root", "/linux", "/linux/resources", "/mounts/0"]
            {
                c.pointer_mut(place).unwrap()["org.example.unknown"] = json!({ "deep": [1, 2] });
            }
        })
        .facts();
}

/// The last key of a name counts, as Go's and most readers have it; what matters is that nothing breaks.
#[test]
fn a_key_that_stands_twice_does_no_harm() {
    need!(root);
    let container = Bundle::new().probe(["exit", "0"]).container();
    let path = container.bundle_path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen('{', "{\"hostname\":\"first\",", 1)).unwrap();
    assert!([0, 1].contains(&container.run().code()));
}

#[test]
fn a_string_with_a_zero_byte_is_refused_and_never_cut() {
    need!(root);
    differs([crun("reads strings of C")], || {
        for (pointer, value) in [
            ("/process/args", json!(["/probe\0", "facts"])),
            ("/process/cwd", json!("/\0data")),
            ("/process/env", json!(["A=1\0B=2"])),
            ("/root/path", json!("rootfs\0/x")),
        ] {
            one_failure(with(pointer, value));
        }
    });
}

#[test]
fn a_rootfs_that_is_missing_or_a_file_is_refused() {
    need!(root);
    one_failure(Bundle::new().config(|c| c["root"]["path"] = json!("absent")));
    one_failure(Bundle::new().config(|c| c["root"]["path"] = json!("config.json")));
    one_failure(Bundle::new().config(|c| c["root"]["path"] = json!("")));
}

#[test]
fn a_rootfs_that_is_a_link_is_refused_or_followed_but_not_half() {
    need!(root);
    let bundle = Bundle::new().config(|c| c["root"]["path"] = json!("link"));
    symlink("rootfs", bundle.bundle_path().join("link")).unwrap();
    let out = bundle.run();
    match out.code() {
        0 => assert_eq!(out.json()["pid"], 1),
        _ => assert!(!out.stderr.is_empty(), "{out:#?}"),
    }
}

#[test]
fn a_rootfs_that_cannot_be_written_to_and_lacks_a_mount_point_is_an_error() {
    need!(root);
    // A file where the destination's parent must be a directory.
    let bundle = Bundle::new()
        .rootfs(|r| fs::write(r.join("file"), "").unwrap())
        .mount(json!({ "destination": "/file/below", "type": "tmpfs", "source": "tmpfs" }));
    one_failure(bundle);
}

#[test]
fn ids_cannot_leave_the_state_directory() {
    need!(root);
    differs([crun("takes some")], || {
        for id in ["../escape", "..", ".", "a/../../escape", "/escape", "/"] {
            let mut container = Bundle::new().with_id(id).container();
            container.create().fails(1);
            assert!(!container.dir().join("escape").exists(), "{id:?}");
            for verb in ["state", "start", "delete", "kill"] {
                container.call([verb, id]).fails(1);
            }
            assert!(container.bundle_path().exists() && container.dir().exists(), "{id:?}");
        }
    });
}

#[test]
fn two_creates_of_one_id_at_once_make_one_container() {
    need!(root);
    differs_at_times([runc_before("1.2", "the loser removes the exec fifo of the winner")], || {
        for _ in 0..3 {
            let container = Bundle::new().probe(["wait"]).container();
            let create = || {
                let mut command = container.command(["create", "--bundle"]);
                command.arg(container.bundle_path()).arg(container.id());
                Running::spawn(command, b"")
            };
            let mut calls: Vec<Running> = (0..4).map(|_| create()).collect();
            let outputs: Vec<Output> = calls.iter_mut().map(Running::wait).collect();
            let made = outputs.iter().filter(|o| o.status.success()).count();
            assert_eq!(made, 1, "{outputs:#?}");
            assert_eq!(container.status(), "created");
            container.start().silent();
            assert_eq!(container.status(), "running");
            container.delete_by_force().silent();
        }
    });
}

#[test]
fn delete_and_start_at_once_leave_nothing() {
    need!(root);
    differs_at_times([crun("start waits for ever for the end of an init that is gone")], || {
        for _ in 0..3 {
            let container = Bundle::new().probe(["wait"]).create();
            let spawn = |words: &[&str]| Running::spawn(container.command(words), b"");
            let mut start = spawn(&["start", container.id()]);
            let mut delete = spawn(&["delete", "--force", container.id()]);
            // Either may lose; neither may hang, and one more delete finds all of it.
            start.wait();
            delete.wait();
            container.delete_by_force().ok();
            assert_eq!(container.remains(), Vec::<String>::new());
        }
    });
}

#[test]
fn a_working_directory_that_is_a_file_is_refused() {
    need!(root);
    one_failure(
        Bundle::new()
            .rootfs(|r| fs::write(r.join("file"), "").unwrap())
            .process(|p| p["cwd"] = json!("/file")),
    );
}

#[test]
fn a_working_directory_cannot_be_made_outside_of_the_rootfs() {
    need!(root);
    let bundle = Bundle::new();
    let outside = bundle.dir().join("outside");
    let target = outside.display().to_string();
    let container = bundle
        .rootfs(|r| symlink(&target, r.join("link")).unwrap())
        .process(|p| p["cwd"] = json!("/link/made"))
        .container();
    container.run();
    assert!(!outside.exists(), "made on the host");
}

#[test]
fn an_unknown_program_is_refused_and_nothing_remains() {
    need!(root);
    for args in [&["/absent"][..], &["absent"], &["./absent"], &["/data"], &["/probe/below"]] {
        one_failure(Bundle::new().process(|p| p["args"] = json!(args)));
    }
}

#[test]
fn a_weight_of_a_device_and_a_limit_of_rdma_need_a_value() {
    need!(root);
    let fails = |resources: Value| Bundle::new().linux(|l| l["resources"] = resources).create_fails();
    differs([runc("passes over an entry without a value")], || {
        fails(json!({ "blockIO": { "weightDevice": [{ "major": 8, "minor": 0 }] } }));
    });
    differs_at_times([crun("knows no rdma")], || {
        fails(json!({ "rdma": { "mlx5_0": {} } }));
    });
}

#[test]
fn a_path_that_holds_nothing_is_an_error() {
    need!(root);
    for path in ["PATH=", "PATH=/nowhere", "PATH=:::", "NO_PATH=1"] {
        one_failure(Bundle::new().process(|p| p["env"] = json!([path])).args(["program", "facts"]));
    }
}

#[test]
fn a_root_directory_of_state_that_cannot_be_made_is_an_error() {
    need!(root);
    let container = Bundle::new().container();
    let mut command = container.bare();
    command
        .args(["--root", "/proc/nowhere", "create", "--bundle"])
        .arg(container.bundle_path())
        .arg(container.id());
    call(command).refused();
    assert_eq!(container.remains(), Vec::<String>::new());
}

#[test]
fn state_that_was_damaged_is_an_error_and_can_be_deleted_by_force() {
    need!(root);
    let container = Bundle::new().create();
    let pid = container.pid();
    let dir = container.root().join(container.id());
    let file = ["state.json", "status"].map(|n| dir.join(n)).into_iter().find(|p| p.exists()).unwrap();
    let good = fs::read(&file).unwrap();
    for text in [&b""[..], b"{", b"null", b"[]", &good[..good.len() / 2], &[0xff; 100]] {
        fs::write(&file, text).unwrap();
        container.call(["state", container.id()]).refused();
        container.start().refused();
    }
    fs::write(&file, good).unwrap();
    assert_eq!(container.pid(), pid);
}
