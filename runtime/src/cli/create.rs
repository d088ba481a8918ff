//! `create`, and the options that `run` has too.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::globals::Context;
use super::{Verb, absolute_if_given, id};
use crate::config::id::ContainerId;
use crate::error::{Error, Result};
use crate::lifecycle::{self, CreateRequest};
use crate::process::listen_fds::Listen;

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    container: Container,
    /// an option of `run`, which crun takes here too: of no effect
    #[arg(long = "no-subreaper", hide = true)]
    _no_subreaper: bool,
}

/// How a container is made.
#[derive(Debug, Args)]
pub(super) struct Container {
    #[command(flatten)]
    bundle: Bundle,
    /// send the master end of the console's pseudoterminal to this AF_UNIX socket
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// send a pidfd of the container's first process to this AF_UNIX socket
    #[arg(long, value_name = "PATH")]
    pidfd_socket: Option<PathBuf>,
    /// write the process id of the container's first process to FILE
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// do not use pivot_root, but move the root mount: for a rootfs on a ramdisk
    #[arg(long)]
    no_pivot: bool,
    /// keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// pass N more descriptors to the container, after stdio and those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(super) struct Bundle {
    /// folder of the bundle (default: the current folder)
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// the configuration, when it is not config.json of the bundle
    #[arg(long, short = 'f', value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Verb for Create {
    const NAME: &str = "create";
    const ABOUT: &str = "create a container";
    const USAGE: &str = "<container-id>";
    const DESCRIPTION: &str = "\
Makes a container from a bundle, up to the point where its program would be
started: `tare start` does that. The id is yours to choose; no two containers
of one root have the same.

EXAMPLE:
    # tare create --bundle /bundles/web web
    # tare start web";
    const ARGUMENTS: (usize, usize) = (1, 1);
    const SEALED: bool = true;
    const PREFIX: &str = "tare create failed: ";

    fn run(self, arguments: &[String], context: &Context) -> Result<u8> {
        let request = self.container.request(id(arguments)?)?;
        context.keep_root()?;
        lifecycle::create::create(&context.runtime, &request)?;
        Ok(0)
    }
}

impl Bundle {
    /// The request with all else as it is by default.
    pub(super) fn request(self, id: ContainerId) -> Result<CreateRequest> {
        let bundle = self.bundle.unwrap_or_else(|| ".".into());
        Ok(CreateRequest {
            id,
            bundle: fs::canonicalize(&bundle).map_err(|e| Error::io("open bundle", &bundle, &e))?,
            config: absolute_if_given(self.config)?,
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
            listen: Listen::default(),
            notify_socket: None,
        })
    }
}

impl Container {
    pub(super) fn request(self, id: ContainerId) -> Result<CreateRequest> {
        Ok(CreateRequest {
            console_socket: absolute_if_given(self.console_socket)?,
            pidfd_socket: absolute_if_given(self.pidfd_socket)?,
            pid_file: absolute_if_given(self.pid_file)?,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            listen: listen(),
            notify_socket: std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()),
            ..self.bundle.request(id)?
        })
    }
}

/// What the caller's environment says of socket activation.
pub(super) fn listen() -> Listen {
    let variable = |name| std::env::var(name).ok();
    Listen { fds: variable("LISTEN_FDS"), pid: variable("LISTEN_PID") }
}
