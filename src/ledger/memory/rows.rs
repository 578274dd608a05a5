//! What a book is made of, as rows: each a key and bytes, written anew when it has changed.
//!
//! A ledger that is kept in a file writes the rows that a command touched, so the maps of a book note their
//! touched keys. A ledger that ends with its process notes nothing.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Deref;

/// What a row tells of. The number is stored: it never gets another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(in crate::ledger) enum Kind {
    /// Counters of the tenant, wallet, upkeep, spend ring, and the last number of the journal.
    Head = 1,
    /// What was applied of the tenant.
    Record = 2,
    /// Counters of a payer.
    Payer = 3,
    /// What was applied of a payer.
    Profile = 4,
    /// Seconds a month of a pool family.
    Size = 5,
    /// A pool of a month.
    Pool = 6,
    /// A lot, or the overage of a month.
    Lot = 7,
    /// A request for a recharge.
    Recharge = 8,
    /// A call that is not forgotten.
    Call = 9,
    /// An entry of the journal, by its number.
    Entry = 10,
    /// A correction.
    Adjustment = 11,
    /// A reader of the journal.
    Reader = 12,
    /// A block that stands.
    Block = 13,
    /// The text of a deck, by its version. Decks have no tenant.
    Deck = 14,
    /// The version of a deck that its name stands for.
    DeckName = 15,
    /// How far the ledger has come for each sidecar.
    Sequences = 16,
}

impl Kind {
    /// By its number.
    pub(in crate::ledger) fn of(number: u8) -> Option<Kind> {
        use Kind::*;
        let all = [
            Head, Record, Payer, Profile, Size, Pool, Lot, Recharge, Call, Entry, Adjustment,
            Reader, Block, Deck, DeckName, Sequences,
        ];
        all.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A row as it is now; without a value it is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Row {
    pub(in crate::ledger) kind: Kind,
    pub(in crate::ledger) key: Vec<u8>,
    pub(in crate::ledger) value: Option<Vec<u8>>,
}

/// A map that can note which keys were touched. It is read as the map that it is.
#[derive(Clone)]
pub(super) struct Rows<M: Map> {
    map: M,
    /// `None` where nobody asks.
    touched: Option<Vec<M::Key>>,
}

impl<M: Map> Rows<M> {
    /// An empty one that notes.
    pub(super) fn noting() -> Self {
        Rows { map: M::default(), touched: Some(vec![]) }
    }

    pub(super) fn get_mut(&mut self, key: &M::Key) -> Option<&mut M::Value> {
        self.touch(key);
        self.map.value_mut(key)
    }

    pub(super) fn insert(&mut self, key: M::Key, value: M::Value) {
        self.touch(&key);
        self.map.put(key, value);
    }

    pub(super) fn remove(&mut self, key: &M::Key) -> Option<M::Value> {
        self.touch(key);
        self.map.take(key)
    }

    /// The value of the key, made where there is none.
    pub(super) fn or_insert_with(
        &mut self,
        key: M::Key,
        make: impl FnOnce() -> M::Value,
    ) -> &mut M::Value {
        self.touch(&key);
        self.map.value_or(key, make)
    }

    /// A value as it was read from its row: nothing is noted.
    pub(super) fn load(&mut self, key: M::Key, value: M::Value) {
        self.map.put(key, value);
    }

    /// Changes a value, of which nothing is noted.
    pub(super) fn update_unnoted(&mut self, key: &M::Key, change: impl FnOnce(&mut M::Value)) {
        self.map.value_mut(key).map(change);
    }

    /// Changes every value, of which nothing is noted.
    pub(super) fn each_loaded(&mut self, change: impl FnMut(&mut M::Value)) {
        self.map.each(change);
    }

    /// The keys that were touched since this was last asked, once each.
    pub(super) fn take_touched(&mut self) -> Vec<M::Key> {
        let mut touched = self.touched.as_mut().map(std::mem::take).unwrap_or_default();
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    fn touch(&mut self, key: &M::Key) {
        if let Some(touched) = &mut self.touched {
            touched.push(key.clone());
        }
    }
}

impl<M: Map> Default for Rows<M> {
    fn default() -> Self {
        Rows { map: M::default(), touched: None }
    }
}

impl<M: Map> Deref for Rows<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.map
    }
}

/// What [`Rows`] needs of a map.
pub(super) trait Map: Default {
    type Key: Ord + Clone;
    type Value;
    fn value_mut(&mut self, key: &Self::Key) -> Option<&mut Self::Value>;
    fn value_or(&mut self, key: Self::Key, make: impl FnOnce() -> Self::Value) -> &mut Self::Value;
    fn put(&mut self, key: Self::Key, value: Self::Value);
    fn take(&mut self, key: &Self::Key) -> Option<Self::Value>;
    fn each(&mut self, change: impl FnMut(&mut Self::Value));
}

macro_rules! map {
    ($map:ident, $($bound:ident)*) => {
        impl<K: Ord + Clone $(+ $bound)*, V> Map for $map<K, V> {
            type Key = K;
            type Value = V;
            fn value_mut(&mut self, key: &K) -> Option<&mut V> {
                self.get_mut(key)
            }
            fn value_or(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
                self.entry(key).or_insert_with(make)
            }
            fn put(&mut self, key: K, value: V) {
                self.insert(key, value);
            }
            fn take(&mut self, key: &K) -> Option<V> {
                self.remove(key)
            }
            fn each(&mut self, change: impl FnMut(&mut V)) {
                self.values_mut().for_each(change);
            }
        }
    };
}

map!(BTreeMap,);
map!(HashMap, Hash);
