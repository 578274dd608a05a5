//! Calls that go on while something fails, as SBCs send them: what is not answered is repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tollgate::proto::v1::{
    AuthorizeCallRequest, Decision, GetBalanceRequest, SettleCallRequest, SettleResult,
};

use crate::server::bought_today;
use crate::support::messages::{authorize, length, settle, usd};
use crate::support::process::{PATIENCE, Sidecar};

/// Calls at a time.
const WORKERS: usize = 6;

/// Between two calls of a worker, so that the machine has time for those who fail.
const PAUSE: Duration = Duration::from_millis(4);

/// A tenant whose carol has credits for as many calls as a test may last.
pub fn tenants(names: &[&str]) -> String {
    let mut document = "tenants:\n".to_owned();
    for (n, name) in names.iter().enumerate() {
        document.push_str(&format!(
            "  - id: {name}\n    currency: USD\n    country: US\n    credits:\n      \
             - {{ key: po-1, amount: \"20000\", purchased_at: TODAY }}\n    users:\n      \
             - id: carol\n        usage_location: US\n        \
             licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1]\n        \
             numbers: [\"+1425555010{n}\"]\n"
        ));
    }
    bought_today(&document)
}

/// A call that was answered to its end.
pub struct Done {
    call: String,
    at: Instant,
}

/// What became of the calls of a tenant.
pub struct Outcome {
    pub done: Vec<Done>,
    /// Calls that were allowed, and unknown when they were to be settled.
    pub forgotten: usize,
    /// What SBCs were answered that was not what they had asked for, and how often.
    pub refused: usize,
}

/// Calls of one tenant.
pub struct Traffic {
    tenant: String,
    stop: Arc<AtomicBool>,
    workers: JoinSet<Outcome>,
}

fn request(tenant: &str, call: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        tenant_id: tenant.to_owned(),
        requested_duration: length(60),
        ..authorize(call, "carol", "+12065550100")
    }
}

fn ended(tenant: &str, call: &str) -> SettleCallRequest {
    SettleCallRequest { tenant_id: tenant.to_owned(), ..settle(call, 60) }
}

impl Traffic {
    pub async fn start(sidecar: &Sidecar, tenant: &str) -> Traffic {
        Traffic::named(sidecar, tenant, "call").await
    }

    /// With names of calls that begin so.
    pub async fn named(sidecar: &Sidecar, tenant: &str, name: &str) -> Traffic {
        let (stop, mut workers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for worker in 0..WORKERS {
            let (client, stop) = (sidecar.calls().await, stop.clone());
            let (tenant, name) = (tenant.to_owned(), name.to_owned());
            workers.spawn(async move {
                let mut client = client;
                let mut outcome = Outcome { done: vec![], forgotten: 0, refused: 0 };
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let call = format!("{name}-{worker}-{number}");
                    let began = Instant::now();
                    loop {
                        match client.authorize_call(request(&tenant, &call)).await {
                            Ok(answer) if answer.get_ref().decision() == Decision::Allowed => break,
                            Ok(answer) => {
                                let decision = answer.get_ref().decision();
                                assert_eq!(decision, Decision::LedgerUnavailable, "{answer:?}");
                            }
                            Err(error) => assert!(may_be_repeated(&error), "{error}"),
                        }
                        outcome.refused += 1;
                        assert!(began.elapsed() < PATIENCE, "{call} is not answered");
                        tokio::time::sleep(PAUSE).await;
                    }
                    loop {
                        match client.settle_call(ended(&tenant, &call)).await {
                            Ok(answer) if answer.get_ref().result() == SettleResult::Settled => {
                                assert_eq!(answer.get_ref().charged_money, usd("0.15"));
                                outcome.done.push(Done { call, at: Instant::now() });
                                break;
                            }
                            // By a sidecar with a journal: it will be charged.
                            Ok(answer) if answer.get_ref().result() == SettleResult::Accepted => {
                                outcome.done.push(Done { call, at: Instant::now() });
                                break;
                            }
                            Ok(_) => {
                                outcome.forgotten += 1;
                                break;
                            }
                            Err(error) => assert!(may_be_repeated(&error), "{error}"),
                        }
                        outcome.refused += 1;
                        assert!(began.elapsed() < PATIENCE, "{call} is not answered");
                        tokio::time::sleep(PAUSE).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                outcome
            });
        }
        Traffic { tenant: tenant.to_owned(), stop, workers }
    }

    /// Lets it go on until calls have ended for some time after now, and looks what came of all.
    pub async fn end(self, after: Duration) -> Outcome {
        tokio::time::sleep(after).await;
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome { done: vec![], forgotten: 0, refused: 0 };
        for outcome in self.workers.join_all().await {
            all.done.extend(outcome.done);
            all.forgotten += outcome.forgotten;
            all.refused += outcome.refused;
        }
        all.done.sort_by_key(|done| done.at);
        assert!(!all.done.is_empty(), "no call of {} ended", self.tenant);
        all
    }
}

fn may_be_repeated(error: &tonic::Status) -> bool {
    matches!(error.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded)
}

impl Outcome {
    /// Longest time in which no call ended.
    pub fn outage(&self) -> Duration {
        let gaps = self.done.windows(2).map(|pair| pair[1].at - pair[0].at);
        gaps.max().unwrap_or_default()
    }

    /// Settles each call again, which must not charge it again; how many acknowledged ones were lost. The
    /// balance must say what was charged, and the audit be clean.
    pub async fn lost(&self, sidecar: &Sidecar, tenant: &str) -> usize {
        let (lost, charged) = self.settled_again(sidecar, tenant).await;
        assert_charged(sidecar, tenant, charged).await;
        lost
    }

    /// Settles each call again; how many acknowledged ones were lost, and how many are charged.
    pub async fn settled_again(&self, sidecar: &Sidecar, tenant: &str) -> (usize, usize) {
        let (mut lost, mut charged) = (0, 0);
        let mut client = sidecar.calls().await;
        for Done { call, .. } in &self.done {
            let began = Instant::now();
            let answer = loop {
                match client.settle_call(ended(tenant, call)).await {
                    Ok(answer) if answer.get_ref().result() != SettleResult::Accepted => {
                        break answer.into_inner();
                    }
                    other => assert!(began.elapsed() < PATIENCE, "{other:?}"),
                }
                tokio::time::sleep(PAUSE).await;
            };
            let is_settled = answer.result() == SettleResult::Settled;
            if is_settled {
                assert_eq!(answer.charged_money, usd("0.15"), "{call}");
            }
            charged += usize::from(is_settled);
            lost += usize::from(!is_settled || !answer.replayed);
        }
        (lost, charged)
    }
}

/// The balance says that so many calls were charged and none is open, and the audit is clean.
pub async fn assert_charged(sidecar: &Sidecar, tenant: &str, calls: usize) {
    let request = GetBalanceRequest { tenant_id: tenant.to_owned() };
    let began = Instant::now();
    let credits = loop {
        match sidecar.account().await.get_balance(request.clone()).await {
            Ok(balance) => break balance.into_inner().credits.unwrap(),
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
    };
    let charged = usd(&dollars(calls as u64 * 15));
    assert_eq!((credits.spent, credits.held), (charged, usd("0")));
    sidecar.client(&["audit", "--tenant", tenant]).succeeded();
}

fn dollars(cents: u64) -> String {
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
