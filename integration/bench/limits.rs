//! The smallest limit of memory with which a container starts.

use integration::small_limit::{SmallLimit, has_memory_controller};

use crate::Options;

/// The line of the table; none without a floor to compare with.
pub(crate) fn measure(options: &Options) -> Result<Option<String>, String> {
    let Some(floor) = &options.floor else { return Ok(None) };
    if !has_memory_controller() {
        return Ok(Some("  smallest memory limit: there is no memory controller in this view".to_owned()));
    }
    let limits = SmallLimit::new(floor, &options.idle).map_err(|error| format!("a bundle: {error}"))?;
    let mut line = "  smallest memory limit that starts, KiB:".to_owned();
    let mut add = |name: &str, limit: Option<u64>| {
        let limit = limit.map_or("none".to_owned(), |limit| (limit >> 10).to_string());
        line.push_str(&format!("  {name} {limit}"));
    };
    add("floor", limits.of_floor());
    for runtime in &options.runtimes {
        let limit = limits.of(&[], runtime).map_err(|error| format!("{}: {error}", runtime.display()))?;
        add(&runtime.file_name().unwrap_or_default().to_string_lossy(), limit);
    }
    Ok(Some(line))
}
