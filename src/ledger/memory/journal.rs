//! A tenant's journal: entries under the numbers by which cursors name them, in their order.

use std::ops::Range;

use crate::ledger::memory::packed::Packed;
use crate::ledger::state::Entry;

/// Entries of a page. A journal of one piece would be copied whole each time that it grows, and every call of
/// the tenant would wait for that.
const PAGE: usize = 1024;

/// See the module. A *place* counts the entries before it.
#[derive(Clone, Default)]
pub(super) struct Journal {
    /// All full but the last.
    pages: Vec<Vec<(u64, Packed<Entry>)>>,
}

impl Journal {
    /// Adds an entry whose number is higher than any before.
    pub(super) fn push(&mut self, number: u64, entry: Packed<Entry>) {
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE => page.push((number, entry)),
            _ => self.pages.push(vec![(number, entry)]),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.len())
    }

    /// The number of the newest entry.
    pub(super) fn last(&self) -> Option<u64> {
        Some(self.pages.last()?.last()?.0)
    }

    /// The place of the first entry with a higher number.
    pub(super) fn after(&self, number: u64) -> usize {
        self.first(|other, _| other > number)
    }

    /// The place of the first entry that is so, where all behind it are too.
    pub(super) fn first(&self, is: impl Fn(u64, &Packed<Entry>) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at(middle) {
                Some((number, entry)) if !is(*number, entry) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// The entry of that number.
    pub(super) fn entry(&self, number: u64) -> Option<&Packed<Entry>> {
        let (found, entry) = self.at(self.first(|other, _| other >= number))?;
        (*found == number).then_some(entry)
    }

    /// The entries at those places.
    pub(super) fn range(
        &self,
        places: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = &(u64, Packed<Entry>)> {
        places.filter_map(|place| self.at(place))
    }

    /// All of it.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(u64, Packed<Entry>)> {
        self.pages.iter().flatten()
    }

    fn at(&self, place: usize) -> Option<&(u64, Packed<Entry>)> {
        self.pages.get(place / PAGE)?.get(place % PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::units::Millis;
    use crate::ledger::memory::book::entry;
    use crate::ledger::state::EntryKind;

    #[test]
    fn a_journal_of_many_pages_is_found_by_number_and_by_place() {
        let mut journal = Journal::default();
        assert_eq!((journal.len(), journal.last(), journal.after(0)), (0, None, 0));
        let count = 3 * PAGE + 7;
        for place in 0..count {
            let number = 2 * place as u64 + 1;
            let packed = Packed::of(&mut entry(Millis(place as i64), EntryKind::Opening), None);
            journal.push(number, packed);
            assert_eq!((journal.len(), journal.last()), (place + 1, Some(number)));
        }
        for place in 0..count {
            let number = 2 * place as u64 + 1;
            let at = |entry: Option<&Packed<Entry>>| entry.map(|entry| entry.open().at.0);
            assert_eq!(at(journal.entry(number)), Some(place as i64));
            assert_eq!(at(journal.entry(number + 1)), None);
            assert_eq!((journal.after(number), journal.after(number - 1)), (place + 1, place));
            assert_eq!(journal.first(|_, entry| entry.open().at.0 >= place as i64), place);
        }
        let numbers =
            |found: Vec<&(u64, Packed<Entry>)>| found.iter().map(|e| e.0).collect::<Vec<_>>();
        let across = journal.range(PAGE - 1..PAGE + 1).rev().collect();
        assert_eq!(numbers(across), [2 * PAGE as u64 + 1, 2 * PAGE as u64 - 1]);
        assert_eq!(numbers(journal.range(count - 1..count + 5).collect()).len(), 1);
        assert_eq!(journal.iter().count(), count);
    }
}
