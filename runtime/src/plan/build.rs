//! [`build`]: each facility plans its own part; here the parts are put together, and all problems
//! are collected before anyone is told.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::order::{self, Parts};
use super::{Plan, Program};
use crate::cgroup::{self, Driver};
use crate::config::capability;
use crate::config::id::ContainerId;
use crate::config::{Capabilities, Config, Namespace};
use crate::error::{Error, Problem, Result};
use crate::host::{Facts, Hierarchy};
use crate::limits::Limits;
use crate::lsm;
use crate::namespace::idmap::{self, IdMaps};
use crate::namespace::{Kind, plan as namespaces};
use crate::privilege::{self, Privilege};
use crate::rootfs::plan::{CgroupMounts, Shown};
use crate::rootfs::{devices, plan as mounts, sysctl};
use crate::seccomp;
use crate::sys::slots;
use crate::sys::spawn::Argv;

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_MKNOD: u64 = 1 << 27;

/// What the caller asks for beside the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    pub bundle: PathBuf,
    pub driver: Driver,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Descriptors from 3 on that go through to the process.
    pub preserve_fds: u32,
    /// Variables that the runtime adds to the environment.
    pub env: Vec<CString>,
}

/// Compiles. All that is wrong with the configuration on this host comes at once.
pub fn build(id: &ContainerId, config: &Config, facts: &Facts, options: &Options) -> Result<Plan> {
    let mut problems = Vec::new();
    let privileged = facts.capabilities & CAP_SYS_ADMIN != 0;
    check_host(config, facts, &mut problems);
    let cgroup = match cgroup::plan(id, config, facts, options.driver) {
        Ok(plan) => Some(plan),
        Err(Error::Config { problems: more, .. }) => {
            problems.extend(more);
            None
        }
        Err(other) => return Err(other),
    };
    let paths = cgroup.as_ref().map_or_else(|| cgroup::Paths::none(Driver::Disabled), cgroup::Plan::paths);
    let late = cgroup.as_ref().is_some_and(cgroup::Plan::needs_process);
    let cgroup_mounts = CgroupMounts { late, ..cgroup_mounts(facts, &paths) };
    let born_in_cgroup = cgroup.as_ref().is_some_and(cgroup::Plan::bears_inside);

    let namespaces = namespaces::plan(&namespaces::Input {
        namespaces: &config.linux.namespaces,
        privileged,
        born_in_cgroup,
        first_slot: slots::FIRST_FREE,
    });
    let mut next_slot = slots::FIRST_FREE + Kind::ALL.len();
    let mounts = collect(
        mounts::plan(&mounts::Input {
            config,
            bundle: &options.bundle,
            privileged,
            cgroups: &cgroup_mounts,
            kernel: facts.kernel,
            first_slot: next_slot,
        }),
        &mut problems,
    )
    .unwrap_or_default();
    next_slot += mounts.trees.len();
    let may_mknod = facts.capabilities & CAP_MKNOD != 0 && !facts.in_user_namespace;
    let (nodes, node_trees) = if mounts.dev_is_bound || config.linux.namespaces.mount == Namespace::Inherit {
        (Vec::new(), Vec::new())
    } else {
        devices::plan(config, privileged, may_mknod, next_slot)
    };
    next_slot += node_trees.len();

    let root = mounts::root_tree(config, path_c(&config.root.path));
    let mut trees = Vec::new();
    let own_root = config.linux.namespaces.mount != Namespace::Inherit;
    if privileged && own_root {
        trees.push((slots::ROOT, root.clone()));
    }
    trees.extend(mounts.trees.iter().cloned());
    trees.extend(node_trees);

    let id_maps = if namespaces.new_user {
        let linux = &config.linux;
        let maps = IdMaps::plan(&linux.uid_mappings, &linux.gid_mappings, facts);
        collect(maps, &mut problems)
    } else {
        None
    };
    let setgroups_denied = id_maps.as_ref().is_some_and(|maps| maps.deny_setgroups);
    let user = &config.process.user;
    if setgroups_denied && !user.additional_gids.is_empty() {
        problems.push(Problem {
            pointer: "/process/user/additionalGids".into(),
            what: "an unprivileged user without subordinate gids may not set groups".into(),
        });
    }
    let mut warnings = config.warnings.clone();
    let capabilities = config.process.capabilities.map(|sets| possible(sets, &mut warnings));
    let privilege = Privilege::plan(
        user,
        capabilities,
        facts.last_capability,
        setgroups_denied || facts.setgroups_denied,
    );
    let labels = collect(labels(config, facts), &mut problems).unwrap_or_default();
    let sysctls = collect(sysctl::plan(&config.linux.sysctl), &mut problems).unwrap_or_default();
    let filter = match &config.linux.seccomp {
        Some(profile) => match seccomp::Arch::host() {
            Some(arch) => collect(seccomp::compile(profile, arch), &mut problems),
            None => {
                problems.push(Problem {
                    pointer: "/linux/seccomp".into(),
                    what: "seccomp filters are built for x86-64 and aarch64 only".into(),
                });
                None
            }
        },
        None => None,
    };
    let asks = filter.as_ref().map_or(0, |filter| filter.flags);
    if asks & libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0 && facts.kernel < (5, 19) {
        problems.push(Problem {
            pointer: "/linux/seccomp/flags".into(),
            what: "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs Linux 5.19".into(),
        });
    }
    let Some(cgroup) = cgroup.filter(|_| problems.is_empty()) else {
        return Err(Error::Config { file: "config.json".into(), problems });
    };

    warnings.extend(filter.iter().flat_map(|f| f.warnings.iter().cloned()));
    let program = program(config, options);
    let full_mounts: Vec<_> = facts.full_mounts.iter().map(|path| path_c(path)).collect();
    let steps = order::init(&Parts {
        id,
        config,
        options,
        namespaces: &namespaces,
        undumpable_at_once: facts.euid == 0,
        setup_ids: setup_ids(config, id_maps.as_ref()),
        root: (!privileged && own_root).then_some(root),
        mounts: &mounts,
        nodes,
        sysctls,
        labels,
        filter,
        privilege,
        program: &program,
        full_mounts: &full_mounts,
    });
    Ok(Plan {
        cgroup,
        trees,
        namespaces,
        id_maps,
        timens_offsets: namespaces::timens_offsets(&config.linux.time_offsets),
        limits: Limits::of_init(&config.process),
        prestart: config.hooks.prestart.clone(),
        create_runtime: config.hooks.create_runtime.clone(),
        steps,
        program,
        slots: next_slot,
        warnings,
    })
}

/// Adds the problems, if that is what came out.
fn collect<T>(result: std::result::Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(more) => {
            problems.extend(more);
            None
        }
    }
}

fn labels(config: &Config, facts: &Facts) -> std::result::Result<Vec<lsm::Label>, Vec<Problem>> {
    let enabled = lsm::Enabled { apparmor: facts.apparmor, selinux: facts.selinux };
    let mut problems = Vec::new();
    let labels = collect(lsm::plan(&config.process, enabled), &mut problems).unwrap_or_default();
    problems.iter_mut().for_each(|problem| problem.pointer.insert_str(0, "/process"));
    if config.linux.mount_label.is_some()
        && let Err(what) = lsm::selinux::plan(enabled.selinux)
    {
        problems.push(Problem { pointer: "/linux/mountLabel".into(), what: what.into() });
    }
    if problems.is_empty() { Ok(labels) } else { Err(problems) }
}

/// What this host or this user cannot do, and what needs a namespace that is not there.
fn check_host(config: &Config, facts: &Facts, problems: &mut Vec<Problem>) {
    let mut problem = |pointer: &str, what: String| {
        problems.push(Problem { pointer: pointer.into(), what });
    };
    if facts.kernel < (5, 12) {
        let (major, minor) = facts.kernel;
        problem(
            "",
            format!("Linux {major}.{minor} is too old: tare needs 5.12 (mount_setattr, openat2, clone3)"),
        );
    }
    let namespaces = &config.linux.namespaces;
    if namespaces.mount == Namespace::Inherit {
        let needs = [
            ("/mounts", !config.mounts.is_empty()),
            ("/linux/devices", !config.linux.devices.is_empty()),
            ("/linux/rootfsPropagation", config.linux.rootfs_propagation.is_some()),
            ("/root/readonly", config.root.readonly),
        ];
        for (pointer, _) in needs.into_iter().filter(|(_, asked)| *asked) {
            problem(pointer, "needs a mount namespace: it would change the host's mounts".into());
        }
    }
    if namespaces.user != Namespace::Inherit {
        return;
    }
    if facts.euid != 0 {
        // What else he may not do follows from this.
        let what = "an unprivileged user needs a user namespace (see `tare spec --rootless`)";
        return problem("/linux/namespaces", what.into());
    }
    let wanted = config.process.capabilities.unwrap_or_default();
    let sets = [
        ("effective", wanted.effective),
        ("permitted", wanted.permitted),
        ("inheritable", wanted.inheritable),
    ];
    for (set, wanted) in sets {
        let lacking = wanted & !facts.capabilities;
        if lacking != 0 {
            let names = capability_names(lacking).join(", ");
            let what = format!("the runtime cannot give what it does not have: {names}");
            problem(&format!("/process/capabilities/{set}"), what);
        }
    }
}

fn capability_names(set: u64) -> Vec<String> {
    capability::ALL.iter().filter(|c| set & c.bitmask() != 0).map(ToString::to_string).collect()
}

/// An ambient capability must be permitted and inheritable (`capabilities(7)`); runc leaves out what
/// is not, and bundles that `runc spec` has made count on it.
pub fn possible(mut sets: Capabilities, warnings: &mut Vec<String>) -> Capabilities {
    let impossible = sets.ambient & !(sets.permitted & sets.inheritable);
    if impossible != 0 {
        let names = capability_names(impossible).join(", ");
        warnings.push(format!("ambient without being permitted and inheritable, left out: {names}"));
        sets.ambient &= !impossible;
    }
    sets
}

/// What a mount of type `cgroup` shows: the container's own cgroups.
fn cgroup_mounts(facts: &Facts, paths: &cgroup::Paths) -> CgroupMounts {
    let layout = &facts.cgroup;
    // A rootless container stays where we are when it may not have a cgroup of its own.
    let own = |hierarchy: &Hierarchy| facts.rootless.then(|| hierarchy.own_folder());
    if layout.is_unified() {
        let unified = layout.v2.as_ref().map(|v2| match &paths.v2 {
            Some(place) => Shown { folder: place.folder.clone(), own: own(v2) },
            None => Shown { folder: v2.own_folder(), own: None },
        });
        return CgroupMounts { unified, ..CgroupMounts::default() };
    }
    let mut mounts = CgroupMounts::default();
    if paths.is_none() {
        for hierarchy in &layout.v1 {
            let name = hierarchy.mountpoint.file_name().unwrap_or_default().to_string_lossy().into_owned();
            mounts.hierarchies.push((name, Shown { folder: hierarchy.own_folder(), own: None }));
        }
        return mounts;
    }
    for view in cgroup::views(layout, paths) {
        let folder = view.folder.to_string_lossy().into_owned();
        mounts.links.extend(view.links.into_iter().map(|link| (link, folder.clone())));
        let hierarchy = layout.v1.iter().find(|hierarchy| view.source.starts_with(&hierarchy.mountpoint));
        mounts.hierarchies.push((folder, Shown { own: hierarchy.and_then(own), folder: view.source }));
    }
    mounts
}

/// In a user namespace: the ids for all that is made before the process becomes its own user.
fn setup_ids(config: &Config, maps: Option<&IdMaps>) -> Option<(u32, u32)> {
    match (&config.linux.namespaces.user, maps) {
        (Namespace::Inherit, _) => None,
        (_, Some(maps)) => Some(maps.setup_ids()),
        // Joined: the mappings are those that it has; the configuration may repeat them.
        _ => Some((idmap::first_id(&config.linux.uid_mappings), idmap::first_id(&config.linux.gid_mappings))),
    }
}

fn program(config: &Config, options: &Options) -> Program {
    let mut env = privilege::environment(&config.process.env);
    env.extend(options.env.iter().cloned());
    Program::new(&config.process.args, env)
}

impl Program {
    pub fn new(args: &[CString], env: Vec<CString>) -> Self {
        let candidates = args.first().map(|program| privilege::candidates(program, &env)).unwrap_or_default();
        let find_home = privilege::variable(&env, "HOME").is_none_or(<[u8]>::is_empty);
        let env = env.into_iter().filter(|v| !find_home || !v.to_bytes().starts_with(b"HOME=")).collect();
        Self { args: Argv::new(args.to_vec()), env: Argv::new(env), candidates, find_home }
    }
}

/// Paths of a checked configuration hold no NUL.
fn path_c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
