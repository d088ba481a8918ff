//! What is asked of the host once the plan stands, and before the first effect.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{Config, Namespace};
use crate::error::{Error, Result};
use crate::namespace::Kind;

/// A terminal has to be shown by somebody: by us, or, when we go, by whoever holds the socket.
pub(super) fn check_terminal(terminal: bool, detach: bool, socket: bool) -> Result<()> {
    let refuse = |text: &str| Err(Error::Usage(text.into()));
    if detach && terminal && !socket {
        return refuse("cannot allocate tty if tare will detach without setting console socket");
    }
    if socket && !(detach && terminal) {
        return refuse("cannot use console socket if tare will not detach or allocate tty");
    }
    Ok(())
}

/// A folder, and not the host's own root, which would make the host the container.
pub(super) fn check_rootfs(path: &Path) -> Result<()> {
    let failed = |e: &std::io::Error| Error::io("invalid rootfs", path, e);
    let refuse =
        |why: &str| Err(Error::Host { what: format!("invalid rootfs {}", path.display()), why: why.into() });
    let meta = std::fs::symlink_metadata(path).map_err(|e| failed(&e))?;
    if meta.is_symlink() {
        return refuse("not an absolute path, or a symlink");
    }
    if !meta.is_dir() {
        return refuse("not a directory");
    }
    let host = std::fs::metadata("/").map_err(|e| failed(&e))?;
    if (host.dev(), host.ino()) == (meta.dev(), meta.ino()) {
        return refuse("it is the root of the host");
    }
    Ok(())
}

/// A namespace that is joined by path may be the host's own, whose parameters are not the
/// container's to set.
pub(super) fn check_sysctls(config: &Config) -> Result<()> {
    let namespaces = &config.linux.namespaces;
    for (kind, namespace, own) in [
        (Kind::Network, &namespaces.network, "/proc/self/ns/net"),
        (Kind::Ipc, &namespaces.ipc, "/proc/self/ns/ipc"),
    ] {
        let Namespace::Join(path) = namespace else { continue };
        let theirs = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
        let Some(name) = config.linux.sysctl.keys().find(|name| belongs(name) == Some(kind)) else {
            continue;
        };
        let identity = |path: &Path| {
            let meta = std::fs::metadata(path).map_err(|e| Error::io("open namespace", path, &e))?;
            Ok::<_, Error>((meta.dev(), meta.ino()))
        };
        if identity(theirs)? == identity(Path::new(own))? {
            return Err(Error::Host {
                what: format!("sysctl {}", name.replace('/', ".")),
                why: format!("not allowed in host {} namespace", kind.word()),
            });
        }
    }
    Ok(())
}

/// Which of these two namespaces a parameter is of.
fn belongs(name: &str) -> Option<Kind> {
    const IPC: [&str; 4] = ["fs/mqueue/", "kernel/msg", "kernel/sem", "kernel/shm"];
    match name {
        _ if name.starts_with("net/") => Some(Kind::Network),
        _ if IPC.iter().any(|prefix| name.starts_with(prefix)) => Some(Kind::Ipc),
        _ => None,
    }
}
