//! The short-lived process between runtime and init: it enters the namespaces that only a child can
//! be born into, and clones init as its own sibling, at once or (`exec`, where somebody may look) when init has nothing
//! left to do. The same rules as in `init`.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::init::{self, Birth, close_others};
use super::protocol::{FromInit, JOINER, ToInit};
use crate::error::{StepFailure, StepKind};
use crate::namespace::plan::Join;
use crate::plan::step::Step;
use crate::sys::clone::{Clone, OneThread, clone3, exit_now, setns};
use crate::sys::slots::Slot;
use crate::sys::{environment, fd, prctl};

/// What it does, in order. If the last is no clone, it goes on with init's own steps, and one of those is it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinerStep {
    /// Goes into a cgroup of v1, so that init is born there (`cgroup::Entry`): before it is where somebody could look,
    /// for what it does that by is the host's. `file` is for messages.
    EnterCgroup {
        tasks: Slot,
        file: PathBuf,
    },
    Join(Join),
    /// All of these kinds of the process behind the pidfd (exec), which is not needed any more then.
    JoinAll {
        init: Slot,
        kinds: libc::c_int,
    },
    UnshareUser,
    UnshareTime,
    Clone {
        flags: u64,
        cgroup: Option<Slot>,
    },
}

/// What it does before its first step, by numbers that no step has.
pub const CLOSING: u16 = 0x7fff;
pub const HIDING: u16 = 0x7ffe;
/// What it says after its last one.
pub const JOINED: u16 = 0x7ffd;

pub fn run(steps: &[JoinerStep], mut birth: Birth<'_>, one_thread: OneThread) -> ! {
    crate::sys::alloc_guard::forbid();
    environment::wipe(&one_thread);
    // What init begins with, before there is one at which a container could look (CVE-2016-9962): it
    // cannot be looked into, and nothing of the host's is open but what it will need, nor our copy of the
    // runtime's end of the channel. A clone inherits both.
    for step in birth.steps {
        let (done, number) = match step {
            Step::Undumpable => (prctl::set_undumpable(), HIDING),
            Step::CloseFds { preserved } => (close_others(&mut birth, *preserved), CLOSING),
            _ => break,
        };
        if let Err(errno) = done {
            fail(&birth, number, errno.into());
        }
    }
    for (index, step) in steps.iter().enumerate() {
        let done = match step {
            JoinerStep::Clone { flags, cgroup } => match clone_init(&mut birth, *flags, *cgroup) {
                Ok(Clone::Parent { pid, .. }) => match birth.channel.send(FromInit::Born { pid }) {
                    Ok(()) => exit_now(0),
                    Err(errno) => Err(errno.into()),
                },
                // The child: it goes on where the joiner ends.
                Ok(Clone::Child(one_thread)) => init::run(birth, one_thread),
                Err(errno) => Err(errno.into()),
            },
            other => walk(other, &mut birth),
        };
        if let Err(failure) = done {
            fail(&birth, u16::try_from(index).unwrap_or(0), failure);
        }
    }
    if let Err(errno) = birth.channel.send(FromInit::Joined) {
        fail(&birth, JOINED, errno.into());
    }
    init::run(birth, one_thread)
}

fn fail(birth: &Birth<'_>, step: u16, failure: StepFailure) -> ! {
    // When nobody hears it there is nothing left to do but to go.
    let _sent = birth.channel.send(FromInit::Failed { step: JOINER | step, failure });
    exit_now(1)
}

fn walk(step: &JoinerStep, birth: &mut Birth<'_>) -> Result<(), StepFailure> {
    match step {
        JoinerStep::EnterCgroup { tasks, .. } => Ok(init::enter_cgroup(&mut birth.slots, *tasks)?),
        JoinerStep::Join(join) => Ok(setns(birth.slots.get(join.slot)?, join.kind.flag())?),
        JoinerStep::JoinAll { init, kinds } => {
            setns(birth.slots.get(*init)?, *kinds)?;
            birth.slots.close(*init);
            Ok(())
        }
        JoinerStep::UnshareUser => {
            unshare(CloneFlags::CLONE_NEWUSER)?;
            ask(birth, FromInit::NeedMaps)
        }
        JoinerStep::UnshareTime => {
            unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))?;
            ask(birth, FromInit::NeedOffsets)
        }
        JoinerStep::Clone { .. } => Ok(()),
    }
}

fn ask(birth: &Birth<'_>, question: FromInit) -> Result<(), StepFailure> {
    birth.channel.send(question)?;
    match birth.channel.receive()? {
        Some(ToInit::Done) => Ok(()),
        None => Err(StepFailure::new(StepKind::ParentGone, Errno::EPIPE)),
        Some(_) => Err(StepFailure::new(StepKind::Unexpected, Errno::EBADMSG)),
    }
}

/// As a child of the runtime, not of the joiner, which is about to end.
fn clone_init(birth: &mut Birth<'_>, flags: u64, cgroup: Option<Slot>) -> Result<Clone, Errno> {
    // Init does not keep it.
    let cgroup = cgroup.map(|slot| birth.slots.take(slot)).transpose()?;
    clone3(flags | libc::CLONE_PARENT as u64, cgroup.as_ref().map(fd::borrow))
}
