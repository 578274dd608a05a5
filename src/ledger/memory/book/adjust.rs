//! Corrections of balances and of settled calls (D19).

use super::*;
use crate::ledger::{AdjustBalance, AdjustSettlement, Adjusted, Correction};

impl Book {
    pub(in crate::ledger::memory) fn adjust_balance(
        &mut self,
        now: Millis,
        command: &AdjustBalance,
    ) -> Adjusted {
        if let Some(known) = self.adjustment(&command.key, &command.fingerprint) {
            return known;
        }
        let found = match &command.correction {
            Correction::Lot { lot, amount, most } => self.adjust_lot(now, lot, *amount, *most),
            Correction::Pool { pool, amount, month, most } => {
                self.adjust_pool(now, pool, *amount, month, *most)
            }
        };
        let posting = match found {
            Ok(posting) => posting,
            Err(refused) => return *refused,
        };
        let adjusted = Entry {
            subject: posting.bucket.clone(),
            postings: vec![posting],
            report: command.report.clone(),
            ..entry(now, EntryKind::Adjusted)
        };
        self.note(adjusted.clone());
        self.remember(&command.key, &command.fingerprint, adjusted)
    }

    fn adjust_lot(
        &mut self,
        now: Millis,
        lot: &LotId,
        amount: Micros,
        most: Micros,
    ) -> Result<Posting, Box<Adjusted>> {
        if lot.is_overage() {
            return Err(Adjusted::PostPaid.into());
        }
        let in_wallet = self.in_wallet(now);
        let Some(bucket) = self.lots.get_mut(lot) else { return Err(Adjusted::NotFound.into()) };
        if bucket.ends <= now {
            return Err(Adjusted::Over.into());
        }
        if bucket.available() + amount.0 < 0 {
            return Err(Adjusted::Short(bucket.available()).into());
        }
        let room = most.0 - in_wallet.max(bucket.funded + bucket.adjusted);
        if amount.is_positive() && amount.0 > room {
            return Err(Adjusted::Full(room.max(0)).into());
        }
        bucket.adjusted += amount.0;
        if amount.is_positive() {
            self.enlist_lot(lot);
        }
        self.drop_empty_lots(now);
        self.judge_recharge(now);
        Ok(Posting { adjusted: amount.0, ..posting(lot_bucket(lot.as_str())) })
    }

    /// What may still be spent of the wallet, holds included.
    fn in_wallet(&self, now: Millis) -> i64 {
        let lots = self.wallet.live.iter().filter_map(|lot| self.lots.get(lot));
        lots.map(|lot| lot.held + if lot.ends <= now { 0 } else { lot.available() }).sum()
    }

    fn adjust_pool(
        &mut self,
        now: Millis,
        pool: &PoolId,
        amount: Seconds,
        month: &Month,
        most: Seconds,
    ) -> Result<Posting, Box<Adjusted>> {
        if now < month.starts || now >= month.ends {
            return Err(Adjusted::Stale.into());
        }
        let known = self.pools.get(pool.as_str()).copied();
        if pool.month() != month.key {
            return Err(if known.is_some() { Adjusted::Over } else { Adjusted::NotFound }.into());
        }
        let sized = self.sizes.contains_key(pool.family());
        let new = || sized.then(|| self.new_pool(pool.family(), month));
        let Some(bucket) = known.or_else(new) else { return Err(Adjusted::NotFound.into()) };
        if amount.0 < 0 && bucket.available() + amount.0 < 0 {
            return Err(Adjusted::Short(bucket.available()).into());
        }
        let room = most.0 - bucket.funded - bucket.adjusted;
        if amount.0 > room {
            return Err(Adjusted::Full(room.max(0)).into());
        }
        self.open_pool(pool.family(), month);
        let bucket = self.pools.or_insert_with(pool.as_str().to_owned(), Bucket::default);
        bucket.adjusted += amount.0;
        bucket.alerted = bucket.alerted.min(bucket.alert_due());
        Ok(Posting { adjusted: amount.0, ..posting(pool_bucket(pool.as_str())) })
    }

    pub(in crate::ledger::memory) fn adjust_settlement(
        &mut self,
        now: Millis,
        command: &AdjustSettlement,
    ) -> Adjusted {
        if let Some(known) = self.adjustment(&command.key, &command.fingerprint) {
            return known;
        }
        let Some(mut call) = self.call(&command.call) else {
            return Adjusted::NotFound;
        };
        if call.state != CallState::Settled {
            return Adjusted::NotSettled(call.state);
        }
        if (call.used, call.money_spent()) != command.over {
            return Adjusted::Stale;
        }
        if call.used == command.used {
            return Adjusted::Unchanged;
        }
        let gives_back = command.used < call.used;
        let short = call.shortfall_money;
        call.used = command.used;
        let postings = self.charge_lines(now, &mut call, command.used, gives_back);
        self.owe(call.shortfall_money - short);
        self.keep(&command.call, &mut call);
        let report = command.report.clone();
        let told = call_entry(now, EntryKind::Adjusted, &call, &command.call, postings);
        let adjusted = Entry { report, ..told };
        self.note(adjusted.clone());
        self.remember(&command.key, &command.fingerprint, adjusted)
    }

    /// What became of an earlier correction of that key.
    fn adjustment(&self, key: &AdjustmentId, fingerprint: &str) -> Option<Adjusted> {
        let known = self.adjustments.get(key)?;
        Some(match known.fingerprint == fingerprint {
            true => Adjusted::Replayed(known.entry.clone()),
            false => Adjusted::Conflict,
        })
    }

    fn remember(&mut self, key: &AdjustmentId, fingerprint: &str, entry: Entry) -> Adjusted {
        let entry = entry.without_context();
        let fingerprint = fingerprint.to_owned();
        self.adjustments.insert(key.clone(), Adjustment { fingerprint, entry: entry.clone() });
        Adjusted::Applied(entry)
    }
}
