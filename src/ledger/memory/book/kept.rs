//! A book as rows: those that changed since they were last asked for, and a book made of its rows.
//!
//! Rows are MessagePack arrays in the order of the fields, what was applied is JSON: as in Redis. Deadlines
//! are told by the calls. A journal that is being rewritten is no row: who rewrites it ends with the process,
//! and begins anew.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::*;
use crate::ledger::marks::is_run;
use crate::ledger::memory::rows::{Kind, Row};
use crate::ledger::{block_cursor, read_block_cursor};

/// What a tenant has one of.
#[derive(Serialize, Deserialize)]
struct Head<T, W, U, R> {
    tenant: T,
    wallet: W,
    upkeep: U,
    ring: R,
    numbered: u64,
}

type ReadHead = Head<TenantAccount, Wallet, Upkeep, SpendRing>;

/// What the rows hold already of that which is not noted by its key.
#[derive(Clone, Default)]
pub(super) struct Kept {
    head: Vec<u8>,
    sequences: Vec<u8>,
    /// Version of the tenant with which its record was written.
    record: u64,
    /// Numbers of entries that came, changed or went.
    pub(super) entries: Vec<u64>,
    /// The commit that holds the newest change.
    last: u64,
}

impl Book {
    /// An empty book that notes what changes.
    pub(in crate::ledger::memory) fn noting() -> Book {
        Book {
            payers: Rows::noting(),
            sizes: Rows::noting(),
            pools: Rows::noting(),
            lots: Rows::noting(),
            recharges: Rows::noting(),
            calls: Rows::noting(),
            adjustments: Rows::noting(),
            readers: Rows::noting(),
            blocks: Rows::noting(),
            kept: Some(Kept::default()),
            ..Book::default()
        }
    }

    /// The commit with which everything that can be seen here is kept; 0 where nothing changed yet.
    pub(in crate::ledger::memory) fn last_commit(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.last)
    }

    /// The rows that changed since this was last called are in this commit.
    pub(in crate::ledger::memory) fn changed_in(&mut self, commit: u64) {
        if let Some(kept) = &mut self.kept {
            kept.last = commit;
        }
    }

    /// The rows that changed since this was last called.
    pub(in crate::ledger::memory) fn take_changes(&mut self) -> Result<Vec<Row>, String> {
        let Some(mut kept) = self.kept.take() else { return Ok(vec![]) };
        let changes = self.changes(&mut kept);
        self.kept = Some(kept);
        changes
    }

    fn changes(&mut self, kept: &mut Kept) -> Result<Vec<Row>, String> {
        let mut rows = vec![];
        let head = packed(&Head {
            tenant: &self.tenant,
            wallet: &self.wallet,
            upkeep: &self.upkeep,
            ring: &self.ring,
            numbered: self.numbered,
        })?;
        if head != kept.head {
            kept.head.clone_from(&head);
            rows.push(Row { kind: Kind::Head, key: vec![], value: Some(head) });
        }
        let sequences = packed(&self.sequences)?;
        if sequences != kept.sequences {
            kept.sequences.clone_from(&sequences);
            rows.push(Row { kind: Kind::Sequences, key: vec![], value: Some(sequences) });
        }
        if let Some(record) = self.record.as_ref().filter(|_| kept.record != self.tenant.version) {
            kept.record = self.tenant.version;
            rows.push(Row { kind: Kind::Record, key: vec![], value: Some(json(record)?) });
        }
        for id in self.payers.take_touched() {
            let Some(payer) = self.payers.get(&id) else { continue };
            let key = || id.as_str().as_bytes().to_vec();
            rows.push(Row { kind: Kind::Payer, key: key(), value: Some(packed(&payer.account)?) });
            if payer.kept_version != payer.account.version {
                let profile = json(&(&payer.profile, &*payer.seats))?;
                rows.push(Row { kind: Kind::Profile, key: key(), value: Some(profile) });
                let version = payer.account.version;
                self.payers.update_unnoted(&id, |payer| payer.kept_version = version);
            }
        }
        let mut put =
            |kind, key: Vec<u8>, value: Option<Vec<u8>>| rows.push(Row { kind, key, value });
        for key in self.sizes.take_touched() {
            put(Kind::Size, key.as_bytes().to_vec(), self.sizes.get(&key).map(packed).transpose()?);
        }
        for key in self.pools.take_touched() {
            put(Kind::Pool, key.as_bytes().to_vec(), self.pools.get(&key).map(packed).transpose()?);
        }
        for key in self.lots.take_touched() {
            let value = self.lots.get(&key).map(packed).transpose()?;
            put(Kind::Lot, key.as_str().as_bytes().to_vec(), value);
        }
        for key in self.recharges.take_touched() {
            let value = self.recharges.get(&key).map(packed).transpose()?;
            put(Kind::Recharge, key.as_str().as_bytes().to_vec(), value);
        }
        for key in self.calls.take_touched() {
            let value = self.call(&key).as_ref().map(packed).transpose()?;
            put(Kind::Call, key.as_str().as_bytes().to_vec(), value);
        }
        for key in self.adjustments.take_touched() {
            let value = self.adjustments.get(&key).map(packed).transpose()?;
            put(Kind::Adjustment, key.as_str().as_bytes().to_vec(), value);
        }
        for key in self.readers.take_touched() {
            let value = self.readers.get(&key).map(packed).transpose()?;
            put(Kind::Reader, key.as_bytes().to_vec(), value);
        }
        for key in self.blocks.take_touched() {
            let value = self.blocks.get(&key).map(packed).transpose()?;
            put(Kind::Block, block_cursor(&key.0, key.1).into_bytes(), value);
        }
        let mut numbers = std::mem::take(&mut kept.entries);
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let entry = self.journal.entry(number).map(Packed::open);
            let entry = entry.as_ref().map(packed).transpose()?;
            put(Kind::Entry, number.to_be_bytes().to_vec(), entry);
        }
        Ok(rows)
    }

    /// Takes a row in, as it was kept; in any order, but entries of the journal in that of their numbers.
    pub(in crate::ledger::memory) fn load(
        &mut self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), String> {
        let text = || std::str::from_utf8(key).map_err(|_| "its key is no text".to_owned());
        let lot = || LotId::new(text()?).map_err(|error| error.to_string());
        match kind {
            Kind::Head => {
                let head: ReadHead = unpacked(value)?;
                self.tenant = head.tenant;
                self.wallet = head.wallet;
                self.upkeep = head.upkeep;
                self.ring = head.ring;
                self.numbered = head.numbered;
                if let Some(kept) = &mut self.kept {
                    kept.head = value.to_vec();
                }
            }
            Kind::Sequences => {
                self.sequences = unpacked(value)?;
                if let Some(kept) = &mut self.kept {
                    kept.sequences = value.to_vec();
                }
            }
            Kind::Record => self.record = Some(read_json(value)?),
            Kind::Payer | Kind::Profile => {
                let id = PayerId::new(text()?).map_err(|error| error.to_string())?;
                let mut payer = Box::<Payer>::default();
                if let Some(known) = self.payers.get(&id) {
                    payer.account.clone_from(&known.account);
                    payer.profile.clone_from(&known.profile);
                    payer.seats.clone_from(&known.seats);
                }
                match kind {
                    Kind::Payer => payer.account = unpacked(value)?,
                    _ => (payer.profile, payer.seats) = read_json(value)?,
                }
                self.payers.load(id, payer);
            }
            Kind::Size => self.sizes.load(text()?.to_owned(), unpacked(value)?),
            Kind::Pool => self.pools.load(text()?.to_owned(), unpacked(value)?),
            Kind::Lot => self.lots.load(lot()?, unpacked(value)?),
            Kind::Recharge => self.recharges.load(lot()?, unpacked(value)?),
            Kind::Call => {
                let id = CallId::new(text()?).map_err(|error| error.to_string())?;
                let mut call: Call = unpacked(value)?;
                let listed = match call.state.is_open() {
                    true => &mut self.deadlines,
                    false => &mut self.retained,
                };
                listed.insert((call.deadline, id.clone()));
                self.calls.load(id, Packed::of(&mut call, None));
            }
            Kind::Entry => {
                let number = key.try_into().map_err(|_| "its key is no number".to_owned())?;
                let number = u64::from_be_bytes(number);
                if self.journal.last().is_some_and(|last| last >= number) {
                    return Err("it is out of its order".to_owned());
                }
                self.journal.push(number, self.pack(unpacked(value)?));
            }
            Kind::Adjustment => {
                let id = AdjustmentId::new(text()?).map_err(|error| error.to_string())?;
                self.adjustments.load(id, unpacked(value)?);
            }
            Kind::Reader => self.readers.load(text()?.to_owned(), unpacked(value)?),
            Kind::Block => {
                let (payer, by) = read_block_cursor(text()?).map_err(|error| error.to_string())?;
                self.blocks.load((payer, by), unpacked(value)?);
            }
            Kind::Deck | Kind::DeckName => return Err("decks belong to no tenant".to_owned()),
        }
        Ok(())
    }

    /// After the last row: what follows from the rows, and whether they can be of one book.
    pub(in crate::ledger::memory) fn loaded(&mut self) -> Result<(), String> {
        if self.journal.last().is_some_and(|last| last > self.numbered) {
            return Err("the journal has entries that nobody numbered".to_owned());
        }
        self.payers.each_loaded(|payer| payer.kept_version = payer.account.version);
        let version = self.tenant.version;
        if let Some(kept) = &mut self.kept {
            kept.record = version;
        }
        self.upkeep.token.clear();
        self.upkeep.lease_ends = Millis::ZERO;
        // One process at a time has the file: the runs before this one have ended.
        self.sequences.forget(is_run);
        Ok(())
    }
}

/// Entries that are not the same in both journals, or in one of them only.
pub(super) fn differing(old: &Journal, new: &Journal) -> Vec<u64> {
    let gone = old.iter().filter(|(n, entry)| new.entry(*n) != Some(entry));
    let come = new.iter().filter(|(n, _)| old.entry(*n).is_none());
    gone.chain(come).map(|(number, _)| *number).collect()
}

fn packed<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec(value).map_err(|error| error.to_string())
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

fn unpacked<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    let value = T::deserialize(&mut reader).map_err(|error| error.to_string())?;
    match IgnoredAny::deserialize(&mut reader) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err("bytes after the value".to_owned()),
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}
