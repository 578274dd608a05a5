//! The calls of a tenant by their ids, in a table that never has to be copied whole.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::charging::ids::CallId;
use crate::ledger::memory::rows::Map;

/// Parts of a table. A table of one piece is copied when it doubles, and every call of the tenant would wait for
/// that; a part is so much less.
const PARTS: u64 = 64;

/// See the module.
#[derive(Clone)]
pub(super) struct Table<V> {
    /// [`PARTS`], or none while nothing was ever kept.
    parts: Vec<HashTable<(CallId, V)>>,
    hasher: RandomState,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Table { parts: vec![], hasher: RandomState::new() }
    }
}

impl<V> Table<V> {
    pub(super) fn get(&self, id: &str) -> Option<&V> {
        let hash = self.hasher.hash_one(id);
        let found = self.parts.get(part(hash))?.find(hash, |(other, _)| other.as_str() == id)?;
        Some(&found.1)
    }

    pub(super) fn contains_key(&self, id: &str) -> bool {
        self.get(id).is_some()
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&CallId, &V)> {
        self.parts.iter().flatten().map(|(id, value)| (id, value))
    }

    fn entry(&mut self, id: &str) -> Entry<'_, (CallId, V)> {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS as usize, HashTable::new);
        }
        let hash = self.hasher.hash_one(id);
        let hasher = &self.hasher;
        let again = |(id, _): &(CallId, V)| hasher.hash_one(id.as_str());
        self.parts[part(hash)].entry(hash, |(other, _)| other.as_str() == id, again)
    }
}

/// By bits that the tables themselves look at least: they take the lowest and the seven highest.
fn part(hash: u64) -> usize {
    (hash >> 40 & (PARTS - 1)) as usize
}

impl<V> Map for Table<V> {
    type Key = CallId;
    type Value = V;

    fn value_mut(&mut self, id: &CallId) -> Option<&mut V> {
        match self.entry(id.as_str()) {
            Entry::Occupied(found) => Some(&mut found.into_mut().1),
            Entry::Vacant(_) => None,
        }
    }

    fn value_or(&mut self, id: CallId, make: impl FnOnce() -> V) -> &mut V {
        &mut self.entry(id.as_str()).or_insert_with(|| (id.clone(), make())).into_mut().1
    }

    fn put(&mut self, id: CallId, value: V) {
        match self.entry(id.as_str()) {
            Entry::Occupied(mut found) => found.get_mut().1 = value,
            Entry::Vacant(place) => drop(place.insert((id.clone(), value))),
        }
    }

    fn take(&mut self, id: &CallId) -> Option<V> {
        match self.entry(id.as_str()) {
            Entry::Occupied(found) => Some(found.remove().0.1),
            Entry::Vacant(_) => None,
        }
    }

    fn each(&mut self, mut change: impl FnMut(&mut V)) {
        self.parts.iter_mut().flatten().for_each(|(_, value)| change(value));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_table_in_parts_is_one_table() {
        let id = |n: usize| CallId::new(&format!("call-{n}")).expect("well formed");
        let mut table = Table::default();
        assert!(table.get("call-0").is_none() && table.value_mut(&id(0)).is_none());
        assert_eq!((table.take(&id(0)), table.iter().count()), (None, 0));
        let mut known = BTreeMap::new();
        for n in 0..10_000 {
            table.put(id(n % 7_000), n);
            known.insert(id(n % 7_000), n);
        }
        for n in (0..7_000).step_by(3) {
            assert_eq!(table.take(&id(n)), known.remove(&id(n)));
            assert_eq!(*table.value_or(id(n + 7_000), || n), n);
            known.insert(id(n + 7_000), n);
        }
        table.each(|n| *n += 1);
        *table.value_mut(&id(7_000)).expect("it is there") += 1;
        known.values_mut().for_each(|n| *n += 1);
        *known.get_mut(&id(7_000)).expect("it is there") += 1;
        let all: BTreeMap<_, _> = table.iter().map(|(id, n)| (id.clone(), *n)).collect();
        assert_eq!(all, known);
        for n in 0..14_500 {
            let id = id(n);
            assert_eq!(table.get(id.as_str()), known.get(&id), "{n}");
            assert_eq!(table.contains_key(id.as_str()), known.contains_key(&id), "{n}");
        }
        let sizes = table.parts.iter().map(HashTable::len);
        assert!(sizes.clone().min() > Some(50) && sizes.max() < Some(170), "uneven parts");
    }
}
