//! From a file to a checked [`Config`]: what can be wrong with a file, with JSON, and at the top of
//! the document.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::error::Category;

use super::read::{Node, Report};
use super::{Config, Process, Resources, Root, hooks, linux, mounts, not_yet, process, resources, validate};
use crate::error::{Error, Problem, Result};

/// An honest document has some ten kilobytes; a few hundred when it lists a thousand mounts.
const SIZE_LIMIT: u64 = 32 << 20;

/// `HOST_NAME_MAX` of Linux, and the length of its domain names.
const UTS_NAME_MAX: usize = 64;

impl Config {
    /// Reads and checks a bundle's `config.json`, or `config` (relative to the bundle) instead.
    /// `bundle` is absolute.
    pub fn load(bundle: &Path, config: Option<&Path>) -> Result<Self> {
        let (bytes, file) = Self::read(bundle, config)?;
        Self::from_slice(&bytes, &file, bundle)
    }

    /// The bytes of the document, and its name for messages.
    pub fn read(bundle: &Path, config: Option<&Path>) -> Result<(Vec<u8>, PathBuf)> {
        let file = config.unwrap_or(Path::new("config.json"));
        Ok((read_limited(&bundle.join(file), file)?, file.to_owned()))
    }

    /// `file` is for messages; a relative root is one in `bundle`.
    pub fn from_slice(bytes: &[u8], file: &Path, bundle: &Path) -> Result<Self> {
        let (mut config, warnings) = document(bytes, file, |document, value, report| {
            let config = read(document, bundle);
            not_yet::check(value, report);
            validate::across(&config, report);
            config
        })?;
        config.warnings = warnings;
        Ok(config)
    }
}

impl Process {
    /// A document of one process, as `exec --process` takes it, and the warnings about it.
    pub fn from_slice(bytes: &[u8], file: &Path) -> Result<(Self, Vec<String>)> {
        document(bytes, file, |document, _, _| process::read(document))
    }
}

impl Resources {
    /// A document of resources alone, as `update --resources` takes it, and the warnings about it.
    pub fn from_slice(bytes: &[u8], file: &Path) -> Result<(Self, Vec<String>)> {
        document(bytes, file, |document, _, _| resources::read(document))
    }
}

/// What `read` makes of a document, and the warnings about it; or all that is wrong with it.
fn document<T>(
    bytes: &[u8],
    file: &Path,
    read: impl FnOnce(&Node, &Value, &Report) -> T,
) -> Result<(T, Vec<String>)> {
    let value = parse(bytes, file)?;
    let report = Report::default();
    let document = Node::document(&value, &report);
    if !document.is_object() {
        return Err(problem(file, "is not an object"));
    }
    let made = read(&document, &value, &report);
    Ok((made, report.finish(file)?))
}

fn read(document: &Node, bundle: &Path) -> Config {
    let oci_version = oci_version(document);
    let root = root(document, bundle);
    let process = match document.get("process") {
        None => {
            document.problem_at("process", "process property must not be empty");
            None
        }
        Some(node) => node.is_object().then(|| process::read(&node)),
    };
    Config {
        oci_version,
        root: root.unwrap_or_else(|| Root { path: bundle.to_path_buf(), readonly: false }),
        process: process.unwrap_or_else(process::placeholder),
        hostname: uts_name(document, "hostname"),
        domainname: uts_name(document, "domainname"),
        mounts: mounts::read(document),
        hooks: hooks::read(document),
        annotations: string_map(document, "annotations"),
        linux: linux::read(document),
        warnings: Vec::new(),
    }
}

/// Version 1 in any minor version: properties that a newer one adds are unknown ones, and those are
/// ignored (config.md, "Extensibility").
fn oci_version(document: &Node) -> String {
    let Some(node) = document.required("ociVersion") else { return String::new() };
    let Some(text) = node.as_str() else { return String::new() };
    match major(text) {
        None => node.refuse("is not a version such as 1.2.0"),
        Some(1) => {}
        Some(_) => node.refuse("is not a version of the specification that is known here (1.x)"),
    }
    text.to_owned()
}

/// The first number of a <https://semver.org> version.
fn major(version: &str) -> Option<u64> {
    let core = version.split_once(['-', '+']).map_or(version, |(core, _)| core);
    let mut numbers = core.split('.').map(|part| part.parse::<u64>().ok());
    let major = numbers.next()??;
    let rest: Vec<_> = numbers.collect::<Option<_>>()?;
    (rest.len() == 2).then_some(major)
}

fn root(document: &Node, bundle: &Path) -> Option<Root> {
    let Some(node) = document.get("root") else {
        document.problem_at("root", "root property must not be empty");
        return None;
    };
    if !node.is_object() {
        return None;
    }
    let Some(path) = node.c_string("path") else {
        if node.is_unset("path") {
            node.problem_at("path", "path of the root must not be empty");
        }
        return None;
    };
    let path = PathBuf::from(path.to_string_lossy().as_ref());
    Some(Root { path: bundle.join(path), readonly: node.bool("readonly").unwrap_or(false) })
}

fn uts_name(document: &Node, key: &str) -> Option<CString> {
    let name = document.c_string(key)?;
    if name.as_bytes().len() > UTS_NAME_MAX {
        document.get(key)?.refuse(format_args!("has more than {UTS_NAME_MAX} bytes"));
        return None;
    }
    Some(name)
}

pub(super) fn string_map(parent: &Node, key: &str) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    parent.each_entry(key, |name, value| {
        if let Some(value) = value.as_str() {
            map.insert(name.to_owned(), value.to_owned());
        }
    });
    map
}

fn problem(file: &Path, what: impl Into<String>) -> Error {
    let problem = Problem { pointer: String::new(), what: what.into() };
    Error::Config { file: file.to_path_buf(), problems: vec![problem] }
}

fn parse(bytes: &[u8], file: &Path) -> Result<Value> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(problem(
            file,
            "begins with a byte order mark, which JSON does not allow (RFC 8259, 8.1)",
        ));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(problem(file, "is empty"));
    }
    // A name given twice: the last one counts, as in Go.
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            Category::Eof => format!("ends too early: {error}"),
            _ => format!("is not valid JSON: {error}"),
        };
        problem(file, what)
    })
}

/// The whole of a regular file of sensible size. `name` is for messages.
fn read_limited(path: &Path, name: &Path) -> Result<Vec<u8>> {
    // Not blocking: a fifo in its place must give an error, not wait for a writer.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.kind() {
        // Engines know these words.
        ErrorKind::NotFound => problem(path, format!("JSON specification file {} not found", name.display())),
        _ => Error::io("open", path, &error),
    })?;
    let metadata = file.metadata().map_err(|error| Error::io("fstat", path, &error))?;
    if !metadata.is_file() {
        return Err(problem(path, "is not a regular file"));
    }
    let too_large = || problem(path, format!("is larger than {} MiB", SIZE_LIMIT >> 20));
    if metadata.len() > SIZE_LIMIT {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    // It may grow while it is read.
    let read = file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io("read", path, &error))?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(too_large());
    }
    Ok(bytes)
}
