//! The decision that needs no ledger, for those who time it.

use std::collections::HashSet;
use std::hint::black_box;

use tollgate::charging::deck::Deck;
use tollgate::charging::entitlement::{Attempt, CallType, Setup, Verdict, decide};
use tollgate::charging::funding::{PoolSide, Reservation, reserve};
use tollgate::charging::number;
use tollgate::charging::profile::{PayerProfile, TenantDocument};
use tollgate::charging::units::{Millis, Seconds};
use tollgate::cli::loadtest::setup::deck;
use tollgate::organisation;

/// 2026-11-10T12:00:00Z.
pub const NOON: Millis = Millis(1_794_312_000_000);

const ORGANISATION: &str = "
tenants:
  - id: contoso
    currency: USD
    users:
      - { id: alice, usage_location: US, licences: [MCOEV, MCOPSTN2, MCOPSTNPP], numbers: [\"+14255550100\"] }
";

/// A call from a pool, priced too, by a deck of 100,000 prefixes.
pub struct Decision {
    tenant: TenantDocument,
    payer: PayerProfile,
    numbers: HashSet<String>,
    deck: Deck,
}

impl Default for Decision {
    fn default() -> Decision {
        number::warm_up();
        let raw = organisation::read(ORGANISATION).expect("a document");
        let tenant = organisation::check(&raw).expect("no faults").remove(0);
        let payer = tenant.payers[0].clone();
        let numbers = ["+14255550100".to_owned()].into();
        let deck = Deck::parse(deck(100_000).as_bytes()).expect("a deck");
        Decision { tenant, payer, numbers, deck }
    }
}

impl Decision {
    /// Classify, rate and fund.
    pub fn make(&self) -> (Verdict, Reservation) {
        let setup = Setup {
            tenant: Some(&self.tenant.profile),
            numbers: &self.numbers,
            payer: Some(&self.payer),
            barred: false,
            deck: Some(&self.deck),
        };
        let attempt = Attempt {
            call_type: CallType::UserOutbound,
            calling_number: "+14255550100",
            called_number: black_box("+12065550142"),
            transferred: false,
            on_behalf: false,
            at: NOON,
        };
        let verdict = decide(&attempt, &setup, &mut ());
        let pool = PoolSide {
            taken: Seconds::ZERO,
            available: Seconds(180_000),
            others: 10,
            increment: Seconds(60),
        };
        (verdict, reserve(Seconds(300), &[pool], None))
    }
}
