//! `containerd-shim-tare-v2`: containerd's words to one of `start`, `delete`, `-info`, `-v` and the server.

use std::env;
use std::io::{Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use shim::bootstrap::delete::{self, Cleaner, Remains};
use shim::bootstrap::params::Params;
use shim::bootstrap::start::{self, Request};
use shim::bootstrap::words::Words;
use shim::bootstrap::{info, server};
use shim::error::{Code, Error, Result};
use shim::events::Publisher;
use shim::io::LOGGERS;
use shim::runtime::{command, linked, other_binary, state_root};
use shim::serve::{Setup, serve};
use shim::{files, log, mount};

/// containerd itself sends some hundred bytes.
const LONGEST_INPUT: u64 = 10 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The only thing that is ever said here: containerd reads both streams of `start` as one reply.
            log::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let words = Words::parse(arguments)?;
    if words.version {
        let text = format!(
            "containerd-shim-tare-v2:\n  Version:  {}\n  Revision: {}\n",
            env!("CARGO_PKG_VERSION"),
            info::revision()
        );
        return reply(text.as_bytes());
    }
    if words.info {
        return reply(&info::info(&input()?, |options| match other_binary(&options.binary_name) {
            Some(binary) => Ok(command::features(&binary)),
            None => linked::features().map(Some),
        })?);
    }
    words.check()?;
    let cwd = env::current_dir().map_err(|e| Error::io("find", Path::new("the working directory"), &e))?;
    match words.action.as_str() {
        "start" => {
            // What is executed as the server is what we run from: no container pays for it.
            seal()?;
            loggers()?;
            let params = Params::read(&words, &input()?, |name| env::var(name).ok())?;
            let started = start::start(&Request {
                words: &words,
                params: &params,
                bundle: &cwd,
                program: Path::new("/proc/self/exe"),
                name: &name,
                core_scheduling: env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()),
            })?;
            match reply(started.address.as_bytes()) {
                Ok(()) => started.let_go(),
                Err(error) => started.take_back().and(Err(error)),
            }
        }
        "delete" => {
            let (response, failed) = delete::delete(&Remains::read(&words, &cwd)?, &Runtimes)?;
            failed.iter().for_each(log::complain);
            reply(&response)
        }
        "" => match seal().and_then(|()| server::begin(&words, env::var("TTRPC_ADDRESS").ok(), cwd))? {
            Some(server::Setup { listener, namespace, ttrpc_address, .. }) => {
                // With fewer descriptors it serves all the same.
                if let Err(errno) = files::raise_limit() {
                    log::note(&format!("the limit on descriptors is not raised: {errno}"));
                }
                let publisher = Publisher::new(&ttrpc_address, &namespace);
                serve(Setup { listener, namespace, publisher, loggers: loggers()? })
            }
            None => Ok(()),
        },
        other => Err(Error::invalid(format!("unknown action {other:?}"))),
    }
}

/// The word of who runs containerd, by whose environment it comes (CVE-2026-53488).
fn loggers() -> Result<bool> {
    match env::var_os(LOGGERS) {
        None => Ok(true),
        Some(word) if word == "on" || word.is_empty() => Ok(true),
        Some(word) if word == "off" => Ok(false),
        Some(word) => Err(Error::invalid(format!("{LOGGERS} is {word:?}, neither on nor off"))),
    }
}

/// A container's process begins as a forked copy of the server.
fn seal() -> Result<()> {
    tare::seal::seal().map_err(|cause| Error::of(Code::Unknown, cause.to_string()))
}

struct Runtimes;

impl Cleaner for Runtimes {
    fn delete_container(&self, remains: &Remains) -> Result<()> {
        let root: PathBuf = state_root(&remains.root, &remains.namespace);
        match other_binary(&remains.binary) {
            Some(binary) => command::delete_by_force(&binary, &root, &remains.id, remains.systemd_cgroup),
            None => linked::delete_by_force(&root, &remains.id, remains.systemd_cgroup),
        }
    }

    fn unmount(&self, rootfs: &Path) -> Result<()> {
        mount::unmount_all(rootfs)
    }
}

fn input() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = stdin().take(LONGEST_INPUT).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("read", Path::new("standard input"), &e))?;
    Ok(bytes)
}

fn reply(bytes: &[u8]) -> Result<()> {
    let mut out = stdout();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|e| Error::io("write", Path::new("standard output"), &e))
}
