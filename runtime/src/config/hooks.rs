//! `hooks`.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config.md#posix-platform-hooks>

use super::read::Node;
use super::{Hook, Hooks};

pub(super) fn read(document: &Node) -> Hooks {
    let Some(hooks) = document.object("hooks") else { return Hooks::default() };
    let list = |key| hooks.each_object(key, hook);
    Hooks {
        prestart: list("prestart"),
        create_runtime: list("createRuntime"),
        create_container: list("createContainer"),
        start_container: list("startContainer"),
        poststart: list("poststart"),
        poststop: list("poststop"),
    }
}

fn hook(node: &Node) -> Option<Hook> {
    let timeout = node.integer_in("timeout", 1, u32::MAX);
    let env = node.c_strings("env");
    let mut args = node.c_strings("args");
    let path = node.required("path")?.as_absolute_path()?;
    if args.is_empty() {
        args.push(path.clone());
    }
    Some(Hook { path, args, env, timeout })
}
