//! What there is to see of a container, without what differs from one to the next of the same configuration.

use spec_tests::{Container, Value, json, namespaces};

/// The lines of its program.
pub(crate) fn seen(container: &Container, output: &str) -> Value {
    let parse = |line: &str| {
        let mut line: Value =
            serde_json::from_str(line.trim()).unwrap_or_else(|_| panic!("no line of the program: {line:?}"));
        if line.get("capabilities").is_some() {
            generalize(&mut line);
        }
        line
    };
    Value::Array(
        output
            .replace(container.id(), "ID")
            .replace(container.dir().to_str().unwrap(), "DIR")
            .lines()
            .map(parse)
            .collect(),
    )
}

fn generalize(facts: &mut Value) {
    let all = facts.as_object_mut().unwrap();
    // The clocks go on; the tracer stays until the program begins.
    for volatile in ["clocks", "tracer", "pid", "ppid", "pgid", "sid"] {
        all.remove(volatile);
    }
    for (kind, link) in all["namespaces"].as_object_mut().unwrap() {
        if link.is_null() {
            continue;
        }
        let file = kind.strip_suffix("_for_children").unwrap_or(kind);
        let whose = if *link == namespaces::own(file) { "the host's" } else { "another" };
        *link = json!(whose);
    }
    let mounts = all["mounts"].as_array_mut().unwrap();
    let ids: Vec<Value> = mounts.iter().map(|mount| mount["id"].clone()).collect();
    for mount in mounts {
        let mount = mount.as_object_mut().unwrap();
        let parent = ids.iter().position(|id| *id == mount["parent"]);
        mount["parent"] = json!(parent);
        mount.remove("id");
        mount.remove("device");
        let propagation = mount["propagation"].to_string();
        mount["propagation"] = json!(without_digits(&propagation));
    }
    for target in all["fds"].as_object_mut().unwrap().values_mut() {
        *target = json!(without_digits(&target.to_string()));
    }
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The first place where two documents differ.
pub(crate) fn difference(expected: &Value, found: &Value) -> Option<String> {
    let below = |name: &str, a: &Value, b: &Value| difference(a, b).map(|more| format!("/{name}{more}"));
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            below(key, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(a), Value::Array(b)) => (0..a.len().max(b.len())).find_map(|index| {
            below(
                &index.to_string(),
                a.get(index).unwrap_or(&Value::Null),
                b.get(index).unwrap_or(&Value::Null),
            )
        }),
        (a, b) if a == b => None,
        (a, b) => Some(format!(": expected {a}, found {b}")),
    }
}
