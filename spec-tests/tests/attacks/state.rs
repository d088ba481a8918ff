//! What the runtime keeps and writes outside of containers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spec_tests::call::call;
use spec_tests::{Bundle, Value, crun, differs, differs_at_times, json, need, runc_before, youki};

use crate::canary::Canary;
use crate::racer::Racer;

/// Everything below a folder, as root sees it.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        if fs::symlink_metadata(path).unwrap().is_dir() {
            let entries = fs::read_dir(path).unwrap();
            found.extend(entries.map(|e| e.unwrap().path()).collect::<Vec<_>>());
        }
        next += 1;
    }
    found
}

/// CVE-2021-41103, CVE-2024-25621 (containerd): other users of the host list, read or write what belongs to containers.
#[test]
fn other_users_cannot_use_the_state_of_a_container() {
    need!(root);
    let container = Bundle::new().probe(["wait"]).create();
    let script = "for path do
        test -d \"$path\" && ls \"$path\" > /dev/null 2>&1 && echo \"lists $path\"
        test -d \"$path\" && touch \"$path/attack\" 2> /dev/null && echo \"makes files in $path\"
        test -f \"$path\" && test -r \"$path\" && echo \"reads $path\"
        test ! -d \"$path\" && test -w \"$path\" && echo \"writes $path\"
      done; echo looked";
    let paths = below(&container.root());
    assert!(paths.len() > 2, "{paths:?}");
    let mut other = Command::new("setpriv");
    other
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c", script, "sh"])
        .args(&paths);
    let out = call(other).ok();
    assert_eq!(out.stdout, "looked\n");
}

/// A state that is read while it is written: whoever asks gets all of it.
#[test]
fn no_reader_sees_half_a_state() {
    need!(root, freezer);
    differs_at_times([youki("writes state.json in its place")], || {
        let container = Bundle::new().probe(["trap", "1000000"]).start();
        container.wait_for_stdout("ready");
        let id = container.id().to_owned();
        let file = container.root().join(&id).join("state.json");
        let ends = Arc::new(AtomicBool::new(false));
        // Straight from the file too, where a moment is seen that a command could miss.
        let seen = Arc::clone(&ends);
        let reader = std::thread::spawn(move || {
            let is_whole = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).is_ok();
            let mut torn = 0;
            while file.exists() && !seen.load(Ordering::Relaxed) {
                torn += u32::from(!fs::read(&file).is_ok_and(is_whole));
            }
            torn
        });
        let words = [["pause", &id], ["resume", &id]].map(|words| {
            let command = container.command(words);
            let all = std::iter::once(command.get_program()).chain(command.get_args());
            all.map(ToOwned::to_owned).collect::<Vec<_>>()
        });
        let writer = Racer::new(move || {
            for words in &words {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]);
                call(command).ok();
            }
        });
        writer.against(|| {
            let status = container.status();
            assert!(["running", "paused"].contains(&status.as_str()), "{status}");
        });
        ends.store(true, Ordering::Relaxed);
        assert_eq!(reader.join().unwrap(), 0, "state.json is not whole at every moment");
    });
}

/// A path of a cgroup that climbs: its folders would be made elsewhere.
#[test]
fn no_cgroup_is_made_outside_of_its_hierarchy() {
    need!(root);
    differs([crun("makes folders by the path"), youki("makes folders by the path")], || {
        let canary = Canary::new([]);
        let climbing = "../".repeat(30) + canary.text().trim_start_matches('/');
        for path in [format!("{climbing}/made"), format!("/{climbing}/made"), format!("a/b/{climbing}/made")]
        {
            let mut container =
                Bundle::new().linux(|l| l["cgroupsPath"] = json!(path)).probe(["exit", "0"]).container();
            container.create();
            container.delete_by_force().ok();
            canary.untouched();
        }
    });
}

/// CVE-2025-24965 (crun): a file that the runtime writes into the image goes through a link there. Whatever names a
/// runtime or an engine may write to, nothing comes through them.
#[test]
fn no_file_is_written_through_a_link_of_the_image() {
    need!(root);
    let canary = Canary::new(["config"]);
    let names = [
        ".krun_config.json",
        ".dockerenv",
        ".pivot_root",
        ".oldroot",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
        "run/.containerenv",
        "run/notify",
        "dev/console",
        "dev/ptmx",
        "dev/core",
        "dev/fd",
        "dev/null",
        "dev/stdin",
    ];
    for annotation in ["none", "krun", "wasm"] {
        let mut container = Bundle::new()
            .writable()
            .rootfs(|r| {
                for name in names {
                    symlink(canary.path().join("config"), r.join(name)).unwrap();
                }
            })
            .config(|c| c["annotations"] = json!({ "run.oci.handler": annotation }))
            .container();
        container.create();
        canary.untouched();
        // They are still the image's.
        for name in names {
            let link = fs::read_link(container.rootfs_path().join(name)).ok();
            assert_eq!(link, Some(canary.path().join("config")), "{name}");
        }
    }
}

/// CVE-2024-3154 (CRI-O): an annotation of an image sets a property of the host's systemd. The engine has to filter
/// them, so the runtime has to say which they are; and without systemd they do nothing.
#[test]
fn annotations_that_reach_systemd_are_declared() {
    need!(root);
    differs(
        [runc_before("1.2", "does not list them"), crun("does not list them"), youki("does not list them")],
        || {
            let container = Bundle::new()
                .config(|c| c["annotations"] = json!({ "org.systemd.property.ExecStopPost": "'/bin/false'" }))
                .container();
            container.run().ok();
            let features = container.call(["features"]).ok().json();
            let listed = features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap();
            assert!(listed.contains(&json!("org.systemd.property.")), "{listed:?}");
        },
    );
}
