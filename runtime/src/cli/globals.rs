//! The options before the command.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use clap::{Args, ValueEnum};

use super::absolute;
use super::report::{Format, Log};
use crate::cgroup::Driver;
use crate::error::{Error, Result};
use crate::lifecycle::Runtime;

#[derive(Debug, Args)]
pub(super) struct Globals {
    /// say more in the log
    #[arg(long)]
    debug: bool,
    /// write the log to FILE, one line for each failure (default: stderr)
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// format of the log
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: Format,
    /// folder for the state of containers; best on a tmpfs (default: /run/tare, or $XDG_RUNTIME_DIR/tare when not root)
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// let systemd make the cgroups: cgroupsPath is "slice:prefix:name"; the same as --cgroup-manager systemd
    #[arg(long)]
    systemd_cgroup: bool,
    /// who makes the cgroups, when it is not cgroupfs; "disabled" is nobody
    #[arg(long, value_enum, value_name = "MANAGER")]
    cgroup_manager: Option<Manager>,
    /// go on without cgroups that may not be made: true, false, or auto, which is to find out
    #[arg(long, value_name = "WORD", default_value = "auto", value_parser = rootless)]
    rootless: Rootless,
    /// print the version
    #[arg(long, short = 'v')]
    pub(super) version: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Manager {
    Cgroupfs,
    Systemd,
    Disabled,
}

/// `None`: to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rootless(Option<bool>);

/// Go's `strconv.ParseBool`, and `auto`.
fn rootless(word: &str) -> std::result::Result<Rootless, String> {
    match word.to_ascii_lowercase().as_str() {
        "auto" => Ok(Rootless(None)),
        "true" | "t" | "1" => Ok(Rootless(Some(true))),
        "false" | "f" | "0" => Ok(Rootless(Some(false))),
        _ => Err("it must be true, false or auto".into()),
    }
}

/// What a command gets besides its own options and arguments.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) runtime: Runtime,
    pub(super) root: Root,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Given,
    /// `/run/tare`
    Default,
    /// `$XDG_RUNTIME_DIR/tare`
    User,
}

impl Globals {
    pub(super) fn log(&self) -> Log {
        let file = self.log.clone().filter(|path| path != Path::new("/dev/stderr"));
        Log { file, format: self.log_format, debug: self.debug }
    }

    pub(super) fn context(self) -> Result<Context> {
        let (root, path) = match self.root {
            Some(path) => (Root::Given, absolute(path)?),
            None => default_root(),
        };
        if is_slash(&path) {
            // `delete` removes folders below it.
            return Err(Error::Usage("the root for the state of containers must not be /".into()));
        }
        let cgroup_manager = match self.cgroup_manager {
            // It says more than the switch: Podman gives both when cgroups are disabled.
            Some(Manager::Cgroupfs) => Driver::Cgroupfs,
            Some(Manager::Systemd) => Driver::Systemd,
            Some(Manager::Disabled) => Driver::Disabled,
            None if self.systemd_cgroup => Driver::Systemd,
            None => Driver::Cgroupfs,
        };
        Ok(Context { runtime: Runtime::new(path, cgroup_manager, self.rootless.0), root })
    }
}

impl Context {
    /// Before a container is made. `$XDG_RUNTIME_DIR` is tidied of what is old, but for what has the
    /// sticky bit (<https://specifications.freedesktop.org/basedir-spec/latest/>).
    pub(super) fn keep_root(&self) -> Result<()> {
        let root = &self.runtime.root;
        if self.root != Root::User || root.exists() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|e| Error::io("mkdir", root, &e))?;
        fs::set_permissions(root, Permissions::from_mode(0o1700)).map_err(|e| Error::io("chmod", root, &e))
    }
}

fn default_root() -> (Root, PathBuf) {
    let own = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    match own {
        Some(dir) if is_rootless() => (Root::User, dir.join("tare")),
        _ => (Root::Default, "/run/tare".into()),
    }
}

/// Root of a user namespace made by another user is not root: it keeps the variables of that user,
/// while root in a container that has all to itself is called root.
fn is_rootless() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let in_user_namespace = map.split_whitespace().ne(["0", "0", "4294967295"]) && !map.is_empty();
    in_user_namespace && env::var_os("USER").is_none_or(|user| user != "root")
}

fn is_slash(path: &Path) -> bool {
    path.components().all(|c| !matches!(c, Component::Normal(_)))
        || fs::canonicalize(path).is_ok_and(|path| path == Path::new("/"))
}

/// A table of options without what clap adds by itself.
pub(super) fn bare(name: &'static str) -> clap::Command {
    clap::Command::new(name)
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        // Of an option given twice the last one counts, as in Go.
        .args_override_self(true)
}

pub(super) fn table() -> clap::Command {
    Globals::augment_args(bare("tare"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{parse, typed};

    fn context(options: &[&str]) -> std::result::Result<Context, String> {
        let options = options.iter().map(Into::into).collect();
        let matches = parse(table(), options).map_err(|(text, _)| text)?;
        typed::<Globals>(&matches).and_then(Globals::context).map_err(|e| e.to_string())
    }

    #[test]
    fn the_manager_of_cgroups() {
        for (options, manager) in [
            (&[][..], Driver::Cgroupfs),
            (&["--systemd-cgroup"], Driver::Systemd),
            (&["--cgroup-manager=systemd"], Driver::Systemd),
            (&["--cgroup-manager=systemd", "--cgroup-manager=cgroupfs"], Driver::Cgroupfs),
            (&["--systemd-cgroup", "--cgroup-manager=disabled"], Driver::Disabled),
        ] {
            assert_eq!(context(options).unwrap().runtime.cgroup_manager, manager, "{options:?}");
        }
        assert!(context(&["--cgroup-manager=x"]).unwrap_err().contains("disabled"));
    }

    #[test]
    fn rootless_is_yes_no_or_to_be_found_out() {
        for (word, expected) in
            [("auto", None), ("true", Some(true)), ("1", Some(true)), ("False", Some(false))]
        {
            assert_eq!(context(&[&format!("--rootless={word}")]).unwrap().runtime.rootless, expected);
        }
        assert!(context(&["--rootless=maybe"]).unwrap_err().contains("true, false or auto"));
    }

    #[test]
    fn the_root_is_absolute_and_not_slash() {
        for root in ["/", "//", "/.", "/..", "/proc/..", "/proc/self/root"] {
            assert!(context(&[&format!("--root={root}")]).unwrap_err().contains("must not be /"), "{root}");
        }
        let here = env::current_dir().unwrap();
        assert_eq!(context(&["--root=some/where"]).unwrap().runtime.root, here.join("some/where"));
        assert_eq!(context(&["--root=/a//b"]).unwrap().runtime.root, Path::new("/a/b"));
    }

    #[test]
    fn stderr_by_its_name_is_not_a_log_file() {
        for (option, file) in [("--log=/dev/stderr", None), ("--log=/x", Some("/x".into()))] {
            let globals: Globals = typed(&parse(table(), vec![option.into()]).unwrap()).unwrap();
            assert_eq!(globals.log().file, file, "{option}");
        }
    }
}
