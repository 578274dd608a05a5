//! The commands of a call: `authorize`, `answer`, `extend`, `settle`, `release`, `quote`, `calls`.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::cli::accounts::PAGE;
use crate::cli::args::{
    self, AnswerArgs, AuthorizeArgs, CallFacts, CallsArgs, CallsCommand, EndCallsArgs, ExtendArgs,
    Output, QuoteArgs, ReleaseArgs, Server, SettleArgs,
};
use crate::cli::client;
use crate::cli::organisation::timestamp;
use crate::cli::output::{
    Failure, Outcome, Word, counted, fields, instant, is_some_money, is_some_time, length, lines,
    mark, money, rows, show, spoken, warn,
};
use crate::proto::json::to_json_line;
use crate::proto::v1::end_open_calls_request::Calls as WhichCalls;
use crate::proto::v1::{
    AuthorizeCallRequest, AuthorizeCallResponse, Call, CallOrigin, CallType, Classification,
    Decision, Denial, EndCallsRequest, EndCallsResponse, EndOpenCallsRequest, EndOpenCallsResponse,
    ExtendCallRequest, ExtendCallResponse, FundingLine, FundingSource, GetCallRequest,
    GetCallResponse, Grant, ListOpenCallsRequest, ListOpenCallsResponse, Money, QuoteCallRequest,
    QuoteCallResponse, QuoteStep, ReleaseCallRequest, ReleaseCallResponse, ReportAnswerRequest,
    ReportAnswerResponse, SettleCallRequest, SettleCallResponse, SettleResult,
};

/// Carries out `authorize`.
pub async fn authorize(args: AuthorizeArgs, form: Output) -> Outcome {
    let request = authorization(args.call)?;
    let mut calls = client::calls(&args.server).await?;
    let answer = calls.authorize_call(request).await?.into_inner();
    show(form, &answer, |answer| Answer::from(answer).table())?;
    Ok(ExitCode::SUCCESS)
}

fn authorization(call: CallFacts) -> Result<AuthorizeCallRequest, Failure> {
    let call_id = call.call_id.unwrap_or_else(|| {
        let made_up = Uuid::now_v7().to_string();
        warn(format!(
            "this call is --call-id {made_up}; name it yourself to be able to repeat the request"
        ));
        made_up
    });
    Ok(AuthorizeCallRequest {
        tenant_id: call.tenant,
        call_id,
        call_type: call_type(call.call_type).into(),
        payer_id: call.payer,
        calling_number: call.calling,
        called_number: call.called,
        original_called_number: call.original_called,
        requested_duration: wire(call.duration)?,
        origin: origin(call.origin).into(),
        on_behalf_of: call.on_behalf_of,
        conference_id: call.conference_id,
        sip_call_id: call.sip_call_id,
        trunk_id: call.trunk,
        reports_answer: call.reports_answer,
        attempt: call.attempt,
        labels: call.labels.into_iter().collect(),
    })
}

/// Carries out `quote`.
pub async fn quote(args: QuoteArgs, form: Output) -> Outcome {
    let request = question(args.call)?;
    let mut calls = client::calls(&args.server).await?;
    let answer = calls.quote_call(request).await?.into_inner();
    show(form, &answer, quoted)?;
    Ok(ExitCode::SUCCESS)
}

fn question(call: CallFacts) -> Result<QuoteCallRequest, Failure> {
    Ok(QuoteCallRequest {
        tenant_id: call.tenant,
        call_id: call.call_id.unwrap_or_default(),
        call_type: call_type(call.call_type).into(),
        payer_id: call.payer,
        calling_number: call.calling,
        called_number: call.called,
        original_called_number: call.original_called,
        requested_duration: wire(call.duration)?,
        origin: origin(call.origin).into(),
        on_behalf_of: call.on_behalf_of,
        conference_id: call.conference_id,
        sip_call_id: call.sip_call_id,
        trunk_id: call.trunk,
        reports_answer: call.reports_answer,
        attempt: call.attempt,
        labels: call.labels.into_iter().collect(),
    })
}

fn quoted(answer: &QuoteCallResponse) -> String {
    let steps = lines(answer.steps.iter().map(step).collect());
    steps + "\n" + &Answer::from(answer).table()
}

fn step(step: &QuoteStep) -> [String; 4] {
    let rule = match step.rule.as_str() {
        "" => String::new(),
        rule => format!("(rule {rule})"),
    };
    [mark(step.passed).to_owned(), step.check.clone(), step.detail.clone(), rule]
}

/// Carries out `answer`.
pub async fn answer(args: AnswerArgs, form: Output) -> Outcome {
    let request = ReportAnswerRequest {
        tenant_id: args.key.tenant,
        call_id: args.key.call_id,
        answered_at: args.answered_at.map(timestamp),
    };
    let mut calls = client::calls(&args.server).await?;
    let answer = calls.report_answer(request).await?.into_inner();
    show(form, &answer, |answer| Answer::from(answer).table())?;
    Ok(ExitCode::SUCCESS)
}

/// Carries out `extend`.
pub async fn extend(args: ExtendArgs, form: Output) -> Outcome {
    let request = ExtendCallRequest {
        tenant_id: args.key.tenant,
        call_id: args.key.call_id,
        used_duration: wire(Some(args.used))?,
        sequence: args.sequence,
        requested_duration: wire(args.duration)?,
        token: args.token,
    };
    let mut calls = client::calls(&args.server).await?;
    let answer = calls.extend_call(request).await?.into_inner();
    show(form, &answer, |answer| Answer::from(answer).table())?;
    Ok(ExitCode::SUCCESS)
}

/// Carries out `settle`.
pub async fn settle(args: SettleArgs, form: Output) -> Outcome {
    let request = SettleCallRequest {
        tenant_id: args.key.tenant,
        call_id: args.key.call_id,
        used_duration: wire(Some(args.used))?,
        sequence: args.sequence,
        q850_cause: args.q850_cause.unwrap_or_default(),
        answered_at: args.answered_at.map(timestamp),
        ended_at: args.ended_at.map(timestamp),
        token: args.token,
        labels: args.labels.into_iter().collect(),
    };
    let mut calls = client::calls(&args.server).await?;
    let answer = calls.settle_call(request).await?.into_inner();
    show(form, &answer, |answer| Charge::from(answer).table())?;
    Ok(ExitCode::SUCCESS)
}

/// Carries out `release`.
pub async fn release(args: ReleaseArgs, form: Output) -> Outcome {
    let request = ReleaseCallRequest {
        tenant_id: args.key.tenant,
        call_id: args.key.call_id,
        q850_cause: args.q850_cause.unwrap_or_default(),
    };
    let mut calls = client::calls(&args.server).await?;
    let answer = calls.release_call(request).await?.into_inner();
    show(form, &answer, |answer| Charge::from(answer).table())?;
    Ok(ExitCode::SUCCESS)
}

/// Carries out `calls`.
pub async fn calls(args: CallsArgs, form: Output) -> Outcome {
    match args.command {
        None => {
            let tenant = args.tenant.unwrap_or_default();
            match args.watch {
                None => list(&tenant, &args.server, form).await,
                Some(every) => watch(&tenant, &args.server, every, form).await,
            }
        }
        Some(CallsCommand::Show { key, server }) => {
            let request = GetCallRequest { tenant_id: key.tenant, call_id: key.call_id };
            let answer = client::accounts(&server).await?.get_call(request).await?.into_inner();
            show(form, &answer, shown)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(CallsCommand::End(args)) => end(args, form).await,
    }
}

async fn end(args: EndCallsArgs, form: Output) -> Outcome {
    let EndCallsArgs { tenant, call_id, payer, trunk, all: _, before, reason, operator, server } =
        args;
    match before {
        None => {
            let which = call_id.map(WhichCalls::CallId);
            let which = which.or(payer.map(WhichCalls::PayerId));
            let which = which.or(trunk.map(WhichCalls::TrunkId)).unwrap_or(WhichCalls::All(true));
            let request = EndOpenCallsRequest {
                tenant_id: tenant,
                calls: Some(which),
                reason: reason.unwrap_or_default(),
                operator: operator.unwrap_or_default(),
            };
            let mut accounts = client::accounts(&server).await?;
            let answer = accounts.end_open_calls(request).await?.into_inner();
            show(form, &answer, |answer: &EndOpenCallsResponse| {
                ended(&EndCallsResponse {
                    ended_calls: answer.ended_calls,
                    released_calls: answer.released_calls,
                    charged_duration: answer.charged_duration,
                    charged_money: answer.charged_money.clone(),
                    call_ids: answer.call_ids.clone(),
                })
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Some(before) => {
            let request = EndCallsRequest {
                tenant_id: tenant,
                trunk_id: trunk.unwrap_or_default(),
                started_before: Some(timestamp(before)),
            };
            let answer = client::calls(&server).await?.end_calls(request).await?.into_inner();
            show(form, &answer, ended)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(tenant: &str, server: &Server, form: Output) -> Outcome {
    let all = open_calls(&mut client::accounts(server).await?, tenant).await?;
    show(form, &all, listed)?;
    Ok(ExitCode::SUCCESS)
}

/// Lists for ever, on a terminal always from its top. A server that is away is told and asked again.
async fn watch(tenant: &str, server: &Server, every: Duration, form: Output) -> Outcome {
    let is_terminal = io::stdout().is_terminal();
    let mut accounts = client::accounts(server).await?;
    loop {
        let found = open_calls(&mut accounts, tenant).await;
        let now = Timestamp::now().strftime("%H:%M:%SZ");
        let text = match (found, form) {
            (Ok(all), Output::Json) => to_json_line(&all)?,
            (Ok(all), Output::Table) => {
                let open = counted(u64::try_from(all.calls.len()).unwrap_or(u64::MAX), "open call");
                format!("{now}  {tenant}  {open}\n{}", listed(&all).trim_end())
            }
            (Err(failure), _) => {
                failure.print();
                String::new()
            }
        };
        // Clears the screen and begins at its top.
        let top = if is_terminal && form == Output::Table { "\x1b[2J\x1b[H" } else { "" };
        if !text.is_empty() && !is_read(&format!("{top}{text}\n"))? {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(every).await;
    }
}

/// Writes a text; whether anybody reads on.
fn is_read(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

async fn open_calls(
    accounts: &mut client::Accounts,
    tenant: &str,
) -> Result<ListOpenCallsResponse, Failure> {
    let mut all = ListOpenCallsResponse::default();
    let mut page_token = String::new();
    loop {
        let tenant_id = tenant.to_owned();
        let request = ListOpenCallsRequest { tenant_id, page_size: PAGE, page_token };
        let page = accounts.list_open_calls(request).await?.into_inner();
        all.calls.extend(page.calls);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

fn listed(answer: &ListOpenCallsResponse) -> String {
    if answer.calls.is_empty() {
        return "no open calls".to_owned();
    }
    let row = |call: &Call| {
        [
            call.call_id.clone(),
            call.state().word().to_owned(),
            call.payer_id.clone(),
            call.called_number.clone(),
            instant(call.authorized_at.as_ref()),
            instant(call.expires_at.as_ref()),
            length(call.used_duration.as_ref()),
            length(call.granted_duration.as_ref()),
            call.funding.iter().map(briefly).collect::<Vec<_>>().join(" + "),
        ]
    };
    rows(
        ["CALL", "STATE", "PAYER", "CALLED", "AUTHORIZED", "EXPIRES", ">USED", ">GRANTED", "HOLDS"],
        answer.calls.iter().map(row).collect(),
    )
}

fn shown(answer: &GetCallResponse) -> String {
    let Some(call) = &answer.call else { return String::new() };
    let is_over = call.ended_at.is_some();
    let charged = charged(call.charged_duration.as_ref(), call.charged_money.as_ref());
    let shortfall = shortfall(call.shortfall_duration.as_ref(), call.shortfall_money.as_ref());
    let last = if call.final_grant { ", final" } else { "" };
    fields([
        ("call", call.call_id.clone()),
        ("tenant", call.tenant_id.clone()),
        ("state", call.state().word().to_owned()),
        ("type", spoken(&call.call_type())),
        ("payer", call.payer_id.clone()),
        ("calling", call.calling_number.clone()),
        ("called", call.called_number.clone()),
        ("class", call.classification.as_ref().map(classified).unwrap_or_default()),
        ("trunk", call.trunk_id.clone()),
        ("decision", call.decision().word().to_owned()),
        ("record", call.decision_id.clone()),
        ("authorized", instant(call.authorized_at.as_ref())),
        ("answered", instant(call.answered_at.as_ref())),
        ("expires", instant(call.expires_at.as_ref())),
        ("ended", instant(call.ended_at.as_ref())),
        ("used", length(call.used_duration.as_ref())),
        ("granted", length(call.granted_duration.as_ref()) + last),
        (if is_over { "paid by" } else { "holds" }, funding(&call.funding)),
        ("charged", if is_over { charged } else { String::new() }),
        ("shortfall", shortfall),
        ("rate deck", call.deck_version.clone()),
    ])
}

fn ended(answer: &EndCallsResponse) -> String {
    let released = answer.released_calls;
    fields([
        (
            "ended",
            format!("{}, {released} of them unanswered", counted(answer.ended_calls, "call")),
        ),
        ("charged", charged(answer.charged_duration.as_ref(), answer.charged_money.as_ref())),
        ("calls", answer.call_ids.join("\n")),
    ])
}

/// What the answers of authorize, answer, extend and quote have in common.
struct Answer<'a> {
    decision: Decision,
    replayed: bool,
    grant: Option<&'a Grant>,
    denial: Option<&'a Denial>,
    classification: Option<&'a Classification>,
    funding: &'a [FundingLine],
    decision_id: &'a str,
    deck_version: &'a str,
    warnings: &'a [String],
}

macro_rules! answers {
    ($($name:ident)*) => {
        $(impl<'a> From<&'a $name> for Answer<'a> {
            fn from(answer: &'a $name) -> Self {
                Answer {
                    decision: answer.decision(),
                    replayed: answer.replayed,
                    grant: answer.grant.as_ref(),
                    denial: answer.denial.as_ref(),
                    classification: answer.classification.as_ref(),
                    funding: &answer.funding,
                    decision_id: &answer.decision_id,
                    deck_version: &answer.deck_version,
                    warnings: &answer.warnings,
                }
            }
        })*
    };
}

answers! { AuthorizeCallResponse ReportAnswerResponse ExtendCallResponse QuoteCallResponse }

impl Answer<'_> {
    fn table(&self) -> String {
        fields([
            ("decision", self.decision.word().to_owned() + replayed(self.replayed)),
            ("why not", self.denial.map(|denial| denial.detail.clone()).unwrap_or_default()),
            ("SIP", self.denial.map(sip).unwrap_or_default()),
            ("retry", self.denial.map(retry).unwrap_or_default()),
            ("call", self.classification.map(classified).unwrap_or_default()),
            ("grant", self.grant.map(granted).unwrap_or_default()),
            ("ringing", self.grant.map(ringing).unwrap_or_default()),
            ("hold", self.grant.map(hold).unwrap_or_default()),
            ("paid by", funding(self.funding)),
            ("rate deck", self.deck_version.to_owned()),
            ("record", self.decision_id.to_owned()),
            ("warning", self.warnings.join("\n")),
        ])
    }
}

fn replayed(replayed: bool) -> &'static str {
    if replayed { " (replayed)" } else { "" }
}

fn granted(grant: &Grant) -> String {
    let stop = length(grant.granted_duration.as_ref());
    if grant.final_grant {
        return format!("{stop} from answer, final: then {}", spoken(&grant.final_action()));
    }
    let refresh = length(grant.refresh_after.as_ref());
    format!("{stop} from answer, extend after {refresh}")
}

fn ringing(grant: &Grant) -> String {
    format!("at most {}", length(grant.ringing_timeout.as_ref()))
}

fn hold(grant: &Grant) -> String {
    format!("lapses after {} without a message", length(grant.hold_timeout.as_ref()))
}

/// `403 Forbidden, Q.850 cause 21, no other route`.
fn sip(denial: &Denial) -> String {
    let cause = match denial.q850_cause {
        0 => String::new(),
        cause => format!(", Q.850 cause {cause}"),
    };
    let route =
        if denial.reroute_allowed { "another route may be tried" } else { "no other route" };
    format!("{} {}{cause}, {route}", denial.sip_status, denial.sip_phrase)
}

fn retry(denial: &Denial) -> String {
    if !is_some_time(denial.retry_after.as_ref()) {
        return String::new();
    }
    format!("after {} with a new call_id", length(denial.retry_after.as_ref()))
}

/// `domestic to US +14255550123, fixed line or mobile`.
fn classified(classification: &Classification) -> String {
    let number = [classification.country.as_str(), &classification.e164].join(" ");
    let mut parts = vec![
        spoken(&classification.call_class()),
        number.trim().to_owned(),
        spoken(&classification.number_type()),
    ];
    parts.retain(|part| !part.is_empty());
    // An emergency number makes an emergency call.
    parts.dedup();
    parts.join(", ")
}

/// One line each: source, bucket, how much.
fn funding(funding: &[FundingLine]) -> String {
    let line = |line: &FundingLine| {
        let rate = match is_some_money(line.rate_per_minute.as_ref()) {
            true => format!("at {} per minute", money(line.rate_per_minute.as_ref())),
            false => String::new(),
        };
        [line.source().word().to_owned(), line.bucket_id.clone(), amount(line), rate]
    };
    lines(funding.iter().map(line).collect()).trim_end().to_owned()
}

/// `POOL 5m0s` or `CREDITS 1.2 USD`.
fn briefly(line: &FundingLine) -> String {
    format!("{} {}", line.source().word(), amount(line))
}

/// A pool pays in time, everything else in money, of which the time is said too.
fn amount(line: &FundingLine) -> String {
    let time = length(line.duration.as_ref());
    match line.source() {
        FundingSource::Pool | FundingSource::Free => time,
        _ if is_some_time(line.duration.as_ref()) => {
            format!("{} for {time}", money(line.money.as_ref()))
        }
        _ => money(line.money.as_ref()),
    }
}

/// What the answers of settle and release have in common.
struct Charge<'a> {
    result: SettleResult,
    replayed: bool,
    duration: Option<&'a prost_types::Duration>,
    money: Option<&'a Money>,
    funding: &'a [FundingLine],
    shortfall_duration: Option<&'a prost_types::Duration>,
    shortfall_money: Option<&'a Money>,
    recorded: Option<&'a prost_types::Duration>,
}

macro_rules! charges {
    ($($name:ident)*) => {
        $(impl<'a> From<&'a $name> for Charge<'a> {
            fn from(answer: &'a $name) -> Self {
                Charge {
                    result: answer.result(),
                    replayed: answer.replayed,
                    duration: answer.charged_duration.as_ref(),
                    money: answer.charged_money.as_ref(),
                    funding: &answer.funding,
                    shortfall_duration: answer.shortfall_duration.as_ref(),
                    shortfall_money: answer.shortfall_money.as_ref(),
                    recorded: answer.recorded_duration.as_ref(),
                }
            }
        })*
    };
}

charges! { SettleCallResponse ReleaseCallResponse }

impl Charge<'_> {
    fn table(&self) -> String {
        let parked = match self.result {
            SettleResult::Parked => ": usage without a grant, recorded and not charged",
            SettleResult::Accepted => {
                ": the ledger is out of reach; it is charged when that is back"
            }
            _ => "",
        };
        fields([
            ("result", self.result.word().to_owned() + replayed(self.replayed) + parked),
            ("used", length(self.recorded)),
            ("charged", charged(self.duration, self.money)),
            ("paid by", funding(self.funding)),
            ("shortfall", shortfall(self.shortfall_duration, self.shortfall_money)),
        ])
    }
}

/// `5m0s, 0.25 USD in money`.
fn charged(duration: Option<&prost_types::Duration>, amount: Option<&Money>) -> String {
    match is_some_money(amount) {
        true => format!("{}, {} in money", length(duration), money(amount)),
        false => length(duration),
    }
}

fn shortfall(duration: Option<&prost_types::Duration>, amount: Option<&Money>) -> String {
    if !is_some_time(duration) && !is_some_money(amount) {
        return String::new();
    }
    format!("{}, worth {}", length(duration), money(amount))
}

fn wire(duration: Option<Duration>) -> Result<Option<prost_types::Duration>, Failure> {
    duration
        .map(|duration| prost_types::Duration::try_from(duration).map_err(Failure::new))
        .transpose()
}

fn call_type(call_type: args::CallType) -> CallType {
    match call_type {
        args::CallType::UserOutbound => CallType::UserOutbound,
        args::CallType::ConferenceDialOut => CallType::ConferenceDialOut,
        args::CallType::ConferenceDialIn => CallType::ConferenceDialIn,
        args::CallType::TollFreeInbound => CallType::TollFreeInbound,
        args::CallType::UserInbound => CallType::UserInbound,
    }
}

fn origin(origin: args::Origin) -> CallOrigin {
    match origin {
        args::Origin::Direct => CallOrigin::Direct,
        args::Origin::Transfer => CallOrigin::Transfer,
        args::Origin::Forward => CallOrigin::Forward,
        args::Origin::AddParty => CallOrigin::AddParty,
        args::Origin::OnBehalf => CallOrigin::OnBehalf,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{CallClass, FinalAction, NumberType};

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn usd(amount: &str) -> Option<Money> {
        Some(Money { currency_code: "USD".into(), amount: amount.into() })
    }

    fn pool_then_credits() -> Vec<FundingLine> {
        vec![
            FundingLine {
                source: FundingSource::Pool.into(),
                bucket_id: "US:MCOPSTN1:DOMESTIC:2026-11".into(),
                duration: seconds(300),
                money: usd("0"),
                rate_per_minute: usd("0"),
                expires_at: None,
            },
            FundingLine {
                source: FundingSource::Credits.into(),
                bucket_id: "po-1".into(),
                duration: seconds(60),
                money: usd("0.15"),
                rate_per_minute: usd("0.1"),
                expires_at: None,
            },
        ]
    }

    #[test]
    fn a_grant_says_how_long_and_who_pays() {
        let answer = AuthorizeCallResponse {
            decision: Decision::Allowed.into(),
            allowed: true,
            replayed: true,
            grant: Some(Grant {
                granted_duration: seconds(360),
                refresh_after: seconds(288),
                ringing_timeout: seconds(60),
                hold_timeout: seconds(450),
                final_grant: true,
                final_action: FinalAction::AnnounceThenEnd.into(),
                token: String::new(),
            }),
            classification: Some(Classification {
                call_class: CallClass::Domestic.into(),
                country: "US".into(),
                number_type: NumberType::FixedLineOrMobile.into(),
                e164: "+14255550123".into(),
            }),
            funding: pool_then_credits(),
            warnings: vec!["one".into(), "two".into()],
            ..AuthorizeCallResponse::default()
        };
        assert_eq!(
            Answer::from(&answer).table(),
            "decision  ALLOWED (replayed)\n\
             call      domestic, US +14255550123, fixed line or mobile\n\
             grant     6m0s from answer, final: then announce then end\n\
             ringing   at most 1m0s\n\
             hold      lapses after 7m30s without a message\n\
             paid by   POOL     US:MCOPSTN1:DOMESTIC:2026-11  5m0s\n\
             \x20         CREDITS  po-1                          0.15 USD for 1m0s  at 0.1 USD per minute\n\
             warning   one\n\
             \x20         two\n"
        );
    }

    #[test]
    fn a_quote_says_step_by_step_why_a_call_is_refused() {
        let step = |check: &str, passed, detail: &str, rule: &str| QuoteStep {
            check: check.into(),
            passed,
            detail: detail.into(),
            rule: rule.into(),
        };
        let answer = QuoteCallResponse {
            decision: Decision::PolicyDenied.into(),
            denial: Some(Denial {
                sip_status: 403,
                sip_phrase: "Forbidden".into(),
                q850_cause: 21,
                retry_after: seconds(5),
                detail: "the outbound policy is user: domestic".into(),
                ..Denial::default()
            }),
            steps: vec![
                step("PAYER", true, "alice, usage location US", "5"),
                step("POLICY", false, "the outbound policy is user: domestic", "67"),
                step("OTHER", true, "fine", ""),
            ],
            ..QuoteCallResponse::default()
        };
        let text = quoted(&answer).replace('✓', "ok").replace('✗', "no");
        assert_eq!(
            text,
            "ok  PAYER   alice, usage location US               (rule 5)\n\
             no  POLICY  the outbound policy is user: domestic  (rule 67)\n\
             ok  OTHER   fine\n\
             \n\
             decision  POLICY_DENIED\n\
             why not   the outbound policy is user: domestic\n\
             SIP       403 Forbidden, Q.850 cause 21, no other route\n\
             retry     after 5s with a new call_id\n"
        );
    }

    #[test]
    fn a_settle_says_what_was_charged_and_what_nothing_paid_for() {
        let answer = SettleCallResponse {
            result: SettleResult::Settled.into(),
            charged_duration: seconds(360),
            charged_money: usd("0.15"),
            funding: pool_then_credits(),
            shortfall_duration: seconds(30),
            shortfall_money: usd("0.1"),
            recorded_duration: seconds(390),
            ..SettleCallResponse::default()
        };
        let text = Charge::from(&answer).table();
        assert!(text.starts_with("result     SETTLED\nused       6m30s\n"), "{text}");
        assert!(text.contains("charged    6m0s, 0.15 USD in money\n"), "{text}");
        assert!(text.ends_with("shortfall  30s, worth 0.1 USD\n"), "{text}");
    }

    #[test]
    fn an_open_call_is_listed_with_what_it_holds() {
        let call = Call { call_id: "c1".into(), funding: pool_then_credits(), ..Call::default() };
        let text = listed(&ListOpenCallsResponse {
            calls: vec![call],
            ..ListOpenCallsResponse::default()
        });
        assert!(text.contains("POOL 5m0s + CREDITS 0.15 USD for 1m0s\n"), "{text}");
        assert_eq!(listed(&ListOpenCallsResponse::default()), "no open calls");
    }
}
