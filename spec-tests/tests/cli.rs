//! The command line as engines use it: runc's words, exit codes, log, pid file and listings.
#![allow(clippy::unwrap_used)]

use std::fs;

use spec_tests::call::{Output, call};
use spec_tests::{
    Bundle, Container, Value, crun, crun_before, crun_since, differs, differs_at_times, json, need,
    runc_before,
};

fn words(container: &Container, words: &[&str]) -> Output {
    call(container.command(words))
}

#[test]
fn version_has_the_lines_that_engines_parse() {
    need!(root);
    let container = Bundle::new().container();
    for option in ["--version", "-v"] {
        let mut command = container.bare();
        command.arg(option);
        let out = call(command).ok();
        let text = &out.stdout;
        let first: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
        assert_eq!((first.len(), first[1]), (3, "version"), "{text}");
        assert!(text.lines().any(|l| l.starts_with("commit: ") || l.starts_with("commit : ")), "{text}");
        assert!(text.lines().any(|l| l.starts_with("spec: ")), "{text}");
        assert_eq!(out.stderr, "");
    }
}

#[test]
fn help_has_runcs_shape() {
    need!(root);
    let container = Bundle::new().container();
    differs([crun("GNU's shape")], || {
        for option in [&["--help"][..], &["-h"], &["help"], &[]] {
            let mut command = container.bare();
            command.args(option);
            let out = call(command).ok();
            let mut lines = out.stdout.lines();
            assert_eq!(lines.next(), Some("NAME:"), "{option:?}");
            assert!(lines.next().unwrap().ends_with(" - Open Container Initiative runtime"), "{option:?}");
        }
    });
}

#[test]
fn every_command_has_help() {
    need!(root);
    let container = Bundle::new().container();
    for verb in [
        "create", "start", "run", "exec", "kill", "delete", "state", "list", "ps", "pause", "resume",
        "update",
    ] {
        let out = container.call([verb, "--help"]).ok();
        assert!(out.stdout.contains(verb), "{out:#?}");
    }
}

#[test]
fn wrong_words_are_refused() {
    need!(root);
    let container = Bundle::new().container();
    for wrong in
        [&["nonsense"][..], &["create", "--nonsense", "x"], &["--nonsense", "list"], &["run", "a", "b", "c"]]
    {
        words(&container, wrong).refused();
    }
}

#[test]
fn a_missing_id_is_named() {
    need!(root);
    let container = Bundle::new().container();
    for verb in ["create", "start", "run", "state", "delete", "pause", "resume"] {
        let out = words(&container, &[verb]).refused();
        differs([crun("its own words, which no engine reads")], || {
            out.fails(1).says(&format!("\"{verb}\" requires exactly 1 argument"));
        });
    }
}

#[test]
fn ids_are_letters_digits_and_four_signs() {
    need!(root);
    let long = "x".repeat(2000);
    differs([crun("takes more")], || {
        for id in ["a/b", "..", ".", "/", "a b", "ü", "a\n", "a:b", "*", &long] {
            let mut container = Bundle::new().with_id(id).container();
            let out = container.create().fails(1);
            let plain = !matches!(id, ".." | ".") && id.len() < 2000;
            assert!(!plain || out.stderr.contains("invalid container ID format"), "{id:?}: {out:#?}");
        }
    });
    let mut container = Bundle::new().with_id("").container();
    let out = container.create();
    differs([crun("takes it")], || {
        out.fails(1).says("cannot be empty");
    });
}

#[test]
fn ids_of_every_valid_sign_work() {
    need!(root);
    for id in ["a", "0", "A-Za_z.0+9", "_", &"x".repeat(200)] {
        let container = Bundle::new().with_id(id).create();
        assert_eq!(container.state()["id"], id);
    }
}

#[test]
fn options_stand_before_or_after_the_id_in_every_spelling() {
    need!(root);
    let spellings: [fn(&str, &str) -> Vec<String>; 6] = [
        |bundle, id| ["--bundle", bundle, id].map(str::to_owned).to_vec(),
        |bundle, id| vec![format!("--bundle={bundle}"), id.to_owned()],
        |bundle, id| ["-b", bundle, id].map(str::to_owned).to_vec(),
        |bundle, id| vec![format!("-b={bundle}"), id.to_owned()],
        |bundle, id| ["-bundle", bundle, id].map(str::to_owned).to_vec(),
        |bundle, id| [id, "--bundle", bundle].map(str::to_owned).to_vec(),
    ];
    for (number, spelling) in spellings.iter().enumerate() {
        let mut container = Bundle::new().container();
        let mut command = container.command(["create"]);
        command.args(spelling(container.bundle_path().to_str().unwrap(), container.id()));
        let out = container.create_by(command);
        if number > 2 {
            differs([crun("GNU's spelling only")], || drop(out.silent()));
        } else {
            out.silent();
        }
    }
}

#[test]
fn global_options_take_single_dashes_too() {
    need!(root);
    let container = Bundle::new().container();
    let mut command = container.bare();
    command.arg("-root").arg(container.root()).args(["-log-format=json", "list", "-format=json"]);
    fs::create_dir(container.root()).unwrap();
    let out = call(command);
    differs([crun("GNU's spelling only")], || {
        out.ok();
    });
}

#[test]
fn the_pid_file_has_digits_and_nothing_else() {
    need!(root);
    let mut container = Bundle::new().container();
    // Relative to the caller's directory, not to the bundle.
    container.create_with(["--pid-file", "the.pid"]).silent();
    differs([crun("relative to the bundle")], || {
        let text = fs::read_to_string(container.dir().join("the.pid")).unwrap();
        assert_eq!(text, container.pid().to_string());
    });
}

#[test]
fn a_failed_create_leaves_no_pid_file() {
    need!(root);
    let mut container = Bundle::new().args(["/absent"]).container();
    container.create_with(["--pid-file", "the.pid"]).refused();
    let names = fs::read_dir(container.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|n| !n.contains("pid")));
}

#[test]
fn a_failure_is_one_json_line_in_the_log_and_its_message_on_stderr() {
    need!(root);
    differs_at_times([runc_before("1.2", "warns where it has no memory controller")], || {
        let mut container = Bundle::new().args(["/absent"]).container();
        let out = container.create().fails(1);
        let log = container.log();
        // Podman parses the whole file as one object.
        let line: Value = serde_json::from_str(&log).unwrap_or_else(|e| panic!("{e}: {log:?}"));
        assert_eq!(line["level"], "error");
        assert!(out.stderr.contains(line["msg"].as_str().unwrap()), "{out:#?}\n{log}");
        assert_eq!(line["time"].as_str().unwrap().as_bytes()[10], b'T', "RFC 3339: {log}");
        assert!(log.ends_with("}\n") && log.lines().count() == 1, "{log}");
    });
}

#[test]
fn success_writes_nothing_to_the_log() {
    need!(root);
    let container = Bundle::new().probe(["exit", "0"]).start();
    container.wait_for_status("stopped");
    container.delete().silent();
    assert_eq!(container.log(), "");
}

#[test]
fn the_log_is_appended_to() {
    need!(root);
    let container = Bundle::new().container();
    fs::write(container.dir().join("log.json"), "{\"before\":1}\n").unwrap();
    container.call(["start", "absent"]).fails(1);
    container.call(["start", "absent"]).fails(1);
    let log = container.log();
    assert!(log.starts_with("{\"before\":1}\n"), "{log}");
    assert_eq!(log.lines().count(), 3, "{log}");
}

#[test]
fn a_text_log_has_level_and_message() {
    need!(root);
    let container = Bundle::new().container();
    let mut command = container.bare();
    command
        .arg("--root")
        .arg(container.root())
        .arg("--log")
        .arg(container.dir().join("text"))
        .args(["start", "absent"]);
    call(command).fails(1);
    let log = fs::read_to_string(container.dir().join("text")).unwrap();
    differs([crun("its own format")], || {
        assert!(
            log.starts_with("time=\"") && log.contains(" level=error msg=\"container does not exist\""),
            "{log}"
        );
    });
}

#[test]
fn without_a_log_the_failure_is_on_stderr() {
    need!(root);
    let container = Bundle::new().container();
    let mut command = container.bare();
    command.arg("--root").arg(container.root()).args(["start", "absent"]);
    let out = call(command).fails(1);
    // At most one more line, for a hint.
    assert!(out.stderr.lines().count() <= 2, "{out:#?}");
}

#[test]
fn errors_of_create_and_run_have_runcs_prefixes() {
    need!(root);
    for verb in ["create", "run"] {
        let container = Bundle::new().args(["/absent"]).container();
        let mut command = container.command([verb, "--bundle"]);
        command.arg(container.bundle_path()).arg(container.id());
        let out = call(command);
        differs([crun("has none")], || {
            let out = out.fails(1).says(&format!("{verb} failed: ")).says("no such file or directory");
            // Docker and Podman turn it into exit code 127.
            assert!(out.stderr.contains("exec") && out.stderr.contains("/absent"), "{out:#?}");
        });
    }
}

#[test]
fn an_unknown_program_is_the_words_that_engines_turn_into_127() {
    need!(root);
    let out = Bundle::new().args(["absent"]).create_fails();
    assert!(out.stderr.contains("executable file"), "{out:#?}");
    assert!(out.stderr.contains("not found in $PATH"), "{out:#?}");
}

#[test]
fn a_program_that_may_not_be_executed_is_the_words_that_engines_turn_into_126() {
    need!(root);
    let out = Bundle::new().rootfs(|r| fs::write(r.join("file"), "").unwrap()).args(["/file"]).create_fails();
    differs([crun_since("1.21", "operation not permitted")], || {
        assert!(out.stderr.to_lowercase().contains("permission denied"), "{out:#?}");
    });
}

#[test]
fn list_is_a_table_ids_or_json() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).start();
    let table = container.call(["list"]).ok().stdout;
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    differs([crun("other names")], || {
        assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    });
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[0], container.id());
    assert_eq!(row[1], container.pid().to_string());
    assert_eq!(row[2], "running");
    assert_eq!(row[3], container.bundle_path().to_str().unwrap());
    for option in ["-q", "--quiet"] {
        assert_eq!(container.call(["list", option]).ok().stdout.trim_end(), container.id());
    }
    for options in [["--format", "json"], ["-f", "json"]] {
        let mut command = container.command(["list"]);
        command.args(options);
        let list = call(command).ok().json();
        assert_eq!(list.as_array().unwrap().len(), 1);
        assert_eq!(list[0]["id"], container.id());
        assert_eq!((&list[0]["status"], &list[0]["pid"]), (&json!("running"), &json!(container.pid())));
        assert_eq!(list[0]["bundle"], container.bundle_path().to_str().unwrap());
        assert_eq!(list[0]["owner"], "root");
    }
}

#[test]
fn an_empty_list_is_null_as_json() {
    need!(root);
    let container = Bundle::new().container();
    fs::create_dir(container.root()).unwrap();
    let out = call(container.command(["list", "--format=json"])).ok();
    differs([crun("prints []")], || assert_eq!(out.stdout.trim_end(), "null"));
    assert_eq!(call(container.command(["list", "-q"])).ok().stdout, "");
}

#[test]
fn a_broken_entry_does_not_hide_the_others_from_list() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).start();
    fs::create_dir(container.root().join("broken")).unwrap();
    let out = container.call(["list", "-q"]);
    fs::remove_dir(container.root().join("broken")).unwrap();
    assert!(out.ok().stdout.lines().any(|l| l == container.id()));
}

#[test]
fn ps_lists_the_pids_of_the_host() {
    need!(root);
    let container = Bundle::new().probe(["children", "2", ",", "wait"]).start();
    container.wait_for_stdout("ready");
    let pids = container.call(["ps", "--format", "json", container.id()]).ok().json();
    let pids: Vec<i64> = pids.as_array().unwrap().iter().map(|p| p.as_i64().unwrap()).collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.contains(&i64::from(container.pid())));
    let table = container.call(["ps", container.id()]).ok().stdout;
    assert!(table.lines().next().unwrap().contains("PID"), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains(&container.pid().to_string()), "{table}");
}

#[test]
fn spec_writes_a_configuration_that_runs() {
    need!(root);
    let container = Bundle::new().container();
    fs::remove_file(container.bundle_path().join("config.json")).unwrap();
    let mut command = container.command(["spec", "--bundle"]);
    command.arg(container.bundle_path());
    call(command).ok();
    let path = container.bundle_path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(config["process"]["terminal"], true);
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["root"]["path"], "rootfs");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/probe", "facts"]);
    config["linux"]["cgroupsPath"] = container.config()["linux"]["cgroupsPath"].clone();
    fs::write(&path, config.to_string()).unwrap();
    assert_eq!(container.run().ok().json()["pid"], 1);
}

#[test]
fn spec_does_not_overwrite() {
    need!(root);
    let container = Bundle::new().container();
    let before = fs::read(container.bundle_path().join("config.json")).unwrap();
    let mut command = container.command(["spec"]);
    command.current_dir(container.bundle_path());
    call(command).refused();
    assert_eq!(fs::read(container.bundle_path().join("config.json")).unwrap(), before);
}

#[test]
fn features_are_json_with_the_specifications_keys() {
    need!(root);
    let container = Bundle::new().container();
    let out = container.call(["features"]);
    differs([crun_before("1.9", "has no features")], || {
        let features = out.ok().json();
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert!(features["hooks"].as_array().unwrap().contains(&json!("createContainer")), "{features}");
        assert!(features["mountOptions"].as_array().unwrap().contains(&json!("ro")), "{features}");
        let linux = &features["linux"];
        assert!(linux["namespaces"].as_array().unwrap().contains(&json!("pid")), "{features}");
        assert!(linux["capabilities"].as_array().unwrap().contains(&json!("CAP_CHOWN")), "{features}");
        assert_eq!(linux["seccomp"]["enabled"], true);
        assert_eq!(linux["cgroup"]["v1"], true);
    });
}

#[test]
fn events_prints_one_statistics_object() {
    need!(root, controller("memory"));
    // A kernel that counts by its ticks has counted nothing of a program that did nothing.
    let container = Bundle::new().probe(["burn", "50", ",", "wait"]).start();
    container.wait_for_stdout("ready");
    let out = call({
        let mut command = container.command(["events", "--stats"]);
        command.arg(container.id());
        command
    });
    differs([crun("has no events")], || {
        let event = out.ok().json();
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id())));
        let data = &event["data"];
        assert!(data["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{data}");
        assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{data}");
        assert_eq!(data["pids"]["current"], 1);
    });
}

#[test]
fn a_second_root_has_containers_of_its_own() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).start();
    let other = container.dir().join("other");
    fs::create_dir(&other).unwrap();
    let mut command = container.bare();
    command.arg("--root").arg(&other).args(["state", container.id()]);
    call(command).fails(1);
}
