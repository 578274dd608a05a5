//! The use cases of administration: apply an organisation, buy credits, activate decks, look, audit.
//!
//! Generic over the ledger, like [`crate::credit_control`], whose directory it shares.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::charging::deck::{Deck, DeckErrors};
use crate::charging::ids::{CallId, LotId, PayerId, PoolId, TenantId};
use crate::charging::money::format_micros;
use crate::charging::month::{Month, twelve_months_after};
use crate::charging::plans::{Family, seats};
use crate::charging::profile::{
    PayerKind, PayerProfile, PayerState, Purchase, TenantDocument, TenantProfile, TenantState,
    Trunk,
};
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::CreditControl;
use crate::credit_control::answer::{CallContext, FundingLine, FundingSource};
use crate::credit_control::directory::Tenant;
use crate::credit_control::emergency::UNATTRIBUTED;
use crate::ledger::audit::{self, Report};
use crate::ledger::state::{Bucket, Call, Entry, EntryKind, Lot, Posting};
use crate::ledger::{
    Applied, Balance, Ledger, LedgerError, Page, PayerUpdate, PayerView, Purchased, TenantRecord,
    pool_id,
};

/// Payers that one command to the ledger updates, so that no command blocks the calls for long.
const PAYERS_PER_COMMAND: usize = 500;

/// How far beyond the ledger's clock a purchase may be dated: clocks differ, and so do time zones.
const MAX_PURCHASE_AHEAD: Seconds = Seconds(86_400);

/// How often a change is tried again because another one came between.
const MAX_ATTEMPTS: usize = 100;

/// Most money that a wallet may hold, available and held: a thousand million units of currency. The
/// ledgers add up lots, holds and purchases of a tenant in numbers that are exact below 2^53 micro-units
/// (nine times as much), and a purchase that another one races past the check must not reach that.
pub const MAX_WALLET: Micros = Micros(1_000_000_000_000_000);

/// Why an act of administration was refused. Nothing was changed unless it says so.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdministrationError {
    /// No tenant of that name.
    #[error("no tenant {0}")]
    NoSuchTenant(TenantId),
    /// No call of that key.
    #[error("no call {1} of tenant {0}")]
    NoSuchCall(TenantId, CallId),
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

/// What an apply did. Tenants and payers count alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyOutcome {
    /// Not known before.
    pub created: u32,
    /// Known, and now different.
    pub updated: u32,
    /// As they were.
    pub unchanged: u32,
    /// Active before, and now removed.
    pub removed: u32,
    /// Purchases that were not applied before.
    pub purchases_applied: u32,
    /// Sentences for the operator.
    pub warnings: Vec<String>,
}

/// A pool as an operator reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolBalance {
    /// Its name, month included.
    pub id: PoolId,
    /// Country whose users share it; empty for the tenant-wide pool.
    pub country: String,
    /// Licence code.
    pub plan: String,
    /// `DOMESTIC`, `INTERNATIONAL` or `CONFERENCE`.
    pub counter: String,
    /// The user, where it is one user's; else empty.
    pub user: String,
    /// Key of its month.
    pub month: String,
    /// Its size, never less than held and spent (D9).
    pub granted: Seconds,
    /// Held by open calls.
    pub held: Seconds,
    /// Charged.
    pub spent: Seconds,
    /// What new calls may take.
    pub available: Seconds,
}

/// The wallet as an operator reads it, by the ledger's clock: a lot past its expiry counts as expired
/// even before a sweep has come by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credits {
    /// All purchases, corrections included.
    pub funded: Micros,
    /// Held by open calls.
    pub held: Micros,
    /// Charged.
    pub spent: Micros,
    /// Lost by expiry.
    pub expired: Micros,
    /// What new calls may take.
    pub available: Micros,
    /// Lots with something left or held, in drawing order.
    pub lots: Vec<CreditLot>,
}

/// A lot as an operator reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditLot {
    /// Key of the purchase.
    pub key: LotId,
    /// When it was bought.
    pub purchased_at: Millis,
    /// When what is left is lost.
    pub expires_at: Millis,
    /// What was bought.
    pub amount: Micros,
    /// Neither held, spent nor expired.
    pub remaining: Micros,
}

/// A tenant's balances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantBalance {
    /// ISO 4217 code.
    pub currency: String,
    /// Pools of the current month, by id.
    pub pools: Vec<PoolBalance>,
    /// The wallet.
    pub credits: Credits,
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

    /// Creates and updates what the documents say, and removes nothing that they leave out.
    ///
    /// Everything that can be refused is refused before anything is changed. Applying the same twice
    /// changes nothing; an apply that the ledger cut off can be repeated.
    pub async fn apply(
        &self,
        documents: &[TenantDocument],
    ) -> Result<ApplyOutcome, AdministrationError> {
        let path = |index: usize| format!("tenants[{index}]");
        let mut outcome = ApplyOutcome::default();
        for (index, document) in documents.iter().enumerate() {
            let warnings = self.check_document(&path(index), document).await?;
            outcome.warnings.extend(document.warnings.iter().cloned());
            outcome.warnings.extend(warnings);
        }
        for (index, document) in documents.iter().enumerate() {
            self.apply_one(&path(index), document, &mut outcome).await?;
        }
        outcome.warnings.truncate(1_000);
        Ok(outcome)
    }

    async fn check_document(
        &self,
        path: &str,
        document: &TenantDocument,
    ) -> Result<Vec<String>, AdministrationError> {
        let profile = &document.profile;
        let reply = self.ledger().tenant(&profile.id).await?;
        let refused = |field: &str, reason: String| AdministrationError::Refused {
            field: format!("{path}.{field}"),
            reason,
        };
        if profile.id.as_str() == UNATTRIBUTED {
            return Err(refused("id", format!("{UNATTRIBUTED} is reserved")));
        }
        if let Some(known) = &reply.outcome.record
            && known.profile.currency != profile.currency
        {
            let reason = format!(
                "the tenant's currency is {} and cannot change to {}",
                known.profile.currency, profile.currency
            );
            return Err(refused("currency", reason));
        }
        let latest = reply.now.after(MAX_PURCHASE_AHEAD);
        for (i, purchase) in document.purchases.iter().enumerate() {
            if purchase.purchased_at > latest {
                let reason = "expected an instant that is not in the future".to_owned();
                return Err(refused(&format!("credits[{i}].purchased_at"), reason));
            }
        }
        self.check_lots(path, document).await?;
        self.check_payers(path, document, &reply.outcome.numbers).await?;
        let (_, warnings) = self.named_deck(path, document).await?;
        Ok(warnings)
    }

    /// The active version of the deck that a document names, and what is to be said about it.
    async fn named_deck(
        &self,
        path: &str,
        document: &TenantDocument,
    ) -> Result<(Option<String>, Vec<String>), AdministrationError> {
        let profile = &document.profile;
        let refused = |reason: String| AdministrationError::Refused {
            field: format!("{path}.rate_deck"),
            reason,
        };
        let mut warnings = vec![];
        let deck = self.ledger().named_deck(&profile.rate_deck).await?;
        match &deck {
            Some(version) => {
                let ledger = self.control.ledger();
                let deck = self.control.directory().deck(ledger, version).await?;
                if deck.currency() != profile.currency {
                    return Err(refused(format!(
                        "deck {} is in {}, the tenant in {}",
                        profile.rate_deck,
                        deck.currency(),
                        profile.currency
                    )));
                }
            }
            None if document.names_deck => {
                return Err(refused(format!(
                    "expected an active deck, found {:?}; `tollgate rates activate` makes one",
                    profile.rate_deck
                )));
            }
            None => warnings.push(format!(
                "{path}: no deck named {:?} is active: calls that money must pay are refused",
                profile.rate_deck
            )),
        }
        Ok((deck, warnings))
    }

    /// A purchase key that stands for another purchase is refused before anything is changed.
    async fn check_lots(
        &self,
        path: &str,
        document: &TenantDocument,
    ) -> Result<(), AdministrationError> {
        if document.purchases.is_empty() {
            return Ok(());
        }
        let reply = self.ledger().balance(&document.profile.id).await?;
        let balance = reply.outcome;
        let mut wallet = wallet(&balance, reply.now);
        let lots: BTreeMap<&LotId, &Bucket> =
            balance.lots.iter().map(|lot| (&lot.key, &lot.bucket)).collect();
        for (i, purchase) in document.purchases.iter().enumerate() {
            let Some(known) = lots.get(&purchase.key) else {
                if twelve_months_after(purchase.purchased_at) > reply.now {
                    wallet += purchase.amount;
                }
                if wallet > MAX_WALLET {
                    return Err(AdministrationError::Refused {
                        field: format!("{path}.credits[{i}].amount"),
                        reason: wallet_full(),
                    });
                }
                continue;
            };
            if known.funded != purchase.amount.0 || known.starts != purchase.purchased_at {
                return Err(AdministrationError::Refused {
                    field: format!("{path}.credits[{i}]"),
                    reason: conflict(&purchase.key),
                });
            }
        }
        Ok(())
    }

    /// An id that stands as another kind of payer, and a number that somebody else keeps, are refused
    /// before anything is changed. Within the document both were checked before.
    async fn check_payers(
        &self,
        path: &str,
        document: &TenantDocument,
        taken: &HashSet<String>,
    ) -> Result<(), AdministrationError> {
        let tenant = &document.profile.id;
        let mut before = Vec::with_capacity(document.payers.len());
        for batch in document.payers.chunks(PAYERS_PER_COMMAND) {
            let ids: Vec<PayerId> = batch.iter().map(|payer| payer.id.clone()).collect();
            before.extend(self.ledger().payers(tenant, &ids).await?.outcome);
        }
        let standing = |payer: &PayerView| {
            payer.profile.clone().filter(|profile| profile.state != PayerState::Removed)
        };
        let before: Vec<Option<PayerProfile>> = before.iter().map(standing).collect();
        // What the document's payers hold now, they either keep or give up by it.
        let in_document: HashSet<&str> =
            before.iter().flatten().flat_map(|payer| &payer.numbers).map(String::as_str).collect();
        let mut listed = BTreeMap::new();
        for (payer, before) in document.payers.iter().zip(&before) {
            let (list, kind) = list_and_kind(payer.kind);
            let index = listed.entry(list).or_insert(0);
            let at = format!("{path}.{list}[{index}]");
            *index += 1;
            if payer.state == PayerState::Removed {
                continue;
            }
            if let Some(before) = before
                && list_and_kind(before.kind).0 != list
            {
                let reason = format!(
                    "{} stands as {} and cannot become {kind}; remove it first",
                    payer.id,
                    list_and_kind(before.kind).1
                );
                return Err(AdministrationError::Refused { field: format!("{at}.id"), reason });
            }
            let held = |number: &&String| {
                taken.contains(*number) && !in_document.contains(number.as_str())
            };
            if let Some((i, number)) = payer.numbers.iter().enumerate().find(|(_, n)| held(n)) {
                let field = match payer.kind {
                    PayerKind::User | PayerKind::ResourceAccount => format!("{at}.numbers[{i}]"),
                    PayerKind::TollFreeNumber | PayerKind::TollNumber => format!("{at}.e164"),
                };
                let reason = format!(
                    "{number} is held by another payer of tenant {tenant}, which the document does \
                     not name"
                );
                return Err(AdministrationError::Refused { field, reason });
            }
        }
        Ok(())
    }

    async fn apply_one(
        &self,
        path: &str,
        document: &TenantDocument,
        outcome: &mut ApplyOutcome,
    ) -> Result<(), AdministrationError> {
        let tenant = &document.profile.id;
        let (before, changed) = self.apply_profile(path, document).await?;
        let was_removed =
            before.as_ref().is_some_and(|record| record.profile.state == TenantState::Removed);
        let removed = document.profile.state == TenantState::Removed && !was_removed;
        match (before.is_some(), changed) {
            (true, true) if removed => outcome.removed += 1,
            (false, _) => outcome.created += 1,
            (true, true) => outcome.updated += 1,
            (true, false) => outcome.unchanged += 1,
        }
        for batch in document.payers.chunks(PAYERS_PER_COMMAND) {
            self.apply_payers(tenant, batch, outcome).await?;
        }
        for purchase in &document.purchases {
            let expires_at = twelve_months_after(purchase.purchased_at);
            match self.ledger().purchase(tenant, purchase, expires_at).await?.outcome {
                Purchased::Applied => outcome.purchases_applied += 1,
                Purchased::Replayed => {}
                Purchased::Conflict => {
                    return Err(AdministrationError::Refused {
                        field: format!("credits.{}", purchase.key),
                        reason: conflict(&purchase.key),
                    });
                }
            }
        }
        Ok(())
    }

    /// Writes a document's profile with the deck in force; what stood before, and whether that differs.
    ///
    /// A deck that is activated meanwhile is not missed: an activation first names the deck and then
    /// looks which tenants want it, and here the tenant is written first and the name looked at again.
    async fn apply_profile(
        &self,
        path: &str,
        document: &TenantDocument,
    ) -> Result<(Option<TenantRecord>, bool), AdministrationError> {
        let tenant = &document.profile.id;
        let mut first = None;
        let mut changed = false;
        for _ in 0..MAX_ATTEMPTS {
            let before = self.ledger().tenant(tenant).await?.outcome;
            let (deck, _) = self.named_deck(path, document).await?;
            let profile = with_absent_trunks(&document.profile, before.record.as_ref());
            let record = TenantRecord { profile, deck };
            let applied = self.ledger().apply_tenant(tenant, &record, Some(before.version)).await?;
            first.get_or_insert(before.record);
            match applied.outcome {
                Applied::Stale => continue,
                Applied::Changed(count) => changed |= count > 0,
            }
            if self.ledger().named_deck(&document.profile.rate_deck).await? == record.deck {
                return Ok((first.flatten(), changed));
            }
        }
        Err(self.contended(tenant))
    }

    fn contended(&self, tenant: &TenantId) -> AdministrationError {
        let reason = format!("tenant {tenant} is changed by others all the time");
        LedgerError::Unavailable(reason).into()
    }

    async fn apply_payers(
        &self,
        tenant: &TenantId,
        batch: &[PayerProfile],
        outcome: &mut ApplyOutcome,
    ) -> Result<(), AdministrationError> {
        let updates: Vec<PayerUpdate> = batch
            .iter()
            .map(|profile| PayerUpdate { profile: profile.clone(), seats: seats(profile) })
            .collect();
        let ids: Vec<PayerId> = batch.iter().map(|profile| profile.id.clone()).collect();
        let before = self.ledger().payers(tenant, &ids).await?.outcome;
        // The document may have changed the time zone, and with it the month.
        self.control.directory().forget_tenant(tenant);
        let known = self.known_tenant(tenant).await?;
        let mut now = self.control.now();
        loop {
            let month: Month = known.month(now).as_ref().clone();
            let reply = self.ledger().apply_payers(tenant, &month, &updates).await?;
            if reply.outcome != Applied::Stale {
                break;
            }
            now = reply.now;
        }
        for (profile, before) in batch.iter().zip(before) {
            let removed = profile.state == PayerState::Removed;
            match before.profile {
                None => outcome.created += 1,
                Some(before) if before == *profile => outcome.unchanged += 1,
                Some(before) if removed && before.state != PayerState::Removed => {
                    outcome.removed += 1;
                }
                Some(_) => outcome.updated += 1,
            }
        }
        Ok(())
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
        let grows = lot.is_none() && expires_at > before.now;
        if grows && wallet(&before.outcome, before.now) + amount > MAX_WALLET {
            return Err(refused("amount.amount", wallet_full()));
        }
        let purchase = Purchase { key, amount, purchased_at, payment };
        let replayed = match self.ledger().purchase(tenant, &purchase, expires_at).await?.outcome {
            Purchased::Applied => false,
            Purchased::Replayed => true,
            Purchased::Conflict if is_dated => {
                return Err(refused("key", conflict(&purchase.key)));
            }
            // The same purchase may have come between, at an instant of its own.
            Purchased::Conflict => true,
        };
        let after = self.ledger().balance(tenant).await?;
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
            credits: credits(&after.outcome, after.now),
            currency: profile.currency.clone(),
        })
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
            credits: credits(&reply.outcome, reply.now),
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

    /// Open calls, soonest to expire first.
    pub async fn open_calls(
        &self,
        tenant: &TenantId,
        cursor: Option<&str>,
        most: usize,
    ) -> Result<(Page<(CallId, Call)>, TenantProfile), AdministrationError> {
        let known = self.known_tenant(tenant).await?;
        let profile = known.profile().ok_or_else(|| self.no_such(tenant))?.clone();
        Ok((self.ledger().open_calls(tenant, cursor, most).await?, profile))
    }

    /// Decisions, newest first; also those of emergency calls that named no tenant, under
    /// [`UNATTRIBUTED`].
    pub async fn decisions(
        &self,
        tenant: &TenantId,
        mut before: Option<String>,
        most: usize,
    ) -> Result<Page<DecisionRecord>, AdministrationError> {
        if tenant.as_str() != UNATTRIBUTED {
            self.known_tenant(tenant).await?;
        }
        let mut records = vec![];
        loop {
            let wanted = most - records.len();
            let page = self.ledger().journal(tenant, before.as_deref(), wanted).await?;
            records.extend(page.items.into_iter().filter(is_decision).map(decision_record));
            before = page.next;
            if records.len() >= most || before.is_none() {
                return Ok(Page { items: records, next: before });
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

/// The list of the document that names payers of a kind, and such a payer in words.
fn list_and_kind(kind: PayerKind) -> (&'static str, &'static str) {
    match kind {
        PayerKind::User => ("users", "a user"),
        PayerKind::TollFreeNumber | PayerKind::TollNumber => {
            ("service_numbers", "a service number")
        }
        PayerKind::ResourceAccount => ("resource_accounts", "a resource account"),
    }
}

/// What may still be spent of a tenant's wallet, holds included.
fn wallet(balance: &Balance, now: Millis) -> Micros {
    let credits = credits(balance, now);
    credits.available + credits.held
}

fn wallet_full() -> String {
    format!("expected a wallet of at most {} after the purchase", format_micros(MAX_WALLET))
}

/// The profile with the trunks that stand and that the document leaves out: absence deletes nothing.
fn with_absent_trunks(profile: &TenantProfile, standing: Option<&TenantRecord>) -> TenantProfile {
    let mut profile = profile.clone();
    let standing = standing.map_or(&[][..], |record| &record.profile.trunks);
    let absent = standing.iter().filter(|trunk| profile.trunk(trunk.id.as_str()).is_none());
    let absent: Vec<Trunk> = absent.cloned().collect();
    profile.trunks.extend(absent);
    profile.trunks.sort_by(|a, b| a.id.cmp(&b.id));
    profile
}

fn conflict(key: &LotId) -> String {
    format!("purchase {key} was applied before with another amount or instant")
}

fn is_decision(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::Authorized | EntryKind::Refused)
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
                    (FundingSource::Credits, duration, Micros(posting.held))
                }
            };
            Some(FundingLine {
                source,
                bucket: bucket.to_owned(),
                duration,
                money,
                rate_per_minute: match source {
                    FundingSource::Credits => rate,
                    _ => Micros::ZERO,
                },
                expires_at: Millis::ZERO,
            })
        })
        .collect();
    DecisionRecord { entry, context, funding }
}

fn pools(balance: &Balance, month: &Month) -> Vec<PoolBalance> {
    let known: BTreeMap<&str, &Bucket> =
        balance.pools.iter().map(|(id, bucket)| (id.as_str(), bucket)).collect();
    let mut pools: Vec<PoolBalance> = balance
        .sizes
        .iter()
        .filter_map(|(family, size)| {
            let unused = Bucket { funded: size.0, ..Bucket::default() };
            let bucket = known.get(pool_id(family, &month.key).as_str()).copied();
            let bucket = bucket.unwrap_or(&unused);
            let granted = (bucket.funded + bucket.adjusted).max(bucket.held + bucket.spent);
            if granted == 0 {
                return None;
            }
            let Family { country, plan, counter, user } = Family::of(family);
            Some(PoolBalance {
                id: PoolId::of(family, &month.key),
                country: country.to_owned(),
                plan: plan.to_owned(),
                counter: counter.to_owned(),
                user: user.to_owned(),
                month: month.key.clone(),
                granted: Seconds(granted),
                held: Seconds(bucket.held),
                spent: Seconds(bucket.spent),
                available: Seconds(bucket.available()),
            })
        })
        .collect();
    pools.sort_by(|a, b| a.id.cmp(&b.id));
    pools
}

fn credits(balance: &Balance, now: Millis) -> Credits {
    let mut credits = Credits::default();
    for lot in &balance.lots {
        let bucket = &lot.bucket;
        let lapsed = if bucket.ends <= now { bucket.available() } else { 0 };
        credits.funded += Micros(bucket.funded + bucket.adjusted);
        credits.held += Micros(bucket.held);
        credits.spent += Micros(bucket.spent);
        credits.expired += Micros(bucket.expired + lapsed);
        credits.available += Micros(bucket.available() - lapsed);
        let lot = credit_lot(lot, now);
        if lot.remaining.is_positive() || bucket.held > 0 {
            credits.lots.push(lot);
        }
    }
    credits
}

fn credit_lot(lot: &Lot, now: Millis) -> CreditLot {
    let lapsed = lot.bucket.ends <= now;
    CreditLot {
        key: lot.key.clone(),
        purchased_at: lot.bucket.starts,
        expires_at: lot.bucket.ends,
        amount: Micros(lot.bucket.funded),
        remaining: Micros(if lapsed { 0 } else { lot.bucket.available() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::catalogue::CountryCode;
    use crate::organisation;

    fn profile(trunks: &str) -> TenantProfile {
        let yaml = format!("tenants:\n  - {{ id: contoso, currency: USD, trunks: [{trunks}] }}\n");
        let raw = organisation::read(&yaml).expect("YAML");
        organisation::check(&raw).expect("a document").remove(0).profile
    }

    #[test]
    fn a_trunk_that_a_document_leaves_out_stays() {
        let standing = TenantRecord { profile: profile("{ id: b }, { id: a }"), deck: None };
        let applied = with_absent_trunks(
            &profile("{ id: c }, { id: a, emergency_country: GB }"),
            Some(&standing),
        );
        let ids: Vec<&str> = applied.trunks.iter().map(|trunk| trunk.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(applied.trunks[0].emergency_country, CountryCode::parse("GB"));
    }
}
