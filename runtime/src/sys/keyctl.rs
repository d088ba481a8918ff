//! Session keyrings: `keyrings(7)`, `keyctl(2)`.

use std::ffi::CStr;

use libc::{c_int, c_long};
use nix::errno::Errno;

const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
const KEYCTL_SETPERM: c_int = 5;
const KEYCTL_DESCRIBE: c_int = 6;

/// `KEY_USR_SEARCH`: whoever has the keyring's uid may search it.
pub const USER_SEARCH: u32 = 0x0008_0000;
/// `KEY_OTH_SEARCH`: everybody may search it.
pub const OTHER_SEARCH: u32 = 0x0000_0008;

/// Leaves the session keyring and joins, or makes, the one of that name; gives its serial number.
///
/// `ENOSYS` in a kernel without keyrings, and where an outer container's filter hides them.
/// <https://man7.org/linux/man-pages/man2/keyctl.2.html>
pub fn join_session_keyring(name: &CStr) -> Result<i32, Errno> {
    // SAFETY: `name` is NUL-terminated and outlives the call, which only reads it.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    Ok(Errno::result(serial)? as i32)
}

/// Adds `permissions` to those of a keyring.
pub fn add_permissions(serial: i32, permissions: u32) -> Result<(), Errno> {
    let mut text = [0u8; 512];
    // SAFETY: the kernel writes at most the length given, which is that of `text`, and `text` is ours alone.
    let length =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, serial, text.as_mut_ptr(), text.len()) };
    let length = usize::try_from(Errno::result(length)?).unwrap_or(0).min(text.len());
    let present = permissions_of(&text[..length]).ok_or(Errno::EINVAL)?;
    // SAFETY: takes numbers and touches no memory of ours.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, c_long::from(present | permissions))
    };
    Errno::result(result).map(drop)
}

/// The fourth field, hexadecimal, of `keyring;0;0;3f1f0000;_ses.id`.
fn permissions_of(description: &[u8]) -> Option<u32> {
    let field = description.split(|&b| b == b';').nth(3)?;
    u32::from_str_radix(std::str::from_utf8(field).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_permissions_are_the_fourth_field() {
        assert_eq!(permissions_of(b"keyring;0;0;3f1f0000;_ses.a\0"), Some(0x3f1f_0000));
        assert_eq!(permissions_of(b"keyring;0;0"), None);
        assert_eq!(permissions_of(b"keyring;0;0;;x"), None);
    }

    #[test]
    fn a_joined_keyring_has_the_permission_and_the_name() {
        // A thread of its own: the session keyring is a credential of the thread.
        let test = std::thread::Builder::new().name("keyctl::a_joined_keyring".into());
        let thread = test.spawn(|| {
            let serial = match join_session_keyring(c"_ses.tare-test") {
                Err(Errno::ENOSYS | Errno::EPERM) => {
                    return spec_tests::need::skip_this("keyrings", "the kernel has none, or a filter");
                }
                other => other.unwrap(),
            };
            add_permissions(serial, OTHER_SEARCH).unwrap();
            let keys = std::fs::read_to_string("/proc/keys").unwrap();
            let line = keys.lines().find(|line| line.contains("_ses.tare-test")).unwrap();
            let permissions = line.split_whitespace().nth(4).unwrap();
            assert_ne!(u32::from_str_radix(permissions, 16).unwrap() & OTHER_SEARCH, 0, "{line}");
        });
        thread.unwrap().join().unwrap();
    }
}
