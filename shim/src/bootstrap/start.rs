//! `start`: finds the shim of a container's group, or starts one.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::group::group;
use super::params::Params;
use super::socket::{self, Listen};
use super::words::Words;
use super::{place, server};
use crate::error::{Error, Result};
use crate::sys::prctl::create_core_cookie;

#[derive(Debug)]
pub struct Request<'a> {
    pub words: &'a Words,
    pub params: &'a Params,
    pub bundle: &'a Path,
    /// The file to execute as the server, and the name that it is to see.
    pub program: &'a Path,
    pub name: &'a OsStr,
    /// `SCHED_CORE` is set.
    pub core_scheduling: bool,
}

/// A shim to connect to. A server that was started for it ends again unless it is let go.
#[derive(Debug)]
pub struct Started {
    /// What containerd is to read: a bare line is understood from 1.6 to 2.4.
    pub address: String,
    server: Option<Server>,
}

impl Started {
    /// The reply is written: from now on the server lives by itself.
    pub fn let_go(mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            let sent = server.gate.write_all(server::GO);
            if let Err(error) = sent {
                server.end()?;
                return Err(Error::io("start", Path::new("shim server"), &error));
            }
        }
        Ok(())
    }

    /// The reply could not be written: nobody would ever ask the server to end.
    pub fn take_back(mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), Server::end)
    }
}

#[derive(Debug)]
struct Server {
    child: Child,
    gate: UnixStream,
    socket: PathBuf,
}

impl Server {
    fn end(mut self) -> Result<()> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        socket::remove(&self.socket)?;
        ended.map(drop).map_err(|e| Error::io("kill", Path::new("shim server"), &e))
    }
}

pub fn start(request: &Request<'_>) -> Result<Started> {
    let Request { words, params, bundle, .. } = request;
    let group = group(bundle, &words.id)?;
    let path = socket::path(&params.socket_dir, &params.address, &words.namespace, &group)?;
    let address = format!("unix://{}", path.display());
    let server = match socket::take(&path)? {
        Listen::Taken => None,
        Listen::Ours(listener) => Some(spawn(request, listener, path)?),
    };
    let placed = server.as_ref().map_or(Ok(()), |server| put_in_place(params, server));
    // containerd 1.6 finds the shim by it after a restart.
    match placed.and_then(|()| write_address(bundle, &address)) {
        Ok(()) => Ok(Started { address, server }),
        Err(error) => {
            if let Some(server) = server {
                server.end()?;
            }
            Err(error)
        }
    }
}

fn spawn(request: &Request<'_>, listener: OwnedFd, socket: PathBuf) -> Result<Server> {
    let Request { words, params, bundle, program, name, core_scheduling } = request;
    let started =
        UnixStream::pair().map_err(|e| Error::io("socketpair", program, &e)).and_then(|(gate, far)| {
            if *core_scheduling {
                create_core_cookie().map_err(|errno| Error::sys("enable core scheduling", "", errno))?;
            }
            let mut command = Command::new(program);
            command.arg0(name).args([
                "-namespace",
                &words.namespace,
                "-id",
                &words.id,
                "-address",
                &params.address,
            ]);
            command.args(params.debug.then_some("-debug")).current_dir(bundle).process_group(0);
            command.env("TTRPC_ADDRESS", &params.ttrpc_address);
            command.stdin(listener).stdout(OwnedFd::from(far)).stderr(Stdio::null());
            let child = command.spawn().map_err(|e| Error::io("execute", program, &e))?;
            Ok((child, gate))
        });
    match started {
        Ok((child, gate)) => Ok(Server { child, gate, socket }),
        Err(error) => {
            socket::remove(&socket)?;
            Err(error)
        }
    }
}

fn put_in_place(params: &Params, server: &Server) -> Result<()> {
    let pid = server.child.id();
    if !params.options.shim_cgroup.is_empty() {
        place::join_cgroup(&params.options.shim_cgroup, pid)?;
    }
    place::adjust_oom_score(parent_id(), pid)
}

fn write_address(bundle: &Path, address: &str) -> Result<()> {
    let (temporary, path) = (bundle.join(".address"), bundle.join("address"));
    fs::write(&temporary, address).map_err(|e| Error::io("write", &temporary, &e))?;
    fs::rename(&temporary, &path).map_err(|e| Error::io("rename", &path, &e))
}
