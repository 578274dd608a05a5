//! `tollgate demo`: a readable day of calls on the embedded ledger, through real gRPC.
//!
//! The day runs on a clock of its own, so that an hour of talk takes no time and an abandoned call
//! expires before the reader's eyes. Afterwards the server goes on, on that clock, to be tried by hand.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use crate::app;
use crate::charging::units::{Millis, Seconds};
use crate::cli::args::{DemoArgs, Endpoint, Server, Trust};
use crate::cli::client::{self, Accounts, Calls};
use crate::cli::organisation::message;
use crate::cli::output::{Failure, Outcome, Word, length, money};
use crate::config::{self, Config, Flags, Listen};
use crate::ledger::ClockOffset;
use crate::ledger::memory::MemoryLedger;
use crate::ops::{shutdown, telemetry};
use crate::organisation;
use crate::proto::v1;

const ORGANISATIONS: &str = include_str!("../../samples/demo.yaml");
const DECK: &[u8] = include_bytes!("../../samples/sample-deck.csv");

/// Length of the day by the demo's clock, a little more than its story takes.
const DAY: Seconds = Seconds(8 * 3600);

/// Between two stories.
const PAUSE: Seconds = Seconds(10 * 60);

/// Longest wait for something that happens behind the answers: a record, a sweep.
const PATIENCE: Duration = Duration::from_secs(5);

/// Plays the day, then serves until it is stopped.
pub fn run(args: &DemoArgs) -> Outcome {
    let config = settings(args)?;
    // Only warnings: the story is told on standard output.
    telemetry::init(config.log_format, "warn").map_err(Failure::new)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(play_and_serve(args, &config))?;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &DemoArgs) -> Result<Config, Failure> {
    let flags = Flags {
        listen: Some(args.listen.to_string()),
        admin_listen: Some(args.admin_listen.to_string()),
        http_listen: Some(args.http_listen.to_string()),
        // The reader should not wait for what expires.
        sweep_interval: Some("20ms".to_owned()),
        ..Flags::default()
    };
    let listed = |mistakes: Vec<config::Mistake>| {
        Failure(mistakes.iter().map(ToString::to_string).collect())
    };
    config::load(flags, None).map_err(listed)
}

async fn play_and_serve(args: &DemoArgs, config: &Config) -> Result<(), Failure> {
    let stop = shutdown::stop_signal()?;
    let clock = clock_of_the_day();
    let running = app::start(Arc::new(MemoryLedger::new(clock.clone())), config).await?;
    let app::Addresses { calls, administration, .. } = running.addresses();
    let server = Server {
        endpoint: endpoint(calls)?,
        admin_endpoint: endpoint(administration)?,
        timeout: Duration::from_secs(10),
        trust: Trust::default(),
    };
    let (calls, accounts) = (client::calls(&server).await?, client::accounts(&server).await?);
    let mut day = Day { calls, accounts, clock, out: io::stdout(), legs: 0 };
    let told = day.play().await;
    if told.is_ok() && !args.once {
        day.invite(&server)?;
        running.run_until(stop).await?;
    } else {
        running.shutdown().await?;
    }
    Ok(told?)
}

/// Where a client finds a listener.
fn endpoint(listen: &Listen) -> Result<Endpoint, Failure> {
    let text = match listen {
        Listen::Tcp(address) => format!("http://{address}"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    };
    text.parse().map_err(Failure::new)
}

/// The demo's clock: the day ends about now, unless it had to begin in last month, whose minutes are
/// other minutes; then it begins now.
fn clock_of_the_day() -> ClockOffset {
    let clock = ClockOffset::default();
    let now = Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    if now.day() > 1 || i64::from(now.hour()) * 3600 > DAY.0 {
        clock.advance(Seconds(-DAY.0));
    }
    clock
}

/// A leg that is to be authorized.
#[derive(Clone, Copy)]
struct Leg<'a> {
    tenant: &'a str,
    payer: &'a str,
    calling: &'a str,
    called: &'a str,
    call_type: v1::CallType,
    /// Asked for; 0 leaves it to the server.
    minutes: i64,
}

const ALICE: Leg<'_> = Leg {
    tenant: "contoso",
    payer: "alice",
    calling: "+14255550100",
    called: "+12065550142",
    call_type: v1::CallType::UserOutbound,
    minutes: 0,
};

const BOB: Leg<'_> = Leg { payer: "bob", calling: "+14255550101", ..ALICE };

struct Day<W> {
    calls: Calls,
    accounts: Accounts,
    clock: ClockOffset,
    out: W,
    legs: u32,
}

impl<W: Write> Day<W> {
    /// The whole day; an error where an answer is not what it must be.
    async fn play(&mut self) -> Result<()> {
        self.set_up().await?;
        self.pool_pays().await?;
        self.pool_runs_out().await?;
        self.international().await?;
        self.refused_and_why().await?;
        self.toll_free().await?;
        self.emergency().await?;
        self.orphan().await?;
        self.duplicate().await?;
        self.close().await
    }

    /// What a reader may try next.
    fn invite(&mut self, server: &Server) -> Result<()> {
        let address = server.endpoint.to_string();
        let address = address.trim_start_matches("http://");
        let program = std::env::args().next().unwrap_or_default();
        writeln!(
            self.out,
            r#"
Serving on, calls at {address}, by the clock of the day above; Ctrl-C stops. Try, in another terminal:

  grpcurl -plaintext -d '{{"tenant_id":"contoso","call_id":"my-first|leg-1","payer_id":"alice",
    "call_type":"CALL_TYPE_USER_OUTBOUND","called_number":"+12065550142"}}' \
    {address} tollgate.v1.CallAuthorizationService/AuthorizeCall

  tollgate quote --tenant contoso --payer bob --called +12065550142
  tollgate decisions --tenant contoso        (tollgate is {program})"#
        )
        .context("standard output")
    }

    async fn set_up(&mut self) -> Result<()> {
        self.title("Setting up: a sample deck, two organisations")?;
        let request = v1::ActivateDeckRequest { deck: "default".to_owned(), csv: DECK.into() };
        let deck = self.accounts.activate_deck(request).await?.into_inner();
        self.line("ActivateDeck", "", &format!("{} rows in {}", deck.row_count, deck.currency))?;
        let raw = organisation::read(ORGANISATIONS).map_err(|faults| listed(&faults))?;
        let mut organisation = message(&raw)?;
        // Bought this morning: credits lapse, and the demo is to be told in any year.
        let morning = prost_types::Timestamp { seconds: self.now().0.div_euclid(1000), nanos: 0 };
        for purchase in organisation.tenants.iter_mut().flat_map(|tenant| &mut tenant.credits) {
            purchase.purchased_at = Some(morning);
        }
        let request = v1::ApplyRequest { organisation: Some(organisation) };
        let applied = self.accounts.apply(request).await?.into_inner();
        let counts = (applied.created, applied.purchases_applied);
        self.line("Apply", "", &format!("{} created, {} purchase", counts.0, counts.1))
    }

    async fn pool_pays(&mut self) -> Result<()> {
        self.title("Alice calls Seattle: a domestic call, paid by plan minutes")?;
        let id = self.authorize(ALICE, v1::Decision::Allowed).await?;
        self.pass(Seconds(60));
        self.answer(ALICE, &id).await?;
        self.pass(Seconds(240));
        self.extend(ALICE, &id, Seconds(240), 1).await?;
        self.pass(Seconds(130));
        self.settle(ALICE, &id, Seconds(370)).await
    }

    async fn pool_runs_out(&mut self) -> Result<()> {
        self.title("Bob, of the same pool, talks for almost four hours")?;
        let bob = Leg { minutes: 232, ..BOB };
        let id = self.authorize(bob, v1::Decision::Allowed).await?;
        self.pass(Seconds(230 * 60));
        self.settle(bob, &id, Seconds(230 * 60)).await?;
        self.title("Alice calls again: the pool runs out in mid-call, credits go on")?;
        let id = self.authorize(ALICE, v1::Decision::Allowed).await?;
        self.pass(Seconds(200));
        self.extend(ALICE, &id, Seconds(200), 1).await?;
        self.pass(Seconds(130));
        self.settle(ALICE, &id, Seconds(330)).await?;
        self.balance("contoso").await
    }

    async fn international(&mut self) -> Result<()> {
        self.title("Alice calls a mobile in London: no international plan, so credits pay")?;
        let leg = Leg { called: "011 44 7700 900123", ..ALICE };
        let id = self.authorize(leg, v1::Decision::Allowed).await?;
        self.pass(Seconds(61));
        self.settle(leg, &id, Seconds(61)).await
    }

    async fn refused_and_why(&mut self) -> Result<()> {
        self.title("Bob calls Seattle: the pool is empty, and he may not use the credits")?;
        self.authorize(BOB, v1::Decision::PoolExhausted).await?;
        self.title("Why? The help desk asks for a quote")?;
        let authorize = request(BOB, "");
        let request = v1::QuoteCallRequest {
            tenant_id: authorize.tenant_id,
            payer_id: authorize.payer_id,
            call_type: authorize.call_type,
            calling_number: authorize.calling_number,
            called_number: authorize.called_number,
            ..Default::default()
        };
        let quote = self.calls.quote_call(request).await?.into_inner();
        for step in &quote.steps {
            let mark = if step.passed { "ok" } else { "no" };
            let rule = match step.rule.as_str() {
                "" => String::new(),
                rule => format!(" (rule {rule})"),
            };
            self.line(&step.check, mark, &format!("{}{rule}", step.detail))?;
        }
        Ok(())
    }

    async fn toll_free(&mut self) -> Result<()> {
        self.title("A stranger calls Fabrikam's toll-free number: the wallet is empty")?;
        let leg = Leg {
            tenant: "fabrikam",
            payer: "support",
            calling: "+12125550123",
            called: "+18005550199",
            call_type: v1::CallType::TollFreeInbound,
            minutes: 0,
        };
        self.authorize(leg, v1::Decision::TollFreeUnfunded).await?;
        self.title("Fabrikam buys credits, and the stranger calls again")?;
        let purchase = v1::PurchaseCreditsRequest {
            tenant_id: "fabrikam".to_owned(),
            key: "po-1".to_owned(),
            amount: Some(v1::Money { currency_code: "USD".to_owned(), amount: "20".to_owned() }),
            ..Default::default()
        };
        let bought = self.accounts.purchase_credits(purchase).await?.into_inner();
        let available = bought.credits.and_then(|credits| credits.available);
        self.line("PurchaseCredits", "", &format!("{} available", money(available.as_ref())))?;
        let id = self.authorize(leg, v1::Decision::Allowed).await?;
        self.pass(Seconds(150));
        self.settle(leg, &id, Seconds(150)).await
    }

    async fn emergency(&mut self) -> Result<()> {
        self.title("Carol, in London, has no licence and no credits; she dials 999")?;
        let carol = Leg { tenant: "fabrikam", payer: "carol", calling: "", called: "999", ..ALICE };
        let id = self.authorize(carol, v1::Decision::AllowedEmergency).await?;
        // The record of a call that was decided without the ledger follows it there.
        self.wait_for(carol.tenant, &id, v1::CallState::Ringing).await?;
        self.pass(Seconds(95));
        self.settle(carol, &id, Seconds(95)).await
    }

    async fn orphan(&mut self) -> Result<()> {
        self.title("An SBC authorizes a call and is never heard of again: the hold expires")?;
        let leg = Leg { called: "+81 3 5550 0123", ..ALICE };
        let id = self.authorize(leg, v1::Decision::Allowed).await?;
        self.credits("contoso", "held").await?;
        self.pass(Seconds(3600));
        self.wait_for(leg.tenant, &id, v1::CallState::Expired).await?;
        self.line("an hour later", "expired", "never answered, so nothing is charged")?;
        self.credits("contoso", "given back").await
    }

    async fn wait_for(&mut self, tenant: &str, id: &str, state: v1::CallState) -> Result<()> {
        let look = async {
            loop {
                let request =
                    v1::GetCallRequest { tenant_id: tenant.to_owned(), call_id: id.to_owned() };
                let found = self.accounts.get_call(request).await.map(|found| found.into_inner());
                if found.is_ok_and(|found| found.call.unwrap_or_default().state() == state) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, look).await;
        waited.with_context(|| format!("call {id} is not {state:?} after {PATIENCE:?}"))
    }

    async fn duplicate(&mut self) -> Result<()> {
        self.title("A reply is lost, so the SBC repeats everything: nothing is charged twice")?;
        let leg = Leg { called: "+33 1 99 00 12 34", ..ALICE };
        let id = self.authorize(leg, v1::Decision::Allowed).await?;
        self.again(leg, &id, v1::Decision::Allowed).await?;
        self.pass(Seconds(60));
        self.settle(leg, &id, Seconds(60)).await?;
        self.settle(leg, &id, Seconds(60)).await?;
        let other = Leg { called: "+442079460958", ..leg };
        self.again(other, &id, v1::Decision::KeyConflict).await
    }

    async fn close(&mut self) -> Result<()> {
        self.title("The end of the day")?;
        self.balance("contoso").await?;
        self.balance("fabrikam").await?;
        let audit = self.accounts.run_audit(v1::RunAuditRequest::default()).await?.into_inner();
        if !audit.clean {
            bail!("the audit found {} faults: {:?}", audit.finding_count, audit.findings);
        }
        let (buckets, calls) = (audit.checked_buckets, audit.checked_calls);
        self.line("RunAudit", "clean", &format!("{buckets} buckets and {calls} calls checked"))
    }

    // One message each.

    async fn authorize(&mut self, leg: Leg<'_>, expected: v1::Decision) -> Result<String> {
        self.legs += 1;
        let id = format!("demo|{}|leg-1", self.legs);
        self.again(leg, &id, expected).await?;
        Ok(id)
    }

    async fn again(&mut self, leg: Leg<'_>, id: &str, expected: v1::Decision) -> Result<()> {
        let answer = self.calls.authorize_call(request(leg, id)).await?.into_inner();
        if answer.decision() != expected {
            bail!("expected {expected:?} for {}, found {answer:?}", leg.called);
        }
        let what = match (&answer.denial, &answer.grant) {
            (Some(denial), _) => format!(
                "SIP {} {}, Q.850 {}: {}",
                denial.sip_status, denial.sip_phrase, denial.q850_cause, denial.detail
            ),
            (None, grant) => described(grant.as_ref(), &answer.funding),
        };
        let repeat = if answer.replayed { "the same answer: " } else { "" };
        let name = format!("AuthorizeCall {}", leg.called);
        self.line(&name, answer.decision().word(), &format!("{repeat}{what}"))
    }

    async fn answer(&mut self, leg: Leg<'_>, id: &str) -> Result<()> {
        let request = v1::ReportAnswerRequest {
            tenant_id: leg.tenant.to_owned(),
            call_id: id.to_owned(),
            answered_at: None,
        };
        let answer = self.calls.report_answer(request).await?.into_inner();
        let what = "the clock starts: ring time is never billed";
        self.line("ReportAnswer", answer.decision().word(), what)
    }

    async fn extend(&mut self, leg: Leg<'_>, id: &str, used: Seconds, sequence: u64) -> Result<()> {
        let request = v1::ExtendCallRequest {
            tenant_id: leg.tenant.to_owned(),
            call_id: id.to_owned(),
            used_duration: Some(duration(used)),
            sequence: Some(sequence),
            ..Default::default()
        };
        let answer = self.calls.extend_call(request).await?.into_inner();
        let what = described(answer.grant.as_ref(), &answer.funding);
        self.line(
            &format!("ExtendCall {}", length(Some(&duration(used)))),
            answer.decision().word(),
            &what,
        )
    }

    async fn settle(&mut self, leg: Leg<'_>, id: &str, used: Seconds) -> Result<()> {
        let request = v1::SettleCallRequest {
            tenant_id: leg.tenant.to_owned(),
            call_id: id.to_owned(),
            used_duration: Some(duration(used)),
            ..Default::default()
        };
        let charge = self.calls.settle_call(request).await?.into_inner();
        let repeat = if charge.replayed { "the same answer: " } else { "" };
        let what = match charge.funding.first().map(|line| line.source()) {
            Some(v1::FundingSource::Free) | None => "nothing to pay".to_owned(),
            _ => funding(&charge.funding),
        };
        let result = charge.result().word();
        self.line(
            &format!("SettleCall {}", length(Some(&duration(used)))),
            result,
            &format!("{repeat}{what}"),
        )
    }

    async fn balance(&mut self, tenant: &str) -> Result<()> {
        let request = v1::GetBalanceRequest { tenant_id: tenant.to_owned() };
        let balance = self.accounts.get_balance(request).await?.into_inner();
        for pool in &balance.pools {
            let minutes = |d: &Option<prost_types::Duration>| seconds(d.as_ref()) / 60;
            let (granted, spent, left) =
                (minutes(&pool.granted), minutes(&pool.spent), minutes(&pool.available));
            let what = format!("{left} of {granted} minutes left, {spent} spent");
            self.line(&pool.pool_id, tenant, &what)?;
        }
        let credits = balance.credits.unwrap_or_default();
        let (left, spent) = (money(credits.available.as_ref()), money(credits.spent.as_ref()));
        self.line("credits", tenant, &format!("{left} left, {spent} spent"))
    }

    async fn credits(&mut self, tenant: &str, what: &str) -> Result<()> {
        let request = v1::GetBalanceRequest { tenant_id: tenant.to_owned() };
        let credits = self.accounts.get_balance(request).await?.into_inner().credits;
        let credits = credits.unwrap_or_default();
        let (left, held) = (money(credits.available.as_ref()), money(credits.held.as_ref()));
        self.line("credits", what, &format!("{left} left, {held} held"))
    }

    // Telling.

    /// Time goes by on the demo's clock.
    fn pass(&self, time: Seconds) {
        self.clock.advance(time);
    }

    /// By the demo's clock.
    fn now(&self) -> Millis {
        self.clock.reading().at(Millis(Timestamp::now().as_millisecond()))
    }

    fn title(&mut self, text: &str) -> Result<()> {
        self.pass(PAUSE);
        let at = Timestamp::from_millisecond(self.now().0)?;
        writeln!(self.out, "\n{}  {text}", at.strftime("%H:%M")).context("standard output")
    }

    fn line(&mut self, message: &str, outcome: &str, detail: &str) -> Result<()> {
        writeln!(self.out, "       {message:<34} {outcome:<18} {detail}").context("standard output")
    }
}

fn request(leg: Leg<'_>, id: &str) -> v1::AuthorizeCallRequest {
    v1::AuthorizeCallRequest {
        tenant_id: leg.tenant.to_owned(),
        call_id: id.to_owned(),
        call_type: leg.call_type.into(),
        payer_id: leg.payer.to_owned(),
        calling_number: leg.calling.to_owned(),
        called_number: leg.called.to_owned(),
        requested_duration: (leg.minutes > 0).then(|| duration(Seconds(leg.minutes * 60))),
        ..Default::default()
    }
}

fn described(grant: Option<&v1::Grant>, lines: &[v1::FundingLine]) -> String {
    let Some(grant) = grant else { return String::new() };
    let talk = length(grant.granted_duration.as_ref());
    let next = length(grant.refresh_after.as_ref());
    let then = match grant.final_grant {
        true => "no more is to be had".to_owned(),
        false => format!("asks again after {next}"),
    };
    format!("may talk {talk}, {then}; {}", funding(lines))
}

fn funding(lines: &[v1::FundingLine]) -> String {
    let line = |line: &v1::FundingLine| {
        let time = length(line.duration.as_ref());
        match line.source() {
            v1::FundingSource::Pool => format!("{time} of the pool"),
            v1::FundingSource::Credits | v1::FundingSource::Overage => {
                let rate = line.rate_per_minute.as_ref();
                format!("{time} for {} ({} a minute)", money(line.money.as_ref()), money(rate))
            }
            _ => "free".to_owned(),
        }
    };
    lines.iter().map(line).collect::<Vec<_>>().join(" + ")
}

fn duration(length: Seconds) -> prost_types::Duration {
    prost_types::Duration { seconds: length.0, nanos: 0 }
}

fn seconds(duration: Option<&prost_types::Duration>) -> i64 {
    duration.map_or(0, |duration| duration.seconds)
}

fn listed(faults: &[organisation::Fault]) -> anyhow::Error {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("the demo's organisation file: {}", faults.join("; "))
}
