//! Calls that go on while something fails, as SBCs send them: what is not answered is repeated.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tollgate::proto::v1::{
    AuthorizeCallRequest, Credits, Decision, GetBalanceRequest, SettleCallRequest, SettleResult,
};
use tonic::transport::Channel;

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
#[derive(Clone)]
pub struct Done {
    call: String,
    /// When its grant was asked for, the time that it was given, and when it was.
    asked: Instant,
    granted: Instant,
    at: Instant,
}

type Client = CallAuthorizationServiceClient<Channel>;

/// Where calls are sent: a sidecar that is started again has another address.
type Door = Arc<Mutex<Client>>;

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
    door: Door,
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
        let door = Arc::new(Mutex::new(sidecar.calls().await));
        for worker in 0..WORKERS {
            let (door, stop) = (door.clone(), stop.clone());
            let (tenant, name) = (tenant.to_owned(), name.to_owned());
            workers.spawn(async move {
                let mut outcome = Outcome { done: vec![], forgotten: 0, refused: 0 };
                for number in 0.. {
                    // One whole call more, so that each has asked after whatever failed.
                    let is_last = stop.load(Ordering::Relaxed);
                    let call = format!("{name}-{worker}-{number}");
                    let began = Instant::now();
                    let (asked, granted) = loop {
                        let asked = Instant::now();
                        match through(&door).authorize_call(request(&tenant, &call)).await {
                            Ok(answer) if answer.get_ref().decision() == Decision::Allowed => {
                                break (asked, Instant::now());
                            }
                            Ok(answer) => {
                                let decision = answer.get_ref().decision();
                                assert_eq!(decision, Decision::LedgerUnavailable, "{answer:?}");
                            }
                            Err(error) => assert!(may_be_repeated(&error), "{error}"),
                        }
                        outcome.refused += 1;
                        assert!(began.elapsed() < PATIENCE, "{call} is not answered");
                        tokio::time::sleep(PAUSE).await;
                    };
                    loop {
                        match through(&door).settle_call(ended(&tenant, &call)).await {
                            Ok(answer) if answer.get_ref().result() == SettleResult::Settled => {
                                assert_eq!(answer.get_ref().charged_money, usd("0.15"));
                                let at = Instant::now();
                                outcome.done.push(Done { call, asked, granted, at });
                                break;
                            }
                            // By a sidecar with a journal: it will be charged.
                            Ok(answer) if answer.get_ref().result() == SettleResult::Accepted => {
                                let at = Instant::now();
                                outcome.done.push(Done { call, asked, granted, at });
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
                    if is_last {
                        break;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                outcome
            });
        }
        Traffic { tenant: tenant.to_owned(), door, stop, workers }
    }

    /// From now on its calls go to this one.
    pub async fn go_to(&self, sidecar: &Sidecar) {
        let client = sidecar.calls().await;
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = client;
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

fn through(door: &Door) -> Client {
    door.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The client itself says UNKNOWN and CANCELLED where its connection breaks.
fn may_be_repeated(error: &tonic::Status) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable, Unknown};
    matches!(error.code(), Unavailable | DeadlineExceeded | Unknown | Cancelled)
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

    /// How long after an instant the first grant came that was asked for since.
    pub fn back_after(&self, instant: Instant) -> Option<Duration> {
        let since = self.done.iter().filter(|done| done.asked >= instant);
        since.map(|done| done.granted - instant).min()
    }

    /// Settles each call again; how many acknowledged ones were lost, and how many are charged.
    pub async fn settled_again(&self, sidecar: &Sidecar, tenant: &str) -> (usize, usize) {
        let mut workers = JoinSet::new();
        for some in self.done.chunks(self.done.len().div_ceil(WORKERS).max(1)) {
            let (client, tenant, some) = (sidecar.calls().await, tenant.to_owned(), some.to_vec());
            workers.spawn(async move { some_settled_again(client, &tenant, &some).await });
        }
        let all = workers.join_all().await.into_iter();
        all.fold((0, 0), |all, some| (all.0 + some.0, all.1 + some.1))
    }
}

async fn some_settled_again(mut client: Client, tenant: &str, some: &[Done]) -> (usize, usize) {
    let (mut lost, mut charged) = (0, 0);
    for Done { call, at, .. } in some {
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
        if !is_settled || !answer.replayed {
            lost += 1;
            eprintln!("lost: {call}, now {answer:?}, acknowledged {:?} ago", at.elapsed());
        }
    }
    (lost, charged)
}

/// What the tenant has spent and what is held.
pub async fn credits(sidecar: &Sidecar, tenant: &str) -> Credits {
    let request = GetBalanceRequest { tenant_id: tenant.to_owned() };
    let began = Instant::now();
    loop {
        match sidecar.account().await.get_balance(request.clone()).await {
            Ok(balance) => return balance.into_inner().credits.unwrap(),
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// The balance says that so many calls were charged and none is open, and the audit is clean.
pub async fn assert_charged(sidecar: &Sidecar, tenant: &str, calls: usize) {
    let credits = credits(sidecar, tenant).await;
    let charged = usd(&dollars(calls as u64 * 15));
    assert_eq!((credits.spent, credits.held), (charged, usd("0")));
    sidecar.client(&["audit", "--tenant", tenant]).succeeded();
}

fn dollars(cents: u64) -> String {
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
