//! Our usage records beside the call detail records of a carrier or an SBC: what differs.
//!
//! Their calls come first and are all kept, about as many bytes each as docs/OPERATIONS.md says. Ours are
//! streamed after them, summed by call leg; those that match by call id are not kept. What is left is
//! matched at the end: by SIP Call-ID, then by called number and start. Pure: reads no file, asks nobody.

use std::collections::{BTreeMap, HashMap};

use crate::charging::units::{Micros, Millis, Seconds};
use crate::records::cdr::{Currency, TheirCall};

/// Fewest digits by which two spellings of a number are compared by their ends.
const FEWEST_DIGITS: usize = 7;

/// What counts as a difference.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Durations that differ by no more are equal, and starts that differ by no more may be one call's.
    /// In milliseconds.
    pub tolerance: Millis,
    /// Charges that differ by no more are equal.
    pub charge_tolerance: Micros,
    /// Calls that started from here on. `None`: from the first of theirs.
    pub from: Option<Millis>,
    /// Calls that started before. `None`: to the last of theirs.
    pub to: Option<Millis>,
}

/// One of our records.
#[derive(Clone, Copy, Debug)]
pub struct OurRecord<'a> {
    /// The call leg.
    pub call_id: &'a str,
    /// May be empty.
    pub sip_call_id: &'a str,
    /// In E.164; its last digits may be masked by asterisks.
    pub called: &'a str,
    /// When it was answered.
    pub start: Millis,
    /// Used.
    pub duration: Seconds,
    /// Charged; below zero where it is given back.
    pub charge: Micros,
    /// The tenant's.
    pub currency: Option<Currency>,
    /// The call was refused.
    pub refused: bool,
}

/// In what a call differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// We never saw it: unauthorised traffic.
    OnlyTheirs,
    /// We refused it, and it was carried.
    Refused,
    /// They do not know it.
    OnlyOurs,
    /// Another duration.
    Duration,
    /// Another charge.
    Charge,
    /// They have it twice.
    Duplicate,
}

impl Kind {
    /// All of them, in the order of a report.
    pub const ALL: [Kind; 6] = [
        Kind::OnlyTheirs,
        Kind::Refused,
        Kind::OnlyOurs,
        Kind::Duration,
        Kind::Charge,
        Kind::Duplicate,
    ];

    /// As files name it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::OnlyTheirs => "ONLY_IN_THEIRS",
            Kind::Refused => "REFUSED_BUT_CARRIED",
            Kind::OnlyOurs => "ONLY_IN_OURS",
            Kind::Duration => "DURATION_DIFFERS",
            Kind::Charge => "CHARGE_DIFFERS",
            Kind::Duplicate => "DUPLICATE_IN_THEIRS",
        }
    }
}

/// A call as one side has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Used.
    pub duration: Seconds,
    /// `None`: not told.
    pub charge: Option<Micros>,
    /// `None`: not told.
    pub currency: Option<Currency>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In what.
    pub kind: Kind,
    /// Our name of the leg, else theirs; may be empty.
    pub call_id: Box<str>,
    /// May be empty.
    pub sip_call_id: Box<str>,
    /// Their spelling where they have the call.
    pub called: Box<str>,
    /// Their instant where they have the call.
    pub start: Millis,
    /// `None`: only theirs.
    pub ours: Option<Side>,
    /// `None`: only ours.
    pub theirs: Option<Side>,
    /// The line of their file.
    pub line: Option<u64>,
    /// Of a duplicate: the line that has the call first.
    pub first_line: Option<u64>,
}

/// Calls and seconds of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Ours: call legs that were answered. Theirs: lines, duplicates too.
    pub calls: u64,
    /// Used.
    pub duration: Seconds,
}

/// Money of both sides in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Money {
    /// Charged by us.
    pub ours: Micros,
    /// Charged by them.
    pub theirs: Micros,
}

/// Both sides as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that both have, whether they differ or not.
    pub matched: u64,
    /// Ours in the window.
    pub ours: Sum,
    /// Theirs in the window.
    pub theirs: Sum,
    /// Theirs of no duration, of which we have no record: never answered.
    pub unanswered: u64,
    /// Theirs outside the window, left out.
    pub outside: u64,
    /// By currency; `None` where nobody names one.
    pub money: BTreeMap<Option<Currency>, Money>,
}

/// What differs, by kind and start, and how much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The differences.
    pub differences: Vec<Difference>,
    /// The whole.
    pub totals: Totals,
}

/// A comparison under way.
pub struct Reconciliation {
    settings: Settings,
    rows: Vec<Row>,
    /// Row of each of their call ids.
    by_call: HashMap<Box<str>, u32>,
    /// Ours that match no call id of theirs, by call id.
    ours: HashMap<Box<str>, Ours>,
    /// Duplicates that were found so far, by row.
    duplicates: Vec<(TheirCall, u64)>,
    outside: u64,
    currency: Option<Currency>,
}

struct Row {
    call: TheirCall,
    ours: Option<Tally>,
    /// Our name, where it is not theirs.
    our_call_id: Option<Box<str>>,
    duplicate_of: Option<u64>,
}

/// A call of ours that waits for one of theirs.
struct Ours {
    sip_call_id: Box<str>,
    called: Box<str>,
    tally: Tally,
}

/// The records of one call of ours together.
#[derive(Clone, Copy)]
struct Tally {
    start: Millis,
    duration: Seconds,
    charge: Micros,
    /// Every one of them is a refusal.
    refused: bool,
}

impl Tally {
    fn of(record: &OurRecord<'_>) -> Tally {
        let OurRecord { start, duration, charge, refused, .. } = *record;
        Tally { start, duration, charge, refused }
    }

    /// One more record of the same call. That of a refusal says nothing of when the call began.
    fn add(&mut self, record: &OurRecord<'_>) {
        self.start = match (self.refused, record.refused) {
            (true, false) => record.start,
            (false, true) => self.start,
            _ => self.start.min(record.start),
        };
        self.duration += record.duration;
        self.charge += record.charge;
        self.refused &= record.refused;
    }
}

impl Reconciliation {
    /// Of nothing yet.
    pub fn new(settings: Settings) -> Reconciliation {
        Reconciliation {
            settings,
            rows: vec![],
            by_call: HashMap::new(),
            ours: HashMap::new(),
            duplicates: vec![],
            outside: 0,
            currency: None,
        }
    }

    /// One of their calls. All of them come before the first of ours.
    pub fn add_theirs(&mut self, call: TheirCall) {
        let Settings { tolerance: Millis(near), from, to, .. } = self.settings;
        let (start, before) =
            (call.start.0, |at: Option<Millis>, start| at.is_some_and(|at| start < at.0));
        if before(from, start + near) || to.is_some() && !before(to, start - near) {
            self.outside += 1;
            return;
        }
        if !call.call_id.is_empty() {
            if let Some(&first) = self.by_call.get(&call.call_id) {
                let first = self.rows[first as usize].call.line;
                self.duplicates.push((call, first));
                return;
            }
            // A file of more lines than that does not fit into memory either.
            let place = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
            self.by_call.insert(call.call_id.clone(), place);
        }
        self.rows.push(Row { call, ours: None, our_call_id: None, duplicate_of: None });
    }

    /// The window in which calls started: as set, else from the first of theirs to the last; `None` where
    /// neither says.
    pub fn window(&self) -> Option<(Millis, Millis)> {
        let rows = || self.rows.iter().map(|row| &row.call);
        let calls = || rows().chain(self.duplicates.iter().map(|(call, _)| call));
        let starts = || calls().map(|call| call.start);
        let from = self.settings.from.or_else(|| starts().min());
        let to = self.settings.to.or_else(|| Some(Millis(starts().max()?.0 + 1)));
        from.zip(to)
    }

    /// One of our records.
    pub fn add_ours(&mut self, record: &OurRecord<'_>) {
        self.currency = self.currency.or(record.currency);
        if let Some(&place) = self.by_call.get(record.call_id) {
            let ours = &mut self.rows[place as usize].ours;
            match ours {
                Some(tally) => tally.add(record),
                None => *ours = Some(Tally::of(record)),
            }
        } else if let Some(known) = self.ours.get_mut(record.call_id) {
            known.tally.add(record);
        } else {
            let ours = Ours {
                sip_call_id: record.sip_call_id.into(),
                called: record.called.into(),
                tally: Tally::of(record),
            };
            self.ours.insert(record.call_id.into(), ours);
        }
    }

    /// Matches what is left, and compares.
    pub fn finish(mut self) -> Report {
        let window = self.window();
        let mut rest: Vec<(Box<str>, Ours)> = std::mem::take(&mut self.ours).into_iter().collect();
        // Refusals last: the attempt that was granted is the one that was carried.
        rest.sort_unstable_by(|(name, ours), (other_name, other)| {
            let key = |ours: &Ours| (ours.tally.refused, ours.tally.start);
            key(ours).cmp(&key(other)).then_with(|| name.cmp(other_name))
        });
        self.mark_duplicates();
        let rest = self.match_by_sip_call_id(rest);
        let rest = self.match_by_number(rest);
        self.report(window, rest)
    }

    /// Lines of one SIP Call-ID, number and start, or, without ids, of one number, start and duration.
    fn mark_duplicates(&mut self) {
        let mut places: Vec<usize> = (0..self.rows.len()).collect();
        let key = |row: &Row| (row.call.start, row.call.line);
        places.sort_by(|a, b| {
            let (a, b) = (&self.rows[*a], &self.rows[*b]);
            a.call.sip_call_id.cmp(&b.call.sip_call_id).then_with(|| key(a).cmp(&key(b)))
        });
        for at in 1..places.len() {
            let later = &self.rows[places[at]].call;
            if !later.call_id.is_empty() {
                continue;
            }
            let near = if later.sip_call_id.is_empty() { 0 } else { self.settings.tolerance.0 };
            let first =
                places[..at].iter().rev().map(|place| &self.rows[*place]).take_while(|row| {
                    row.call.sip_call_id == later.sip_call_id
                        && later.start.0 - row.call.start.0 <= near
                });
            let first = first.filter(|row| {
                let call = &row.call;
                row.duplicate_of.is_none()
                    && call.call_id.is_empty()
                    && is_same_number(&call.called, &later.called)
                    && (near > 0 || call.duration == later.duration)
            });
            let first = first.last().map(|row| row.call.line);
            self.rows[places[at]].duplicate_of = first;
        }
    }

    /// Of the lines with the same SIP Call-ID, one with the same number first, then the nearest.
    fn match_by_sip_call_id(&mut self, rest: Vec<(Box<str>, Ours)>) -> Vec<(Box<str>, Ours)> {
        let mut places = self.free_rows(|call| !call.sip_call_id.is_empty());
        places.sort_by(|a, b| self.rows[*a].call.sip_call_id.cmp(&self.rows[*b].call.sip_call_id));
        let of = |rows: &[Row], ours: &Ours| {
            let sip = |place: &usize| &*rows[*place].call.sip_call_id;
            let from = places.partition_point(|place| sip(place) < &*ours.sip_call_id);
            let length = places[from..].partition_point(|p| sip(p) == &*ours.sip_call_id);
            if ours.sip_call_id.is_empty() { from..from } else { from..from + length }
        };
        // Two rounds, so that a leg takes no line whose number is another leg's.
        let mut rest = rest;
        for any_number in [false, true] {
            let mut left = vec![];
            for (name, ours) in rest {
                let lines = places[of(&self.rows, &ours)].iter().copied();
                let is_match =
                    |row: &Row| any_number || is_same_number(&row.call.called, &ours.called);
                match self.nearest(lines, &ours, is_match) {
                    Some(place) => self.join(place, name, &ours),
                    None => left.push((name, ours)),
                }
            }
            rest = left;
        }
        rest
    }

    fn match_by_number(&mut self, rest: Vec<(Box<str>, Ours)>) -> Vec<(Box<str>, Ours)> {
        let mut places = self.free_rows(|call| !call.called.is_empty());
        places.sort_by_key(|place| self.rows[*place].call.start);
        let near = self.settings.tolerance.0;
        let mut left = vec![];
        for (name, ours) in rest {
            let start = |place: &usize| self.rows[*place].call.start.0;
            let from = places.partition_point(|p| start(p) < ours.tally.start.0 - near);
            let length = places[from..].partition_point(|p| start(p) <= ours.tally.start.0 + near);
            let lines = places[from..from + length].iter().copied();
            let is_match = |row: &Row| is_same_number(&row.call.called, &ours.called);
            match self.nearest(lines, &ours, is_match) {
                Some(place) => self.join(place, name, &ours),
                None => left.push((name, ours)),
            }
        }
        left
    }

    fn free_rows(&self, wanted: impl Fn(&TheirCall) -> bool) -> Vec<usize> {
        let free = self.rows.iter().enumerate();
        let free = free.filter(|(_, row)| row.ours.is_none() && row.duplicate_of.is_none());
        free.filter(|(_, row)| wanted(&row.call)).map(|(place, _)| place).collect()
    }

    /// Of those that match and are free, the one whose start is nearest; the first of several.
    fn nearest(
        &self,
        places: impl Iterator<Item = usize>,
        ours: &Ours,
        is_match: impl Fn(&Row) -> bool,
    ) -> Option<usize> {
        places
            .filter(|place| self.rows[*place].ours.is_none() && is_match(&self.rows[*place]))
            .min_by_key(|place| {
                let call = &self.rows[*place].call;
                (call.start.0.abs_diff(ours.tally.start.0), call.line)
            })
    }

    fn join(&mut self, place: usize, name: Box<str>, ours: &Ours) {
        self.rows[place].ours = Some(ours.tally);
        self.rows[place].our_call_id = Some(name);
    }

    fn report(self, window: Option<(Millis, Millis)>, rest: Vec<(Box<str>, Ours)>) -> Report {
        let inside = |start: Millis| window.is_some_and(|(from, to)| (from..to).contains(&start));
        let mut report = Report::default();
        report.totals.outside = self.outside;
        let our_side = |tally: &Tally| Side {
            duration: tally.duration,
            charge: Some(tally.charge),
            currency: self.currency,
        };
        let repeated = self.duplicates.into_iter().map(|(call, first)| Row {
            call,
            ours: None,
            our_call_id: None,
            duplicate_of: Some(first),
        });
        for row in self.rows.into_iter().chain(repeated) {
            let Row { call, ours, our_call_id, duplicate_of } = row;
            if ours.is_none() && !inside(call.start) {
                report.totals.outside += 1;
                continue;
            }
            let theirs = Side {
                duration: call.duration,
                charge: call.charge,
                currency: call.currency.or(self.currency),
            };
            report.totals.add_theirs(&theirs);
            let ours = ours.as_ref();
            if let Some(ours) = ours.filter(|ours| !ours.refused) {
                report.totals.matched += 1;
                report.totals.add_ours(&our_side(ours));
            }
            let kinds = match (ours, duplicate_of) {
                (None, Some(_)) => vec![Kind::Duplicate],
                (Some(ours), _) if !ours.refused => {
                    self.settings.differences(&our_side(ours), &theirs)
                }
                // Never answered, whether it was refused or not.
                _ if call.duration == Seconds::ZERO => {
                    report.totals.unanswered += 1;
                    continue;
                }
                (Some(_), _) => vec![Kind::Refused],
                (None, None) => vec![Kind::OnlyTheirs],
            };
            let call_id = our_call_id.unwrap_or(call.call_id);
            report.differences.extend(kinds.into_iter().map(|kind| Difference {
                kind,
                call_id: call_id.clone(),
                sip_call_id: call.sip_call_id.clone(),
                called: call.called.clone(),
                start: call.start,
                ours: ours.map(our_side),
                theirs: Some(theirs),
                line: Some(call.line),
                first_line: duplicate_of,
            }));
        }
        for (call_id, ours) in rest {
            if ours.tally.refused || !inside(ours.tally.start) {
                continue;
            }
            // Corrected to nothing, or the correction alone of a call that began before the window.
            if ours.tally.duration <= Seconds::ZERO {
                continue;
            }
            let side = our_side(&ours.tally);
            report.totals.add_ours(&side);
            report.differences.push(Difference {
                kind: Kind::OnlyOurs,
                call_id,
                sip_call_id: ours.sip_call_id,
                called: ours.called,
                start: ours.tally.start,
                ours: Some(side),
                theirs: None,
                line: None,
                first_line: None,
            });
        }
        report.differences.sort_by(|a, b| {
            let key = |of: &Difference| (of.kind, of.start, of.line);
            key(a).cmp(&key(b)).then_with(|| a.call_id.cmp(&b.call_id))
        });
        report
    }
}

impl Settings {
    fn differences(&self, ours: &Side, theirs: &Side) -> Vec<Kind> {
        let mut found = vec![];
        let apart = ours.duration.0.abs_diff(theirs.duration.0) * 1000;
        if i128::from(apart) > i128::from(self.tolerance.0) {
            found.push(Kind::Duration);
        }
        if let (Some(our_charge), Some(their_charge)) = (ours.charge, theirs.charge) {
            let other_currency = ours.currency.is_some() && ours.currency != theirs.currency;
            let apart = our_charge.0.abs_diff(their_charge.0);
            if other_currency || i128::from(apart) > i128::from(self.charge_tolerance.0) {
                found.push(Kind::Charge);
            }
        }
        found
    }
}

impl Totals {
    fn add_ours(&mut self, side: &Side) {
        self.ours.calls += 1;
        self.ours.duration += side.duration;
        self.money.entry(side.currency).or_default().ours += side.charge.unwrap_or_default();
    }

    fn add_theirs(&mut self, side: &Side) {
        self.theirs.calls += 1;
        self.theirs.duration += side.duration;
        if let Some(charge) = side.charge {
            self.money.entry(side.currency).or_default().theirs += charge;
        }
    }
}

/// Whether two spellings may be one number: with plus, `00` or neither, in E.164 or national. The shorter
/// is the end of the longer, a trunk or international prefix aside; asterisks stand for any digit.
fn is_same_number(a: &str, b: &str) -> bool {
    let (a, b) = (significant(a), significant(b));
    let digits = |text: &'_ str| text.bytes().filter(is_digit).count();
    let (length, other) = (digits(a), digits(b));
    let compared = length.min(other);
    let enough = compared >= FEWEST_DIGITS || length == other && compared > 0;
    let mut pairs = a.bytes().rev().filter(is_digit).zip(b.bytes().rev().filter(is_digit));
    enough && pairs.all(|(a, b)| a == b || a == b'*' || b == b'*')
}

fn is_digit(byte: &u8) -> bool {
    byte.is_ascii_digit() || *byte == b'*'
}

/// From the first digit that is no zero on; all of a number of zeros, which is one for emergencies somewhere.
fn significant(text: &str) -> &str {
    let user = text.split(['@', ';']).next().unwrap_or_default();
    match user.find(|c: char| matches!(c, '1'..='9' | '*')) {
        Some(from) => &user[from..],
        None => user,
    }
}

#[cfg(test)]
mod tests;
