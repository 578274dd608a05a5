//! What a sidecar remembers of tenants, payers and decks, so that a call needs no second round trip.
//!
//! Nothing here is trusted: every command carries the versions it rests on, and the ledger answers
//! stale when one moved. Then the entry is read again, once for all who wait for it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::tz::TimeZone;
use quick_cache::Equivalent;
use quick_cache::sync::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::charging::deck::Deck;
use crate::charging::ids::{PayerId, TenantId};
use crate::charging::month::{self, Month};
use crate::charging::profile::TenantProfile;
use crate::charging::units::Millis;
use crate::ledger::{Ledger, LedgerError, PayerView, TenantView, Versions};
use crate::metrics::{self, Entry};

/// Most tenants, payers and decks remembered at a time; the least used is read again when needed.
const MAX_TENANTS: usize = 10_000;
const MAX_PAYERS: usize = 200_000;
const MAX_DECKS: usize = 64;

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

/// See the module. Clones share what is remembered.
#[derive(Clone)]
pub struct Directory(Arc<Remembered>);

struct Remembered {
    tenants: Cache<TenantId, Arc<Tenant>>,
    payers: Cache<(TenantId, PayerId), Arc<PayerView>>,
    decks: Cache<String, Arc<Deck>>,
    /// Held while a tenant or deck is read, so that a crowd of calls reads it once.
    reading: Cache<String, Arc<Mutex<()>>>,
}

/// The key of a payer, borrowed.
#[derive(Hash)]
struct PayerKey<'a>(&'a TenantId, &'a PayerId);

impl Equivalent<(TenantId, PayerId)> for PayerKey<'_> {
    fn equivalent(&self, (tenant, payer): &(TenantId, PayerId)) -> bool {
        (self.0, self.1) == (tenant, payer)
    }
}

impl Default for Directory {
    fn default() -> Self {
        Directory(Arc::new(Remembered {
            tenants: Cache::new(MAX_TENANTS),
            payers: Cache::new(MAX_PAYERS),
            decks: Cache::new(MAX_DECKS),
            reading: Cache::new(MAX_TENANTS),
        }))
    }
}

impl Directory {
    /// The tenant; unknown tenants are asked for every time, so that names out of the blue fill nothing.
    pub async fn tenant<L: Ledger>(
        &self,
        ledger: &Arc<L>,
        tenant: &TenantId,
    ) -> Result<Arc<Tenant>, LedgerError> {
        let known = self.0.tenants.get(tenant);
        metrics::get().looked_up(Entry::Tenant, known.is_some());
        match known {
            Some(known) => Ok(known),
            // Boxed, here and below: it is rare and large, and every call would carry it along.
            None => Box::pin(self.read_tenant(ledger, tenant, None)).await,
        }
    }

    /// The tenant, where it is remembered.
    pub fn known(&self, tenant: &TenantId) -> Option<Arc<Tenant>> {
        self.0.tenants.get(tenant)
    }

    /// The payer of a known tenant; unknown payers are asked for every time, because nothing would tell
    /// an emergency call that its payer has become known.
    pub async fn payer<L: Ledger>(
        &self,
        ledger: &Arc<L>,
        tenant: &TenantId,
        payer: &PayerId,
    ) -> Result<Arc<PayerView>, LedgerError> {
        let known = self.0.payers.get(&PayerKey(tenant, payer));
        metrics::get().looked_up(Entry::Payer, known.is_some());
        match known {
            Some(known) => Ok(known),
            None => Box::pin(self.read_payer(ledger, tenant, payer)).await,
        }
    }

    /// Reads again what has moved on since the versions that the ledger called stale.
    ///
    /// What is remembered stays until it is replaced: an emergency call need not wait for the ledger.
    pub async fn refresh<L: Ledger>(
        &self,
        ledger: &Arc<L>,
        tenant: &TenantId,
        payer: &PayerId,
        stale: Versions,
    ) -> Result<(), LedgerError> {
        // The payer first: it is read for little, a tenant's numbers are many.
        if self.read_payer(ledger, tenant, payer).await?.version == stale.payer {
            self.read_tenant(ledger, tenant, Some(stale.tenant)).await?;
        }
        Ok(())
    }

    async fn read_payer<L: Ledger>(
        &self,
        ledger: &Arc<L>,
        tenant: &TenantId,
        payer: &PayerId,
    ) -> Result<Arc<PayerView>, LedgerError> {
        let found = Arc::new(ledger.payer(tenant, payer).await?.outcome);
        match &found.profile {
            Some(profile) => {
                // Names that are there already, instead of those of the request.
                let known = self.0.tenants.get(tenant);
                let of_tenant = known.as_ref().and_then(|known| known.profile());
                let tenant = of_tenant.map_or(tenant, |profile| &profile.id);
                self.0.payers.insert((tenant.clone(), profile.id.clone()), found.clone());
            }
            None => drop(self.0.payers.remove(&PayerKey(tenant, payer))),
        }
        Ok(found)
    }

    /// Reads a tenant unless another has just done so. The reading goes on if nobody waits for it any
    /// more: a deck that takes longer than a call may wait is there for the calls that follow.
    async fn read_tenant<L: Ledger>(
        &self,
        ledger: &Arc<L>,
        tenant: &TenantId,
        stale: Option<u64>,
    ) -> Result<Arc<Tenant>, LedgerError> {
        let alone = self.alone(format!("t:{tenant}")).await;
        let fresh = |known: &Arc<Tenant>| stale != Some(known.view.version);
        if let Some(known) = self.0.tenants.get(tenant).filter(fresh) {
            return Ok(known);
        }
        let (directory, ledger, tenant) = (self.clone(), ledger.clone(), tenant.clone());
        apart(async move {
            let _alone = alone;
            let reply = ledger.tenant(&tenant).await?;
            let version = reply.outcome.record.as_ref().and_then(|record| record.deck.clone());
            let deck = match version {
                Some(version) => Some(directory.deck(&ledger, &version).await?),
                None => None,
            };
            let found = Arc::new(Tenant::new(reply.outcome, deck, reply.now));
            match found.view.record {
                Some(_) => directory.0.tenants.insert(tenant, found.clone()),
                None => drop(directory.0.tenants.remove(&tenant)),
            }
            Ok(found)
        })
        .await
    }

    /// The deck of that version.
    pub async fn deck<L: Ledger>(
        &self,
        ledger: &Arc<L>,
        version: &str,
    ) -> Result<Arc<Deck>, LedgerError> {
        let known = self.0.decks.get(version);
        metrics::get().looked_up(Entry::Deck, known.is_some());
        if let Some(known) = known {
            return Ok(known);
        }
        let alone = self.alone(format!("d:{version}")).await;
        if let Some(known) = self.0.decks.get(version) {
            return Ok(known);
        }
        let (directory, ledger, version) = (self.clone(), ledger.clone(), version.to_owned());
        apart(async move {
            let _alone = alone;
            let missing =
                || LedgerError::Corrupt(format!("deck {version} is active but not stored"));
            let csv = ledger.deck(&version).await?.ok_or_else(missing)?;
            // A million rows take their time, which the other calls must not wait for.
            let parsed = tokio::task::spawn_blocking(move || Deck::parse(&csv)).await;
            let parsed = parsed.map_err(|stopped| LedgerError::Unavailable(stopped.to_string()))?;
            let broken = |errors| LedgerError::Corrupt(format!("deck {version}: {errors}"));
            let deck = Arc::new(parsed.map_err(broken)?);
            directory.keep_deck(deck.clone());
            Ok(deck)
        })
        .await
    }

    /// Remembers a deck that was read here.
    pub fn keep_deck(&self, deck: Arc<Deck>) {
        self.0.decks.insert(deck.version().to_owned(), deck);
    }

    /// Waits until nobody else reads what has that name.
    async fn alone(&self, name: String) -> OwnedMutexGuard<()> {
        let made = || Ok::<_, Infallible>(Arc::default());
        let Ok(reading) = self.0.reading.get_or_insert_with(&name, made);
        reading.lock_owned().await
    }

    /// What is remembered, without asking anybody: for decisions while the ledger is away.
    pub fn remembered(
        &self,
        tenant: &TenantId,
        payer: &PayerId,
    ) -> (Option<Arc<Tenant>>, Option<Arc<PayerView>>) {
        (self.0.tenants.get(tenant), self.0.payers.get(&PayerKey(tenant, payer)))
    }

    /// Forgets a tenant, because it was changed here.
    pub fn forget_tenant(&self, tenant: &TenantId) {
        self.0.tenants.remove(tenant);
    }
}

/// Runs a reading to its end, whether or not somebody waits for it.
async fn apart<T: Send + 'static>(
    reading: impl Future<Output = Result<T, LedgerError>> + Send + 'static,
) -> Result<T, LedgerError> {
    let done = tokio::spawn(reading).await;
    done.unwrap_or_else(|stopped| Err(LedgerError::Unavailable(stopped.to_string())))
}
