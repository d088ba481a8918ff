//! The runtime and the processes that it makes: what each does, and what they say to each other.

pub mod agent;
pub mod channel;
pub mod foreground;
pub mod init;
pub mod joiner;
pub mod listen_fds;
pub mod notify_socket;
pub mod parent;
pub mod protocol;
mod relay;
pub mod userns;
