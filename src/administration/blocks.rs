//! Blocks as an operator sets, lifts and reads them (rule 91).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::administration::{Administration, AdministrationError, kept_since};
use crate::charging::ids::{PayerId, TenantId};
use crate::charging::profile::{PayerProfile, PayerState};
use crate::charging::units::{Millis, Seconds};
use crate::journal::entry::Effect;
use crate::ledger::state::{Block, BlockNote, BlockedBy, Entry, EntryKind};
use crate::ledger::{BlockSet, Ledger, LedgerError, Page, SetBlock};

/// Entries of the journal that are read at a time for a history of blocks.
const HISTORY_PAGE: usize = 1_000;

/// Entries that one request reads at most; a page may be empty for it, and the next goes on.
const MAX_READ: usize = 20_000;

/// How far the instants of a journal may be out of its order, where the ledger's clock was set back.
const CLOCK_SLACK: Seconds = Seconds(300);

/// What the file's own block is given as its reason.
const FILE_REASON: &str = "state: blocked in the organisation file";

/// That somebody was blocked, or unblocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    /// Who.
    pub payer: String,
    /// Whether blocked; else unblocked.
    pub blocked: bool,
    /// By whom.
    pub by: BlockedBy,
    /// When, by the ledger's clock.
    pub at: Millis,
    /// Why; may be empty of an unblocking.
    pub reason: String,
    /// Who did it, as was said; may be empty.
    pub operator: String,
    /// Who that is now; `None` where nobody of that name is known.
    pub profile: Option<Arc<PayerProfile>>,
}

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOutcome {
    /// Whether anything changed.
    pub changed: bool,
    /// The block that stands, or the one that is lifted; `None` where there was none to lift.
    pub block: Option<BlockRecord>,
    /// Whether the payer is still refused: blocked by this, or by the organisation file.
    pub still_blocked: bool,
}

impl BlockRecord {
    fn standing(payer: &PayerId, by: BlockedBy, block: Block) -> BlockRecord {
        let reason = if by == BlockedBy::File { FILE_REASON.to_owned() } else { block.reason };
        BlockRecord {
            payer: payer.as_str().to_owned(),
            blocked: true,
            by,
            at: block.since,
            reason,
            operator: block.operator,
            profile: None,
        }
    }

    /// What an entry of the journal tells, where it is about blocks.
    fn told(entry: Entry) -> Option<BlockRecord> {
        let blocked = match entry.kind {
            EntryKind::PayerBlocked => true,
            EntryKind::PayerUnblocked => false,
            _ => return None,
        };
        let by = BlockedBy::parse(&entry.subject)?;
        let BlockNote { mut reason, operator } = BlockNote::decode(&entry.context);
        if blocked && by == BlockedBy::File {
            FILE_REASON.clone_into(&mut reason);
        }
        let (payer, at) = (entry.payer, entry.at);
        Some(BlockRecord { payer, blocked, by, at, reason, operator, profile: None })
    }
}

impl<L: Ledger> Administration<L> {
    /// Blocks a payer until it is unblocked, or unblocks it; what was applied is not touched.
    pub async fn set_block(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
        blocked: bool,
        note: BlockNote,
    ) -> Result<BlockOutcome, AdministrationError> {
        self.known_tenant(tenant).await?;
        let command = SetBlock { tenant: tenant.clone(), payer: payer.clone(), blocked, note };
        let reply = self.ledger().set_block(&command).await?;
        // Where it stands so already, too: nobody may have heard of the first attempt, nor noted it.
        if reply.outcome != BlockSet::Unknown {
            let command = Cow::Borrowed(&command);
            self.control.note(tenant, reply.now, || Effect::BlockSet { command });
        }
        let (changed, block) = match reply.outcome {
            BlockSet::Unknown => {
                return Err(AdministrationError::NoSuchPayer(tenant.clone(), payer.clone()));
            }
            BlockSet::Blocked(block) | BlockSet::Lifted(block) => (true, Some(block)),
            BlockSet::Standing(block) => (false, Some(block)),
            BlockSet::NotBlocked => (false, None),
        };
        let profile = self.ledger().payer(tenant, payer).await?.outcome.profile;
        let in_file = profile.as_ref().is_some_and(|payer| payer.state == PayerState::Blocked);
        let record = |block| BlockRecord {
            profile,
            ..BlockRecord::standing(payer, BlockedBy::Operator, block)
        };
        Ok(BlockOutcome { changed, block: block.map(record), still_blocked: blocked || in_file })
    }

    /// The blocks that stand, in the order of payers.
    pub async fn blocks(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Result<Page<BlockRecord>, AdministrationError> {
        self.known_tenant(tenant).await?;
        let page = self.ledger().blocks(tenant, after, most).await?;
        let records = page.items.into_iter();
        let records = records.map(|(payer, by, block)| BlockRecord::standing(&payer, by, block));
        let items = self.with_profiles(tenant, records.collect()).await?;
        Ok(Page { items, next: page.next })
    }

    /// Who was blocked and unblocked from `from` on and before `to`, oldest first; `to` is now where it
    /// is left out, `from` the first instant of `to`'s month in the tenant's time zone. And since when
    /// all are kept, where the window begins before that.
    pub async fn block_history(
        &self,
        tenant: &TenantId,
        (from, to): (Option<Millis>, Option<Millis>),
        after: Option<&str>,
        most: usize,
    ) -> Result<(Page<BlockRecord>, Option<Millis>), AdministrationError> {
        let known = self.known_tenant(tenant).await?;
        let now = self.ledger().tenant(tenant).await?.now;
        // What happened at this very instant has happened.
        let to = to.unwrap_or(Millis(now.0 + 1));
        let from = from.unwrap_or_else(|| known.month(Millis((to.0 - 1).max(0))).starts);
        let mut after = match after {
            Some(cursor) => Some(cursor.to_owned()),
            None => {
                let first = Millis(from.0 - CLOCK_SLACK.0 * 1000);
                self.ledger().history_since(tenant, first).await?
            }
        };
        let mut records = vec![];
        let mut read = 0;
        let mut since = None;
        let next = 'reading: loop {
            let page = self.ledger().history(tenant, after.as_deref(), HISTORY_PAGE).await?;
            for (cursor, entry) in page.items {
                if records.len() == most {
                    break 'reading after;
                }
                if entry.at >= to.after(CLOCK_SLACK) {
                    break 'reading None;
                }
                read += 1;
                since = since.max(kept_since([&entry].into_iter()).filter(|until| *until > from));
                let within = (from..to).contains(&entry.at);
                records.extend(BlockRecord::told(entry).filter(|_| within));
                after = Some(cursor);
            }
            if page.next.is_none() || read >= MAX_READ {
                break page.next;
            }
        };
        Ok((Page { items: self.with_profiles(tenant, records).await?, next }, since))
    }

    async fn with_profiles(
        &self,
        tenant: &TenantId,
        records: Vec<BlockRecord>,
    ) -> Result<Vec<BlockRecord>, LedgerError> {
        let names: BTreeSet<&str> = records.iter().map(|record| record.payer.as_str()).collect();
        let ids: Vec<PayerId> = names.into_iter().filter_map(|id| PayerId::new(id).ok()).collect();
        if ids.is_empty() {
            return Ok(records);
        }
        let found = self.ledger().payers(tenant, &ids).await?.outcome;
        let found = found.into_iter().filter_map(|payer| payer.profile);
        let profiles: HashMap<String, Arc<PayerProfile>> =
            found.map(|profile| (profile.id.as_str().to_owned(), profile)).collect();
        let with = |record: BlockRecord| BlockRecord {
            profile: profiles.get(&record.payer).cloned(),
            ..record
        };
        Ok(records.into_iter().map(with).collect())
    }
}
