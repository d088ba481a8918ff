//! Who a process becomes, and with which capabilities.

use std::fs;

use spec_tests::call::call;
use spec_tests::{Bundle, Container, Value, crun, differs, json, need, runc, youki};

const SETS: [&str; 3] = ["effective", "permitted", "ambient"];

/// A container of root with some capabilities in every set but `ambient`, as old engines asked for.
fn with_inheritable() -> Bundle {
    Bundle::new().capabilities(["CAP_CHOWN", "CAP_NET_RAW"])
}

fn exec_file(container: &Container, process: &Value) -> spec_tests::Output {
    let path = container.dir().join("process.json");
    fs::write(&path, process.to_string()).unwrap();
    let mut command = container.command(["exec", "--process"]);
    command.arg(&path).arg(container.id());
    call(command)
}

/// CVE-2016-3697: the image has a user named `1000`, who is root.
#[test]
fn a_name_that_is_a_number_is_no_user() {
    need!(root);
    let container = Bundle::new()
        .rootfs(|r| {
            fs::write(r.join("etc/passwd"), "1000:x:0:0::/:/bin/sh\nroot:x:1000:1000::/root:/bin/sh\n")
                .unwrap();
            fs::write(r.join("etc/group"), "1000:x:0:\nroot:x:1000:\n").unwrap();
        })
        .process(|p| p["user"] = json!({ "uid": 1000, "gid": 1000 }))
        .probe(["facts", ",", "wait"])
        .start();
    container.wait_for_stdout("ready");
    let init: Value = serde_json::from_str(container.stdout().lines().next().unwrap()).unwrap();
    let both = container.exec_with(["--user", "1000:1000"], ["facts"]).ok().json();
    let wanted = json!([1000, 1000, 1000, 1000]);
    for ids in [&init["uid"], &init["gid"], &both["uid"], &both["gid"]] {
        assert_eq!(*ids, wanted);
    }
}

/// CVE-2016-8867: ambient capabilities that nobody asked for are what an ordinary user keeps.
#[test]
fn an_ordinary_user_of_exec_has_no_capabilities() {
    need!(root);
    let container = with_inheritable().probe(["wait"]).start();
    let names = json!(["CAP_CHOWN", "CAP_NET_RAW"]);
    let process = json!({
        "args": ["/probe", "facts"], "cwd": "/", "env": [], "user": { "uid": 1000, "gid": 1000 },
        "capabilities": { "bounding": names, "effective": names, "permitted": names, "inheritable": names },
    });
    let by_options = container.exec_with(["--user", "1000:1000"], ["facts"]).ok();
    let by_file = exec_file(&container, &process);
    // One peer executes nothing by such a file.
    for out in [by_options, by_file].into_iter().filter(|out| out.status.success()) {
        let facts = out.json();
        assert_eq!(facts["uid"][0], 1000);
        for set in SETS {
            assert_eq!(facts["capabilities"][set], json!([]), "{set}");
        }
    }
}

/// CVE-2022-29162, CVE-2022-27650 (crun), CVE-2025-27612 (youki): what `exec` adds, or takes from the container,
/// becomes inheritable, so that a file's capabilities give it to any user.
#[test]
fn exec_makes_no_capability_inheritable() {
    need!(root);
    let container = Bundle::new().process(|p| p["noNewPrivileges"] = json!(false)).probe(["wait"]).start();
    let execs: [&[&str]; 4] = [
        &[],
        &["--cap", "CAP_NET_RAW"],
        &["--cap", "CAP_NET_RAW", "--user", "1000:1000"],
        &["--cap", "CAP_NET_RAW", "--cap", "CAP_SYS_ADMIN"],
    ];
    for options in execs {
        let mut command = container.command(["exec"]);
        command.args(options).args([container.id(), "/probe", "facts"]);
        let facts = call(command).ok().json();
        for set in ["inheritable", "ambient"] {
            assert_eq!(facts["capabilities"][set], json!([]), "{set} of exec {options:?}");
        }
    }
}

/// CVE-2022-24769 (containerd): the default configuration of an engine had them all inheritable.
#[test]
fn the_default_configuration_has_no_inheritable_capabilities() {
    need!(root);
    let container = Bundle::new().container();
    let dir = container.dir().join("default");
    fs::create_dir(&dir).unwrap();
    let mut command = container.bare();
    command.arg("spec").current_dir(&dir);
    call(command).ok();
    let written: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    let capabilities = &written["process"]["capabilities"];
    assert!(!capabilities["bounding"].as_array().unwrap().is_empty(), "{capabilities}");
    assert!(capabilities["inheritable"].as_array().is_none_or(Vec::is_empty), "{capabilities}");
}

/// CVE-2026-30892 (crun): `exec --user 1` made a user root. Each form becomes whom a reader takes it for, or nobody.
#[test]
fn a_user_of_exec_is_taken_as_written_or_refused() {
    need!(root);
    differs(
        [
            runc("cuts numbers to 32 bits"),
            crun("cuts numbers, and takes -1 and nothing for root"),
            youki("takes 4294967295 for a user"),
        ],
        || {
            let container =
                Bundle::new().process(|p| p["user"] = json!({ "uid": 5, "gid": 6 })).probe(["wait"]).start();
            let mut wrong = Vec::new();
            for (word, uid, gid) in [
                ("1", Some(1), None),
                ("1:2", Some(1), Some(2)),
                ("0:1", Some(0), Some(1)),
                ("0", Some(0), None),
                ("7", Some(7), None),
                ("10", Some(10), None),
                ("100", Some(100), None),
                ("65534:65533", Some(65534), Some(65533)),
                (" 1", Some(1), None),
                ("1 ", Some(1), None),
                ("+1", Some(1), None),
                ("1:", Some(1), None),
                ("0x1", Some(1), None),
                (":1", None, None),
                ("1:2:3", None, None),
                ("1x", None, None),
                // As if it were not given.
                ("", Some(5), Some(6)),
                ("-1", None, None),
                ("1:-1", None, None),
                // (uid_t)-1 is "no change" to setresuid(2), and 2^32 wraps to root.
                ("4294967295", None, None),
                ("1:4294967295", None, None),
                ("4294967296", None, None),
                ("4294967297", None, None),
                ("18446744073709551616", None, None),
                ("x", None, None),
                ("root", None, None),
            ] {
                let out = container.exec_with(["--user", word], ["facts"]);
                if !out.status.success() {
                    // What is plainly a number is not refused.
                    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) && uid.is_some() {
                        wrong.push(format!("{word:?} is refused"));
                    }
                    continue;
                }
                let facts = out.json();
                let (is, is_gid) = (&facts["uid"][0], &facts["gid"][0]);
                let group_is_wrong = gid.is_some_and(|gid: u32| *is_gid != gid);
                if uid.is_none_or(|uid: u32| *is != uid) || group_is_wrong {
                    wrong.push(format!("{word:?} is {is}:{is_gid}"));
                }
            }
            assert!(wrong.is_empty(), "{wrong:#?}");
        },
    );
}

/// CVE-2024-40635 (containerd): a number that does not fit becomes another one.
#[test]
fn an_id_of_the_configuration_is_taken_as_written_or_refused() {
    need!(root);
    differs([crun("takes 4294967295 for a user"), youki("takes 4294967295 for a user")], || {
        let mut wrong = Vec::new();
        for text in [
            "4294967296",
            "4294967297",
            "4294967295",
            "18446744073709551616",
            "-1",
            "-4294967296",
            "1.5",
            "1e3",
        ] {
            let given: &Value = &serde_json::from_str(text).unwrap();
            for field in ["uid", "gid"] {
                let mut user = json!({ "uid": 5, "gid": 6 });
                user[field] = given.clone();
                let out = Bundle::new().process(|p| p["user"] = user).run();
                if out.status.success() {
                    let is = out.json()[field][0].clone();
                    if is != *given && !(text == "1e3" && is == 1000) {
                        wrong.push(format!("{field} {text} is {is}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}
