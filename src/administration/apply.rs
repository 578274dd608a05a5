//! Applying an organisation: everything that can be refused is, before anything is changed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::administration::balance::wallet;
use crate::administration::{
    Administration, AdministrationError, MAX_ATTEMPTS, MAX_PURCHASE_AHEAD, MAX_WALLET,
    POST_PAID_BUYS_NOTHING, conflict, wallet_full,
};
use crate::charging::ids::{LotId, PayerId, TenantId};
use crate::charging::month::{Month, twelve_months_after};
use crate::charging::plans::seats;
use crate::charging::profile::{
    Billing, PayerKind, PayerProfile, PayerState, TenantDocument, TenantProfile, TenantState, Trunk,
};
use crate::credit_control::emergency::UNATTRIBUTED;
use crate::ledger::state::Bucket;
use crate::ledger::{Applied, Ledger, PayerUpdate, PayerView, Purchased, TenantRecord};

/// Payers that one command to the ledger updates, so that no command blocks the calls for long.
const PAYERS_PER_COMMAND: usize = 500;

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

impl<L: Ledger> Administration<L> {
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
            let goes_on = document.profile.failure_handling.goes_on();
            if goes_on && self.control.journal().is_none() {
                outcome.warnings.push(
                    "failure_handling: continue_capped behaves like terminate at a server without a journal"
                        .to_owned(),
                );
            }
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
                if document.profile.billing == Billing::Postpaid {
                    return Err(AdministrationError::Refused {
                        field: format!("{path}.credits[{i}].key"),
                        reason: POST_PAID_BUYS_NOTHING.to_owned(),
                    });
                }
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
        let before: Vec<Option<Arc<PayerProfile>>> = before.iter().map(standing).collect();
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
        // Purchases come first, so that no recharge is asked for that they make needless.
        for purchase in &document.purchases {
            let expires_at = twelve_months_after(purchase.purchased_at);
            let reply = self.ledger().purchase(tenant, purchase, expires_at).await?;
            match reply.outcome {
                Purchased::Applied => {
                    self.note_purchase(tenant, reply.now, purchase, expires_at);
                    outcome.purchases_applied += 1;
                }
                Purchased::Replayed => {}
                Purchased::Conflict => {
                    return Err(AdministrationError::Refused {
                        field: format!("credits.{}", purchase.key),
                        reason: conflict(&purchase.key),
                    });
                }
            }
        }
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
                Some(before) if *before == *profile => outcome.unchanged += 1,
                Some(before) if removed && before.state != PayerState::Removed => {
                    outcome.removed += 1;
                }
                Some(_) => outcome.updated += 1,
            }
        }
        Ok(())
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
