//! The list of what is wrong, and where.

use std::fmt;

use crate::charging::short::Short;
use crate::organisation::raw::Text;
use crate::organisation::{Fault, MAX_LISTED};

/// A place in the document; written out only when something is wrong there.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl At<'_> {
    pub(super) const ROOT: At<'static> = At { parent: None, step: Step::Root };
}

impl<'a> At<'a> {
    pub(super) fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    pub(super) fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(index) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if matches!((parent.step, self.step), (Step::Key(_) | Step::Index(_), Step::Key(_))) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Key(key) => write!(f, "{}", Short(key).plain()),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The faults found so far. Once [`MAX_LISTED`] are, nothing more is judged: a hostile document may
/// hold millions.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn are_enough(&self) -> bool {
        self.0.len() >= MAX_LISTED
    }

    pub(super) fn add(&mut self, at: &At<'_>, line: Option<u64>, message: String) {
        if !self.are_enough() {
            self.0.push(Fault { line, field: at.to_string(), message });
        }
    }

    /// Keys that the format does not have.
    pub(super) fn unknown(&mut self, at: &At<'_>, known: &[&str], unknown: &[Text]) {
        for key in unknown {
            if self.are_enough() {
                return;
            }
            let message = format!("unknown key, expected one of {}", known.join(", "));
            self.add(&at.key(&key.value), key.line, message);
        }
    }

    /// The value of a key that may be absent; `None` also when it is wrong.
    pub(super) fn optional<T>(
        &mut self,
        at: &At<'_>,
        text: Option<&Text>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = text.filter(|_| !self.are_enough())?;
        match read(&text.value) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.add(at, text.line, format!("{expected}, found {}", Short(&text.value)));
                None
            }
        }
    }

    /// The value of a key that must be there; `None` when it is absent or wrong.
    pub(super) fn required<T>(
        &mut self,
        at: &At<'_>,
        mapping_line: Option<u64>,
        text: Option<&Text>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if text.is_none() {
            self.add(at, mapping_line, "expected a value, the key is required".to_owned());
        }
        self.optional(at, text, read)
    }

    /// The values of a list that are right.
    pub(super) fn each<T>(
        &mut self,
        at: &At<'_>,
        texts: &[Text],
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            values.extend(self.optional(&at.index(index), Some(text), &read));
        }
        values
    }

    /// `value` when nothing was wrong.
    pub(super) fn none_or_all<T>(mut self, value: T) -> Result<T, Vec<Fault>> {
        if self.0.is_empty() {
            return Ok(value);
        }
        let cut = self.are_enough();
        // In the order of the file; the order of checking is ours, not the reader's.
        self.0.sort_by_key(|fault| fault.line);
        if cut {
            let message = format!("only the first {MAX_LISTED} faults are listed");
            self.0.push(Fault { line: None, field: String::new(), message });
        }
        Err(self.0)
    }
}
