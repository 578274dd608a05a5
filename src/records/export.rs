//! The records of a window of time, page by page: a year of calls is never in memory at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::charging::ids::{PayerId, TenantId};
use crate::charging::month::{Month, parse_zone, twelve_months_after};
use crate::charging::profile::{PayerProfile, TenantProfile};
use crate::charging::rating::MAX_USAGE;
use crate::charging::units::{Millis, Seconds};
use crate::credit_control::CreditControl;
use crate::ledger::state::{Entry, EntryKind, Opening};
use crate::ledger::{Ledger, LedgerError};
use crate::records::{Recorder, UsageRecord};

/// Entries of the journal that are read at a time, and at most so many records in memory. Few enough that
/// no call waits for a page to be made.
const PAGE: usize = 250;

/// How far the instants of a journal may be out of its order, where the ledger's clock was set back.
const CLOCK_SLACK: Seconds = Seconds(300);

/// Why records cannot be exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// No tenant of that name.
    #[error("no tenant {0}")]
    NoSuchTenant(TenantId),
    /// A window that cannot be.
    #[error("{field}: {reason}")]
    Window {
        /// The end of the window that is at fault.
        field: &'static str,
        /// What was expected.
        reason: String,
    },
    /// The ledger gave no outcome.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// An export under way: the records that were made from `from` on and before `to`, by the ledger's clock,
/// in the order in which they were made.
pub struct Export<L> {
    control: Arc<CreditControl<L>>,
    tenant: TenantId,
    recorder: Recorder,
    from: Millis,
    to: Millis,
    /// Cursor of the last entry that was read.
    after: Option<String>,
    ended: bool,
    kept_since: Option<Millis>,
}

impl<L: Ledger> Export<L> {
    /// Begins. `to` is now where it is left out, `from` the first instant of `to`'s month in the tenant's
    /// time zone; no window begins more than a year ago (rule 85).
    ///
    /// Reading begins before the window, as long before as a call can go on after an expiry that it was
    /// charged for: what is charged to it after that is told by difference.
    pub async fn open(
        control: Arc<CreditControl<L>>,
        tenant: &TenantId,
        from: Option<Millis>,
        to: Option<Millis>,
    ) -> Result<Export<L>, ExportError> {
        let found = control.ledger().tenant(tenant).await?;
        let Some(record) = found.outcome.record else {
            return Err(ExportError::NoSuchTenant(tenant.clone()));
        };
        let (from, to) = window(&record.profile, found.now, from, to)?;
        let retention = control.settings().ended_retention;
        let first = Millis(from.0 - (retention + MAX_USAGE + CLOCK_SLACK).0 * 1000);
        let after = control.ledger().history_since(tenant, first).await?;
        let recorder = Recorder::new(&record.profile, retention);
        let tenant = tenant.clone();
        Ok(Export { control, tenant, recorder, from, to, after, ended: false, kept_since: None })
    }

    /// The next records, `None` after the last. A page may be empty.
    pub async fn next_page(&mut self) -> Result<Option<Vec<UsageRecord>>, ExportError> {
        if self.ended {
            return Ok(None);
        }
        let ledger = self.control.ledger();
        let page = ledger.history(&self.tenant, self.after.as_deref(), PAGE).await?;
        let wanted = self.from..self.to;
        let recorded = page.items.iter().map(|(_, entry)| entry);
        let recorded = recorded
            .filter(|entry| wanted.contains(&entry.at) && Recorder::is_recorded(entry.kind));
        let payers: BTreeSet<&str> = recorded.map(|entry| entry.payer.as_str()).collect();
        let payers = self.payers(payers).await?;
        let mut records = vec![];
        for (cursor, entry) in &page.items {
            if let Some(Opening { until, .. }) = opening(entry) {
                self.kept_since = self.kept_since.max(Some(until).filter(|at| *at > self.from));
            }
            if entry.at >= self.to.after(CLOCK_SLACK) {
                self.ended = true;
                break;
            }
            let record = self.recorder.record(
                cursor,
                entry,
                payers.get(entry.payer.as_str()).map(Arc::as_ref),
            );
            records.extend(record.filter(|_| wanted.contains(&entry.at)));
        }
        self.ended |= page.next.is_none();
        self.after = page.next;
        Ok(Some(records))
    }

    /// Since when records are kept, where the window begins before that; known once what is missing was
    /// read past.
    pub fn kept_since(&self) -> Option<Millis> {
        self.kept_since
    }

    /// Those of the payers that are set up, removed ones too.
    async fn payers(
        &self,
        names: BTreeSet<&str>,
    ) -> Result<HashMap<String, Arc<PayerProfile>>, LedgerError> {
        let ids: Vec<PayerId> = names.into_iter().filter_map(|id| PayerId::new(id).ok()).collect();
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self.control.ledger().payers(&self.tenant, &ids).await?.outcome;
        let found = found.into_iter().filter_map(|payer| payer.profile);
        Ok(found.map(|payer| (payer.id.as_str().to_owned(), payer)).collect())
    }
}

fn opening(entry: &Entry) -> Option<Opening> {
    (entry.kind == EntryKind::Opening).then(|| Opening::decode(&entry.context)).flatten()
}

fn window(
    tenant: &TenantProfile,
    now: Millis,
    from: Option<Millis>,
    to: Option<Millis>,
) -> Result<(Millis, Millis), ExportError> {
    let to = to.unwrap_or(now);
    let month = || {
        let zone = parse_zone(&tenant.time_zone).unwrap_or(jiff::tz::TimeZone::UTC);
        Month::containing(Millis((to.0 - 1).max(0)), &zone).starts
    };
    let from = from.unwrap_or_else(month);
    let refused = |field, reason: String| Err(ExportError::Window { field, reason });
    if twelve_months_after(from) < now {
        let found = crate::records::instant(from);
        return refused(
            "from",
            format!("expected an instant of the last 12 months, found {found}"),
        );
    }
    if from > to {
        return refused("to", "expected an instant that is not before `from`".to_owned());
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::tests::tenant;

    const NOW: Millis = Millis(1_794_312_000_000); // 2026-11-10T12:00:00Z
    const YEAR_AGO: Millis = Millis(NOW.0 - 365 * 86_400_000);

    #[track_caller]
    fn check(from: Option<i64>, to: Option<i64>, expected: Result<(i64, i64), &str>) {
        let mut tenant = tenant();
        tenant.time_zone = "America/Los_Angeles".to_owned();
        let found = window(&tenant, NOW, from.map(Millis), to.map(Millis));
        let found = found.map(|(from, to)| (from.0, to.0)).map_err(|error| error.to_string());
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(*found, expected),
            (Err(found), Err(expected)) => assert!(found.starts_with(expected), "{found}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_window_is_this_month_unless_it_is_named_and_begins_a_year_ago_at_most() {
        // 2026-11-01T07:00:00Z, midnight in Los Angeles (still summer time), and 2026-10-01T07:00:00Z.
        let (november, october) = (1_793_516_400_000, 1_790_838_000_000);
        check(None, None, Ok((november, NOW.0)));
        check(None, Some(november), Ok((october, november)));
        check(None, Some(november + 1), Ok((november, november + 1)));
        check(Some(YEAR_AGO.0), None, Ok((YEAR_AGO.0, NOW.0)));
        check(Some(YEAR_AGO.0 - 1), None, Err("from: expected an instant of the last 12 months"));
        check(Some(0), Some(1), Err("from: "));
        check(Some(NOW.0), Some(NOW.0), Ok((NOW.0, NOW.0)));
        check(Some(NOW.0), Some(NOW.0 - 1), Err("to: "));
        check(Some(NOW.0 + 5), None, Err("to: "));
    }
}
