//! Every rule and every decision of docs/RULES.md by its number, one file per chapter.
//!
//! All of it through the program's own edges: a document applied, calls asked for, extended and settled, and
//! balances, records and events read back over gRPC, on every ledger that there is. The clock is stopped.

/// As [`crate::on_every_ledger`], with a town for a stage.
macro_rules! on_every_ledger {
    ($($case:ident)*) => {
        mod memory {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case($crate::rules::Town::on_memory().await).await;
                }
            )*
        }
        mod redis {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case($crate::rules::Town::on_redis().await).await;
                }
            )*
        }
    };
}

/// For rules that are decided before a ledger is asked: one ledger is as good as the other.
macro_rules! on_any_ledger {
    ($($case:ident)*) => {
        mod any_ledger {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case($crate::rules::Town::on_memory().await).await;
                }
            )*
        }
    };
}

mod conferencing;
mod decisions;
mod funding;
mod kinds;
mod licences;
mod numbers;
mod pools;
mod records;
mod resource_accounts;
mod wallet;

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use prost_types::{Duration, Timestamp};
use tollgate::app;
use tollgate::charging::ids::TenantId;
use tollgate::charging::units::Millis;
use tollgate::cli::organisation::message;
use tollgate::config::{Config, Listen};
use tollgate::ledger::memory::MemoryLedger;
use tollgate::ledger::state::Entry;
use tollgate::ledger::{ClockOffset, Ledger};
use tollgate::organisation;
use tollgate::proto::v1::account_service_client::AccountServiceClient;
use tollgate::proto::v1::call_authorization_service_client::CallAuthorizationServiceClient;
use tollgate::proto::v1::{
    ActivateDeckRequest, ApplyRequest, ApplyResponse, AuthorizeCallRequest, AuthorizeCallResponse,
    CallType, Credits, Decision, Event, EventType, ExportUsageRequest, ExtendCallRequest,
    ExtendCallResponse, FundingLine, FundingSource, GetBalanceRequest, GetBalanceResponse, Money,
    PurchaseCreditsRequest, PurchaseCreditsResponse, QuoteCallRequest, QuoteCallResponse,
    RunAuditRequest, SettleCallRequest, SettleCallResponse, UsageRecord, WatchEventsRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::server::{channel, config};
use crate::support::redis::RedisServer;

const SEATTLE: &str = "+12065550142";
const TORONTO: &str = "+14165550142";
const SAN_JUAN: &str = "+17875550142";
const PARIS: &str = "+33123456789";
const LONDON: &str = "+442079460000";
const HARARE: &str = "+263242700000";
const TUNIS: &str = "+21671000000";

/// A bit of everything; Japan, among others, has no price.
const DECK: &str = "\
prefix,destination,rate_per_minute,connection_fee,initial_increment,increment,currency,effective_from,effective_to,direction
1,North America,0.01,0,60,60,USD,2020-01-01,,outbound
216,Tunisia,0.90,0,60,60,USD,2020-01-01,,outbound
263,Zimbabwe,0.50,0,60,60,USD,2020-01-01,,outbound
33,France,0.10,0.05,60,60,USD,2020-01-01,,outbound
3389,France premium,1.50,0.20,60,60,USD,2020-01-01,,outbound
43,Austria,0.06,0,60,60,USD,2020-01-01,,outbound
44,United Kingdom,0.04,0,60,60,USD,2020-01-01,,outbound
55,Brazil,0.07,0,60,60,USD,2020-01-01,,outbound
1,North America,0.02,0,60,60,USD,2020-01-01,,toll_free_inbound
1416,Canada,0.025,0,60,60,USD,2020-01-01,,toll_free_inbound
1787,Puerto Rico,0.03,0,60,60,USD,2020-01-01,,toll_free_inbound
33,France,0.30,0.10,60,60,USD,2020-01-01,,toll_free_inbound
*,Anywhere,0.03,0,60,60,USD,2020-01-01,,toll_inbound
";

/// [`DECK`] and a price for the rest of the world.
fn whole_world() -> String {
    format!("{DECK}*,Anywhere,0.20,0,60,60,USD,2020-01-01,,outbound\n")
}

/// Ten units, bought this month; goes before the other settings.
const TEN: &str = "credits: [{ key: po-1, amount: 10, purchased_at: 2026-11-01T00:00:00Z }], ";

type Entries = Pin<Box<dyn Future<Output = Vec<Entry>> + Send>>;

/// A sidecar with a ledger of its own, a tenant to be set up, and a stopped clock.
struct Town {
    tenant: String,
    clock: ClockOffset,
    calls: CallAuthorizationServiceClient<Channel>,
    account: AccountServiceClient<Channel>,
    administration: Listen,
    /// Behind the edges: what nothing but the journal tells.
    journal: Box<dyn Fn() -> Entries + Send + Sync>,
    // In this order: the sidecar ends before its ledger does.
    _sidecar: Box<dyn Any + Send>,
    redis: Option<RedisServer>,
}

fn instant(text: &str) -> Millis {
    Millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

fn timestamp(text: &str) -> Option<Timestamp> {
    Some(Timestamp { seconds: instant(text).0 / 1000, nanos: 0 })
}

fn length(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn usd(amount: &str) -> Option<Money> {
    Some(Money { currency_code: "USD".to_owned(), amount: amount.to_owned() })
}

/// A user of a country with licences, as a document writes it.
fn user(id: &str, country: &str, licences: &str) -> String {
    format!("{{ id: {id}, usage_location: {country}, licences: [{licences}] }}")
}

/// The users of a document.
fn users(users: impl IntoIterator<Item = String>) -> String {
    format!("users: [{}]", users.into_iter().collect::<Vec<_>>().join(", "))
}

/// So many users alike, `name-0` and so on.
fn crowd(name: &str, many: usize, country: &str, licences: &str) -> Vec<String> {
    (0..many).map(|n| user(&format!("{name}-{n}"), country, licences)).collect()
}

/// A user's call; a minute is asked for, which no share of a pool makes shorter.
fn call(payer: &str, called: &str) -> AuthorizeCallRequest {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    AuthorizeCallRequest {
        call_id: format!("call-{}", CALLS.fetch_add(1, Ordering::Relaxed)),
        call_type: CallType::UserOutbound.into(),
        payer_id: payer.to_owned(),
        called_number: called.to_owned(),
        requested_duration: length(60),
        ..AuthorizeCallRequest::default()
    }
}

fn dial_out(organiser: &str, called: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        call_type: CallType::ConferenceDialOut.into(),
        ..call(organiser, called)
    }
}

fn inbound(call_type: CallType, payer: &str, calling: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        call_type: call_type.into(),
        calling_number: calling.to_owned(),
        ..call(payer, "+14255550100")
    }
}

/// Somebody calls the toll-free number of [`SUPPORT`].
fn toll_free(calling: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        called_number: "+18005550199".to_owned(),
        ..inbound(CallType::TollFreeInbound, "support", calling)
    }
}

const SUPPORT: &str =
    "service_numbers: [{ id: support, e164: \"+18005550199\", kind: toll_free }], ";

fn named(of: AuthorizeCallRequest, call_id: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest { call_id: call_id.to_owned(), ..of }
}

fn lasting(of: AuthorizeCallRequest, seconds: i64) -> AuthorizeCallRequest {
    AuthorizeCallRequest { requested_duration: length(seconds), ..of }
}

/// What pays, line by line.
fn sources(lines: &[FundingLine]) -> Vec<FundingSource> {
    lines.iter().map(FundingLine::source).collect()
}

/// What was charged: seconds and money.
fn charged(of: &SettleCallResponse) -> (i64, &str) {
    (of.charged_duration.unwrap().seconds, &of.charged_money.as_ref().unwrap().amount)
}

fn amount(of: &Option<Money>) -> &str {
    &of.as_ref().unwrap().amount
}

impl Town {
    async fn on_memory() -> Town {
        Town::on_memory_with(config()).await
    }

    async fn on_memory_with(config: Config) -> Town {
        let clock = Town::stopped();
        Town::open(MemoryLedger::new(clock.clone()), clock, None, config).await
    }

    /// The server is the town's own: no other clock may judge its calls.
    async fn on_redis() -> Town {
        let clock = Town::stopped();
        let redis = RedisServer::started();
        let ledger = redis.ledger(&clock).await;
        Town::open(ledger, clock, Some(redis), config()).await
    }

    /// 2026-11-10T12:00:00Z.
    fn stopped() -> ClockOffset {
        let clock = ClockOffset::default();
        clock.freeze_at(instant("2026-11-10T12:00:00Z"));
        clock
    }

    async fn open<L: Ledger>(
        ledger: L,
        clock: ClockOffset,
        redis: Option<RedisServer>,
        config: Config,
    ) -> Town {
        let tenant = "fabrikam".to_owned();
        let ledger = Arc::new(ledger);
        let running = app::start(ledger.clone(), &config).await.expect("the server starts");
        let addresses = running.addresses().clone();
        let of = TenantId::new(&tenant).unwrap();
        let journal = move || -> Entries {
            let (ledger, of) = (ledger.clone(), of.clone());
            Box::pin(async move { ledger.snapshot(&of).await.unwrap().outcome.journal })
        };
        let town = Town {
            tenant,
            clock,
            calls: CallAuthorizationServiceClient::new(channel(&addresses.calls).await),
            account: AccountServiceClient::new(channel(&addresses.administration).await),
            administration: addresses.administration,
            journal: Box::new(journal),
            _sidecar: Box::new(running),
            redis,
        };
        town.deck(DECK).await;
        town
    }

    fn at(&self, text: &str) {
        self.clock.freeze_at(instant(text));
    }

    // Provisioning.

    /// Activates a deck in the place of the one before.
    async fn deck(&self, csv: &str) {
        let csv = csv.as_bytes().to_vec().into();
        let of = ActivateDeckRequest { deck: "default".to_owned(), csv };
        self.account.clone().activate_deck(of).await.unwrap();
    }

    async fn try_apply(&self, settings: &str) -> Result<ApplyResponse, Status> {
        let text = format!("tenants: [{{ id: {}, currency: USD, {settings} }}]", self.tenant);
        let raw = organisation::read(&text).expect("YAML");
        let of = ApplyRequest { organisation: Some(message(&raw).expect("a message")) };
        self.account.clone().apply(of).await.map(tonic::Response::into_inner)
    }

    /// Applies a document of the tenant with these settings, which must be right.
    async fn apply(&self, settings: &str) -> ApplyResponse {
        self.try_apply(settings).await.unwrap_or_else(|status| panic!("{settings}: {status}"))
    }

    /// What is wrong with a document, place by place.
    async fn faults(&self, settings: &str) -> Vec<String> {
        let status = self.try_apply(settings).await.expect_err(settings);
        assert_eq!(status.code(), Code::InvalidArgument, "{settings}: {status}");
        let faults = status.get_details_bad_request().expect("field violations");
        let place = |field: &str| field.replace("organisation.tenants[0].", "");
        let faults = faults.field_violations.into_iter();
        faults.map(|fault| format!("{}: {}", place(&fault.field), fault.description)).collect()
    }

    async fn buy(&self, key: &str, units: &str) -> Result<PurchaseCreditsResponse, Status> {
        let of = PurchaseCreditsRequest {
            tenant_id: self.tenant.clone(),
            key: key.to_owned(),
            amount: usd(units),
            ..PurchaseCreditsRequest::default()
        };
        self.account.clone().purchase_credits(of).await.map(tonic::Response::into_inner)
    }

    // Calls.

    async fn ask(&self, of: AuthorizeCallRequest) -> AuthorizeCallResponse {
        let of = AuthorizeCallRequest { tenant_id: self.tenant.clone(), ..of };
        self.calls.clone().authorize_call(of).await.unwrap().into_inner()
    }

    /// What is decided of a call that is given back at once where it is granted.
    async fn decision(&self, of: AuthorizeCallRequest) -> Decision {
        let call_id = of.call_id.clone();
        let answer = self.ask(of).await;
        if answer.allowed {
            self.settle(&call_id, 0).await;
        }
        answer.decision()
    }

    async fn quote(&self, of: AuthorizeCallRequest) -> QuoteCallResponse {
        let of = QuoteCallRequest {
            tenant_id: self.tenant.clone(),
            call_id: of.call_id,
            call_type: of.call_type,
            payer_id: of.payer_id,
            calling_number: of.calling_number,
            called_number: of.called_number,
            requested_duration: of.requested_duration,
            origin: of.origin,
            on_behalf_of: of.on_behalf_of,
            ..QuoteCallRequest::default()
        };
        self.calls.clone().quote_call(of).await.unwrap().into_inner()
    }

    /// Reports what was used and asks for so much beyond it.
    async fn extend(&self, call_id: &str, used: i64, more: i64) -> ExtendCallResponse {
        let of = ExtendCallRequest {
            tenant_id: self.tenant.clone(),
            call_id: call_id.to_owned(),
            used_duration: length(used),
            requested_duration: length(more),
            ..ExtendCallRequest::default()
        };
        self.calls.clone().extend_call(of).await.unwrap().into_inner()
    }

    async fn settle(&self, call_id: &str, used: i64) -> SettleCallResponse {
        let of = SettleCallRequest {
            tenant_id: self.tenant.clone(),
            call_id: call_id.to_owned(),
            used_duration: length(used),
            ..SettleCallRequest::default()
        };
        self.calls.clone().settle_call(of).await.unwrap().into_inner()
    }

    /// A call that must be granted, used for so long, and what it was charged.
    async fn talk(&self, of: AuthorizeCallRequest, used: i64) -> SettleCallResponse {
        let call_id = of.call_id.clone();
        let answer = self.ask(of).await;
        assert!(answer.allowed, "{answer:?}");
        self.settle(&call_id, used).await
    }

    // What there is.

    async fn balance(&self) -> GetBalanceResponse {
        let of = GetBalanceRequest { tenant_id: self.tenant.clone() };
        self.account.clone().get_balance(of).await.unwrap().into_inner()
    }

    /// Every pool of this month: name, and the minutes granted and spent.
    async fn pools(&self) -> Vec<(String, i64, i64)> {
        let pools = self.balance().await.pools.into_iter();
        let minutes = |of: Option<Duration>| of.unwrap().seconds / 60;
        let pools = pools.map(|pool| {
            let (name, _) = pool.pool_id.rsplit_once(':').unwrap();
            (name.to_owned(), minutes(pool.granted), minutes(pool.spent))
        });
        let mut pools: Vec<_> = pools.collect();
        pools.sort();
        pools
    }

    /// Minutes granted and spent of one pool.
    #[track_caller]
    fn pool(&self, name: &str) -> impl Future<Output = (i64, i64)> {
        let caller = std::panic::Location::caller();
        let name = name.to_owned();
        async move {
            let pools = self.pools().await;
            let found = pools.iter().find(|(found, ..)| *found == name);
            let (_, granted, spent) =
                found.unwrap_or_else(|| panic!("{caller}: no pool {name} in {pools:?}"));
            (*granted, *spent)
        }
    }

    async fn credits(&self) -> Credits {
        self.balance().await.credits.unwrap()
    }

    /// Credits that are neither held nor spent.
    async fn available(&self) -> String {
        self.credits().await.available.unwrap().amount
    }

    /// Records of a year.
    async fn usage(&self) -> Vec<UsageRecord> {
        let of = ExportUsageRequest {
            tenant_id: self.tenant.clone(),
            from: timestamp("2026-11-01T00:00:00Z"),
            to: timestamp("2027-11-01T00:00:00Z"),
        };
        let mut stream = self.account.clone().export_usage(of).await.unwrap().into_inner();
        let mut records = vec![];
        while let Some(message) = stream.message().await.unwrap() {
            records.push(message.record.unwrap());
        }
        records
    }

    /// What was told so far of these kinds.
    async fn events(&self, kinds: &[EventType]) -> Vec<Event> {
        let of = WatchEventsRequest {
            tenant_id: self.tenant.clone(),
            until_now: true,
            ..WatchEventsRequest::default()
        };
        let mut stream = self.account.clone().watch_events(of).await.unwrap().into_inner();
        let mut events = vec![];
        while let Some(message) = stream.message().await.unwrap() {
            events.push(message.event.unwrap());
        }
        events.retain(|event| kinds.contains(&event.r#type()));
        events
    }

    async fn assert_audits_clean(&self) {
        let of = RunAuditRequest { tenant_id: self.tenant.clone() };
        let report = self.account.clone().run_audit(of).await.unwrap().into_inner();
        assert!(report.clean, "{:?}", report.findings);
    }

    /// Runs one of the program's commands for the tenant.
    async fn program(&self, arguments: &[&str]) -> Output {
        let Listen::Tcp(address) = &self.administration else { panic!("expected a TCP listener") };
        let mut command = crate::support::process::tollgate();
        command.args(arguments).args(["--tenant", &self.tenant]);
        command.env("TOLLGATE_ADMIN_ENDPOINT", format!("http://{address}"));
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
    }

    /// What a command prints that must succeed.
    async fn printed(&self, arguments: &[&str]) -> String {
        let output = self.program(arguments).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}
