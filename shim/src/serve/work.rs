//! The runtime at work for the containers.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;

use nix::sys::epoll::EpollFlags;
use tare::cgroup::{Paths, Place};

use super::{Loop, Memory, Token};
use crate::error::{Code, Error, Result};
use crate::log::note;
use crate::oom::{Cgroup, Watcher};
use crate::process::Names;
use crate::runtime::command::External;
use crate::runtime::linked::Linked;
use crate::runtime::{Begun, Given, Job, Mount, News, Runtime, Target, Work};
use crate::service;
use crate::stats;
use crate::sys::wait;
use crate::task::{JobId, Key, Reply, Verb};

#[derive(Default)]
pub(super) struct Works {
    jobs: Vec<Running>,
    /// Their streams are not ready.
    waiting: Vec<Waiting>,
    /// Of containers that are still being signalled: see [`Works::take_deletes`].
    deletes: Vec<(JobId, Key)>,
    last: u32,
}

struct Running {
    number: u32,
    whom: Whom,
    key: Key,
    /// It sends signals to whoever is in the container's cgroup.
    signals: bool,
    /// What is to follow when it is lost.
    undone_by: Option<Work>,
    job: Box<dyn Job>,
}

/// Who is told what has become of it.
enum Whom {
    Nobody,
    Caller(JobId),
    /// Who waits for something else, which has failed: not before what is left of that was put right.
    Failed(JobId, Error),
}

struct Waiting {
    id: JobId,
    key: Key,
    new: New,
}

/// A process to make.
enum New {
    Init(Vec<Mount>),
    Exec { spec: Vec<u8>, terminal: bool },
}

impl Works {
    /// Those whose turn has come. Who is about to be killed holds the cgroup; and once it was removed another
    /// container of the same name could be there, and be hit.
    fn take_deletes(&mut self) -> Vec<(JobId, Key)> {
        let jobs = &self.jobs;
        let signalled = |key: &Key| jobs.iter().any(|running| running.signals && running.key.id == key.id);
        self.deletes.extract_if(.., |(_, key)| !signalled(key)).collect()
    }
}

fn runtime(target: &Target) -> &'static dyn Runtime {
    if target.binary.is_some() { &External } else { &Linked }
}

impl Loop {
    pub(super) fn begin(&mut self, id: JobId, key: Key, verb: Verb) {
        let work = match verb {
            Verb::Create(create) => {
                let bundle = Path::new(&create.target.bundle);
                let kept = create.notes.iter().try_for_each(|note| service::keep(bundle, note));
                if let Err(error) = kept {
                    return self.tasks.done(id, Err(error));
                }
                let (names, rootfs) = (create.names, create.rootfs);
                return self.make(id, key, &names, New::Init(rootfs));
            }
            Verb::Exec(exec) => {
                let (names, spec) = (exec.names, exec.spec);
                let terminal = names.terminal;
                return self.make(id, key, &names, New::Exec { spec, terminal });
            }
            Verb::Start => Work::Start,
            Verb::Pause => Work::Pause,
            Verb::Resume => Work::Resume,
            Verb::Update(resources) => Work::Update(resources),
            Verb::Kill { signal, all } => Work::Kill { signal, all },
            Verb::Delete => return self.works.deletes.push((id, key)),
        };
        self.launch(Whom::Caller(id), key, work);
    }

    fn make(&mut self, id: JobId, key: Key, names: &Names, new: New) {
        let opened = match self.tasks.target(&key.id) {
            Some(target) => self.streams.open(&key, names, &target),
            None => Ok(()),
        };
        match opened {
            Ok(()) => self.works.waiting.push(Waiting { id, key, new }),
            Err(error) => self.tasks.done(id, Err(error)),
        }
    }

    pub(super) fn begin_those_ready(&mut self) {
        for (id, key) in self.works.take_deletes() {
            self.launch(Whom::Caller(id), key, Work::Delete);
        }
        let mut at = 0;
        while let Some(waiting) = self.works.waiting.get(at) {
            let Some(given) = self.streams.take_given(&waiting.key) else {
                at += 1;
                continue;
            };
            let Waiting { id, key, new } = self.works.waiting.remove(at);
            match given {
                Ok(given) => {
                    let work = work(&key, new, given);
                    self.launch(Whom::Caller(id), key, work);
                }
                Err(error) => self.tasks.done(id, Err(error)),
            }
        }
    }

    fn launch(&mut self, whom: Whom, key: Key, work: Work) {
        let Some(target) = self.tasks.target(&key.id) else {
            return self.tell(whom, &key, Err(Error::NotFound("container not created".into())));
        };
        let signals = matches!(work, Work::Kill { .. } | Work::EndRest);
        let undone_by = work.undone_by();
        let begun = runtime(&target).begin(&target, work).and_then(|begun| match begun {
            Begun::Done => Ok(None),
            Begun::Job(job) => {
                self.works.last = self.works.last.wrapping_add(1);
                self.poll.watch(job.fd(), Token::Work(self.works.last), EpollFlags::EPOLLIN)?;
                Ok(Some(job))
            }
        });
        match begun {
            Ok(Some(job)) => {
                let number = self.works.last;
                self.works.jobs.push(Running { number, whom, key, signals, undone_by, job });
            }
            Ok(None) => self.tell(whom, &key, Ok(())),
            Err(error) => self.tell(whom, &key, Err(error)),
        }
    }

    fn tell(&mut self, whom: Whom, key: &Key, answer: Result<()>) {
        match (whom, answer) {
            (Whom::Caller(id), answer) => self.tasks.done(id, answer),
            (Whom::Failed(id, why), Ok(())) => self.tasks.done(id, Err(why)),
            // It had not come as far as to leave anything.
            (Whom::Failed(id, why), Err(left)) if left.code() == Code::FailedPrecondition => {
                self.tasks.done(id, Err(why));
            }
            (Whom::Failed(id, why), Err(left)) => {
                let both = Error::of(why.code(), format!("{}; {}", why.text(), left.text()));
                self.tasks.done(id, Err(both));
            }
            (Whom::Nobody, Ok(())) => {}
            (Whom::Nobody, Err(error)) => note(&format!("{}: {error}", key.id)),
        }
    }

    pub(super) fn end_rest(&mut self, id: &Rc<str>) {
        let key = Key { id: id.clone(), exec_id: String::new() };
        self.launch(Whom::Nobody, key, Work::EndRest);
    }

    /// The news of one job.
    pub(super) fn hear(&mut self, number: u32) {
        while let Some(at) = self.works.jobs.iter().position(|running| running.number == number) {
            let Some(news) = self.works.jobs[at].job.news() else { return };
            if let News::Born(pid) = news {
                if let Whom::Caller(id) = self.works.jobs[at].whom {
                    self.born(id, pid);
                }
                continue;
            }
            let Running { whom, key, undone_by, .. } = self.works.jobs.swap_remove(at);
            match (news, whom, undone_by) {
                (News::Done(Ok(pid)), Whom::Caller(id), _) => self.finish(id, &key, pid),
                (News::Done(answer), whom, _) => self.tell(whom, &key, answer.map(drop)),
                (News::Lost(error), Whom::Caller(id), Some(work)) => {
                    self.launch(Whom::Failed(id, error), key, work);
                }
                (News::Lost(error), whom, _) => self.tell(whom, &key, Err(error)),
                (News::Born(_), ..) => {}
            }
        }
    }

    pub(super) fn hear_all(&mut self) {
        let numbers: Vec<u32> = self.works.jobs.iter().map(|running| running.number).collect();
        numbers.into_iter().for_each(|number| self.hear(number));
    }

    fn born(&mut self, id: JobId, pid: i32) {
        let lives = wait::is_child(pid).unwrap_or_else(|errno| {
            note(&format!("waitid {pid}: {errno}"));
            true
        });
        self.tasks.born(id, pid, lives);
    }

    fn finish(&mut self, id: JobId, key: &Key, pid: Option<i32>) {
        if let Some(pid) = pid {
            self.born(id, pid);
        }
        // Of a verb that has made a process; for all others it is nothing.
        let attached = if pid.is_some() { self.streams.attach(key) } else { Ok(()) };
        let Err(error) = attached else {
            self.tasks.done(id, Ok(()));
            return;
        };
        // Nobody would ever see what it writes, or end it.
        if key.exec_id.is_empty() {
            return self.launch(Whom::Failed(id, error), key.clone(), Work::TakeBack);
        }
        if let Some(pid) = pid.filter(|&pid| self.tasks.owner(pid).is_some())
            && let Err(errno) = tare::sys::signal::kill(pid, libc::SIGKILL)
        {
            note(&format!("kill {pid}: {errno}"));
        }
        self.tasks.done(id, Err(error));
    }

    /// Of an exec by a runtime that is called by its command line; that of the first process goes with the bundle.
    pub(super) fn remove_pid_file(&self, key: &Key) {
        let is_there = |target: &Rc<Target>| target.binary.is_some() && !key.exec_id.is_empty();
        let Some(target) = self.tasks.target(&key.id).filter(is_there) else { return };
        let file = Path::new(&target.bundle).join(format!("{}.pid", key.exec_id));
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => note(&format!("remove {}: {e}", file.display())),
            _ => {}
        }
    }

    fn cgroup(&self, id: &Rc<str>) -> Result<Paths> {
        let gone = || Error::NotFound("container not created".into());
        let target = self.tasks.target(id).ok_or_else(gone)?;
        runtime(&target).cgroup(&target, self.tasks.init_pid(id).ok_or_else(gone)?)
    }

    pub(super) fn watch_memory(&mut self, id: Rc<str>) -> Result<()> {
        let paths = self.cgroup(&id)?;
        let memory = |place: &&Place| place.controllers.iter().any(|controller| controller == "memory");
        let cgroup = match (paths.v1.iter().find(memory), &paths.v2) {
            (Some(v1), _) => Cgroup::V1(v1.folder.clone()),
            (None, Some(v2)) => Cgroup::V2(v2.folder.clone()),
            (None, None) => return Ok(()),
        };
        let Some(watcher) = Watcher::open(&cgroup)? else { return Ok(()) };
        self.next_memory = self.next_memory.wrapping_add(1);
        let number = self.next_memory;
        self.poll.watch(watcher.as_fd(), Token::Memory(number), EpollFlags::EPOLLIN)?;
        self.memory.push(Memory { number, id, watcher });
        Ok(())
    }

    pub(super) fn pids(&self, id: &Rc<str>) -> Result<Reply> {
        let pids = self.cgroup(id)?.pids(true).map_err(|cause| Error::Unknown(cause.to_string()))?;
        let of = |pid: i32| {
            let number = u32::try_from(pid).unwrap_or(0);
            (number, self.tasks.exec_id(id, pid).map(str::to_owned))
        };
        Ok(Reply::Pids(pids.into_iter().map(of).collect()))
    }

    pub(super) fn stats(&self, id: &Rc<str>) -> Result<Reply> {
        let paths = self.cgroup(id)?;
        let read = paths.stats().map_err(|cause| Error::Unknown(cause.to_string()))?;
        Ok(Reply::Stats(stats::metrics(&read, &paths)?))
    }
}

fn work(key: &Key, new: New, given: Given) -> Work {
    match new {
        New::Init(rootfs) => Work::Create { rootfs, given },
        New::Exec { spec, terminal } => Work::Exec { exec_id: key.exec_id.clone(), spec, terminal, given },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::BorrowedFd;

    use super::*;

    struct Endless(File);

    impl Job for Endless {
        fn fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn news(&mut self) -> Option<News> {
            None
        }
    }

    #[test]
    fn a_container_is_deleted_when_nobody_sends_signals_into_it_any_more() {
        let key = |id: &str| Key { id: id.into(), exec_id: String::new() };
        let job = || Box::new(Endless(File::open("/dev/null").expect("open")));
        let mut works = Works::default();
        for (number, id, signals) in [(1, "a", true), (2, "a", false), (3, "b", false)] {
            let (key, whom) = (key(id), Whom::Nobody);
            works.jobs.push(Running { number, whom, key, signals, undone_by: None, job: job() });
        }
        works.deletes = vec![(JobId(1), key("a")), (JobId(2), key("b"))];
        assert_eq!(works.take_deletes(), [(JobId(2), key("b"))]);
        assert_eq!(works.take_deletes(), []);
        works.jobs.remove(0);
        assert_eq!(works.take_deletes(), [(JobId(1), key("a"))]);
        assert_eq!(works.take_deletes(), []);
    }
}
