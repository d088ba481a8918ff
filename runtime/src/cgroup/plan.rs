//! From `cgroupsPath` and `linux.resources` to a list of folders and writes. Pure.

use std::path::PathBuf;

use super::controllers::{CONTROLLERS, first_limit};
use super::devices::Policy;
use super::paths::{Paths, Place, place};
use super::resources::{Problems, Write};
use super::{Driver, devices_bpf, systemd};
use crate::config::id::ContainerId;
use crate::config::{Config, Mount, Namespace, Resources};
use crate::error::{Error, Problem, Result};
use crate::host::{CgroupLayout, Facts, Hierarchy};
use crate::sys::bpf::Instruction;

/// What [`create`](super::create) will do, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(super) driver: Driver,
    /// v2 is the only hierarchy.
    pub(super) unified: bool,
    pub(super) groups: Vec<Group>,
    /// systemd's, where that makes them.
    pub(super) unit: Option<systemd::Planned>,
}

/// One cgroup of one hierarchy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) place: Place,
    pub(super) mountpoint: PathBuf,
    /// v2: controllers that the folders above must hand down.
    pub(super) enable: Vec<String>,
    /// Nothing was asked of it: an unprivileged user who may not have it goes without.
    pub(super) optional: bool,
    /// v2: whom the folder is given to, so that the container can make cgroups of its own.
    pub(super) owner: Option<u32>,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Write(Write),
    /// Which file the kernel has depends on its build and modules: the first of them that is there
    /// is written.
    FirstThere(Vec<Write>),
    /// `checkBeforeUpdate`: refuse a limit that is below what is used now.
    CheckUsage {
        limit: Option<i64>,
        swap: Option<i64>,
    },
    /// v2: attach a program that decides about devices.
    Devices(Vec<Instruction>),
}

/// Where the container's cgroups will be, and what is written into them.
pub fn plan(id: &ContainerId, config: &Config, facts: &Facts, driver: Driver) -> Result<Plan> {
    let resources = &config.linux.resources;
    let unit = match driver {
        Driver::Systemd => Some(systemd::Location::new(id, config, facts)?),
        Driver::Disabled => {
            return match first_limit(resources) {
                Some(limit) => Err(Error::Host {
                    what: format!("linux.resources.{limit}"),
                    why: "cannot set limits without cgroups".into(),
                }),
                None => Ok(Plan { driver, unified: false, groups: Vec::new(), unit: None }),
            };
        }
        Driver::Cgroupfs => None,
    };
    let mut builder = Builder::for_new(id, config, facts, unit.as_ref());
    builder.refuse_the_top(&config.linux.cgroups_path);
    builder.controllers(resources)?;
    builder.devices(config)?;
    builder.unified(resources)?;
    let unified = facts.cgroup.is_unified();
    let unit = unit.map(|unit| {
        unit.plan(config, &builder.groups, unified, builder.v1_devices.as_ref(), &mut builder.problems)
    });
    let mut groups = builder.finish()?;
    for group in &mut groups {
        group.optional &= !group.steps.iter().any(is_asked);
        if unified {
            group.owner = owner(config);
        } else if group.steps.is_empty() {
            // On a hybrid host v2 is there for its bare tree: what the host hands down in it is
            // the host's affair unless we need it.
            group.enable.clear();
        }
    }
    Ok(Plan { driver, unified, groups, unit })
}

/// What a change of limits writes into the cgroups that a container has. What `resources` does not
/// mention stays; device rules stay in any case, as with runc.
///
/// A limit whose hierarchy is not among `paths` is refused.
pub fn plan_update(paths: &Paths, resources: &Resources, facts: &Facts) -> Result<Plan> {
    let mut builder = Builder::for_update(paths, facts);
    builder.controllers(resources)?;
    builder.unified(resources)?;
    let mut groups = builder.finish()?;
    groups.retain(|group| !group.steps.is_empty());
    Ok(Plan { driver: paths.driver, unified: paths.is_unified(), groups, unit: None })
}

/// Rules for devices are always there; whoever may not have a cgroup cannot open more devices by
/// that.
pub(super) fn is_asked(step: &Step) -> bool {
    match step {
        Step::Write(write) => !write.default && !write.file.starts_with("devices."),
        Step::FirstThere(_) | Step::CheckUsage { .. } => true,
        Step::Devices(_) => false,
    }
}

impl Plan {
    /// Where the cgroups will be, for the record that is written before the first of them is made.
    pub fn paths(&self) -> Paths {
        let mut paths = Paths::none(self.driver);
        for group in &self.groups {
            paths.add(group.place.clone());
        }
        paths.unit = self.unit.as_ref().map(|planned| planned.unit.clone());
        paths
    }

    /// The container's process can be born in its cgroup: v2 alone, and systemd does not have to be
    /// told of the process first.
    pub fn bears_inside(&self) -> bool {
        self.unified && self.unit.is_none() && !self.groups.is_empty()
    }

    /// Nothing is made before the process is there.
    pub fn needs_process(&self) -> bool {
        self.unit.is_some()
    }

    /// One line for each effect.
    pub fn describe(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.unit.iter().flat_map(systemd::Planned::describe).collect();
        for group in &self.groups {
            let verb = if self.needs_process() { "enter" } else { "make" };
            lines.push(format!("{verb} cgroup {}", group.place.folder.display()));
            if !group.enable.is_empty() {
                lines.push(format!("enable controllers {} above it", group.enable.join(" ")));
            }
            lines.extend(group.steps.iter().map(Step::describe));
            if let Some(owner) = group.owner {
                lines.push(format!("give it to user {owner}"));
            }
        }
        lines
    }
}

impl Paths {
    pub(super) fn add(&mut self, place: Place) {
        if place.controllers.is_empty() {
            self.v2 = Some(place);
        } else {
            self.v1.push(place);
        }
    }
}

impl Group {
    /// Files and their values. Of files that stand for each other the first speaks for all.
    pub(super) fn writes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.steps.iter().filter_map(|step| {
            let write = match step {
                Step::Write(write) => write,
                Step::FirstThere(writes) => writes.first()?,
                Step::CheckUsage { .. } | Step::Devices(_) => return None,
            };
            Some((&*write.file, &*write.value))
        })
    }
}

impl Step {
    pub(super) fn describe(&self) -> String {
        match self {
            Step::Write(write) => {
                let when = if write.default { " (unless it is new)" } else { "" };
                format!("write {} = {}{when}", write.file, write.value)
            }
            Step::FirstThere(writes) => {
                let alternatives: Vec<_> =
                    writes.iter().map(|write| format!("{} = {}", write.file, write.value)).collect();
                format!("write {}: the first that is there", alternatives.join(", or "))
            }
            Step::CheckUsage { .. } => {
                "check that no more memory is used than the limit (unless it is new)".into()
            }
            Step::Devices(program) => format!("attach a device filter of {} instructions", program.len()),
        }
    }
}

/// The version of the hierarchy that has a controller, and which group that is.
#[derive(Clone, Copy)]
enum Home {
    V1(usize),
    V2(usize),
}

struct Builder<'a> {
    layout: &'a CgroupLayout,
    /// v2 is all there is for this container.
    unified: bool,
    rootless: bool,
    in_user_namespace: bool,
    groups: Vec<Group>,
    /// The rules, if a hierarchy of v1 has them.
    v1_devices: Option<Policy>,
    problems: Problems,
}

impl<'a> Builder<'a> {
    fn for_new(
        id: &ContainerId,
        config: &Config,
        facts: &'a Facts,
        unit: Option<&systemd::Location>,
    ) -> Self {
        let layout = &facts.cgroup;
        let path = config.linux.cgroups_path.as_deref().filter(|p| !p.is_empty());
        let group = |hierarchy: &Hierarchy, is_v2: bool| Group {
            place: match unit {
                Some(unit) => unit.place(hierarchy, is_v2),
                None => place(hierarchy, is_v2, layout.is_unified(), path, id.as_str()),
            },
            mountpoint: hierarchy.mountpoint.clone(),
            enable: if is_v2 { hierarchy.controllers.clone() } else { Vec::new() },
            optional: facts.rootless && path.is_none(),
            owner: None,
            steps: Vec::new(),
        };
        let v1 = layout.v1.iter().map(|h| group(h, false));
        let v2 = layout.v2.iter().map(|h| group(h, true));
        Self::new(facts, layout.is_unified(), v1.chain(v2).collect())
    }

    /// The cgroups are there: nothing is made, enabled or given away.
    fn for_update(paths: &Paths, facts: &'a Facts) -> Self {
        let group = |place: &Place, hierarchy: &Hierarchy| Group {
            place: place.clone(),
            mountpoint: hierarchy.mountpoint.clone(),
            enable: Vec::new(),
            optional: false,
            owner: None,
            steps: Vec::new(),
        };
        let v1 = paths.v1.iter().filter_map(|place| {
            let hierarchy = facts.cgroup.v1.iter().find(|h| h.controllers == place.controllers)?;
            Some(group(place, hierarchy))
        });
        let v2 = paths.v2.iter().zip(&facts.cgroup.v2).map(|(place, hierarchy)| group(place, hierarchy));
        Self::new(facts, paths.is_unified(), v1.chain(v2).collect())
    }

    fn new(facts: &'a Facts, unified: bool, groups: Vec<Group>) -> Self {
        Builder {
            layout: &facts.cgroup,
            unified,
            rootless: facts.rootless,
            in_user_namespace: facts.in_user_namespace,
            groups,
            v1_devices: None,
            problems: Problems::new(),
        }
    }

    /// A hybrid host has each controller in one hierarchy only, v1's or v2's: look in both.
    fn home(&self, controller: &str) -> Option<Home> {
        let has = |controllers: &[String]| controllers.iter().any(|c| c == controller);
        match self.groups.iter().position(|group| has(&group.place.controllers)) {
            Some(index) => Some(Home::V1(index)),
            None => self.v2().filter(|_| self.layout.v2.as_ref().is_some_and(|v2| has(&v2.controllers))),
        }
    }

    fn v2(&self) -> Option<Home> {
        self.groups.iter().position(|group| group.place.controllers.is_empty()).map(Home::V2)
    }

    fn add(&mut self, home: Home, writes: impl IntoIterator<Item = Step>) {
        let (Home::V1(index) | Home::V2(index)) = home;
        self.groups[index].steps.extend(writes);
    }

    /// What is deleted with the container must not be what everybody is in.
    fn refuse_the_top(&mut self, path: &Option<String>) {
        if let Some(group) = self.groups.iter().find(|group| group.place.folder == group.mountpoint) {
            let path = path.as_deref().unwrap_or_default();
            let top = group.mountpoint.display();
            let what = format!("{path:?} leads to {top}, the cgroup of all others: it needs a name below");
            self.problems.push(Problem { pointer: "/linux/cgroupsPath".into(), what });
        }
    }

    fn controllers(&mut self, resources: &Resources) -> Result<()> {
        for controller in &CONTROLLERS {
            let home = match self.home(controller.v1) {
                Some(home @ Home::V1(_)) => Some(home),
                _ => self.home(controller.v2),
            };
            let on_v2 = matches!(home, Some(Home::V2(_))) || home.is_none() && self.unified;
            let before = self.problems.len();
            let steps = if on_v2 { controller.on_v2 } else { controller.on_v1 };
            let steps = steps(resources, &mut self.problems);
            // Without the controller there is no limit; only that one is asked for is an error.
            match home {
                Some(home) => self.add(home, steps),
                None if self.problems.len() > before || steps.iter().any(is_asked) => {
                    return Err(self.missing(if on_v2 { controller.v2 } else { controller.v1 }));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn missing(&self, controller: &str) -> Error {
        let has = |h: &Hierarchy| h.controllers.iter().any(|c| c == controller);
        let why = match &self.layout.v2 {
            // An unprivileged user's container may do without.
            v2 if self.layout.v1.iter().chain(v2).any(has) => {
                format!("the container has no cgroup of the {controller} controller")
            }
            Some(_) if self.unified && matches!(controller, "net_cls" | "net_prio") => {
                format!("cgroup v2 has no {controller} controller")
            }
            Some(v2) if self.unified => {
                let file = v2.mountpoint.join("cgroup.controllers");
                format!("the {controller} controller is not available: {} does not list it", file.display())
            }
            _ => format!("the {controller} controller is not mounted on this host"),
        };
        Error::Host { what: format!("cannot set {controller} limit"), why }
    }

    fn devices(&mut self, config: &Config) -> Result<()> {
        let linux = &config.linux;
        // In a user namespace no node is made, those of the host are bound.
        let nodes = if linux.namespaces.user == Namespace::Inherit { &linux.devices[..] } else { &[] };
        let policy = Policy::new(&linux.resources.devices, nodes, &mut self.problems);
        // The kernel lets nobody in a user namespace change device rules or load such a program;
        // and who is there can make no device node anyway.
        if self.in_user_namespace {
            return Ok(());
        }
        match (self.home("devices"), self.v2()) {
            (Some(home), _) => {
                self.add(home, policy.writes().into_iter().map(Step::Write));
                self.v1_devices = Some(policy);
            }
            (None, Some(v2)) => {
                // Loading needs CAP_SYS_ADMIN of the host, which an unprivileged user has not.
                if !policy.allows_everything() && !self.rootless {
                    self.add(v2, [Step::Devices(devices_bpf::compile(&policy))]);
                }
            }
            (None, None) if policy.allows_everything() || self.rootless => {}
            (None, None) => {
                let what = "cannot restrict devices".into();
                return Err(Error::Host { what, why: "the devices controller is not mounted".into() });
            }
        }
        Ok(())
    }

    fn unified(&mut self, resources: &Resources) -> Result<()> {
        if resources.unified.is_empty() {
            return Ok(());
        }
        let Some(v2) = self.v2().filter(|_| self.unified) else {
            return Err(Error::Host {
                what: "linux.resources.unified".into(),
                why: "invalid configuration: cannot use unified on cgroup v1".into(),
            });
        };
        for (file, value) in &resources.unified {
            let mut refuse = |what: String| {
                // RFC 6901: "/" in a key is "~1".
                let key = file.replace('~', "~0").replace('/', "~1");
                self.problems.push(Problem { pointer: format!("/linux/resources/unified/{key}"), what });
            };
            match file.split_once('.') {
                _ if file.contains('/') => {
                    refuse(format!("unified resource {file:?} must be a file name (no slashes)"));
                }
                None => refuse(format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER")),
                Some((controller, _)) if controller != "cgroup" && self.home(controller).is_none() => {
                    return Err(Error::Host {
                        what: format!("unified resource {file:?} can't be set"),
                        why: format!("controller {controller:?} not available"),
                    });
                }
                // Files with many keys (io.max) take one line at a time.
                Some(_) => {
                    let lines = value.split('\n').filter(|line| !line.is_empty());
                    let writes: Vec<_> =
                        lines.map(|line| Step::Write(Write::new(file.clone(), line))).collect();
                    self.add(v2, writes);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Group>> {
        if !self.problems.is_empty() {
            return Err(Error::Config { file: "config.json".into(), problems: self.problems });
        }
        Ok(self.groups)
    }
}

/// The user that the cgroup is given to: with a cgroup namespace of its own and a writable cgroup
/// mount the container is meant to make cgroups itself (systemd in a container). The specification
/// says so: config-linux.md, "Cgroup ownership".
fn owner(config: &Config) -> Option<u32> {
    let writable = |mount: &Mount| {
        let is_cgroup = mount.kind.as_ref().is_some_and(|k| k.as_bytes().starts_with(b"cgroup"));
        let read_only = mount.options.iter().rev().find(|o| *o == "ro" || *o == "rw");
        is_cgroup
            && mount.destination.as_bytes() == b"/sys/fs/cgroup"
            && read_only.is_none_or(|option| option == "rw")
    };
    if config.linux.namespaces.cgroup != Namespace::New || !config.mounts.iter().any(writable) {
        return None;
    }
    let uid = config.process.user.uid;
    let host = match &config.linux.namespaces.user {
        Namespace::Inherit => Some(uid),
        _ => config.linux.uid_mappings.iter().find_map(|map| {
            let offset = uid.checked_sub(map.container_id).filter(|&o| o < map.size)?;
            map.host_id.checked_add(offset)
        }),
    };
    host.filter(|&uid| uid != 0)
}
