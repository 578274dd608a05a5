//! What the ledger holds, as it was last looked at: told on every scrape, replaced as a whole by every look,
//! so that a tenant that has gone leaves no series behind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

/// Ages of holds: the label, and below how many seconds.
pub const AGES: [(&str, i64); 5] = [
    ("below_1m", 60),
    ("below_10m", 600),
    ("below_1h", 3600),
    ("below_4h", 4 * 3600),
    ("above", i64::MAX),
];

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// When it was taken, in seconds since 1970.
    pub taken: i64,
    /// How long it took, in milliseconds.
    pub took_millis: i64,
    /// Open holds by [`AGES`].
    pub holds: [i64; AGES.len()],
    /// Whether there were more than were looked at.
    pub more_holds: bool,
    /// How long the most overdue hold has been due, in seconds; 0 where none is.
    pub lag: i64,
    /// Money by tenant and currency. The tenant is empty where it is not told.
    pub money: BTreeMap<(String, String), Money>,
    /// Minutes of plans by tenant.
    pub pools: BTreeMap<String, Pools>,
    /// Leases among what is open, of all sidecars; they are no holds of calls.
    pub leases: i64,
}

/// Micro-units of a currency.
#[derive(Clone, Copy, Debug, Default)]
pub struct Money {
    /// By open calls.
    pub held: i64,
    /// What calls may still take.
    pub available: i64,
    /// What settled calls fell short of.
    pub owed: i64,
    /// Of what is held, by leases.
    pub leased: i64,
}

/// Seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pools {
    /// By open calls.
    pub held: i64,
    /// What calls may still take, of the pools that are in force.
    pub available: i64,
    /// Of what is held, by leases.
    pub leased: i64,
}

impl Survey {
    /// Counts a hold of that age in seconds.
    pub fn hold(&mut self, age: i64) {
        if let Some(at) = AGES.iter().position(|(_, below)| age < *below) {
            self.holds[at] += 1;
        }
    }
}

/// The last survey; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SurveyCell(Arc<Mutex<Option<Survey>>>);

impl SurveyCell {
    /// Replaces it.
    pub fn set(&self, survey: Survey) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(survey);
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for SurveyCell {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let survey = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(survey) = survey else { return Ok(()) };
        let seconds = |millis| Decimal::new(millis, 3).to_f64().unwrap_or_default();
        let units = |micros| Decimal::new(micros, 6).to_f64().unwrap_or_default();
        let mut tell = Telling(&mut encoder);
        tell.one(
            "survey_timestamp_seconds",
            "When holds and funds were last looked at",
            survey.taken,
        )?;
        let took = seconds(survey.took_millis);
        tell.one("survey_duration_seconds", "How long that took", took)?;
        let holds = AGES.iter().zip(survey.holds);
        let holds = holds.map(|((age, _), count)| (vec![("age", *age)], count));
        tell.each("open_holds", "Open holds in the ledger, by age", holds)?;
        let more = i64::from(survey.more_holds);
        tell.one("open_holds_more", "1 where there are more open holds than were looked at", more)?;
        tell.one("leases", "Open leases for calls without the ledger", survey.leases)?;
        tell.one("sweeper_lag_seconds", "How long the most overdue hold has been due", survey.lag)?;

        let money = |of: fn(&Money) -> i64| {
            survey.money.iter().map(move |((tenant, currency), money)| {
                (labels(tenant, Some(currency)), units(of(money)))
            })
        };
        tell.each("money_held", "Money held by open calls", money(|m| m.held))?;
        tell.each("money_available", "Money that calls may still take", money(|m| m.available))?;
        tell.each("money_owed", "Money that settled calls fell short of", money(|m| m.owed))?;
        tell.each(
            "money_leased",
            "Money held by leases, part of what is held",
            money(|m| m.leased),
        )?;
        let pools = |of: fn(&Pools) -> i64| {
            survey.pools.iter().map(move |(tenant, pools)| (labels(tenant, None), of(pools)))
        };
        tell.each("pool_held_seconds", "Plan time held by open calls", pools(|p| p.held))?;
        tell.each(
            "pool_leased_seconds",
            "Plan time held by leases, part of what is held",
            pools(|p| p.leased),
        )?;
        tell.each(
            "pool_available_seconds",
            "Plan time that calls may still take",
            pools(|p| p.available),
        )
    }
}

fn labels<'a>(tenant: &'a str, currency: Option<&'a String>) -> Labels<'a> {
    let tenant = (!tenant.is_empty()).then_some(("tenant", tenant));
    let currency = currency.map(|currency| ("currency", currency.as_str()));
    tenant.into_iter().chain(currency).collect()
}

struct Telling<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Telling<'_, '_> {
    fn one(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn each<'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl Iterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in series {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
