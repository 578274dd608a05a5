//! A request of HTTP put into a message: fields from the path, from the query or from a body of JSON, in
//! the standard mapping of protobuf.
//!
//! Stricter than the mapping where it leaves a choice: a field that is not known, or is given twice, is
//! refused. Each field is read for itself, so that all mistakes are told at once, by the field's name, and
//! so that a mistake in one never hides another: an emergency number must be found beside anything.

use std::collections::BTreeSet;
use std::fmt;

use prost_reflect::{
    DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value as Field,
};
use serde_json::{Map, Value};
use tonic::Status;
use url::form_urlencoded;

use crate::grpc::status::FieldViolations;
use crate::transcoding::bindings::{Binding, Captured};

/// What stands for an invalid sequence: SUB, as in gRPC, here as JSON writes it.
const SUBSTITUTE: &str = "\\u001a";

/// Longest name of an unknown field that is repeated to its sender, in bytes.
const MAX_NAME: usize = 64;

/// Most mistakes that are told.
const MAX_VIOLATIONS: usize = 64;

/// The message as far as it can be read, and what is wrong with it.
///
/// An error is a body that is no JSON object.
#[allow(clippy::result_large_err, reason = "a status is what the caller gets")]
pub fn read(
    binding: &Binding,
    captured: &[Captured<'_>],
    query: Option<&str>,
    body: Option<&[u8]>,
) -> Result<(DynamicMessage, FieldViolations), Status> {
    let mut reading = Reading {
        message: DynamicMessage::new(binding.rpc.input()),
        violations: FieldViolations::new(),
        noted: 0,
        in_path: BTreeSet::new(),
        given: BTreeSet::new(),
    };
    for (field, encoded) in captured {
        reading.path_field(field, encoded);
    }
    match body {
        Some([]) => {}
        Some(body) => {
            let members = members(body).map_err(|at| {
                Status::invalid_argument(format!("expected a JSON object, found none at byte {at}"))
            })?;
            for (name, value) in members {
                reading.member(name, value);
            }
        }
        None => {}
    }
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match body {
            Some(_) => reading.note(&name, "expected in the body, found in the query"),
            None => reading.parameter(&name, &value),
        }
    }
    Ok((reading.message, reading.violations))
}

struct Reading {
    message: DynamicMessage,
    violations: FieldViolations,
    noted: usize,
    /// Numbers of the fields that the path gave.
    in_path: BTreeSet<u32>,
    /// Numbers of the fields that body or query gave.
    given: BTreeSet<u32>,
}

impl Reading {
    fn note(&mut self, path: &str, description: impl fmt::Display) {
        if self.noted < MAX_VIOLATIONS {
            self.violations.add(&path[..path.floor_char_boundary(MAX_NAME)], description);
        }
        self.noted += 1;
    }

    fn path_field(&mut self, field: &FieldDescriptor, encoded: &str) {
        let (bytes, well_formed) = percent_decoded(encoded);
        if !well_formed {
            self.note(field.name(), "expected %XX with two hexadecimal digits in the path");
        }
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            self.note(field.name(), "expected UTF-8");
            String::from_utf8_lossy(error.as_bytes()).replace('\u{fffd}', "\u{1a}")
        });
        self.message.set_field(field, Field::String(text));
        self.in_path.insert(field.number());
    }

    /// A parameter of the query: text, whatever the field is.
    fn parameter(&mut self, name: &str, value: &str) {
        let Some(field) = self.field(name) else { return };
        let value = match (field.kind(), value) {
            (Kind::Bool, "true") => Value::Bool(true),
            (Kind::Bool, "false") => Value::Bool(false),
            _ => Value::String(value.to_owned()),
        };
        self.set(&field, value);
    }

    /// A member of the body: its name and its value, as they stand there.
    fn member(&mut self, name: &[u8], value: &[u8]) {
        let (name, _) = substituted(name);
        let Ok(name) = serde_json::from_str::<String>(&name) else {
            return self.note(&name, "expected a name that JSON can express");
        };
        let Some(field) = self.field(&name) else { return };
        let (text, is_utf8) = substituted(value);
        if !is_utf8 {
            self.note(field.name(), "expected UTF-8");
        }
        match serde_json::from_str(&text) {
            Ok(value) => match repeated(text.as_bytes()) {
                None => self.set(&field, value),
                Some(name) => {
                    self.note(field.name(), format_args!("expected {name:?} once, found twice"));
                }
            },
            Err(error) => self.note(field.name(), without_place(&error)),
        }
    }

    /// The field of this name, as in the protobuf files or as in JSON; else a violation.
    fn field(&mut self, name: &str) -> Option<FieldDescriptor> {
        let message = self.message.descriptor();
        let by_json = || message.get_field_by_json_name(name);
        let Some(field) = message.get_field_by_name(name).or_else(by_json) else {
            self.note(name, format_args!("expected a field of {}", message.name()));
            return None;
        };
        if !self.given.insert(field.number()) {
            self.note(field.name(), "expected once, found twice");
            return None;
        }
        Some(field)
    }

    fn set(&mut self, field: &FieldDescriptor, value: Value) {
        let object = Map::from_iter([(field.json_name().to_owned(), value)]);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let read = DynamicMessage::deserialize_with_options(
            self.message.descriptor(),
            Value::Object(object),
            &options,
        );
        let read = match read {
            Ok(read) => read,
            Err(error) => return self.note(field.name(), without_place(&error)),
        };
        // Null, and a default that cannot be told from absence.
        if !read.has_field(field) {
            return;
        }
        let value = read.get_field(field);
        if self.in_path.contains(&field.number()) {
            if self.message.get_field(field) != value {
                self.note(field.name(), "expected the value that is in the path");
            }
            return;
        }
        let others = field.containing_oneof().into_iter().flat_map(|one| {
            let message = &self.message;
            one.fields().filter(|other| message.has_field(other)).collect::<Vec<_>>()
        });
        if let Some(other) = others.last() {
            return self
                .note(field.name(), format_args!("expected absent beside {}", other.name()));
        }
        self.message.set_field(field, value.into_owned());
    }
}

/// What an error says, without its place: that is counted from the field.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// The bytes that are meant, and whether every `%` was followed by two digits.
fn percent_decoded(text: &str) -> (Vec<u8>, bool) {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let mut well_formed = true;
    while let [byte, after @ ..] = rest {
        rest = after;
        let pair = after.get(..2).filter(|_| *byte == b'%');
        match pair.and_then(|pair| hex::decode(pair).ok()).as_deref() {
            Some([meant]) => {
                decoded.push(*meant);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                well_formed &= *byte != b'%';
                decoded.push(*byte);
            }
        }
    }
    (decoded, well_formed)
}

/// The text with [`SUBSTITUTE`]s for what is no UTF-8, and whether there was none of that.
fn substituted(bytes: &[u8]) -> (String, bool) {
    let mut text = String::with_capacity(bytes.len());
    let mut is_utf8 = true;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push_str(SUBSTITUTE);
            is_utf8 = false;
        }
    }
    (text, is_utf8)
}

/// A name and a value.
type Member<'a> = (&'a [u8], &'a [u8]);

/// The members of a JSON object: each name with its quotes, and each value, as they stand and unread.
///
/// An error is the byte at which it is no object.
fn members(body: &[u8]) -> Result<Vec<Member<'_>>, usize> {
    let mut at = Cursor { body, at: 0 };
    let mut found = vec![];
    at.expect(b'{')?;
    if at.peek() == Some(b'}') {
        at.at += 1;
        return at.end(found);
    }
    loop {
        at.peek();
        let name = at.string()?;
        at.expect(b':')?;
        at.peek();
        found.push((name, at.value()?));
        match at.peek() {
            Some(b',') => at.at += 1,
            _ => {
                at.expect(b'}')?;
                return at.end(found);
            }
        }
    }
}

struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.body.get(self.at) {
            self.at += 1;
        }
        self.body.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), usize> {
        if self.peek() != Some(byte) {
            return Err(self.at);
        }
        self.at += 1;
        Ok(())
    }

    fn end<T>(mut self, found: T) -> Result<T, usize> {
        match self.peek() {
            None => Ok(found),
            Some(_) => Err(self.at),
        }
    }

    fn string(&mut self) -> Result<&'a [u8], usize> {
        let begins = self.at;
        self.expect(b'"')?;
        loop {
            match self.body.get(self.at) {
                None => return Err(self.at),
                Some(b'\\') => self.at += 2,
                Some(b'"') => {
                    self.at += 1;
                    return self.body.get(begins..self.at).ok_or(self.at);
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// Up to the comma or brace that ends it.
    fn value(&mut self) -> Result<&'a [u8], usize> {
        let begins = self.at;
        let mut open = 0_usize;
        loop {
            match self.body.get(self.at) {
                None => return Err(self.at),
                Some(b'"') => {
                    self.string()?;
                    continue;
                }
                Some(b'{' | b'[') => open += 1,
                Some(b',' | b'}' | b']') if open == 0 => break,
                Some(b'}' | b']') => open -= 1,
                Some(_) => {}
            }
            self.at += 1;
        }
        self.body.get(begins..self.at).ok_or(self.at)
    }
}

/// A name that an object within this JSON, which can be read, has twice.
fn repeated(json: &[u8]) -> Option<String> {
    let within = match json.first()? {
        b'{' => {
            let members = members(json).ok()?;
            let mut names = BTreeSet::new();
            for (name, _) in &members {
                let name: String = serde_json::from_slice(name).ok()?;
                if let Some(name) = names.replace(name) {
                    return Some(name);
                }
            }
            members.into_iter().map(|(_, value)| value).collect()
        }
        b'[' => elements(json),
        _ => vec![],
    };
    within.into_iter().find_map(repeated)
}

/// The elements of an array that can be read.
fn elements(json: &[u8]) -> Vec<&[u8]> {
    let mut at = Cursor { body: json, at: 1 };
    let mut found = vec![];
    while at.peek().is_some_and(|byte| byte != b']') {
        let Ok(value) = at.value() else { break };
        found.push(value);
        if at.expect(b',').is_err() {
            break;
        }
    }
    found
}
