//! Carries out the erasure of telephone numbers, whoever asked for it: an operator, the retention, or a replay
//! of what the ledger has lost.

use std::borrow::Cow;

use serde_bytes::{ByteBuf, Bytes};
use uuid::Uuid;

use crate::charging::ids::TenantId;
use crate::charging::units::Millis;
use crate::credit_control::CreditControl;
use crate::credit_control::erasure::{
    ErasureNote, Whose, erase_entry, erased_context, erased_report,
};
use crate::journal::entry::Effect;
use crate::ledger::rewriting::{Plan, RewriteError, rewrite};
use crate::ledger::state::Entry;
use crate::ledger::{Ledger, LedgerError};

/// Calls that are looked at in one step.
const PAGE: usize = 250;

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Entries of the journal.
    pub entries: u64,
    /// Calls that are not forgotten.
    pub calls: u64,
    /// Entries whose call's own id holds the number, which is not erased.
    pub in_call_ids: u64,
}

impl<L: Ledger> CreditControl<L> {
    /// Erases numbers from kept calls and from the tenant's journal, where `note` stays behind: `always`, or
    /// where something was found in the journal. By `before`, those of calls decided, and of entries made,
    /// before an instant.
    pub async fn erase_numbers(
        &self,
        tenant: &TenantId,
        whose: &Whose,
        before: Option<Millis>,
        note: &ErasureNote,
        always: bool,
    ) -> Result<Erased, RewriteError> {
        let calls = self.erase_calls(tenant, whose, before).await?;
        let mut in_call_ids = 0;
        let erase = |entry: &mut Entry| {
            if let Whose::Of(wanted) = whose {
                in_call_ids += u64::from(wanted.is_in(&entry.subject));
            }
            before.is_none_or(|before| entry.at < before) && erase_entry(entry, whose)
        };
        let plan = Plan {
            token: Uuid::now_v7().to_string(),
            trim: None,
            erase,
            erase_within: before.map(|before| (Millis::ZERO, before)),
            note: |entries| ErasureNote { entries, calls, before, ..note.clone() }.encode(),
            always,
        };
        let done = rewrite(self.ledger().as_ref(), tenant, plan).await?;
        Ok(Erased { entries: done.erased, calls, in_call_ids })
    }

    /// Erases what is said of calls that are not forgotten, of those decided before an instant where one
    /// is given: first of all, so that what they still leave in the journal is erased too.
    pub async fn erase_calls(
        &self,
        tenant: &TenantId,
        whose: &Whose,
        before: Option<Millis>,
    ) -> Result<u64, LedgerError> {
        let mut erased = 0;
        let mut cursor = None;
        loop {
            let page = self.ledger().calls(tenant, cursor.as_deref(), PAGE).await?;
            for (id, call) in page.items {
                if before.is_some_and(|before| call.authorized_at >= before) {
                    continue;
                }
                if let Some(context) = erased_context(&call.context, whose) {
                    let replaced =
                        self.ledger().replace_context(tenant, &id, &call.context, &context);
                    erased += u64::from(replaced.await?);
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(erased);
            }
        }
    }
}

/// Takes the numbers out of what a sidecar's journal says of a call.
pub(super) fn erase_effect(effect: &mut Effect<'_>, whose: &Whose) {
    let (call, report): (&mut Cow<'_, _>, Option<&mut Cow<'_, Bytes>>) = match effect {
        Effect::Authorized { call, .. }
        | Effect::Answered { call, .. }
        | Effect::Extended { call, .. } => (call, None),
        Effect::Ended { call, report, .. } => (call, Some(report)),
        _ => return,
    };
    let context = erased_context(&call.context, whose);
    // As it is done to entries: what the client said at the end goes with what it said at the beginning.
    if (context.is_some() || *whose == Whose::Everybodys)
        && let Some(report) = report
        && let Some(cleared) = erased_report(report)
    {
        *report = Cow::Owned(ByteBuf::from(cleared));
    }
    if let Some(context) = context {
        call.to_mut().context = context;
    }
}
