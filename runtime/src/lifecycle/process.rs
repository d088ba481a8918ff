//! The process of an exec: a document, a file, or the container's own with what the command line says.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use super::{ExecChanges, ExecProcess, Runtime};
use crate::config::{Config, Process, capability_bit};
use crate::error::{Error, Result};

pub(super) fn of_exec(process: &ExecProcess, config: &Config, runtime: &Runtime) -> Result<Process> {
    match process {
        ExecProcess::File(path) => {
            let bytes = fs::read(path).map_err(|e| Error::io("read process", path, &e))?;
            document(&bytes, path, runtime)
        }
        ExecProcess::Document(bytes) => document(bytes, Path::new("process"), runtime),
        ExecProcess::Changes(changes) => changed(&config.process, changes),
    }
}

fn document(bytes: &[u8], name: &Path, runtime: &Runtime) -> Result<Process> {
    let (process, warnings) = Process::from_slice(bytes, name)?;
    warnings.into_iter().for_each(|warning| runtime.warn(warning));
    Ok(process)
}

/// The container's own process with what the command line says.
fn changed(own: &Process, changes: &ExecChanges) -> Result<Process> {
    let strings = |words: &[String]| {
        let word = |w: &String| {
            CString::new(w.as_str()).map_err(|_| Error::Usage(format!("{w:?} holds a NUL byte")))
        };
        words.iter().map(word).collect::<Result<Vec<_>>>()
    };
    if changes.args.is_empty() {
        return Err(Error::Usage("exec args cannot be empty".into()));
    }
    let mut process = own.clone();
    let label = |word: &Option<String>| {
        let asked = word.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>();
        strings(&asked).map(|mut label| label.pop())
    };
    if let Some(profile) = label(&changes.apparmor)? {
        process.apparmor_profile = Some(profile);
    }
    if let Some(selinux) = label(&changes.process_label)? {
        process.selinux_label = Some(selinux);
    }
    process.args = strings(&changes.args)?;
    process.env.extend(strings(&changes.env)?);
    if let Some(cwd) = &changes.cwd {
        if !cwd.starts_with('/') {
            return Err(Error::Usage("Cwd must be an absolute path".into()));
        }
        process.cwd = strings(std::slice::from_ref(cwd))?.remove(0);
    }
    process.terminal = changes.terminal;
    process.user = changes.user(&own.user);
    process.no_new_privileges |= changes.no_new_privileges;
    if !changes.capabilities.is_empty() {
        let mut sets = own.capabilities.unwrap_or_default();
        for name in &changes.capabilities {
            let bit =
                capability_bit(name).ok_or_else(|| Error::Usage(format!("unknown capability {name:?}")))?;
            sets.bounding |= bit;
            sets.effective |= bit;
            sets.permitted |= bit;
            // Ambient needs inheritable, which is never added (CVE-2022-29162).
            sets.ambient |= bit & sets.inheritable;
        }
        process.capabilities = Some(sets);
    }
    Ok(process)
}
