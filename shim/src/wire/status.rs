//! How a call ends when it fails: gRPC's code and a sentence.

pub use containerd_shim_protos::ttrpc::Code;

use super::messages;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: String,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn to_message(&self) -> messages::Status {
        messages::Status { code: self.code.into(), message: self.message.clone(), ..Default::default() }
    }

    /// `None` for success. A code that nobody knows is `UNKNOWN`.
    pub(super) fn from_message(status: &messages::Status) -> Option<Self> {
        match status.code.enum_value_or(Code::UNKNOWN) {
            Code::OK => None,
            code => Some(Self::new(code, status.message.clone())),
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.message, self.code)
    }
}
