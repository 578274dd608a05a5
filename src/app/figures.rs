//! What is asked for the page of figures: the state of this process at every scrape, and what the ledger
//! holds, by a task of its own.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior};

use crate::charging::ids::TenantId;
use crate::charging::units::Millis;
use crate::credit_control::CreditControl;
use crate::credit_control::emergency::UNATTRIBUTED;
use crate::journal::Journal;
use crate::ledger::state::Call;
use crate::ledger::{Balance, Ledger, LedgerError};
use crate::metrics::{self, JournalFigures, Survey};
use crate::ops::health::{Health, State};
use crate::ops::report::Reports;

/// Longest wait for one answer: a survey waits for calls, not they for it.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Most holds that a survey looks at, of all tenants together: about 4 MB.
const MOST_HOLDS: usize = 5_000;

/// Holds read at a time.
const PAGE: usize = 500;

/// Most tenants that a survey looks at.
const MOST_TENANTS: usize = 1_000;

/// `/metrics`.
pub(super) fn page(journal: Option<Arc<Journal>>, health: Health) -> Router {
    let page = move || async move {
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text(journal.as_deref(), &health).await)
    };
    Router::new().route("/metrics", get(page))
}

async fn text(journal: Option<&Journal>, health: &Health) -> String {
    let metrics = metrics::get();
    metrics.set_ledger_up(health.is_ledger_up());
    metrics.set_ready(health.state().await == State::Ready);
    metrics.set_journal(journal.map(journal_figures));
    metrics.text()
}

/// Sends the page to a collector, for ever.
pub(super) async fn report(
    mut reports: Reports,
    interval: Duration,
    journal: Option<Arc<Journal>>,
    health: Health,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        reports.send(&text(journal.as_deref(), &health).await).await;
    }
}

fn journal_figures(journal: &Journal) -> JournalFigures {
    let status = journal.status();
    let now = Timestamp::now().as_millisecond();
    let oldest = journal.oldest_todo().map_or(0, |at| (now - at.0).max(0) / 1000);
    JournalFigures {
        todo: status.todo,
        oldest_seconds: oldest,
        bytes: status.bytes,
        trouble: status.trouble.is_some(),
        appended: status.appended,
        syncs: status.syncs,
        missed: status.missed,
    }
}

/// Looks at what the ledger holds, for ever.
pub(super) struct Surveys<L> {
    pub(super) control: Arc<CreditControl<L>>,
    pub(super) interval: Duration,
    /// How many tenants have series of their own.
    pub(super) named: u32,
}

impl<L: Ledger> Surveys<L> {
    pub(super) async fn run(self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let survey = self.survey().await;
            if let Err(error) = &survey {
                tracing::debug!(%error, "holds and funds are not told anew");
            }
            metrics::get().set_survey(survey.ok());
        }
    }

    async fn survey(&self) -> Result<Survey, LedgerError> {
        let begun = Instant::now();
        let mut survey = Survey::default();
        let mut tenants = self.ask(self.control.ledger().tenants()).await?;
        tenants.truncate(MOST_TENANTS);
        tenants.push(TenantId::literal(UNATTRIBUTED));
        let mut holds_left = MOST_HOLDS;
        let named = usize::try_from(self.named).unwrap_or(usize::MAX);
        for (n, tenant) in tenants.iter().enumerate() {
            let shown = if n < named { tenant.as_str() } else { "" };
            let reply = self.ask(self.control.ledger().balance(tenant)).await?;
            let known = self.control.directory().known(tenant);
            let currency = known.as_ref().and_then(|known| known.profile());
            let currency = currency.map_or(String::new(), |profile| profile.currency.clone());
            add_funds(&mut survey, shown, currency.clone(), &reply.outcome, reply.now);
            let shown = (shown, currency.as_str());
            self.add_holds(&mut survey, tenant, shown, reply.now, &mut holds_left).await?;
        }
        survey.taken = Timestamp::now().as_second();
        survey.took_millis = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        Ok(survey)
    }

    async fn add_holds(
        &self,
        survey: &mut Survey,
        tenant: &TenantId,
        shown: (&str, &str),
        now: Millis,
        left: &mut usize,
    ) -> Result<(), LedgerError> {
        let mut cursor = None;
        loop {
            // The first is the one that is due first: at least that one is always looked at.
            let most = PAGE.min(*left).max(1);
            let page = self.control.ledger().open_calls(tenant, cursor.as_deref(), most);
            let page = self.ask(page).await?;
            for (id, call) in page.items {
                match id.is_lease() {
                    true => add_lease(survey, shown, &call),
                    false => survey.hold(now.seconds_since(call.authorized_at).0),
                }
                survey.lag = survey.lag.max(now.seconds_since(call.deadline).0);
                *left = left.saturating_sub(1);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
            if *left == 0 {
                survey.more_holds = true;
                return Ok(());
            }
        }
    }

    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        super::within(ASK_TIMEOUT, question).await
    }
}

fn add_lease(survey: &mut Survey, (shown, currency): (&str, &str), lease: &Call) {
    survey.leases += 1;
    if let Some(pools) = survey.pools.get_mut(shown) {
        pools.leased += lease.pools.iter().map(|line| line.held.0).sum::<i64>();
    }
    let money = survey.money.get_mut(&(shown.to_owned(), currency.to_owned()));
    if let (Some(money), Some(line)) = (money, &lease.money) {
        money.leased += line.held().0;
    }
}

fn add_funds(survey: &mut Survey, shown: &str, currency: String, found: &Balance, now: Millis) {
    let is_live = |starts: Millis, ends: Millis| starts <= now && now < ends;
    if !currency.is_empty() {
        let money = survey.money.entry((shown.to_owned(), currency)).or_default();
        for lot in &found.lots {
            money.held += lot.bucket.held;
            if is_live(lot.bucket.starts, lot.bucket.ends) {
                money.available += lot.bucket.available();
            }
        }
        money.held += found.overage.iter().map(|month| month.bucket.held).sum::<i64>();
        money.owed += found.owed.0;
    }
    let pools = survey.pools.entry(shown.to_owned()).or_default();
    for (_, pool) in &found.pools {
        pools.held += pool.held;
        if is_live(pool.starts, pool.ends) {
            pools.available += pool.available();
        }
    }
}
