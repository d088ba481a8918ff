//! Where a manager may be spoken to.

use std::path::PathBuf;

use super::dbus::{At, Server};

/// systemd's own socket first: no daemon between, no `Hello`. Only root may use it.
pub(super) fn of_system() -> Vec<Server> {
    [("/run/systemd/private", false), ("/run/dbus/system_bus_socket", true)]
        .map(|(path, is_bus)| Server { at: At::Path(path.into()), is_bus })
        .into()
}

pub(super) fn of_user(runtime_dir: Option<PathBuf>, bus: Option<String>) -> Vec<Server> {
    let mut servers = Vec::new();
    let private = runtime_dir.as_ref().map(|dir| dir.join("systemd/private"));
    servers.extend(private.map(|path| Server { at: At::Path(path), is_bus: false }));
    match bus {
        Some(address) => servers.extend(bus_addresses(&address)),
        None => servers.extend(runtime_dir.map(|dir| Server { at: At::Path(dir.join("bus")), is_bus: true })),
    }
    servers
}

/// `unix:path=/run/user/1000/bus,guid=…;unix:abstract=…`: those that are sockets of this machine.
pub(super) fn bus_addresses(text: &str) -> Vec<Server> {
    let unix = text.split(';').filter_map(|address| address.strip_prefix("unix:"));
    unix.filter_map(|address| {
        address.split(',').find_map(|pair| match pair.split_once('=')? {
            ("path", path) => Some(At::Path(String::from_utf8(unescape(path)).ok()?.into())),
            ("abstract", name) => Some(At::Abstract(unescape(name))),
            _ => None,
        })
    })
    .map(|at| Server { at, is_bus: true })
    .collect()
}

/// `%20` is a space; what is no such thing stays as it is.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}
