//! A cursor over a JSON document that knows where it stands, and the list of what it found wrong.
//!
//! Readers go on after a problem with a harmless value, so that one run names every problem; what
//! they returned is thrown away by [`Report::finish`] when there was one.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::fmt::Display;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Problem, Result};

/// A document of nothing but mistakes must not become a message of megabytes.
const SHOWN_PROBLEMS: usize = 64;
/// Longest part of a value that is quoted.
const SHOWN_VALUE: usize = 80;

#[derive(Debug, Default)]
pub(super) struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    not_shown: Cell<usize>,
}

impl Report {
    pub(super) fn problem(&self, pointer: impl Into<String>, what: impl Into<String>) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() == SHOWN_PROBLEMS {
            self.not_shown.set(self.not_shown.get() + 1);
        } else {
            problems.push(Problem { pointer: pointer.into(), what: what.into() });
        }
    }

    pub(super) fn warn(&self, what: impl Into<String>) {
        self.warnings.borrow_mut().push(what.into());
    }

    /// Whether something at or below `pointer` was wrong, so that what was read from there says
    /// nothing.
    pub(super) fn is_bad(&self, pointer: &str) -> bool {
        let below = |p: &Problem| {
            p.pointer.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.problems.borrow().iter().any(below)
    }

    /// The warnings; or, when there was a problem, all of them.
    pub(super) fn finish(self, file: &Path) -> Result<Vec<String>> {
        let mut problems = self.problems.into_inner();
        if problems.is_empty() {
            return Ok(self.warnings.into_inner());
        }
        if self.not_shown.get() > 0 {
            let what = format!("and {} more problems", self.not_shown.get());
            problems.push(Problem { pointer: String::new(), what });
        }
        Err(Error::Config { file: file.to_path_buf(), problems })
    }
}

#[derive(Debug, Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

/// A value of the document (which lives for `'v`) and the way to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'v, 'p> {
    value: &'v Value,
    report: &'p Report,
    way: Option<(&'p Node<'v, 'p>, Step<'p>)>,
}

impl<'v, 'p> Node<'v, 'p> {
    pub(super) fn document(value: &'v Value, report: &'p Report) -> Self {
        Node { value, report, way: None }
    }

    fn step<'n>(&'n self, value: &'v Value, step: Step<'n>) -> Node<'v, 'n> {
        Node { value, report: self.report, way: Some((self, step)) }
    }

    /// RFC 6901: `~` is `~0`, `/` is `~1`.
    pub(super) fn pointer(&self) -> String {
        let Some((parent, step)) = self.way else { return String::new() };
        let mut pointer = parent.pointer();
        pointer.push('/');
        match step {
            Step::Key(key) => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => pointer.push_str(&index.to_string()),
        }
        pointer
    }

    /// Whether something was wrong with a property, or inside it, so far.
    pub(super) fn is_bad(&self, key: &str) -> bool {
        self.report.is_bad(&format!("{}/{key}", self.pointer()))
    }

    pub(super) fn problem(&self, what: impl Into<String>) {
        self.report.problem(self.pointer(), what);
    }

    /// `"x" is not …`
    pub(super) fn refuse(&self, why: impl Display) {
        self.problem(format!("{} {why}", self.shown()));
    }

    /// About a property that is missing, or of which only the name counts.
    pub(super) fn problem_at(&self, key: &str, what: impl Into<String>) {
        self.report.problem(format!("{}/{key}", self.pointer()), what);
    }

    /// As [`Node::refuse`], about a property.
    pub(super) fn refuse_at(&self, key: &str, why: impl Display) {
        match self.get(key) {
            Some(node) => node.refuse(why),
            None => self.problem_at(key, format!("null {why}")),
        }
    }

    pub(super) fn warn(&self, what: impl Display) {
        self.report.warn(format!("{}: {what}", self.pointer()));
    }

    pub(super) fn shown(&self) -> String {
        let text = match self.value {
            Value::Object(_) => return "an object".into(),
            Value::Array(_) => return "an array".into(),
            scalar => scalar.to_string(),
        };
        if text.len() <= SHOWN_VALUE {
            return text;
        }
        let mut short: String = text.chars().take(SHOWN_VALUE).collect();
        short.push('…');
        short
    }

    /// A property; `null` counts as absent, as in Go. Nothing when this is no object.
    pub(super) fn get<'n>(&'n self, key: &'n str) -> Option<Node<'v, 'n>> {
        let value = self.value.as_object()?.get(key).filter(|v| !v.is_null())?;
        Some(self.step(value, Step::Key(key)))
    }

    pub(super) fn is_object(&self) -> bool {
        self.value.is_object() || {
            self.refuse("is not an object");
            false
        }
    }

    /// A property that is an object.
    pub(super) fn object<'n>(&'n self, key: &'n str) -> Option<Node<'v, 'n>> {
        self.get(key).filter(Node::is_object)
    }

    /// Absent, or the empty string: the Go types, by which engines write, do not tell the two apart.
    pub(super) fn is_unset(&self, key: &str) -> bool {
        self.get(key).is_none_or(|node| node.value.as_str() == Some(""))
    }

    /// Absent, or an array of nothing.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.get(key).is_none_or(|list| list.value.as_array().is_some_and(Vec::is_empty))
    }

    /// Reads every item of an array property, in order.
    pub(super) fn each<T>(&self, key: &str, mut read: impl FnMut(&Node<'v, '_>) -> Option<T>) -> Vec<T> {
        let Some(list) = self.get(key) else { return Vec::new() };
        let Some(items) = list.value.as_array() else {
            list.refuse("is not an array");
            return Vec::new();
        };
        let nodes = items.iter().enumerate().map(|(i, value)| list.step(value, Step::Index(i)));
        nodes.filter_map(|node| read(&node)).collect()
    }

    /// As [`Node::each`], of objects.
    pub(super) fn each_object<T>(
        &self,
        key: &str,
        mut read: impl FnMut(&Node<'v, '_>) -> Option<T>,
    ) -> Vec<T> {
        self.each(key, |item| if item.is_object() { read(item) } else { None })
    }

    /// Reads every entry of an object property, in the order of the names.
    pub(super) fn each_entry(&self, key: &str, mut read: impl FnMut(&'v str, &Node<'v, '_>)) {
        let Some(map) = self.object(key) else { return };
        for (name, value) in map.value.as_object().into_iter().flatten() {
            read(name, &map.step(value, Step::Key(name)));
        }
    }

    pub(super) fn as_str(&self) -> Option<&'v str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.refuse("is not a string");
        }
        text
    }

    /// A string property, when it is set.
    pub(super) fn string(&self, key: &str) -> Option<&'v str> {
        self.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    /// For the kernel: no NUL inside.
    pub(super) fn as_c_string(&self) -> Option<CString> {
        let text = CString::new(self.as_str()?);
        if text.is_err() {
            self.refuse("has a NUL byte in it");
        }
        text.ok()
    }

    /// As [`Node::string`], for the kernel.
    pub(super) fn c_string(&self, key: &str) -> Option<CString> {
        self.get(key)?.as_c_string().filter(|text| !text.is_empty())
    }

    pub(super) fn c_strings(&self, key: &str) -> Vec<CString> {
        self.each(key, |item| item.as_c_string())
    }

    pub(super) fn as_absolute_path(&self) -> Option<CString> {
        let path = self.as_c_string()?;
        if path.as_bytes().first() != Some(&b'/') {
            self.refuse("is not an absolute path");
            return None;
        }
        Some(path)
    }

    pub(super) fn bool(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        let value = node.value.as_bool();
        if value.is_none() {
            node.refuse("is neither true nor false");
        }
        value
    }

    /// A whole number that fits `T`. As in Go, `1.0` and `1e3` are no integers.
    pub(super) fn as_integer<T: Integer>(&self) -> Option<T> {
        let number = match self.value.as_u64() {
            Some(number) => Some(i128::from(number)),
            None => self.value.as_i64().map(i128::from),
        };
        let fitting = number.and_then(|number| T::try_from(number).ok());
        if fitting.is_none() {
            self.refuse(format_args!("is not an integer from {} to {}", T::MIN, T::MAX));
        }
        fitting
    }

    pub(super) fn integer<T: Integer>(&self, key: &str) -> Option<T> {
        self.get(key)?.as_integer()
    }

    /// An integer with bounds of its own.
    pub(super) fn integer_in<T: Integer>(&self, key: &str, min: T, max: T) -> Option<T> {
        let node = self.get(key)?;
        let number = node.as_integer::<T>()?;
        if number < min || number > max {
            node.refuse(format_args!("is not from {min} to {max}"));
            return None;
        }
        Some(number)
    }

    /// One of a table's words. `what` is the noun with its article: `an operator`.
    pub(super) fn as_word<T: Copy>(&self, table: &[(&str, T)], what: &str) -> Option<T> {
        let text = self.as_str()?;
        let found = table.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
            self.refuse(format_args!("is not {what}; known are {}", known.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// As [`Node::as_word`], of a property, when it is set.
    pub(super) fn word<T: Copy>(&self, key: &str, table: &[(&str, T)], what: &str) -> Option<T> {
        if self.is_unset(key) {
            return None;
        }
        self.get(key)?.as_word(table, what)
    }

    /// As [`Node::word`], of a property that must be there.
    pub(super) fn required_word<T: Copy>(&self, key: &str, table: &[(&str, T)], what: &str) -> Option<T> {
        self.required(key)?.as_word(table, what)
    }

    /// A property that must be there.
    pub(super) fn required<'n>(&'n self, key: &'n str) -> Option<Node<'v, 'n>> {
        let node = self.get(key);
        if node.is_none() {
            self.problem_at(key, "is missing");
        }
        node
    }

    pub(super) fn required_integer<T: Integer>(&self, key: &str) -> Option<T> {
        self.required(key)?.as_integer()
    }
}

pub(super) trait Integer: TryFrom<i128> + Display + Copy + PartialOrd {
    const MIN: Self;
    const MAX: Self;
}

macro_rules! integers {
    ($($t:ident)*) => { $(impl Integer for $t { const MIN: Self = $t::MIN; const MAX: Self = $t::MAX; })* };
}
integers! { u8 u16 u32 u64 i32 i64 }
