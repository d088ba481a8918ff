//! The driver under which systemd makes the cgroups: a container is a scope, with its first process
//! in it (`--systemd-cgroup`).
//!
//! systemd makes the folders of the hierarchies that it manages, moves the process into them and
//! removes them; what has no property of a unit we write ourselves, by the file-system driver, and on
//! v1 the process goes by us into the hierarchies that systemd leaves alone.

mod annotation;
mod dbus;
#[cfg(test)]
mod fuzz;
mod properties;
mod servers;
mod unit;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use unit::{Manager, Unit};

use self::annotation::Property;
use self::dbus::{Connection, Failure};
use self::properties::{Unsaid, Versioned};
use self::unit::Named;
use self::wire::Value;
use super::Manage;
use super::apply::{self, Created};
use super::devices::Policy;
use super::folder::Folder;
use super::paths::{Paths, Place};
use super::plan::{Group, Plan};
use crate::config::Config;
use crate::config::id::ContainerId;
use crate::error::{Error, Problem, Result};
use crate::host::{Facts, Hierarchy};
use crate::undo::Undo;

/// How long systemd may take for one of our conversations. Busy with a hundred units it takes tens of
/// seconds; runc waits as long.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same when we clean up after a failure: maybe it is just systemd that does not answer.
const PATIENCE_AFTER_FAILURE: Duration = Duration::from_secs(5);

const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// "Cannot set property X, or unknown property."
const UNKNOWN_PROPERTY: &str = "org.freedesktop.DBus.Error.PropertyReadOnly";
/// "Value specified in CPUWeight is out of range"
const INVALID_ARGUMENTS: &str = "org.freedesktop.DBus.Error.InvalidArgs";

/// The unit of a container that is not there yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planned {
    pub(super) unit: Unit,
    is_slice: bool,
    /// Before those of the limits; without `PIDs`, which the plan does not know.
    own: Vec<Versioned>,
    pub(super) limits: Vec<Versioned>,
}

/// Where the unit's cgroups are, for the plan of what is written into them.
pub(super) struct Location {
    named: Named,
    manager: Manager,
    /// Full name, from the root of the hierarchy.
    cgroup: PathBuf,
}

impl Location {
    pub(super) fn new(id: &ContainerId, config: &Config, facts: &Facts) -> Result<Self> {
        let manager = manager_of(facts);
        if manager == Manager::User && !facts.cgroup.is_unified() {
            return Err(Error::Host {
                what: "cgroups of a user's systemd".into(),
                why: "they need a host with cgroup v2 alone (on v1 nothing is delegated to users)".into(),
            });
        }
        let named =
            Named::new(config.linux.cgroups_path.as_deref(), id.as_str(), manager).map_err(|what| {
                let problems = vec![Problem { pointer: "/linux/cgroupsPath".into(), what }];
                Error::Config { file: "config.json".into(), problems }
            })?;
        let usual = || unit::usual_cgroup(manager, facts.euid);
        let cgroup = facts.systemd_cgroup.clone().unwrap_or_else(usual).join(&named.cgroup);
        Ok(Location { named, manager, cgroup })
    }

    pub(super) fn place(&self, hierarchy: &Hierarchy, is_v2: bool) -> Place {
        let cgroup = &*self.cgroup;
        let below = cgroup.strip_prefix(&hierarchy.mount_root).or_else(|_| cgroup.strip_prefix("/"));
        let below = below.unwrap_or(cgroup);
        Place {
            controllers: if is_v2 { Vec::new() } else { hierarchy.controllers.clone() },
            folder: hierarchy.mountpoint.join(below),
            name: self.cgroup.clone(),
        }
    }

    /// `devices`: the rules, where the devices controller of v1 is told them.
    pub(super) fn plan(
        &self,
        config: &Config,
        groups: &[Group],
        unified: bool,
        devices: Option<&Policy>,
        problems: &mut Vec<Problem>,
    ) -> Planned {
        let (mut limits, unsaid) = properties::of_writes(groups.iter().flat_map(Group::writes));
        problems.extend(unsaid.into_iter().map(|why| problem(config, why)));
        limits.extend(devices.into_iter().flat_map(properties::of_devices_v1));
        let mut own = self.own_properties(unified);
        let asked = annotation::properties(&config.annotations, problems);
        own.extend(asked.into_iter().map(|property| Versioned { property, since: 0 }));
        Planned {
            unit: Unit { name: self.named.unit.clone(), manager: self.manager },
            is_slice: self.named.is_slice(),
            own,
            limits,
        }
    }

    fn own_properties(&self, unified: bool) -> Vec<Versioned> {
        let named = &self.named;
        let property = |since, name, value| Versioned { property: Property::new(name, value), since };
        let always = |name, value| property(0, name, value);
        let mut own = vec![always("Description", Value::String(format!("container in {}", named.unit)))];
        if named.is_slice() {
            let slices = vec![Value::text(&*named.slice)];
            own.push(always("Wants", Value::Array("s".into(), slices)));
        } else {
            own.push(always("Slice", Value::text(&*named.slice)));
            own.push(always("Delegate", Value::Bool(true)));
        }
        let io = if unified { "IOAccounting" } else { "BlockIOAccounting" };
        for name in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
            own.push(always(name, Value::Bool(true)));
        }
        own.push(always("DefaultDependencies", Value::Bool(false)));
        // Otherwise one that the kernel killed for its memory is kept, and with it its name.
        own.push(property(236, "CollectMode", Value::text("inactive-or-failed")));
        own
    }
}

/// A value that we would write but cannot tell systemd: it is the configuration's own.
fn problem(config: &Config, Unsaid { file, what }: Unsaid) -> Problem {
    let pointer = match &*file {
        _ if config.linux.resources.unified.contains_key(&file) => format!("/linux/resources/unified/{file}"),
        "cpuset.cpus" => "/linux/resources/cpu/cpus".into(),
        "cpuset.mems" => "/linux/resources/cpu/mems".into(),
        _ => "/linux/resources".into(),
    };
    Problem { pointer, what: format!("systemd cannot be told {file}: {what}") }
}

fn manager_of(facts: &Facts) -> Manager {
    if facts.rootless { Manager::User } else { Manager::System }
}

impl Planned {
    pub(super) fn describe(&self) -> Vec<String> {
        let whose = match self.unit.manager {
            Manager::System => "systemd",
            Manager::User => "the user's systemd",
        };
        let mut lines = vec![format!("have {whose} start unit {} with the process in it", self.unit.name)];
        lines.extend(self.own.iter().chain(&self.limits).map(|p| format!("property {}", p.describe())));
        lines
    }

    fn properties(&self, pid: i32) -> Vec<Versioned> {
        let mut properties = self.own.clone();
        if !self.is_slice {
            let pids = vec![Value::Uint32(pid.unsigned_abs())];
            let property = Property::new("PIDs", Value::Array("u".into(), pids));
            properties.push(Versioned { property, since: 0 });
        }
        properties.extend(self.limits.iter().cloned());
        properties
    }
}

/// The cgroup of the manager that our containers belong to: below it are its slices.
pub fn manager_cgroup(facts: &Facts) -> Result<PathBuf> {
    match manager_of(facts) {
        Manager::System => system_manager(Path::new("/proc/1/cgroup")),
        Manager::User => {
            booted()?;
            let mut connection = open(Manager::User, PATIENCE)?;
            let cgroup = connection.property("ControlGroup");
            cgroup.map(PathBuf::from).map_err(|why| connection.explain("Get", "property ControlGroup", why))
        }
    }
}

fn system_manager(file: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::io("read", file, &e))?;
    Ok(unit::system_cgroup(&text))
}

pub(super) struct Systemd;

impl Manage for Systemd {
    /// Nothing is made before the process is there: a scope needs one.
    fn make(&self, plan: &Plan, _: &mut Undo<'_>) -> Result<Created> {
        booted()?;
        let paths = plan.paths();
        for place in paths.all() {
            if let Some(folder) = Folder::open_if_there(&place.folder)? {
                apply::refuse_in_use(&folder)?;
            }
        }
        let mut created = Created::none_yet(paths);
        // Of a slice that was there.
        created.count_oom_kills()?;
        Ok(created)
    }

    fn adopt(&self, plan: &Plan, created: &Created, pid: i32, undo: &mut Undo<'_>) -> Result<()> {
        let Some(planned) = &plan.unit else { return Ok(()) };
        let mut connection = open(planned.unit.manager, PATIENCE)?;
        let started = start(&mut connection, planned, pid);
        // A unit that was there before is another's: it is not ours to stop.
        if !matches!(&started, Err(failure) if failure.is(UNIT_EXISTS)) {
            let paths = created.paths().clone();
            undo.push(move || {
                let_go(&paths, PATIENCE_AFTER_FAILURE).and_then(|left| left.map_or(Ok(()), Err))
            });
        }
        started.map_err(|why| connection.explain("StartTransientUnit", &planned.unit.name, why))?;
        drop(connection);
        if plan.unified && !planned.is_slice {
            check_cgroup(created.paths(), pid)?;
        }
        plan.groups.iter().try_for_each(|group| apply::settle(group, pid))
    }

    fn set(&self, paths: &Paths, values: &[(&str, &str)]) -> Result<()> {
        let Some(unit) = &paths.unit else { return Ok(()) };
        let (properties, unsaid) = properties::of_writes(values.iter().copied());
        unsaid
            .into_iter()
            .next()
            .map_or_else(|| tell(paths, unit, &properties), |why| Err(cannot_be_told(why)))
    }

    fn set_back(&self, paths: &Paths, values: &[(&str, &str)]) -> Result<()> {
        let Some(unit) = &paths.unit else { return Ok(()) };
        let (properties, unsaid) = properties::of_writes(values.iter().copied());
        let mut failed: Vec<Error> = tell(paths, unit, &properties).err().into_iter().collect();
        failed.extend(unsaid.into_iter().map(cannot_be_told));
        if failed.is_empty() { Ok(()) } else { Err(Error::Cleanup(failed)) }
    }

    fn let_go(&self, paths: &Paths, warn: &mut dyn FnMut(String)) -> Result<()> {
        if let Some(left) = let_go(paths, PATIENCE)? {
            warn(left.context("the container's cgroups are removed, its unit may be left").to_string());
        }
        Ok(())
    }
}

fn cannot_be_told(Unsaid { file, what }: Unsaid) -> Error {
    Error::Host { what: format!("systemd cannot be told {file}"), why: what }
}

/// When this returns, systemd has written its own values, and can write over nobody's.
fn tell(paths: &Paths, unit: &Unit, properties: &[Versioned]) -> Result<()> {
    if properties.is_empty() {
        return Ok(());
    }
    let time = CpuTime::look(paths)?;
    let mut connection = open(unit.manager, PATIENCE)?;
    let method = "SetUnitProperties";
    // Not for longer than the unit lives.
    let body = |properties| vec![Value::text(&*unit.name), Value::Bool(true), properties];
    understood(&mut connection, properties, |connection, properties| {
        connection.manager(method, body(properties)).map(drop)
    })
    .map_err(|why| connection.explain(method, &unit.name, why))?;
    // It answers first and writes then, but before it reads what else it is asked.
    let version = connection.property("Version");
    version.map_err(|why| connection.explain("Get", "property Version", why))?;
    time.map_or(Ok(()), |time| time.put_back())
}

/// The one limit that systemd rounds, to whole percents: whatever it is told of a unit, it writes all
/// that it knows of it.
struct CpuTime {
    folder: Folder,
    values: Vec<(&'static str, String)>,
}

impl CpuTime {
    fn look(paths: &Paths) -> Result<Option<Self>> {
        let Some(place) = paths.v1_with("cpu").or(paths.v2.as_ref()) else { return Ok(None) };
        let folder = Folder::open(&place.folder)?;
        let mut values = Vec::new();
        for file in ["cpu.max", "cpu.cfs_period_us", "cpu.cfs_quota_us"] {
            values.extend(folder.read_if_there(file)?.map(|text| (file, text.trim_end().to_owned())));
        }
        Ok(Some(CpuTime { folder, values }))
    }

    fn put_back(&self) -> Result<()> {
        for (file, value) in &self.values {
            if self.folder.read_value(file)? != *value {
                self.folder.write(file, value)?;
            }
        }
        Ok(())
    }
}

/// The words of runc.
fn booted() -> Result<()> {
    const MARK: &str = "/run/systemd/system";
    if Path::new(MARK).is_dir() {
        return Ok(());
    }
    Err(Error::Host {
        what: "systemd not running on this host, cannot use systemd cgroups manager".into(),
        why: format!("there is no {MARK}"),
    })
}

fn open(manager: Manager, patience: Duration) -> Result<Connection> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let servers = match manager {
        Manager::System => servers::of_system(),
        Manager::User => servers::of_user(
            variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            variable("DBUS_SESSION_BUS_ADDRESS").and_then(|address| address.into_string().ok()),
        ),
    };
    Connection::open(&servers, patience)
}

/// The unit, and its job to the end.
fn start(connection: &mut Connection, planned: &Planned, pid: i32) -> std::result::Result<(), Failure> {
    connection.subscribe()?;
    let name = &*planned.unit.name;
    let auxiliary = || Value::Array("(sa(sv))".into(), Vec::new());
    let body = |properties| vec![Value::text(name), Value::text("replace"), properties, auxiliary()];
    let start = |connection: &mut Connection| {
        understood(connection, &planned.properties(pid), |connection, properties| {
            connection.job("StartTransientUnit", body(properties))
        })
    };
    let result = match start(connection) {
        // What failed keeps its name until it is told not to: as runc, once more.
        Err(failure) if failure.is(UNIT_EXISTS) => {
            reset_failed(connection, name)?;
            start(connection)?
        }
        other => other?,
    };
    if result == "done" { Ok(()) } else { Err(Failure::Lost(format!("the job ended with {result:?}"))) }
}

/// A unit that is not there, or did not fail, is what was wanted.
fn reset_failed(connection: &mut Connection, name: &str) -> std::result::Result<(), Failure> {
    match connection.manager("ResetFailedUnit", vec![Value::text(name)]) {
        Ok(_) | Err(Failure::Refused { .. }) => Ok(()),
        Err(lost) => Err(lost),
    }
}

/// With all properties; if systemd does not know one of them or its value, once more with those that
/// its version knows. So nobody asks for the version but on hosts where it matters.
fn understood<T>(
    connection: &mut Connection,
    properties: &[Versioned],
    mut ask: impl FnMut(&mut Connection, Value) -> std::result::Result<T, Failure>,
) -> std::result::Result<T, Failure> {
    match ask(connection, array(properties, u32::MAX)) {
        Err(failure) if failure.is(UNKNOWN_PROPERTY) || failure.is(INVALID_ARGUMENTS) => {
            let version = version(&connection.property("Version")?);
            if properties.iter().all(|property| property.since <= version) {
                return Err(failure);
            }
            ask(connection, array(properties, version))
        }
        other => other,
    }
}

/// `a(sv)`
fn array(properties: &[Versioned], version: u32) -> Value {
    let known = properties.iter().filter(|property| property.since <= version || version == u32::MAX);
    let pair = |Versioned { property, .. }: &Versioned| {
        let value = Value::Variant(Box::new(property.value.clone()));
        Value::Struct(vec![Value::text(&*property.name), value])
    };
    Value::Array("(sv)".into(), known.map(pair).collect())
}

/// `252.39-1~deb12u1`, `v245.4-1.fc32`, `256~rc1`; of anything else nothing new is asked.
fn version(text: &str) -> u32 {
    let digits = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The limits go into the folder of the plan, and the process must be in that one.
fn check_cgroup(paths: &Paths, pid: i32) -> Result<()> {
    let Some(place) = &paths.v2 else { return Ok(()) };
    let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = std::fs::read_to_string(&file).map_err(|e| Error::io("read", &file, &e))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    if Path::new(own) == place.name {
        return Ok(());
    }
    Err(Error::Host {
        what: format!("systemd put the container into cgroup {own}"),
        why: format!("expected was {}", place.name.display()),
    })
}

/// Stops the unit and removes what is left of its cgroups, whatever systemd says. `Some`: they are
/// gone, but systemd did not do its part.
fn let_go(paths: &Paths, patience: Duration) -> Result<Option<Error>> {
    let stopped = paths.unit.as_ref().map_or(Ok(()), |unit| stop(unit, patience));
    match (stopped, paths.remove()) {
        (stopped, Ok(())) => Ok(stopped.err()),
        (Ok(()), removed) => removed.map(|()| None),
        (Err(stopped), Err(removed)) => Err(Error::Cleanup(vec![stopped, removed])),
    }
}

/// Stops the unit if the cgroups, in which nobody is, are its own. One of this name that has others is
/// another container's: the name of a scope does not tell its slice.
pub(super) fn stop_unborn(paths: &Paths) -> Result<()> {
    let (Some(unit), Some(place)) = (&paths.unit, paths.all().next()) else { return Ok(()) };
    let mut connection = open(unit.manager, PATIENCE)?;
    match owns(&mut connection, &unit.name, &place.name) {
        Ok(true) => {
            drop(connection);
            stop(unit, PATIENCE)
        }
        Ok(false) => Ok(()),
        Err(why) => Err(connection.explain("GetUnitByControlGroup", &unit.name, why)),
    }
}

fn owns(connection: &mut Connection, unit: &str, cgroup: &Path) -> std::result::Result<bool, Failure> {
    let mut find = |method, name: &str| match connection.manager(method, vec![Value::text(name)]) {
        Ok(body) => Ok(body.into_iter().next()),
        Err(failure) if failure.is(NO_SUCH_UNIT) => Ok(None),
        Err(failure) => Err(failure),
    };
    let named = find("GetUnit", unit)?;
    // Of a cgroup that is gone it names the slice above.
    Ok(named.is_some() && named == find("GetUnitByControlGroup", &cgroup.to_string_lossy())?)
}

fn stop(unit: &Unit, patience: Duration) -> Result<()> {
    let mut connection = open(unit.manager, patience)?;
    let body = vec![Value::text(&*unit.name), Value::text("replace")];
    let stopped = connection.subscribe().and_then(|()| match connection.job("StopUnit", body) {
        // A scope without processes ends by itself.
        Err(failure) if failure.is(NO_SUCH_UNIT) => Ok(()),
        Ok(result) => {
            reset_failed(&mut connection, &unit.name)?;
            // Skipped: it had ended before its turn came.
            match &*result {
                "done" | "skipped" => Ok(()),
                other => Err(Failure::Lost(format!("the job ended with {other:?}"))),
            }
        }
        Err(failure) => Err(failure),
    });
    stopped.map_err(|why| connection.explain("StopUnit", &unit.name, why))
}

#[cfg(test)]
mod tests;
