//! From containerd's words to a server that serves, and what containerd asks of the program beside it.

pub mod delete;
pub mod group;
pub mod info;
pub mod params;
pub mod place;
pub mod server;
pub mod socket;
pub mod start;
pub mod words;
