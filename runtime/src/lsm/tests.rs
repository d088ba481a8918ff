use std::ffi::CString;
use std::path::Path;

use super::*;

const BOTH: Enabled = Enabled { apparmor: true, selinux: true };
const NONE: Enabled = Enabled { apparmor: false, selinux: false };

fn process(apparmor: &str, selinux: &str) -> Process {
    let text = serde_json::json!({
        "cwd": "/", "args": ["sh"], "apparmorProfile": apparmor, "selinuxLabel": selinux,
    });
    Process::from_slice(text.to_string().as_bytes(), Path::new("process")).unwrap().0
}

fn words(labels: &[Label]) -> Vec<String> {
    let text = |label: &Label| match label {
        Label::AppArmor(profile) => format!("apparmor {}", profile.name().to_string_lossy()),
        Label::SELinux(label) => format!("selinux {}", label.to_string_lossy()),
    };
    labels.iter().map(text).collect()
}

#[test]
fn labels_are_taken_as_they_are_written() {
    for (apparmor, selinux, expected) in [
        ("", "", vec![]),
        ("docker-default", "", vec!["apparmor docker-default"]),
        ("unconfined", "", vec!["apparmor unconfined"]),
        ("outer//inner", "", vec!["apparmor outer//inner"]),
        (":space:outer//&inner", "", vec!["apparmor :space:outer//&inner"]),
        ("", "u:r:t:s0:c1,c2", vec!["selinux u:r:t:s0:c1,c2"]),
        ("p", "u:r:t:s0", vec!["apparmor p", "selinux u:r:t:s0"]),
    ] {
        assert_eq!(words(&plan(&process(apparmor, selinux), BOTH).unwrap()), expected);
    }
}

#[test]
fn keys_have_the_label_of_selinux_and_of_nothing_else() {
    let labels = plan(&process("p", "u:r:t:s0"), BOTH).unwrap();
    assert_eq!(of_keys(&labels), Some(c"u:r:t:s0"));
    assert_eq!(of_keys(&labels[..1]), None);
}

#[test]
fn a_module_that_is_off_is_refused_unless_nothing_is_asked_of_it() {
    for (apparmor, selinux, pointers) in [
        ("", "", vec![]),
        ("unconfined", "", vec![]),
        ("p", "", vec!["/apparmorProfile"]),
        ("", "l", vec!["/selinuxLabel"]),
        ("p", "l", vec!["/apparmorProfile", "/selinuxLabel"]),
    ] {
        let problems = plan(&process(apparmor, selinux), NONE).map(|labels| assert!(labels.is_empty()));
        let found: Vec<_> = problems.err().unwrap_or_default().into_iter().map(|p| p.pointer).collect();
        assert_eq!(found, pointers, "{apparmor} {selinux}");
    }
}

/// Where the module is off the kernel has a file for neither, or one that takes nothing.
#[test]
fn what_cannot_be_written_is_an_error() {
    let slots = Slots::new(0);
    if !Path::new("/proc/self/attr/apparmor").exists() {
        let profile = apparmor::plan(c"no-such-profile", true).unwrap().unwrap();
        let failure = apply(&Label::AppArmor(profile), &slots).unwrap_err();
        assert_eq!(failure, StepFailure::from(Errno::EOPNOTSUPP));
    }
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        let failure = apply(&Label::SELinux(CString::from(c"no:such:label")), &slots).unwrap_err();
        assert_eq!(failure, StepFailure::from(Errno::EINVAL));
    }
}
