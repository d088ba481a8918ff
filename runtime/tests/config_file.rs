//! What can be wrong with the file itself.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;

use tare::config::Config;

const SMALLEST: &str =
    r#"{"ociVersion": "1.0.0", "root": {"path": "rootfs"}, "process": {"args": ["sh"], "cwd": "/"}}"#;

fn load(bundle: &Path) -> Result<Config, String> {
    Config::load(bundle, None).map_err(|error| error.to_string())
}

fn read(bytes: &[u8]) -> String {
    match Config::from_slice(bytes, Path::new("config.json"), Path::new("/bundle")) {
        Ok(_) => "none".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_file_of_the_bundle_or_another_is_read() {
    let bundle = tempfile::tempdir().unwrap();
    fs::write(bundle.path().join("config.json"), SMALLEST).unwrap();
    assert_eq!(load(bundle.path()).unwrap().root.path, bundle.path().join("rootfs"));
    fs::write(bundle.path().join("other.json"), SMALLEST.replace("rootfs", "/abs")).unwrap();
    for other in [Path::new("other.json"), &bundle.path().join("other.json")] {
        let config = Config::load(bundle.path(), Some(other)).unwrap();
        assert_eq!(config.root.path, Path::new("/abs"));
    }
}

#[test]
fn a_missing_file_is_said_in_the_words_of_runc() {
    let bundle = tempfile::tempdir().unwrap();
    let problem = load(bundle.path()).unwrap_err();
    assert!(problem.contains("JSON specification file config.json not found"), "{problem}");
    let problem = load(&bundle.path().join("no-such-bundle")).unwrap_err();
    assert!(problem.contains("JSON specification file config.json not found"), "{problem}");
    let problem = Config::load(bundle.path(), Some(Path::new("x.json"))).unwrap_err().to_string();
    assert!(problem.contains("JSON specification file x.json not found"), "{problem}");
}

#[test]
fn only_a_regular_file_of_sensible_size_is_read() {
    let bundle = tempfile::tempdir().unwrap();
    let path = bundle.path().join("config.json");

    fs::create_dir(&path).unwrap();
    assert!(load(bundle.path()).unwrap_err().ends_with("is not a regular file"));
    fs::remove_dir(&path).unwrap();

    // Nobody writes to it: a reader that waits would hang here.
    let name = CString::new(path.to_str().unwrap()).unwrap();
    nix::unistd::mkfifo(name.as_c_str(), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(load(bundle.path()).unwrap_err().ends_with("is not a regular file"));
    fs::remove_file(&path).unwrap();

    // More than there is memory for, or time: it cannot have been read.
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(load(bundle.path()).unwrap_err().ends_with("is larger than 32 MiB"));
}

#[test]
fn a_file_that_reports_no_size_is_limited_too() {
    // Regular, size 0, with content: only reading tells.
    let problem = Config::load(Path::new("/proc/self"), Some(Path::new("status"))).unwrap_err().to_string();
    assert!(problem.contains("is not valid JSON"), "{problem}");
}

#[test]
fn what_is_no_json_is_said_with_its_line_and_column() {
    for (bytes, expected) in [
        (&b""[..], "config.json: is empty"),
        (b" \n\t", "config.json: is empty"),
        (b"{", "config.json: ends too early: EOF while parsing an object at line 1 column 1"),
        (b"{\n \"a\": tru }", "config.json: is not valid JSON: expected ident at line 2 column 10"),
        (b"{\"a\": 1,}", "config.json: is not valid JSON: trailing comma at line 1 column 9"),
        (b"{} {}", "config.json: is not valid JSON: trailing characters at line 1 column 4"),
        (b"{}\0", "config.json: is not valid JSON: trailing characters at line 1 column 3"),
        (
            b"{\"a\": \"\xff\"}",
            "config.json: is not valid JSON: invalid unicode code point at line 1 column 8",
        ),
        (
            b"\xef\xbb\xbf{}",
            "config.json: begins with a byte order mark, which JSON does not allow (RFC 8259, 8.1)",
        ),
        (b"[]", "config.json: is not an object"),
        (b"null", "config.json: is not an object"),
    ] {
        assert_eq!(read(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow_of_the_stack() {
    let deep = "[".repeat(1 << 20);
    assert_eq!(
        read(deep.as_bytes()),
        "config.json: is not valid JSON: recursion limit exceeded at line 1 column 128"
    );
    let deep = format!("{{\"x\": {}{} }}", "{\"a\":".repeat(1000), "1");
    assert!(read(deep.as_bytes()).contains("recursion limit exceeded"));
}

#[test]
fn of_a_name_given_twice_the_last_one_counts() {
    let twice = SMALLEST.replace(r#""cwd": "/""#, r#""cwd": "relative", "cwd": "/""#);
    assert_eq!(read(twice.as_bytes()), "none");
    let twice = SMALLEST.replace(r#""cwd": "/""#, r#""cwd": "/", "cwd": "relative""#);
    assert_eq!(
        read(twice.as_bytes()),
        "config.json /process/cwd: Cwd must be an absolute path, \"relative\" is none"
    );
}
