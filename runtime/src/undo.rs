//! What was made so far and must go if the rest fails: a stack of named actions.

use crate::error::{Error, Result};

type Action<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// Nothing happens by itself: whoever fails calls [`Undo::unwind`], whoever succeeds [`Undo::forget`].
#[derive(Default)]
pub struct Undo<'a> {
    actions: Vec<Action<'a>>,
}

impl<'a> Undo<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, action: impl FnOnce() -> Result<()> + 'a) {
        self.actions.push(Box::new(action));
    }

    /// All went well: nothing is undone.
    pub fn forget(&mut self) {
        self.actions.clear();
    }

    /// Undoes everything, to the end, and returns what failed on the way.
    pub fn run(&mut self) -> Vec<Error> {
        self.actions.drain(..).rev().filter_map(|action| action().err()).collect()
    }

    /// `error`, or, when undoing failed too, both.
    pub fn unwind(mut self, error: Error) -> Error {
        let mut failed = self.run();
        if failed.is_empty() {
            return error;
        }
        failed.insert(0, error);
        Error::Cleanup(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn actions_run_last_first_and_all_of_them() {
        let seen = RefCell::new(Vec::new());
        let mut undo = Undo::new();
        for n in 0..3 {
            let seen = &seen;
            undo.push(move || {
                seen.borrow_mut().push(n);
                if n == 1 { Err(Error::Protocol("one".into())) } else { Ok(()) }
            });
        }
        assert_eq!(undo.run().len(), 1);
        drop(undo);
        assert_eq!(seen.into_inner(), [2, 1, 0]);
    }

    #[test]
    fn a_forgotten_undo_does_nothing() {
        let mut undo = Undo::new();
        undo.push(|| Err(Error::Protocol("must not run".into())));
        undo.forget();
        assert!(undo.run().is_empty());
    }
}
