//! Retention: erasing telephone numbers from records, trimming old ones.

use uuid::Uuid;

use crate::administration::{Administration, AdministrationError};
use crate::charging::ids::TenantId;
use crate::charging::profile::Retention;
use crate::charging::rating::MAX_USAGE;
use crate::charging::units::{Millis, Seconds};
use crate::credit_control::emergency::UNATTRIBUTED;
pub use crate::credit_control::erasing::Erased;
use crate::credit_control::erasure::{ErasureNote, Wanted, Whose, erase_entry};
use crate::journal::entry::Effect;
use crate::ledger::rewriting::{
    Plan, READERS_WAITED_FOR, RewriteError, Rewritten, rewrite, unread_since,
};
use crate::ledger::state::Entry;
use crate::ledger::{Ledger, LedgerError};

/// What is due by age is carried out when so much of it has gathered: a journal is rewritten whole.
const STEP: Seconds = Seconds(86_400);

/// Least age of what is trimmed, besides the time for which ended calls are kept: the longest call, and a
/// day for clocks. Usage exports look back as far, to tell late charges by difference.
const TRIM_MARGIN: Seconds = Seconds(MAX_USAGE.0 + 86_400);

/// What is to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErasureOf {
    /// One telephone number, in E.164 with its plus, whenever it was seen.
    Number(String),
    /// Everybody's, in records before this instant.
    Before(Millis),
}

impl<L: Ledger> Administration<L> {
    /// Erases telephone numbers from a tenant's records at once, and leaves an entry that says so; also
    /// from those of emergency calls that named no tenant, under [`UNATTRIBUTED`].
    ///
    /// Calls go on meanwhile. One that begins meanwhile is not looked at.
    pub async fn erase(
        &self,
        tenant: &TenantId,
        of: &ErasureOf,
        reason: &str,
        operator: &str,
    ) -> Result<Erased, AdministrationError> {
        let known = match tenant.as_str() {
            UNATTRIBUTED => None,
            _ => Some(self.known_tenant(tenant).await?),
        };
        let refused = |field: &str, reason: &str| AdministrationError::Refused {
            field: field.to_owned(),
            reason: reason.to_owned(),
        };
        let now = self.ledger().upkeep(tenant).await?.now;
        let (whose, before) = match of {
            ErasureOf::Number(number) => {
                let country = known.as_ref().and_then(|known| known.profile()?.country);
                let wanted = Wanted::new(number, country);
                let expected = "expected an E.164 number, + and 7 to 15 digits";
                (Whose::Of(wanted.ok_or_else(|| refused("number", expected))?), None)
            }
            ErasureOf::Before(before) => {
                if before.after(self.control.settings().ended_retention) > now {
                    let expected = "expected an instant longer ago than ended calls are kept";
                    return Err(refused("before", expected));
                }
                (Whose::Everybodys, Some(*before))
            }
        };
        let note = ErasureNote {
            before,
            reason: reason.to_owned(),
            operator: operator.to_owned(),
            ..ErasureNote::default()
        };
        let erased = self.control.erase_numbers(tenant, &whose, before, &note, true);
        let erased = erased.await.map_err(refused_rewrite)?;
        // A ledger that goes back brings the numbers back, and so does the replay of its calls: both forget
        // them again.
        self.control.note(tenant, now, || Effect::NumbersErased {
            key: Uuid::now_v7().to_string(),
            at: now,
            number: match of {
                ErasureOf::Number(number) => Some(number.clone()),
                ErasureOf::Before(_) => None,
            },
            before,
            reason: reason.to_owned(),
            operator: operator.to_owned(),
        });
        let Erased { entries, calls, .. } = erased;
        tracing::info!(%tenant, entries, calls, reason, operator, "numbers erased");
        Ok(erased)
    }

    /// Trims the records of a tenant before an instant to sums, or before the latest one that may be:
    /// ended calls that are kept, calls that may go on, and notices that are not yet sent need theirs.
    pub async fn trim(
        &self,
        tenant: &TenantId,
        before: Millis,
    ) -> Result<Rewritten, AdministrationError> {
        let now = self.ledger().upkeep(tenant).await?.now;
        let plan = Plan {
            token: Uuid::now_v7().to_string(),
            trim: Some(self.latest_trim(tenant, now, before).await?),
            erase: |_: &mut Entry| false,
            erase_within: Some((Millis::ZERO, Millis::ZERO)),
            note: |_| vec![],
            always: false,
        };
        rewrite(self.ledger(), tenant, plan).await.map_err(refused_rewrite)
    }

    /// What was made before it may be trimmed of what was made before `due`, as far as calls go and
    /// readers of the journal, which hold it up for so long and no longer.
    async fn latest_trim(
        &self,
        tenant: &TenantId,
        now: Millis,
        due: Millis,
    ) -> Result<Millis, LedgerError> {
        let least = self.control.settings().ended_retention + TRIM_MARGIN;
        let due = due.min(Millis(now.0 - least.0 * 1000));
        let without_readers = Millis(due.0 - READERS_WAITED_FOR.0 * 1000);
        let unread = unread_since(self.ledger(), tenant).await?;
        Ok(unread.map_or(due, |unread| unread.clamp(without_readers, due)))
    }

    /// Carries out the retention that each tenant's document asks for, as far as at least a day of it is
    /// due, and throws away what a rewriting left behind that was cut off. A tenant whose turn fails, or
    /// whose journal another sidecar rewrites, is left to the next round.
    pub async fn keep_records(&self) -> Result<(), LedgerError> {
        let mut tenants = self.ledger().tenants().await?;
        tenants.push(TenantId::literal(UNATTRIBUTED));
        let names_before = self.control.rename_old_run();
        for tenant in tenants {
            if let Err(error) = self.ledger().forget_runs(&tenant, names_before).await {
                tracing::debug!(%tenant, %error, "names of ended sidecars are kept on");
            }
            match self.keep_records_of(&tenant).await {
                Ok(Rewritten { trimmed: 0, erased: 0, .. }) => {}
                Ok(Rewritten { trimmed, erased, .. }) => {
                    tracing::info!(%tenant, trimmed, erased, "retention carried out");
                }
                Err(RewriteError::Busy(_)) => {}
                Err(error) => tracing::warn!(%tenant, %error, "retention is tried again"),
            }
        }
        Ok(())
    }

    async fn keep_records_of(&self, tenant: &TenantId) -> Result<Rewritten, RewriteError> {
        let found = self.ledger().tenant(tenant).await?;
        let now = found.now;
        let record = found.outcome.record;
        let Retention { numbers, records } =
            record.map(|record| record.profile.retention).unwrap_or_default();
        let ago = |length: Seconds| Millis(now.0 - length.0 * 1000);
        let erase = numbers.map(|n| ago(n.max(self.control.settings().ended_retention)));
        let trim = match records {
            Some(records) => Some(self.latest_trim(tenant, now, ago(records)).await?),
            None => None,
        };
        let upkeep = self.ledger().upkeep(tenant).await?.outcome;
        let is_due = |until: Option<Millis>, done: Millis| {
            until.is_some_and(|until| until.0 - done.0 >= STEP.0 * 1000)
        };
        if !is_due(erase, upkeep.erased) && !is_due(trim, upkeep.trimmed) {
            if !upkeep.token.is_empty() && upkeep.lease_ends < now {
                let token = Uuid::now_v7().to_string();
                if self.ledger().begin_rewrite(tenant, &token).await?.outcome {
                    let nothing = Millis::ZERO;
                    self.ledger().abandon_rewrite(tenant, &token, nothing, nothing).await?;
                }
            }
            return Ok(Rewritten::default());
        }
        let whose = Whose::Everybodys;
        let mut calls = 0;
        if erase.is_some() {
            calls = self.control.erase_calls(tenant, &whose, erase).await?;
        }
        let plan = Plan {
            token: Uuid::now_v7().to_string(),
            trim,
            erase: |entry: &mut Entry| {
                erase.is_some_and(|before| entry.at < before) && erase_entry(entry, &whose)
            },
            erase_within: Some((upkeep.erased, erase.unwrap_or_default())),
            note: |entries| {
                ErasureNote { entries, calls, before: erase, ..ErasureNote::default() }.encode()
            },
            always: false,
        };
        rewrite(self.ledger(), tenant, plan).await
    }
}

fn refused_rewrite(error: RewriteError) -> AdministrationError {
    match error {
        RewriteError::Ledger(error) => error.into(),
        busy @ RewriteError::Busy(_) => LedgerError::Unavailable(busy.to_string()).into(),
    }
}
