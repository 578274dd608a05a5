//! Months end where the tenant is, by the store's clock (D2, D3), and credits lapse a year after the instant
//! of their purchase (D17): through the use cases, on both ledgers, the store's clock stepped.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tollgate::administration::Administration;
use tollgate::charging::decision::Decision;
use tollgate::charging::entitlement::CallType;
use tollgate::charging::ids::{LotId, TenantId};
use tollgate::charging::units::{Micros, Millis, Seconds};
use tollgate::credit_control::answer::{Answer, Charge, EndReport};
use tollgate::credit_control::{
    AuthorizeRequest, CreditControl, EndRequest, ExtendRequest, Settings,
};
use tollgate::ledger::state::{Bucket, EntryKind};
use tollgate::ledger::{ClockOffset, EndResult, Ending, Ledger};
use tollgate::organisation;

use crate::server::DECK;
use crate::support::{ENDED_RETENTION, Opened, UNIT, call_id, is_alert, payer};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two users with Domestic 120.
const POOL: i64 = 2 * 120 * 60;

/// As [`crate::on_every_ledger`], with a house for a stage.
macro_rules! on_every_ledger {
    ($($case:ident)*) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(&super::House::open(crate::support::memory).await).await;
                }
            )*
        }
        mod redis {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(&super::House::open(crate::support::redis).await).await;
                }
            )*
        }
    };
}

on_every_ledger! {
    months_end_at_midnight_in_los_angeles
    months_end_at_midnight_in_kolkata
    months_end_at_midnight_in_auckland
    alerts_are_told_once_a_month_of_the_tenants_zone
    a_spend_limit_starts_anew_with_the_month_of_the_tenants_zone
    credits_lapse_a_year_after_the_instant_of_their_purchase
    a_lot_that_lapses_under_a_call_pays_for_it_and_loses_the_rest
    a_sidecar_whose_clock_is_an_hour_slow_decides_by_the_stores
    a_sidecar_whose_clock_is_an_hour_fast_decides_by_the_stores
}

/// The first instants of months, by the wall clocks of the place, each before the one that follows.
const LOS_ANGELES: &[&str] = &[
    // Summer time ends on the first day of November, after the month has begun.
    "2026-11-01T00:00:00-07:00",
    "2026-12-01T00:00:00-08:00",
    "2027-02-01T00:00:00-08:00",
    "2027-03-01T00:00:00-08:00",
    "2027-04-01T00:00:00-07:00",
    "2027-05-01T00:00:00-07:00",
    "2027-10-01T00:00:00-07:00",
    "2027-11-01T00:00:00-07:00",
    "2027-12-01T00:00:00-08:00",
    "2028-01-01T00:00:00-08:00",
    "2028-03-01T00:00:00-08:00",
];
const KOLKATA: &[&str] = &[
    "2027-02-01T00:00:00+05:30",
    "2027-03-01T00:00:00+05:30",
    "2027-04-01T00:00:00+05:30",
    "2027-05-01T00:00:00+05:30",
    "2027-10-01T00:00:00+05:30",
    "2027-11-01T00:00:00+05:30",
    "2027-12-01T00:00:00+05:30",
    "2028-03-01T00:00:00+05:30",
];
const AUCKLAND: &[&str] = &[
    "2027-02-01T00:00:00+13:00",
    "2027-03-01T00:00:00+13:00",
    // Summer time ends on 4 April and begins on 26 September.
    "2027-04-01T00:00:00+13:00",
    "2027-05-01T00:00:00+12:00",
    "2027-09-01T00:00:00+12:00",
    "2027-10-01T00:00:00+13:00",
    "2027-11-01T00:00:00+13:00",
    "2027-12-01T00:00:00+13:00",
    "2028-03-01T00:00:00+13:00",
];

const ZONES: [(&str, &str); 4] = [
    ("la", "America/Los_Angeles"),
    ("kolkata", "Asia/Kolkata"),
    ("auckland", "Pacific/Auckland"),
    ("utc", "UTC"),
];

/// A ledger with a tenant in each of [`ZONES`], a sidecar, and a stopped clock.
struct House<L> {
    ledger: Arc<L>,
    clock: ClockOffset,
    control: Arc<CreditControl<L>>,
    administration: Administration<L>,
    number: u32,
    _keep: Box<dyn Any + Send + Sync>,
}

fn at(instant: &str) -> Millis {
    Millis(instant.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

fn before(instant: Millis, seconds: i64) -> Millis {
    Millis(instant.0 - seconds * 1000)
}

/// `2027-02` of `2027-02-01T…`, and the month before it.
fn months(boundary: &str) -> (String, String) {
    let (year, month): (i32, i32) =
        (boundary[..4].parse().unwrap(), boundary[5..7].parse().unwrap());
    let earlier = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
    (format!("{:04}-{:02}", earlier.0, earlier.1), boundary[..7].to_owned())
}

fn pool_of(month: &str) -> String {
    format!("US:MCOPSTN5:DOMESTIC:{month}")
}

fn sidecar<L: Ledger>(ledger: &Arc<L>) -> Arc<CreditControl<L>> {
    let settings = Settings {
        default_grant: Seconds(300),
        max_grant: Seconds(4 * 3600),
        ringing_timeout: Seconds(180),
        grace: Seconds(60),
        denied_retention: Seconds(600),
        ended_retention: ENDED_RETENTION,
        ledger_timeout: PATIENCE,
        emergency_country: None,
        token_keys: None,
        degraded: tollgate::credit_control::leases::Settings::DEFAULTS,
    };
    Arc::new(CreditControl::new(ledger.clone(), settings))
}

impl<L: Ledger> House<L> {
    async fn open<F: Future<Output = Opened<L>>>(
        ledger: impl FnOnce(ClockOffset) -> F,
    ) -> House<L> {
        static HOUSES: AtomicU32 = AtomicU32::new(0);
        let clock = ClockOffset::default();
        clock.freeze_at(at("2026-10-15T12:00:00Z"));
        let Opened { ledger, keep } = ledger(clock.clone()).await;
        let ledger = Arc::new(ledger);
        let control = sidecar(&ledger);
        let administration = Administration::new(control.clone(), Seconds(10));
        let number = HOUSES.fetch_add(1, Ordering::Relaxed);
        let house = House { ledger, clock, control, administration, number, _keep: keep };
        let deck = house.tenant("deck");
        house.administration.activate_deck(deck.as_str(), DECK.as_bytes()).await.unwrap();
        for (place, zone) in ZONES {
            let tenant = house.tenant(place);
            let text = format!(
                "tenants: [{{ id: {tenant}, currency: USD, time_zone: {zone}, rate_deck: {deck}, users: [\
                 {{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN5] }}, \
                 {{ id: bob, usage_location: US, licences: [MCOEV, MCOPSTN5] }}, \
                 {{ id: carol, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1], \
                    spend_limit: \"1\" }}, \
                 {{ id: dora, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1] }}] }}]"
            );
            let document = organisation::check(&organisation::read(&text).unwrap()).unwrap();
            house.administration.apply(&document).await.unwrap();
        }
        house
    }

    /// Of this house: Redis is shared.
    fn tenant(&self, place: &str) -> TenantId {
        let name = format!("clocks-{}-{}-{place}", std::process::id(), self.number);
        TenantId::new(&name).unwrap()
    }

    async fn buy(&self, place: &str, key: &str, units: i64) {
        let (tenant, key) = (self.tenant(place), LotId::new(key).unwrap());
        let amount = Micros(units * UNIT);
        let bought =
            self.administration.purchase(&tenant, key, amount, "USD", None, [].into()).await;
        assert!(!bought.unwrap().replayed);
    }

    async fn authorize(&self, place: &str, call: &str, user: &str, seconds: i64) -> Answer {
        self.authorize_at(&self.control, place, call, user, seconds).await
    }

    async fn authorize_at(
        &self,
        sidecar: &CreditControl<L>,
        place: &str,
        call: &str,
        user: &str,
        seconds: i64,
    ) -> Answer {
        let request = AuthorizeRequest {
            tenant: self.tenant(place),
            call: call_id(call),
            call_type: CallType::UserOutbound,
            payer: payer(user),
            calling_number: String::new(),
            called_number: "+12065550100".to_owned(),
            original_called_number: String::new(),
            requested: Some(Seconds(seconds)),
            origin: String::new(),
            on_behalf_of: String::new(),
            conference_id: String::new(),
            sip_call_id: String::new(),
            trunk: String::new(),
            reports_answer: false,
            labels: Default::default(),
        };
        sidecar.authorize(&request, Instant::now() + PATIENCE).await
    }

    /// A call that must be granted; what pays first.
    #[track_caller]
    fn granted(
        &self,
        place: &str,
        call: &str,
        user: &str,
        seconds: i64,
    ) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.authorize(place, call, user, seconds).await;
            let granted = answer.grant.map(|grant| grant.granted);
            assert_eq!(granted, Some(Seconds(seconds)), "{caller}: {answer:?}");
            answer.funding[0].bucket.clone()
        }
    }

    async fn extend(&self, tenant: TenantId, call: &str, used: i64, more: i64) -> Answer {
        let request = ExtendRequest {
            tenant,
            call: call_id(call),
            used: Seconds(used),
            sequence: None,
            requested: Some(Seconds(more)),
            token: String::new(),
        };
        self.control.extend(&request, Instant::now() + PATIENCE).await.unwrap()
    }

    async fn settle(&self, place: &str, call: &str, used: i64) -> Charge {
        let settle = EndRequest {
            tenant: self.tenant(place),
            call: call_id(call),
            how: Ending::Settle(Seconds(used)),
            report: EndReport::default(),
            token: String::new(),
        };
        self.control.end(settle, Instant::now() + PATIENCE).await.unwrap()
    }

    async fn sweep(&self, place: &str) {
        self.ledger.sweep(&self.tenant(place), 1000, ENDED_RETENTION).await.unwrap();
    }

    /// A pool of whatever month.
    async fn pool(&self, place: &str, month: &str) -> Bucket {
        let balance = self.ledger.balance(&self.tenant(place)).await.unwrap().outcome;
        let mut pools = balance.pools.into_iter();
        let found = pools.find(|(id, _)| id.month() == month);
        found.unwrap_or_else(|| panic!("no pool of {month}")).1
    }

    async fn lot(&self, place: &str, key: &str) -> Bucket {
        let balance = self.ledger.balance(&self.tenant(place)).await.unwrap().outcome;
        balance.lots.into_iter().find(|lot| lot.key.as_str() == key).unwrap().bucket
    }

    /// Period, size and use of the pool that the tenant is shown now.
    async fn shown(&self, place: &str) -> (String, Seconds, Seconds, Seconds) {
        let balance = self.administration.balance(&self.tenant(place)).await.unwrap();
        let pool = &balance.pools[0];
        (pool.id.month().to_owned(), pool.granted, pool.held, pool.spent)
    }

    async fn alerts(&self, place: &str) -> Vec<EntryKind> {
        let journal = self.ledger.snapshot(&self.tenant(place)).await.unwrap().outcome.journal;
        journal.into_iter().map(|entry| entry.kind).filter(|kind| is_alert(*kind)).collect()
    }

    async fn assert_audits_clean(&self) {
        for (place, _) in ZONES {
            let tenant = self.tenant(place);
            for (tenant, report) in self.administration.audit(Some(&tenant)).await.unwrap() {
                assert!(report.findings.is_empty(), "{tenant}: {:#?}", report.findings);
            }
        }
    }
}

async fn months_end_at_midnight_in_los_angeles<L: Ledger>(house: &House<L>) {
    months_end(house, "la", LOS_ANGELES).await;
}

async fn months_end_at_midnight_in_kolkata<L: Ledger>(house: &House<L>) {
    months_end(house, "kolkata", KOLKATA).await;
}

async fn months_end_at_midnight_in_auckland<L: Ledger>(house: &House<L>) {
    months_end(house, "auckland", AUCKLAND).await;
}

/// At each boundary: a call of the last second and one of the first, an extension and a settle of the old
/// one after the boundary, and a settle of an older one after it has expired.
async fn months_end<L: Ledger>(house: &House<L>, place: &str, boundaries: &[&str]) {
    let mut month_before = String::new();
    for boundary in boundaries {
        let (old, new) = months(boundary);
        let call = |name: &str| format!("{boundary} {name}");
        house.clock.freeze_at(before(at(boundary), 1));
        let paid_by = house.granted(place, &call("old"), "alice", 60).await;
        assert_eq!(paid_by, pool_of(&old), "{boundary}: a second before");
        house.granted(place, &call("lost"), "bob", 60).await;
        let held = house.pool(place, &old).await.held;
        assert_eq!(house.shown(place).await.0, old);
        let mut elsewhere = vec![];
        for (other, _) in ZONES.iter().filter(|(other, _)| *other != place) {
            elsewhere.push((*other, house.shown(other).await));
        }

        house.clock.advance(Seconds(1));
        // Nothing of it is held or spent yet.
        let size = Seconds(POOL);
        let shown = house.shown(place).await;
        assert_eq!(shown, (new.clone(), size, Seconds::ZERO, Seconds::ZERO), "{boundary}");
        let paid_by = house.granted(place, &call("new"), "alice", 60).await;
        assert_eq!(paid_by, pool_of(&new), "{boundary}: the instant itself");
        let shown = house.shown(place).await;
        assert_eq!(shown, (new.clone(), size, Seconds(60), Seconds::ZERO), "{boundary}");
        assert_eq!(house.pool(place, &old).await.held, held, "{boundary}");
        for (other, was) in elsewhere {
            assert_eq!(house.shown(other).await, was, "{boundary}: {other}");
        }

        // Extended and settled in the new month, paid from the old one.
        house.clock.advance(Seconds(50));
        let extended = house.extend(house.tenant(place), &call("old"), 50, 120).await;
        let lines: Vec<_> = extended.funding.iter().map(|line| line.bucket.as_str()).collect();
        assert_eq!(lines, [pool_of(&old)], "{boundary}");
        house.clock.advance(Seconds(60));
        let charge = house.settle(place, &call("old"), 110).await;
        assert_eq!((charge.result, charge.charged_duration), (EndResult::Settled, Seconds(120)));
        assert_eq!(charge.funding[0].bucket, pool_of(&old), "{boundary}");

        // Expired without a word, and settled late.
        house.clock.advance(Seconds(3600));
        house.sweep(place).await;
        let charge = house.settle(place, &call("lost"), 61).await;
        assert_eq!(charge.charged_duration, Seconds(120), "{boundary}: {charge:?}");
        assert_eq!(charge.shortfall_duration, Seconds::ZERO);
        let pool = house.pool(place, &old).await;
        // The call of the first second of that month was charged to it, too, where there was one.
        let first_call = if month_before == old { 60 } else { 0 };
        assert_eq!((pool.held, pool.spent), (0, 240 + first_call), "{boundary}");
        let pool = house.pool(place, &new).await;
        assert_eq!((pool.held, pool.spent), (0, 0), "{boundary}: the new call expired unused");
        let late = house.settle(place, &call("new"), 30).await;
        assert_eq!(late.charged_duration, Seconds(60), "{boundary}");
        assert_eq!(house.pool(place, &new).await.spent, 60, "{boundary}");
        month_before = new;
    }
    house.assert_audits_clean().await;
}

async fn alerts_are_told_once_a_month_of_the_tenants_zone<L: Ledger>(house: &House<L>) {
    use EntryKind::{PoolExhausted, PoolThreshold};
    for (place, boundary) in [
        ("la", "2026-11-01T00:00:00-07:00"),
        ("kolkata", "2027-03-01T00:00:00+05:30"),
        ("auckland", "2027-10-01T00:00:00+13:00"),
    ] {
        let most = POOL * 8 / 10;
        let mut expected = vec![];
        for (month, seconds_before) in [("old", 7200), ("new", 0)] {
            house.clock.freeze_at(before(at(boundary), seconds_before));
            for (name, seconds) in [("most", most), ("rest", POOL - most)] {
                let call = format!("{boundary} {month} {name}");
                house.granted(place, &call, "alice", seconds).await;
                assert_eq!(
                    house.settle(place, &call, seconds).await.charged_duration,
                    Seconds(seconds)
                );
                expected.push(if name == "most" { PoolThreshold } else { PoolExhausted });
                assert_eq!(house.alerts(place).await, expected, "{call}");
                // Told is told, though the pool is asked for again.
                let refused = format!("{call} refused");
                if name == "rest" {
                    let answer = house.authorize(place, &refused, "bob", 60).await;
                    assert_eq!(answer.decision, Decision::PoolExhausted, "{call}");
                    assert_eq!(house.alerts(place).await, expected, "{call}");
                }
            }
        }
    }
    house.assert_audits_clean().await;
}

async fn a_spend_limit_starts_anew_with_the_month_of_the_tenants_zone<L: Ledger>(house: &House<L>) {
    for (place, boundary) in [
        ("la", "2026-11-01T00:00:00-07:00"),
        ("kolkata", "2027-03-01T00:00:00+05:30"),
        ("auckland", "2027-04-01T00:00:00+13:00"),
    ] {
        house.clock.freeze_at(before(at(boundary), 3600));
        house.buy(place, "po-1", 100).await;
        // Six calls of 0.15 leave 0.10 of 1.
        let spend = async |month: &str| {
            for n in 0..6 {
                let call = format!("{boundary} {month} {n}");
                house.granted(place, &call, "carol", 60).await;
                let charge = house.settle(place, &call, 60).await;
                assert_eq!(charge.charged_money, Micros(150_000), "{call}");
            }
        };
        spend("old").await;
        house.clock.freeze_at(before(at(boundary), 1));
        let refused = house.authorize(place, &format!("{boundary} last"), "carol", 60).await;
        assert_eq!(refused.decision, Decision::SpendLimitReached, "{boundary}");
        house.clock.advance(Seconds(1));
        spend("new").await;
        let refused = house.authorize(place, &format!("{boundary} more"), "carol", 60).await;
        assert_eq!(refused.decision, Decision::SpendLimitReached, "{boundary}");
    }
    house.assert_audits_clean().await;
}

async fn credits_lapse_a_year_after_the_instant_of_their_purchase<L: Ledger>(house: &House<L>) {
    for (number, (bought, lapses)) in [
        // The month's end in Los Angeles is no matter: a year is counted from the instant.
        ("2026-10-31T23:59:59-07:00", "2027-10-31T23:59:59-07:00"),
        // In summer time, and an hour earlier by the wall clock a year later, in standard time.
        ("2026-11-01T00:30:00-07:00", "2027-11-01T00:30:00-07:00"),
        ("2027-01-31T08:15:30.250Z", "2028-01-31T08:15:30.250Z"),
        ("2027-02-28T12:00:00Z", "2028-02-28T12:00:00Z"),
        ("2028-02-29T12:34:56.789Z", "2029-02-28T12:34:56.789Z"),
        ("2028-03-31T23:59:59.999Z", "2029-03-31T23:59:59.999Z"),
    ]
    .into_iter()
    .enumerate()
    {
        // A tenant each, so that no other purchase pays.
        let place = ZONES[number % ZONES.len()].0;
        let key = format!("po-{number}");
        house.clock.freeze_at(at(bought));
        house.buy(place, &key, 10).await;
        house.clock.freeze_at(Millis(at(lapses).0 - 1));
        let call = format!("{bought} in time");
        assert_eq!(house.granted(place, &call, "dora", 60).await, key, "{bought}");
        house.settle(place, &call, 60).await;
        house.clock.freeze_at(at(lapses));
        let answer = house.authorize(place, &format!("{bought} late"), "dora", 60).await;
        assert_eq!(answer.decision, Decision::InsufficientCredits, "{bought}");
        house.sweep(place).await;
        let lot = house.lot(place, &key).await;
        assert_eq!(
            (lot.spent, lot.held, lot.expired),
            (150_000, 0, 10 * UNIT - 150_000),
            "{bought}"
        );
    }
    house.assert_audits_clean().await;
}

async fn a_lot_that_lapses_under_a_call_pays_for_it_and_loses_the_rest<L: Ledger>(
    house: &House<L>,
) {
    house.clock.freeze_at(at("2028-02-29T23:00:00+13:00"));
    house.buy("auckland", "po-1", 10).await;
    house.clock.freeze_at(at("2029-02-28T22:59:00+13:00"));
    // 5 minutes: 0.55 held, of which 0.25 will be used.
    assert_eq!(house.granted("auckland", "a", "dora", 300).await, "po-1");
    house.clock.advance(Seconds(60));
    house.sweep("auckland").await;
    let lot = house.lot("auckland", "po-1").await;
    assert_eq!((lot.held, lot.expired, lot.spent), (550_000, 10 * UNIT - 550_000, 0));
    // What is held is all that it has: no extension beyond it.
    let extended = house.extend(house.tenant("auckland"), "a", 60, 600).await;
    let grant = extended.grant.unwrap();
    assert_eq!((grant.granted, grant.final_grant), (Seconds(300), true));
    house.clock.advance(Seconds(60));
    let charge = house.settle("auckland", "a", 120).await;
    assert_eq!(charge.charged_money, Micros(250_000));
    let lot = house.lot("auckland", "po-1").await;
    assert_eq!((lot.held, lot.spent, lot.expired), (0, 250_000, 10 * UNIT - 250_000));
    house.assert_audits_clean().await;
}

async fn a_sidecar_whose_clock_is_an_hour_slow_decides_by_the_stores<L: Ledger>(house: &House<L>) {
    for (place, boundary) in
        [("la", LOS_ANGELES[0]), ("kolkata", KOLKATA[1]), ("auckland", AUCKLAND[5])]
    {
        // It has seen the store an hour ago, and believes that this is still so.
        wrong_by(house, place, boundary, -1800, 1800).await;
    }
    house.assert_audits_clean().await;
}

async fn a_sidecar_whose_clock_is_an_hour_fast_decides_by_the_stores<L: Ledger>(house: &House<L>) {
    for (place, boundary) in
        [("la", LOS_ANGELES[0]), ("kolkata", KOLKATA[1]), ("auckland", AUCKLAND[5])]
    {
        wrong_by(house, place, boundary, 1800, -1800).await;
    }
    house.assert_audits_clean().await;
}

/// The sidecar believes in one side of the boundary, the store stands on the other, so many seconds from it.
async fn wrong_by<L: Ledger>(
    house: &House<L>,
    place: &str,
    boundary: &str,
    believed: i64,
    stands: i64,
) {
    let sidecar = sidecar(&house.ledger);
    let (old, new) = months(boundary);
    let month = |seconds: i64| if seconds < 0 { &old } else { &new };
    house.clock.freeze_at(before(at(boundary), -believed));
    let first = format!("{boundary} believed");
    let answer = house.authorize_at(&sidecar, place, &first, "alice", 60).await;
    assert_eq!(answer.funding[0].bucket, pool_of(month(believed)), "{boundary}");
    house.settle(place, &first, 1).await;

    house.clock.freeze_at(before(at(boundary), -stands));
    let wrong = |now: Millis| (now.0 - before(at(boundary), -stands).0).abs();
    assert!((3_500_000..3_700_000).contains(&wrong(sidecar.now())), "an hour apart");
    let second = format!("{boundary} stands");
    let answer = house.authorize_at(&sidecar, place, &second, "alice", 60).await;
    assert_eq!(answer.decision, Decision::Allowed, "{boundary}: {answer:?}");
    assert_eq!(answer.funding[0].bucket, pool_of(month(stands)), "{boundary}");
    assert!(wrong(sidecar.now()) < 60_000, "it has learned the store's time");
    house.settle(place, &second, 1).await;
    assert_eq!(house.pool(place, month(stands)).await.spent, 60, "{boundary}");
    assert_eq!(house.pool(place, month(believed)).await.spent, 60, "{boundary}");
}
