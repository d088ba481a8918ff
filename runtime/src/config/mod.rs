//! `config.json` as the rest of the program sees it: checked, defaults filled in, nothing optional
//! that the specification gives a default to. Built by [`Config::load`] or [`Config::from_slice`];
//! whoever holds one need not check again.
//!
//! Names are those of the runtime specification 1.3; strings that go to the kernel are `CString`s.

pub mod capability;
mod hooks;
pub mod id;
mod linux;
mod load;
mod mounts;
mod not_yet;
mod process;
mod read;
mod resources;
mod scheduling;
mod seccomp;
mod sysctl;
mod validate;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;

pub use capability::capability_bit;

/// The version of the specification that is implemented.
pub const OCI_VERSION: &str = "1.3.0";

/// <https://github.com/opencontainers/runtime-spec/blob/main/config.md>
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub oci_version: String,
    pub root: Root,
    pub process: Process,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    pub mounts: Vec<Mount>,
    pub hooks: Hooks,
    pub annotations: BTreeMap<String, String>,
    pub linux: Linux,
    /// What was accepted but cannot be honoured as written (an unknown capability, say).
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Root {
    /// Absolute: a relative one was joined to the bundle's folder.
    pub path: PathBuf,
    pub readonly: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    pub user: User,
    /// Never empty.
    pub args: Vec<CString>,
    /// As written; of a name given twice the last one counts (see `privilege::environment`).
    pub env: Vec<CString>,
    /// Absolute.
    pub cwd: CString,
    pub capabilities: Option<Capabilities>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
    pub apparmor_profile: Option<CString>,
    pub selinux_label: Option<CString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
}

/// Five sets, bit N set for capability number N (`linux/capability.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_*` of `getrlimit(2)`.
    pub resource: u32,
    pub name: &'static str,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// `SCHED_*` of `sched(7)`.
    pub policy: u32,
    pub nice: i32,
    pub priority: u32,
    /// `SCHED_FLAG_*` of `sched_setattr(2)`.
    pub flags: u64,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*`: 1 RT, 2 BE, 3 IDLE.
    pub class: u8,
    pub priority: u8,
}

/// Lists of CPU numbers, sorted, without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecCpuAffinity {
    pub initial: Option<Vec<u32>>,
    pub final_: Option<Vec<u32>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mount {
    /// Absolute; a relative one (deprecated by the specification) had `/` put before it, with a warning.
    pub destination: CString,
    /// As written; a relative bind source is resolved against the bundle by the plan.
    pub source: Option<CString>,
    /// `type`: `None` when absent (then a `bind` or `rbind` option must be there).
    pub kind: Option<CString>,
    pub options: Vec<String>,
    /// The mount's own mappings for `idmap`/`ridmap`; empty: the container's are used.
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    pub container_id: u32,
    pub host_id: u32,
    pub size: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute.
    pub path: CString,
    /// With `args[0]`; when `config.json` gives none, the path.
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    /// Seconds.
    pub timeout: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Linux {
    pub namespaces: Namespaces,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    pub time_offsets: TimeOffsets,
    pub devices: Vec<Device>,
    pub cgroups_path: Option<String>,
    pub resources: Resources,
    /// By path below `/proc/sys` (`net/ipv4/ip_forward`), however it was written; all of them
    /// belong to a namespace that the container does not share with the host by its document.
    pub sysctl: BTreeMap<String, String>,
    pub seccomp: Option<Seccomp>,
    pub rootfs_propagation: Option<Propagation>,
    pub masked_paths: Vec<CString>,
    pub readonly_paths: Vec<CString>,
    /// Not empty, as the labels of the process.
    pub mount_label: Option<CString>,
    pub personality: Option<u32>,
}

/// Where each namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub user: Namespace,
    pub mount: Namespace,
    pub pid: Namespace,
    pub network: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub cgroup: Namespace,
    pub time: Namespace,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Namespace {
    /// Not listed: the runtime's own.
    #[default]
    Inherit,
    New,
    Join(CString),
}

/// Offsets of the time namespace's clocks (`time_namespaces(7)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeOffsets {
    pub monotonic: Option<TimeOffset>,
    pub boottime: Option<TimeOffset>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeOffset {
    pub secs: i64,
    pub nanosecs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub path: CString,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits; 0666 when not given.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Rprivate,
    Slave,
    Rslave,
    Shared,
    Rshared,
    Unbindable,
    Runbindable,
}

/// <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#control-groups>
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    pub devices: Vec<DeviceRule>,
    pub memory: Memory,
    pub cpu: Cpu,
    pub pids_limit: Option<i64>,
    pub block_io: BlockIo,
    /// Each page size once.
    pub hugepage_limits: Vec<HugepageLimit>,
    pub network: Network,
    /// By the name of the RDMA device.
    pub rdma: BTreeMap<String, RdmaLimit>,
    pub unified: BTreeMap<String, String>,
}

/// Bytes; -1 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    /// Memory and swap together, as on v1.
    pub swap: Option<i64>,
    pub swappiness: Option<u64>,
    pub disable_oom_killer: Option<bool>,
    pub use_hierarchy: Option<bool>,
    pub check_before_update: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    pub shares: Option<u64>,
    /// Microseconds; -1 is no limit.
    pub quota: Option<i64>,
    pub burst: Option<u64>,
    pub period: Option<u64>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    pub idle: Option<i64>,
    pub cpus: Option<String>,
    pub mems: Option<String>,
}

/// Weights are from 10 to 1000, or 0 for "not set". In each list a device stands once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIo {
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
    pub weight_device: Vec<WeightDevice>,
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightDevice {
    pub major: u32,
    pub minor: u32,
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleDevice {
    pub major: u32,
    pub minor: u32,
    /// Bytes or operations in a second; 0 is no limit.
    pub rate: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugepageLimit {
    /// In the kernel's words: `2MB`.
    pub page_size: String,
    /// Bytes; 0 is a limit.
    pub limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    pub class_id: Option<u32>,
    /// Each interface once.
    pub priorities: Vec<InterfacePriority>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfacePriority {
    pub name: String,
    pub priority: u32,
}

/// At least one of the two is there; 0 is a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RdmaLimit {
    pub hca_handles: Option<u32>,
    pub hca_objects: Option<u32>,
}

/// One line of `linux.resources.devices`, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    /// `None`: `a`, all types.
    pub kind: Option<DeviceKind>,
    /// `None`: any (`-1` and absent mean the same).
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

/// <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>, still in
/// the specification's words: names of syscalls are looked up by `seccomp::compile`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seccomp {
    pub default_action: SeccompAction,
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_*` as written; all are names that the specification knows.
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_*` as written; all are names that the specification knows. An empty list
    /// is not the same as none.
    pub flags: Option<Vec<String>>,
    /// Of the seccomp agent; absolute.
    pub listener_path: Option<PathBuf>,
    pub listener_metadata: Option<String>,
    pub syscalls: Vec<SyscallRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallRule {
    pub names: Vec<String>,
    pub action: SeccompAction,
    pub errno_ret: Option<u32>,
    pub args: Vec<ArgTest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeccompAction {
    KillThread,
    KillProcess,
    Trap,
    Errno,
    Trace,
    Allow,
    Log,
    Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgTest {
    /// 0 to 5.
    pub index: u8,
    pub value: u64,
    /// The second operand of `MaskedEqual`: `(argument & value) == value_two`.
    pub value_two: u64,
    pub operator: ArgOperator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgOperator {
    NotEqual,
    LessThan,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    GreaterThan,
    MaskedEqual,
}
