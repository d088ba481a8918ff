//! All messages that the shim speaks, under one roof.

/// `containerd.task.v2.Task` and `containerd.task.v3.Task`: the two differ in the package's name alone.
pub mod task {
    pub use containerd_shim_protos::shim::shim::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, ExecProcessResponse,
        KillRequest, PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
        StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
    };
    pub use containerd_shim_protos::types::mount::Mount;
    pub use containerd_shim_protos::types::task::{ProcessInfo, Status};
}

/// What the publisher sends, and the envelope around it.
pub mod events {
    pub use containerd_shim_protos::events::task::{
        TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskOOM, TaskPaused,
        TaskResumed, TaskStart,
    };
    pub use containerd_shim_protos::shim::event::Envelope;
    pub use containerd_shim_protos::shim::events::ForwardRequest;
}

/// `containerd.runc.v1`
pub mod runc {
    pub use containerd_shim_protos::shim::oci::{CheckpointOptions, Options, ProcessDetails};
}

/// `containerd.runtime.bootstrap.v1`: stdin and stdout of `start` since containerd 2.3.
pub mod bootstrap {
    pub use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, Extension, LogLevel};
}

/// The answer to `-info`.
pub mod introspection {
    pub use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
}

/// `io.containerd.cgroups.v1`
pub mod cgroup1 {
    pub use containerd_shim_protos::cgroups::metrics::*;
}

/// `io.containerd.cgroups.v2`
pub mod cgroup2 {
    pub use containerd_shim_protos::cgroups_v2::metrics::*;
}

pub use containerd_shim_protos::protobuf::well_known_types::any::Any;
pub use containerd_shim_protos::protobuf::well_known_types::empty::Empty;
pub use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
pub use containerd_shim_protos::ttrpc::proto::{KeyValue, Request, Response, Status};
