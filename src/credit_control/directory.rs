//! What a sidecar remembers of tenants, payers and decks, so that a call needs no second round trip.
//!
//! Nothing here is trusted: every command carries the versions it rests on, and the ledger answers
//! stale when one moved. Then the entry is forgotten and read again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::tz::TimeZone;
use moka::sync::Cache;

use crate::charging::deck::Deck;
use crate::charging::ids::{PayerId, TenantId};
use crate::charging::month::{self, Month};
use crate::charging::profile::TenantProfile;
use crate::charging::units::Millis;
use crate::ledger::{Ledger, LedgerError, PayerView, TenantView};

/// Most tenants, payers and decks remembered at a time; the least used is read again when needed.
const MAX_TENANTS: u64 = 10_000;
const MAX_PAYERS: u64 = 200_000;
const MAX_DECKS: u64 = 64;

/// A known tenant with everything derived from it once.
pub struct Tenant {
    /// As the ledger holds it.
    pub view: TenantView,
    /// Its active deck; `None` where it names none that is active.
    pub deck: Option<Arc<Deck>>,
    zone: TimeZone,
    month: ArcSwap<Month>,
}

impl Tenant {
    fn new(view: TenantView, deck: Option<Arc<Deck>>, now: Millis) -> Self {
        let name = view.record.as_ref().map_or("UTC", |record| &record.profile.time_zone);
        let zone = month::parse_zone(name).unwrap_or(TimeZone::UTC);
        let month = ArcSwap::from_pointee(Month::containing(now, &zone));
        Tenant { view, deck, zone, month }
    }

    /// The month of an instant in the tenant's time zone (D2).
    pub fn month(&self, at: Millis) -> Arc<Month> {
        let known = self.month.load_full();
        if known.contains(at) {
            return known;
        }
        let found = Arc::new(Month::containing(at, &self.zone));
        self.month.store(found.clone());
        found
    }

    /// What was applied; `None` where the tenant is unknown.
    pub fn profile(&self) -> Option<&TenantProfile> {
        self.view.record.as_ref().map(|record| &record.profile)
    }
}

/// See the module.
pub struct Directory {
    tenants: Cache<TenantId, Arc<Tenant>>,
    payers: Cache<(TenantId, PayerId), Arc<PayerView>>,
    decks: Cache<String, Arc<Deck>>,
}

impl Default for Directory {
    fn default() -> Self {
        Directory {
            tenants: Cache::new(MAX_TENANTS),
            payers: Cache::new(MAX_PAYERS),
            decks: Cache::new(MAX_DECKS),
        }
    }
}

impl Directory {
    /// The tenant; unknown tenants are asked for every time, so that names out of the blue fill nothing.
    pub async fn tenant<L: Ledger>(
        &self,
        ledger: &L,
        tenant: &TenantId,
    ) -> Result<Arc<Tenant>, LedgerError> {
        if let Some(known) = self.tenants.get(tenant) {
            return Ok(known);
        }
        let reply = ledger.tenant(tenant).await?;
        let version = reply.outcome.record.as_ref().and_then(|record| record.deck.clone());
        let deck = match version {
            Some(version) => Some(self.deck(ledger, &version).await?),
            None => None,
        };
        let found = Arc::new(Tenant::new(reply.outcome, deck, reply.now));
        if found.view.record.is_some() {
            self.tenants.insert(tenant.clone(), found.clone());
        }
        Ok(found)
    }

    /// The payer of a known tenant.
    pub async fn payer<L: Ledger>(
        &self,
        ledger: &L,
        tenant: &TenantId,
        payer: &PayerId,
    ) -> Result<Arc<PayerView>, LedgerError> {
        let key = (tenant.clone(), payer.clone());
        if let Some(known) = self.payers.get(&key) {
            return Ok(known);
        }
        let found = Arc::new(ledger.payer(tenant, payer).await?.outcome);
        self.payers.insert(key, found.clone());
        Ok(found)
    }

    /// The deck of that version.
    pub async fn deck<L: Ledger>(
        &self,
        ledger: &L,
        version: &str,
    ) -> Result<Arc<Deck>, LedgerError> {
        if let Some(known) = self.decks.get(version) {
            return Ok(known);
        }
        let missing = || LedgerError::Corrupt(format!("deck {version} is active but not stored"));
        let csv = ledger.deck(version).await?.ok_or_else(missing)?;
        let broken = |errors| LedgerError::Corrupt(format!("deck {version}: {errors}"));
        let deck = Arc::new(Deck::parse(&csv).map_err(broken)?);
        self.decks.insert(version.to_owned(), deck.clone());
        Ok(deck)
    }

    /// What is remembered, without asking anybody: for decisions while the ledger is away.
    pub fn remembered(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
    ) -> (Option<Arc<Tenant>>, Option<Arc<PayerView>>) {
        (self.tenants.get(tenant), self.payers.get(&(tenant.clone(), payer.clone())))
    }

    /// Forgets a tenant, because it was changed here.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        self.tenants.invalidate(tenant);
    }

    /// Forgets a tenant and one of its payers, because the ledger answered stale.
    pub fn forget(&self, tenant: &TenantId, payer: &PayerId) {
        self.tenants.invalidate(tenant);
        self.payers.invalidate(&(tenant.clone(), payer.clone()));
    }
}
