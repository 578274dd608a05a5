//! How far the ledger has come, for each sidecar: the twin of `counted` in scripts/lib.lua, and of
//! scripts/regressed.lua and scripts/replayed.lua. This ledger goes back only where a test makes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::charging::units::Millis;
use crate::ledger::marks::{Lost, Mark};
use crate::ledger::memory::book::{Book, entry};
use crate::ledger::state::{Entry, EntryKind};

/// See the module.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(in crate::ledger::memory) struct Sequences {
    epoch: u64,
    marks: BTreeMap<String, Mark>,
    lost: BTreeMap<String, Lost>,
}

impl Sequences {
    /// Counts a run of a sidecar; an error is how far the ledger has come where that is not as far as the
    /// sidecar was acknowledged, and nothing is counted.
    pub(in crate::ledger::memory) fn count(
        &mut self,
        sidecar: &str,
        known: Mark,
    ) -> Result<Mark, Mark> {
        let (found, _) = self.of(sidecar);
        if found.is_behind(known) {
            return Err(found);
        }
        let mark = Mark { sequence: found.sequence + 1, ..found };
        match self.marks.get_mut(sidecar) {
            Some(counted) => *counted = mark,
            None => drop(self.marks.insert(sidecar.to_owned(), mark)),
        }
        Ok(mark)
    }

    /// How far the ledger has come for a sidecar, and what that misses.
    pub(in crate::ledger::memory) fn of(&self, sidecar: &str) -> (Mark, Option<Lost>) {
        let unseen = Mark { epoch: self.epoch, sequence: 0 };
        let mark = self.marks.get(sidecar).copied().unwrap_or(unseen);
        (mark, self.lost.get(sidecar).copied())
    }

    /// Forgets names of sidecars that never come again; how many.
    pub(in crate::ledger::memory) fn forget(&mut self, is_over: impl Fn(&str) -> bool) -> usize {
        let before = self.marks.len();
        self.marks.retain(|sidecar, _| !is_over(sidecar));
        self.lost.retain(|sidecar, _| !is_over(sidecar));
        before - self.marks.len()
    }

    /// What was lost is there again; what was lost besides meanwhile stays.
    pub(in crate::ledger::memory) fn replayed(&mut self, sidecar: &str, lost: Lost) {
        if self.lost.get(sidecar) == Some(&lost) {
            self.lost.remove(sidecar);
        }
    }
}

impl Book {
    /// A sidecar has found the ledger below what it was acknowledged: how far it has come now, and what is
    /// missing, where something is.
    pub(in crate::ledger::memory) fn regressed(
        &mut self,
        now: Millis,
        sidecar: &str,
        known: Mark,
        keeps: bool,
        about: &str,
    ) -> (Mark, Option<Lost>) {
        let (found, before) = self.sequences.of(sidecar);
        if !found.is_behind(known) {
            return (found, None);
        }
        if self.sequences.epoch <= known.epoch {
            let epoch = known.epoch + 1;
            let report = about.as_bytes().to_vec();
            self.note(Entry { report, ..entry(now, EntryKind::LedgerRegressed) });
            self.sequences.epoch = epoch;
            self.sequences.marks.values_mut().for_each(|mark| mark.epoch = epoch);
        }
        let sequence = found.sequence.max(known.sequence);
        let mark = Mark { epoch: self.sequences.epoch, sequence };
        self.sequences.marks.insert(sidecar.to_owned(), mark);
        let above = found.sequence.min(known.sequence);
        let lost = Lost { above, last: known.sequence };
        let lost = before.map_or(lost, |before| before.and(lost));
        if keeps {
            self.sequences.lost.insert(sidecar.to_owned(), lost);
        }
        (mark, Some(lost))
    }
}
