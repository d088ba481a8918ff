//! The shim's own file: nobody who looks at a process of a container, or at the shim, can write to it.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use integration::need;
use integration::shim::{self, Stage, Streams};
use nix::errno::Errno;

const SIGKILL: u64 = 9;

/// The file behind a link, as one holds it who waits until it can be written to.
struct Held {
    whose: &'static str,
    link: String,
    file: File,
}

impl Held {
    fn of(stage: &Stage, whose: &'static str, pid: u64) -> Self {
        let link = stage.sandbox.outside(&format!("/proc/{pid}/exe"));
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&link).expect("the link");
        let link = fs::read_link(link).expect("the link");
        Self { whose, link: link.display().to_string(), file }
    }

    fn write(&self) -> Errno {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let opened = OpenOptions::new().write(true).open(path);
        let error = opened.expect_err(self.whose);
        Errno::from_raw(error.raw_os_error().expect("a number"))
    }
}

#[test]
fn the_file_of_the_shim_cannot_be_written_through_any_process_of_it() {
    need!(root, program("busybox"));
    let under_test = shim::path();
    if shim::is_stock(under_test) {
        // It executes a runtime of its own file.
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    // What nobody else executes: it could not be written to meanwhile.
    let copy = dir.path().join("containerd-shim-tare-v2");
    fs::copy(under_test, &copy).expect("copy");
    let before = fs::read(&copy).expect("read");
    for held in &story(&copy) {
        // A mount that has no place in any namespace, and so none that it could be changed in.
        assert_eq!(held.link, "/", "{}", held.whose);
        assert_eq!(held.write(), Errno::EROFS, "{}", held.whose);
    }
    assert!(fs::read(&copy).expect("read") == before, "the shim's file has changed");
    OpenOptions::new().write(true).open(&copy).expect("by its own name it is a file like any other");
}

/// What is seen in the life of a container, of which nothing runs any more at the end.
fn story(copy: &Path) -> Vec<Held> {
    let stage = Stage::new(copy);
    let task = stage.created(stage.bundle("c", &["sleep", "1000"], |_| ()), Streams::default());
    let [server] = stage.shims()[..] else { panic!("one server") };
    // Created and not started: still a copy of the shim.
    let init = task.call("State", &task.request("")).expect("state").number(3);
    let held = vec![Held::of(&stage, "the server", server), Held::of(&stage, "init", init)];
    for held in &held {
        assert_eq!(held.write(), Errno::ETXTBSY, "{}", held.whose);
    }
    task.start("").expect("start");
    task.kill("", SIGKILL).expect("kill");
    assert_eq!(task.wait(""), 137);
    task.delete("").expect("delete");
    task.shutdown();
    held
}
