//! What a new file system is told: its parameters, one by one (`fsconfig(2)`) or as one string (`mount(2)`).

use std::ffi::{CStr, CString};

use super::Wrong;
use super::words::Words;

/// A flag has no value.
pub(super) type Parameter = (CString, Option<CString>);

/// The longest value that `fsconfig(2)` takes.
const FSCONFIG_MAX: usize = 255;

/// The words of a mount that are its file system's.
pub(super) fn of(words: &Words, read_only: bool) -> Result<Vec<Parameter>, Wrong> {
    let mut parameters = Vec::new();
    if read_only {
        parameters.push((c"ro".to_owned(), None));
    }
    for flag in &words.superblock {
        parameters.push((c_string(flag)?, None));
    }
    for option in words.data.iter().flat_map(|o| split_data(o)).filter(|o| !o.is_empty()) {
        parameters.push(match option.split_once('=') {
            Some((key, value)) => (c_string(key)?, Some(c_string(unquoted(key, value))?)),
            None => (c_string(option)?, None),
        });
    }
    Ok(parameters)
}

/// All of them as one string, if one is too long to be told by itself.
pub(super) fn too_long_for_fsconfig(parameters: &[Parameter]) -> Result<Option<CString>, Wrong> {
    let long = parameters.iter().any(|(_, v)| v.as_ref().is_some_and(|v| v.count_bytes() > FSCONFIG_MAX));
    if long { joined(parameters).map(Some) } else { Ok(None) }
}

/// The first Linux that takes the layers of an overlay one by one (`lowerdir+`).
pub(super) const LOWERDIR_PLUS: (u32, u32) = (6, 7);

/// A `lowerdir` that is too long for `fsconfig(2)`, as one option for each layer. One with data-only
/// layers (`::`) is left as it is: those have another option.
pub(super) fn split_layers((key, value): Parameter) -> Vec<Parameter> {
    let layers = match &value {
        Some(value) if key.as_c_str() == c"lowerdir" && value.count_bytes() > FSCONFIG_MAX => {
            value.to_bytes()
        }
        _ => return vec![(key, value)],
    };
    let mut out = Vec::new();
    let mut layer = Vec::new();
    let mut bytes = layers.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            // A folder's own colon or backslash is escaped in the list, and must not be in a single one.
            b'\\' => layer.extend(bytes.next()),
            b':' if bytes.peek() == Some(&b':') => return vec![(key, value)],
            b':' => out.push(std::mem::take(&mut layer)),
            other => layer.push(other),
        }
    }
    out.push(layer);
    let option = |layer| Some((c"lowerdir+".to_owned(), Some(CString::new(layer).ok()?)));
    out.into_iter().filter_map(option).collect()
}

/// Options of overlay and others hold commas only escaped (`\,`), labels of SELinux between quotes;
/// everything else ends at one.
fn split_data(option: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    let mut quoted = false;
    option.split(move |c| {
        quoted ^= c == '"' && !escaped;
        let cut = c == ',' && !escaped && !quoted;
        escaped = c == '\\' && !escaped;
        cut
    })
}

/// The words by which a file system is labelled as it is mounted (`mount(8)`).
pub(super) fn is_context(key: &CStr) -> bool {
    [c"context", c"fscontext", c"defcontext", c"rootcontext"].contains(&key)
}

/// `mount(2)` wants a label between quotes, `fsconfig(2)` without.
fn unquoted<'v>(key: &str, value: &'v str) -> &'v str {
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    bare.filter(|_| key.ends_with("context")).unwrap_or(value)
}

fn joined(parameters: &[Parameter]) -> Result<CString, Wrong> {
    let mut data = Vec::new();
    for (key, value) in parameters {
        if !data.is_empty() {
            data.push(b',');
        }
        data.extend_from_slice(key.as_bytes());
        if let Some(value) = value {
            // A label has commas of its own.
            let quote: &[u8] = if is_context(key) { b"\"" } else { b"" };
            data.push(b'=');
            for part in [quote, value.as_bytes(), quote] {
                data.extend_from_slice(part);
            }
        }
    }
    CString::new(data).map_err(|_| ("/options", "holds a NUL byte".into()))
}

pub(super) fn c_string(text: &str) -> Result<CString, Wrong> {
    CString::new(text).map_err(|_| ("/options", format!("{text:?} holds a NUL byte")))
}
