//! config.md, process.user: ids, groups, umask and what follows from them.
#![allow(clippy::unwrap_used)]

use std::fs;

use spec_tests::{Bundle, crun_before, differs, json, need, runc};

#[test]
fn ids_are_set_in_all_four_forms() {
    need!(root);
    let facts = Bundle::new().process(|p| p["user"] = json!({ "uid": 1234, "gid": 5678 })).facts();
    assert_eq!(facts["uid"], json!([1234, 1234, 1234, 1234]));
    assert_eq!(facts["gid"], json!([5678, 5678, 5678, 5678]));
}

#[test]
fn the_largest_id_is_valid() {
    need!(root);
    differs([runc("takes ids up to 2147483647")], || {
        let largest = u32::MAX - 1;
        let facts = Bundle::new().process(|p| p["user"] = json!({ "uid": largest, "gid": largest })).facts();
        assert_eq!((&facts["uid"][0], &facts["gid"][0]), (&json!(largest), &json!(largest)));
    });
}

#[test]
fn without_additional_gids_no_group_of_the_caller_stays() {
    need!(root);
    let facts = Bundle::new().process(|p| p["user"] = json!({ "uid": 1000, "gid": 1000 })).facts();
    let groups: Vec<_> = facts["groups"].as_array().unwrap().iter().filter(|g| **g != 1000).collect();
    assert!(groups.is_empty(), "{groups:?}");
}

#[test]
fn additional_gids_are_the_supplementary_groups() {
    need!(root);
    let user = json!({ "uid": 1000, "gid": 1000, "additionalGids": [7, 70_000, 5] });
    let facts = Bundle::new().process(|p| p["user"] = user).facts();
    // The kernel sorts them (setgroups(2)).
    assert_eq!(facts["groups"], json!([5, 7, 70_000]));
}

#[test]
fn umask_is_set_and_is_0022_by_default() {
    need!(root);
    for (umask, expected) in [(json!(0o27), 0o27), (json!(0), 0), (json!(0o777), 0o777), (json!(null), 0o22)]
    {
        let facts = Bundle::new().process(|p| p["user"]["umask"] = umask).facts();
        assert_eq!(facts["umask"], expected);
    }
}

fn home_of(uid: u32) -> Option<String> {
    let passwd = "root:x:0:0:root:/somewhere:/bin/sh\nother:x:1000:1000::/home/other:/bin/sh\n";
    let facts = Bundle::new()
        .rootfs(|r| fs::write(r.join("etc/passwd"), passwd).unwrap())
        .process(|p| p["user"]["uid"] = json!(uid))
        .facts();
    facts["env"]["HOME"].as_str().map(str::to_owned)
}

#[test]
fn home_is_taken_from_the_passwd_file_of_the_container() {
    need!(root);
    assert_eq!(home_of(0).as_deref(), Some("/somewhere"));
    assert_eq!(home_of(1000).as_deref(), Some("/home/other"));
}

#[test]
fn home_of_an_unknown_user_is_the_root_directory() {
    need!(root);
    differs([crun_before("1.21", "sets none")], || assert_eq!(home_of(77).as_deref(), Some("/")));
}

#[test]
fn home_of_the_environment_is_kept() {
    need!(root);
    let facts = Bundle::new()
        .rootfs(|r| fs::write(r.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap())
        .env("HOME=/given")
        .facts();
    assert_eq!(facts["env"]["HOME"], "/given");
}

#[test]
fn broken_lines_of_the_passwd_file_are_passed_over() {
    need!(root);
    differs([runc("reads a missing number as 0")], || {
        let passwd =
            "nonsense\n:::::\nroot:x:zero:0::/wrong:/bin/sh\n# a comment\nroot:x:0:0::/right:/bin/sh";
        let facts = Bundle::new().rootfs(|r| fs::write(r.join("etc/passwd"), passwd).unwrap()).facts();
        assert_eq!(facts["env"]["HOME"], "/right");
    });
}

#[test]
fn an_ordinary_user_may_not_write_what_root_owns() {
    need!(root);
    let out = Bundle::new()
        .writable()
        .process(|p| p["user"] = json!({ "uid": 1000, "gid": 1000 }))
        .probe(["try", "create", "/file", "", ",", "try", "create", "/tmp/file", ""])
        .run();
    assert_eq!(out.ok().json_lines(), [json!({ "errno": "EACCES" }), json!({ "ok": true })]);
}

#[test]
fn an_ordinary_user_may_use_the_standard_streams_again_by_path() {
    need!(root);
    let out = Bundle::new()
        .process(|p| p["user"] = json!({ "uid": 1000, "gid": 1000 }))
        .probe(["try", "open", "/dev/stdout", "w", ",", "try", "open", "/dev/stderr", "w"])
        .run();
    assert_eq!(out.ok().json_lines(), [json!({ "ok": true }), json!({ "ok": true })]);
}
