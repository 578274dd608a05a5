//! The use cases of administration: apply an organisation, buy credits, activate decks, look, audit.
//!
//! Generic over the ledger, like [`crate::credit_control`], whose directory it shares.

mod adjust;
mod apply;
mod balance;
mod blocks;
mod retention;

pub use adjust::{
    AdjustmentRecord, Amount, Authority, BalanceAdjustment, MAX_POOL, SettlementAdjustment,
};
pub use apply::ApplyOutcome;
pub use balance::{CreditLot, Credits, Overage, PoolBalance, RechargeState, TenantBalance};
pub use blocks::{BlockOutcome, BlockRecord};
pub use retention::{Erased, ErasureOf};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::administration::balance::{credit_lot, credits, pools, recharge, wallet};
use crate::charging::deck::{Deck, DeckErrors};
use crate::charging::ids::{CallId, LotId, PayerId, TenantId, names_lease};
use crate::charging::money::format_micros;
use crate::charging::month::twelve_months_after;
use crate::charging::profile::{Billing, Purchase, TenantProfile};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::CreditControl;
use crate::credit_control::answer::{CallContext, FundingLine, FundingSource};
use crate::credit_control::directory::Tenant;
use crate::credit_control::emergency::UNATTRIBUTED;
use crate::journal::entry::Effect;
use crate::ledger::audit::{self, Report};
use crate::ledger::state::{Call, Entry, EntryKind, MAX_MONEY, Opening, Posting};
use crate::ledger::{
    Applied, Ledger, LedgerError, Page, Purchased, RechargeOutcome, RechargeReported,
    ReportRecharge, TenantRecord,
};

/// How far beyond the ledger's clock a purchase may be dated: clocks differ, and so do time zones.
const MAX_PURCHASE_AHEAD: Seconds = Seconds(86_400);

/// How often a change is tried again because another one came between.
const MAX_ATTEMPTS: usize = 100;

/// Most money that a wallet may hold, available and held.
pub const MAX_WALLET: Micros = MAX_MONEY;

/// Why an act of administration was refused. Nothing was changed unless it says so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdministrationError {
    /// No tenant of that name.
    #[error("no tenant {0}")]
    NoSuchTenant(TenantId),
    /// No call of that key.
    #[error("no call {1} of tenant {0}")]
    NoSuchCall(TenantId, CallId),
    /// No lot or pool of that name.
    #[error("no lot or pool {1:?} of tenant {0}; GetBalance lists them")]
    NoSuchBucket(TenantId, String),
    /// No call of that key is kept any more.
    #[error(
        "no call {1} of tenant {0}, or it ended too long ago; correct a balance by AdjustBalance"
    )]
    CallForgotten(TenantId, CallId),
    /// No payer of that name was ever applied.
    #[error("no payer {1} of tenant {0}")]
    NoSuchPayer(TenantId, PayerId),
    /// No recharge of that key was asked for.
    #[error("no recharge {1} of tenant {0} was asked for")]
    NoSuchRecharge(TenantId, LotId),
    /// What is asked for contradicts what stands.
    #[error("{field}: {reason}")]
    Refused {
        /// Path of the field that is at fault.
        field: String,
        /// What was expected.
        reason: String,
    },
    /// A deck with mistakes.
    #[error(transparent)]
    Deck(#[from] DeckErrors),
    /// The ledger gave no outcome; a document may be applied in part, and can be applied again.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A purchase and the wallet after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurchaseOutcome {
    /// Applied before.
    pub replayed: bool,
    /// The lot as it is now.
    pub lot: CreditLot,
    /// The wallet now.
    pub credits: Credits,
    /// ISO 4217 code.
    pub currency: String,
}

/// What a report of a recharge came to, and the wallet after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RechargeReport {
    /// Reported before.
    pub replayed: bool,
    /// The lot of a success as it is now.
    pub lot: Option<CreditLot>,
    /// The wallet now.
    pub credits: Credits,
    /// Auto-recharge now.
    pub recharge: Option<RechargeState>,
    /// ISO 4217 code.
    pub currency: String,
}

/// One decision on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionRecord {
    /// The journal's entry.
    pub entry: Entry,
    /// What was said about the call; `None` where it cannot be read.
    pub context: Option<CallContext>,
    /// Who pays, as held when it was decided.
    pub funding: Vec<FundingLine>,
}

/// A deck that was activated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivatedDeck {
    /// Its version.
    pub version: String,
    /// Its rows.
    pub rows: usize,
    /// Its currency.
    pub currency: String,
    /// Tenants that it now prices calls for.
    pub tenants: u32,
}

/// The acts of administration on one ledger.
pub struct Administration<L> {
    control: Arc<CreditControl<L>>,
    /// Longest time that a due hold may stay open before the audit calls it a leak.
    sweep_bound: Seconds,
}

impl<L: Ledger> Administration<L> {
    /// On the ledger of `control`.
    pub fn new(control: Arc<CreditControl<L>>, sweep_bound: Seconds) -> Self {
        Administration { control, sweep_bound }
    }

    fn ledger(&self) -> &L {
        self.control.ledger()
    }

    fn contended(&self, tenant: &TenantId) -> AdministrationError {
        let reason = format!("tenant {tenant} is changed by others all the time");
        LedgerError::Unavailable(reason).into()
    }

    /// A tenant that exists. What it was when a sidecar last read it is enough to look at balances by.
    async fn known_tenant(&self, tenant: &TenantId) -> Result<Arc<Tenant>, AdministrationError> {
        let found = self.control.directory().tenant(self.control.ledger(), tenant).await?;
        match found.profile() {
            Some(_) => Ok(found),
            None => Err(AdministrationError::NoSuchTenant(tenant.clone())),
        }
    }

    /// Adds a lot to a tenant's wallet, once per key.
    pub async fn purchase(
        &self,
        tenant: &TenantId,
        key: LotId,
        amount: Micros,
        currency: &str,
        purchased_at: Option<Millis>,
        payment: BTreeMap<String, String>,
    ) -> Result<PurchaseOutcome, AdministrationError> {
        let known = self.known_tenant(tenant).await?;
        let profile = known.profile().ok_or_else(|| self.no_such(tenant))?;
        let refused = |field: &str, reason: String| AdministrationError::Refused {
            field: field.to_owned(),
            reason,
        };
        if currency != profile.currency {
            let reason = format!("the tenant's currency is {}, not {currency}", profile.currency);
            return Err(refused("amount.currency_code", reason));
        }
        let before = self.ledger().balance(tenant).await?;
        let lot = before.outcome.lots.iter().find(|lot| lot.key == key);
        // A repeat that names no instant means the one that the first attempt was given.
        let default = lot.map_or(before.now, |lot| lot.bucket.starts);
        let is_dated = purchased_at.is_some();
        let purchased_at = purchased_at.unwrap_or(default);
        if purchased_at > before.now.after(MAX_PURCHASE_AHEAD) {
            let reason = "expected an instant that is not in the future".to_owned();
            return Err(refused("purchased_at", reason));
        }
        let expires_at = twelve_months_after(purchased_at);
        if lot.is_none() && self.is_post_paid(tenant).await? {
            return Err(refused("tenant_id", POST_PAID_BUYS_NOTHING.to_owned()));
        }
        let grows = lot.is_none() && expires_at > before.now;
        if grows && wallet(&before.outcome, before.now) + amount > MAX_WALLET {
            return Err(refused("amount.amount", wallet_full()));
        }
        let purchase = Purchase { key, amount, purchased_at, payment };
        let reply = self.ledger().purchase(tenant, &purchase, expires_at).await?;
        let replayed = match reply.outcome {
            Purchased::Applied => {
                self.note_purchase(tenant, reply.now, &purchase, expires_at);
                false
            }
            Purchased::Replayed => {
                // Nobody may have heard of the first attempt, nor noted it.
                self.note_purchase(tenant, reply.now, &purchase, expires_at);
                true
            }
            Purchased::Conflict if is_dated => {
                return Err(refused("key", conflict(&purchase.key)));
            }
            // The same purchase may have come between, at an instant of its own.
            Purchased::Conflict => true,
        };
        let after = self.ledger().balance(tenant).await?;
        let month = known.month(after.now);
        let lot = after.outcome.lots.iter().find(|lot| lot.key == purchase.key);
        if lot.is_some_and(|lot| lot.bucket.funded != amount.0) {
            return Err(refused("key", conflict(&purchase.key)));
        }
        let lot = lot.map(|lot| credit_lot(lot, after.now)).ok_or_else(|| {
            LedgerError::Corrupt(format!("lot {} vanished after its purchase", purchase.key))
        })?;
        Ok(PurchaseOutcome {
            replayed,
            lot,
            credits: credits(&after.outcome, after.now, &month),
            currency: profile.currency.clone(),
        })
    }

    fn note_purchase(
        &self,
        tenant: &TenantId,
        now: Millis,
        purchase: &Purchase,
        expires_at: Millis,
    ) {
        let effect = || Effect::Purchased { purchase: Cow::Borrowed(purchase), expires_at };
        self.control.note(tenant, now, effect);
    }

    /// As the tenant stands now, not as it was last read here.
    async fn is_post_paid(&self, tenant: &TenantId) -> Result<bool, AdministrationError> {
        let found = self.ledger().tenant(tenant).await?.outcome.record;
        Ok(found.is_some_and(|record| record.profile.billing == Billing::Postpaid))
    }

    fn no_such(&self, tenant: &TenantId) -> AdministrationError {
        AdministrationError::NoSuchTenant(tenant.clone())
    }

    /// Pools of the current month, unused ones too, and the wallet.
    pub async fn balance(&self, tenant: &TenantId) -> Result<TenantBalance, AdministrationError> {
        let known = self.known_tenant(tenant).await?;
        let reply = self.ledger().balance(tenant).await?;
        let month = known.month(reply.now);
        Ok(TenantBalance {
            currency: known.profile().map(|t| t.currency.clone()).unwrap_or_default(),
            pools: pools(&reply.outcome, &month),
            credits: credits(&reply.outcome, reply.now, &month),
            recharge: recharge(&reply.outcome, reply.now),
        })
    }

    /// What became of a requested recharge: the money has arrived, or it has not and why.
    pub async fn report_recharge(
        &self,
        tenant: &TenantId,
        key: LotId,
        outcome: Result<(), String>,
    ) -> Result<RechargeReport, AdministrationError> {
        let known = self.known_tenant(tenant).await?;
        let refused =
            |reason: String| AdministrationError::Refused { field: "outcome".to_owned(), reason };
        let outcome = match outcome {
            Ok(()) => {
                // Bought when the store says that it is now; only a calendar tells when the year is over.
                let bought_at = self.ledger().balance(tenant).await?.now;
                let expires_at = twelve_months_after(bought_at);
                RechargeOutcome::Succeeded { bought_at, expires_at }
            }
            Err(reason) => RechargeOutcome::Failed(reason),
        };
        let succeeds = matches!(outcome, RechargeOutcome::Succeeded { .. });
        let report = ReportRecharge { tenant: tenant.clone(), key, outcome };
        let reply = self.ledger().report_recharge(&report).await?;
        let replayed = match reply.outcome {
            RechargeReported::Applied => false,
            RechargeReported::Replayed => true,
            RechargeReported::SucceededBefore => {
                return Err(refused(format!("recharge {} has succeeded before", report.key)));
            }
            RechargeReported::WalletFull => return Err(refused(wallet_full())),
            RechargeReported::NotFound => {
                return Err(AdministrationError::NoSuchRecharge(tenant.clone(), report.key));
            }
        };
        let after = self.ledger().balance(tenant).await?;
        let lot = after.outcome.lots.iter().find(|lot| succeeds && lot.key == report.key);
        // A repeat too: nobody may have heard of the first attempt, nor noted it. With the amount, which the
        // request named: it may be lost with the report.
        let amount = lot.map_or(Micros::ZERO, |lot| Micros(lot.bucket.funded));
        let effect = || Effect::Recharged { report: Cow::Borrowed(&report), amount };
        self.control.note(tenant, reply.now, effect);
        Ok(RechargeReport {
            replayed,
            lot: lot.map(|lot| credit_lot(lot, after.now)),
            credits: credits(&after.outcome, after.now, &known.month(after.now)),
            recharge: recharge(&after.outcome, after.now),
            currency: known.profile().map(|t| t.currency.clone()).unwrap_or_default(),
        })
    }

    /// One call.
    pub async fn call(
        &self,
        tenant: &TenantId,
        call: &CallId,
    ) -> Result<(Call, TenantProfile), AdministrationError> {
        let known = self.known_tenant(tenant).await?;
        let profile = known.profile().ok_or_else(|| self.no_such(tenant))?.clone();
        let found = self.ledger().call(tenant, call).await?;
        let missing = || AdministrationError::NoSuchCall(tenant.clone(), call.clone());
        Ok((found.ok_or_else(missing)?, profile))
    }

    /// Open calls, soonest to expire first; leases are none.
    pub async fn open_calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Result<(Page<(CallId, Call)>, TenantProfile), AdministrationError> {
        let known = self.known_tenant(tenant).await?;
        let profile = known.profile().ok_or_else(|| self.no_such(tenant))?.clone();
        let mut page = self.ledger().open_calls(tenant, cursor, most).await?;
        page.items.retain(|(id, _)| !id.is_lease());
        Ok((page, profile))
    }

    /// Decisions, newest first, and since when all are kept, where these reach back to what is trimmed;
    /// also those of emergency calls that named no tenant, under
    /// [`UNATTRIBUTED`].
    pub async fn decisions(
        &self,
        tenant: &TenantId,
        mut before: Option<String>,
        most: usize,
    ) -> Result<(Page<DecisionRecord>, Option<Millis>), AdministrationError> {
        if tenant.as_str() != UNATTRIBUTED {
            self.known_tenant(tenant).await?;
        }
        let mut records = vec![];
        let mut kept_since = None;
        loop {
            let wanted = most - records.len();
            let page = self.ledger().journal(tenant, before.as_deref(), wanted).await?;
            kept_since = kept_since.or(self::kept_since(page.items.iter()));
            records.extend(
                page.items
                    .into_iter()
                    .filter(|entry| entry.kind.is_decision() && !names_lease(&entry.subject))
                    .map(decision_record),
            );
            before = page.next;
            if records.len() >= most || before.is_none() {
                return Ok((Page { items: records, next: before }, kept_since));
            }
        }
    }

    /// The entries of a tenant's journal after a cursor, oldest first, and the tenant's currency; also
    /// those of emergency calls that named no tenant, under [`UNATTRIBUTED`].
    pub async fn history(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        most: usize,
    ) -> Result<(Page<(String, Entry)>, String), AdministrationError> {
        let currency = match tenant.as_str() {
            UNATTRIBUTED => String::new(),
            _ => {
                let known = self.known_tenant(tenant).await?;
                known.profile().map(|tenant| tenant.currency.clone()).unwrap_or_default()
            }
        };
        Ok((self.ledger().history(tenant, after, most).await?, currency))
    }

    /// Checks a deck without keeping it.
    pub fn check_deck(&self, csv: &[u8]) -> Result<Deck, DeckErrors> {
        Deck::parse(csv)
    }

    /// Checks a deck whole, keeps it, and makes it price the calls of every tenant that names it.
    ///
    /// Reaches tenant by tenant; one that was cut off is resumed by activating the same deck again.
    pub async fn activate_deck(
        &self,
        name: &str,
        csv: &[u8],
    ) -> Result<ActivatedDeck, AdministrationError> {
        let deck = Deck::parse(csv)?;
        let foreign = |tenant: &TenantId, currency: &str| AdministrationError::Refused {
            field: "csv".to_owned(),
            reason: format!("the deck is in {}, tenant {tenant} in {currency}", deck.currency()),
        };
        let priced_by = |record: &TenantRecord| record.profile.rate_deck == name;
        for tenant in self.ledger().tenants().await? {
            let record = self.ledger().tenant(&tenant).await?.outcome.record;
            if let Some(TenantRecord { profile, .. }) = record.filter(priced_by)
                && profile.currency != deck.currency()
            {
                return Err(foreign(&tenant, &profile.currency));
            }
        }
        self.ledger().put_deck(deck.version(), csv).await?;
        self.ledger().name_deck(name, deck.version()).await?;
        let mut activated = ActivatedDeck {
            version: deck.version().to_owned(),
            rows: deck.len(),
            currency: deck.currency().to_owned(),
            tenants: 0,
        };
        for tenant in self.ledger().tenants().await? {
            if self.give_deck(&tenant, name, &activated).await? {
                activated.tenants += 1;
            }
        }
        self.control.directory().keep_deck(Arc::new(deck));
        Ok(activated)
    }

    /// Makes a deck price a tenant's calls if the tenant names it, and changes nothing else of the tenant;
    /// whether it does.
    async fn give_deck(
        &self,
        tenant: &TenantId,
        name: &str,
        deck: &ActivatedDeck,
    ) -> Result<bool, AdministrationError> {
        for _ in 0..MAX_ATTEMPTS {
            let found = self.ledger().tenant(tenant).await?.outcome;
            // A tenant of another currency has come after all were looked at; its own apply says so.
            let wants = |record: &TenantRecord| {
                record.profile.rate_deck == name && record.profile.currency == deck.currency
            };
            let Some(mut record) = found.record.filter(wants) else { return Ok(false) };
            record.deck = Some(deck.version.clone());
            let applied = self.ledger().apply_tenant(tenant, &record, Some(found.version)).await?;
            if applied.outcome != Applied::Stale {
                return Ok(true);
            }
        }
        Err(self.contended(tenant))
    }

    /// Proves the invariants of one tenant, or of all.
    pub async fn audit(
        &self,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<(TenantId, Report)>, AdministrationError> {
        let tenants = match tenant {
            Some(tenant) => {
                self.known_tenant(tenant).await?;
                vec![tenant.clone()]
            }
            None => self.ledger().tenants().await?,
        };
        let mut reports = vec![];
        for tenant in tenants {
            let reply = self.ledger().snapshot(&tenant).await?;
            let report = audit::audit(&tenant, reply.now, self.sweep_bound, &reply.outcome);
            reports.push((tenant, report));
        }
        Ok(reports)
    }
}

/// Why a purchase of a post-paid tenant is refused.
const POST_PAID_BUYS_NOTHING: &str =
    "expected a prepaid tenant: a post-paid one cannot buy credits (rule 43)";

fn wallet_full() -> String {
    format!("expected a wallet of at most {} after the purchase", format_micros(MAX_WALLET))
}

fn conflict(key: &LotId) -> String {
    format!("purchase {key} was applied before with another amount or instant")
}

/// Since when everything is kept, where some of the entries stand for others that are trimmed.
pub fn kept_since<'a>(entries: impl Iterator<Item = &'a Entry>) -> Option<Millis> {
    let openings = entries.filter(|entry| entry.kind == EntryKind::Opening);
    openings.filter_map(|entry| Some(Opening::decode(&entry.context)?.until)).max()
}

fn decision_record(entry: Entry) -> DecisionRecord {
    let context = CallContext::decode(&entry.context);
    let tariff = context.as_ref().and_then(|context| context.tariff);
    let rate = tariff.map_or(Micros::ZERO, |tariff| tariff.rate_per_minute);
    let is_pool = |posting: &&Posting| posting.bucket.starts_with("p:");
    let by_pools = Seconds(entry.postings.iter().filter(is_pool).map(|posting| posting.held).sum());
    // As in an answer: what the pools do not pay for stands on the first line of credits.
    let mut by_money = entry.granted.minus_or_zero(by_pools);
    let funding = entry
        .postings
        .iter()
        .filter_map(|posting| {
            let (kind, bucket) = posting.bucket.split_once(':')?;
            let (source, duration, money) = match kind {
                "p" => (FundingSource::Pool, Seconds(posting.held), Micros::ZERO),
                _ => {
                    let duration = std::mem::take(&mut by_money);
                    let source = LotId::new(bucket).ok().as_ref().map(FundingSource::of_lot);
                    let source = source.unwrap_or(FundingSource::Credits);
                    (source, duration, Micros(posting.held))
                }
            };
            Some(FundingLine {
                source,
                bucket: bucket.to_owned(),
                duration,
                money,
                rate_per_minute: match source {
                    FundingSource::Credits | FundingSource::Overage => rate,
                    _ => Micros::ZERO,
                },
                expires_at: Millis::ZERO,
            })
        })
        .collect();
    DecisionRecord { entry, context, funding }
}
