//! `tare`, an OCI runtime. The modules stand in the order of the layers: each uses only those
//! above it in this list (proved by `tests/layers.rs`).
#![deny(unsafe_code)]

