//! Post-paid tenants with overage, and spend velocity, as clients and operators see them.

use serde_json::json;
use tollgate::organisation;
use tollgate::proto::v1::{
    ActivateDeckRequest, ApplyRequest, ApplyResponse, AuthorizeCallRequest, AuthorizeCallResponse,
    CallType, Decision, ExportUsageRequest, FundingLine, FundingSource, GetBalanceRequest,
    GetBalanceResponse, ListDecisionsRequest, PurchaseCreditsRequest, PurchaseCreditsResponse,
    QuoteCallRequest, QuoteStep,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::server::{DECK, Server, bought_today};
use crate::support::messages::{authorize, extend, length, settle, usd};
use crate::support::process::{Files, Sidecar};
use crate::support::redis::RedisServer;

const FRANCE: &str = "+33123456789";

/// A server whose deck prices callers of toll-free numbers too.
async fn server() -> Server {
    let server = Server::start().await;
    let inbound = "*,Callers,0.10,0.05,60,60,USD,2020-01-01,,toll_free_inbound\n";
    let csv = format!("{DECK}{inbound}").into_bytes();
    let deck = ActivateDeckRequest { deck: "default".to_owned(), csv: csv.into() };
    server.account().await.activate_deck(deck).await.unwrap();
    server
}

/// A document of one tenant.
fn organisation_with(tenant: &str, settings: &str, credits: &str) -> String {
    format!(
        "tenants:
  - id: {tenant}
    currency: USD
    country: US
    {settings}
    credits: [{credits}]
    users:
      - {{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1], numbers: [\"+14255550100\"], emergency_address: Redmond }}
      - {{ id: carol, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1], numbers: [\"+14255550101\"], emergency_address: Redmond }}
    service_numbers:
      - {{ id: support, e164: \"+18005550199\", kind: toll_free }}
"
    )
}

/// contoso with `settings`, and with `credits` bought.
async fn apply(server: &Server, settings: &str, credits: &[&str]) -> Result<ApplyResponse, Status> {
    let credits: Vec<String> =
        credits.iter().map(|bought| format!("{{ {bought}, purchased_at: TODAY }}")).collect();
    let yaml = organisation_with("contoso", settings, &credits.join(", "));
    let file = organisation::read(&bought_today(&yaml)).expect("YAML");
    let message = tollgate::cli::organisation::message(&file).expect("a message");
    let request = ApplyRequest { organisation: Some(message) };
    server.account().await.apply(request).await.map(|reply| reply.into_inner())
}

const BOUGHT: &str = "key: po-1, amount: \"10\"";

async fn ask(server: &Server, call: &str, payer: &str) -> AuthorizeCallResponse {
    let request = authorize(call, payer, FRANCE);
    server.calls().await.authorize_call(request).await.unwrap().into_inner()
}

async fn ask_toll_free(server: &Server, call: &str) -> AuthorizeCallResponse {
    let request = AuthorizeCallRequest {
        call_type: CallType::TollFreeInbound.into(),
        calling_number: "+12065550100".to_owned(),
        ..authorize(call, "support", "+18005550199")
    };
    server.calls().await.authorize_call(request).await.unwrap().into_inner()
}

async fn quote(server: &Server, payer: &str, check: &str) -> (Decision, Option<QuoteStep>) {
    let request = QuoteCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "quoted".to_owned(),
        call_type: CallType::UserOutbound.into(),
        payer_id: payer.to_owned(),
        called_number: FRANCE.to_owned(),
        ..QuoteCallRequest::default()
    };
    let quote = server.calls().await.quote_call(request).await.unwrap().into_inner();
    let decision = quote.decision();
    (decision, quote.steps.into_iter().find(|step| step.check == check))
}

async fn balance(server: &Server) -> GetBalanceResponse {
    let request = GetBalanceRequest { tenant_id: "contoso".to_owned() };
    server.account().await.get_balance(request).await.unwrap().into_inner()
}

async fn buy(server: &Server, key: &str) -> Result<PurchaseCreditsResponse, Status> {
    let request = PurchaseCreditsRequest {
        tenant_id: "contoso".to_owned(),
        key: key.to_owned(),
        amount: usd("10"),
        ..PurchaseCreditsRequest::default()
    };
    server.account().await.purchase_credits(request).await.map(|reply| reply.into_inner())
}

fn sources(lines: &[FundingLine]) -> Vec<(FundingSource, String)> {
    let amount = |line: &FundingLine| line.money.clone().unwrap_or_default().amount;
    lines.iter().map(|line| (line.source(), amount(line))).collect()
}

#[track_caller]
fn contradiction(status: Status) -> (String, String) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let failure = status.get_details_precondition_failure().expect("a violation");
    (failure.violations[0].subject.clone(), failure.violations[0].description.clone())
}

#[tokio::test]
async fn a_post_paid_tenant_uses_its_credits_and_goes_on_as_overage() {
    let server = server().await;
    apply(&server, "billing: postpaid\n    overage: true", &[BOUGHT]).await.unwrap();
    let mut calls = server.calls().await;
    // 0.05 and 99 minutes of the 10 that are left, and one minute more.
    let request = AuthorizeCallRequest {
        requested_duration: length(6_060),
        ..authorize("c", "carol", FRANCE)
    };
    let answer = calls.authorize_call(request).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Allowed);
    let expected =
        [(FundingSource::Credits, "10".to_owned()), (FundingSource::Overage, "0.15".to_owned())];
    assert_eq!(sources(&answer.funding), expected);
    assert!(answer.funding[1].bucket_id.starts_with("overage:20"), "{:?}", answer.funding);
    assert_eq!(answer.funding[1].rate_per_minute, usd("0.1"));
    let grant = answer.grant.unwrap();
    assert_eq!((grant.granted_duration, grant.final_grant), (length(6_060), false));
    let credits = balance(&server).await.credits.unwrap();
    assert_eq!((credits.held, credits.available), (usd("10"), usd("0")));
    assert_eq!((credits.overage, credits.overage_held), (usd("0.15"), usd("0.15")));
    assert_eq!(credits.lots.len(), 1, "overage is no lot");

    let extended = calls.extend_call(extend("c", 6_000, 1)).await.unwrap().into_inner();
    assert!(extended.allowed && !extended.grant.unwrap().final_grant);
    let charge = calls.settle_call(settle("c", 6_121)).await.unwrap().into_inner();
    let expected =
        [(FundingSource::Credits, "10".to_owned()), (FundingSource::Overage, "0.35".to_owned())];
    assert_eq!(sources(&charge.funding), expected);
    assert_eq!((charge.charged_money, charge.shortfall_money), (usd("10.35"), usd("0")));

    let credits = balance(&server).await.credits.unwrap();
    assert_eq!((credits.overage, credits.overage_held), (usd("0.35"), usd("0")));
    assert_eq!((credits.overage_spent, credits.spent), (usd("0.35"), usd("10")));
    let (decision, step) = quote(&server, "carol", "OVERAGE").await;
    let step = step.unwrap();
    assert_eq!((decision, step.passed, step.rule.as_str()), (Decision::Allowed, true, "42"));
    assert!(step.detail.ends_with("0.55 would be held"), "{}", step.detail);

    // A stranger's call to a toll-free number, too.
    let inbound = ask_toll_free(&server, "t").await;
    assert_eq!(sources(&inbound.funding), [(FundingSource::Overage, "0.55".to_owned())]);
    calls.settle_call(settle("t", 60)).await.unwrap();

    let request =
        ListDecisionsRequest { tenant_id: "contoso".to_owned(), ..ListDecisionsRequest::default() };
    let decisions = server.account().await.list_decisions(request).await.unwrap().into_inner();
    let told = &decisions.decisions[0].funding;
    assert_eq!(sources(told), [(FundingSource::Overage, "0.55".to_owned())]);
    let request =
        ExportUsageRequest { tenant_id: "contoso".to_owned(), ..ExportUsageRequest::default() };
    let mut records = server.account().await.export_usage(request).await.unwrap().into_inner();
    let mut told = vec![];
    while let Some(response) = records.message().await.unwrap() {
        let record = response.record.unwrap();
        told.push((record.capability, record.charge.unwrap_or_default().amount));
    }
    let paid = |money: &str| ("MCOPSTNPP".to_owned(), money.to_owned());
    assert_eq!(told, [paid("10.35"), paid("0.15")]);
}

#[tokio::test]
async fn without_the_switch_a_post_paid_tenant_is_refused_when_all_is_used() {
    let server = server().await;
    apply(&server, "billing: postpaid", &[BOUGHT]).await.unwrap();
    let mut calls = server.calls().await;
    let whole = AuthorizeCallRequest {
        requested_duration: length(7_200),
        ..authorize("c", "carol", FRANCE)
    };
    assert!(calls.authorize_call(whole).await.unwrap().into_inner().grant.unwrap().final_grant);
    assert_eq!(ask(&server, "d", "carol").await.decision(), Decision::InsufficientCredits);
    let (decision, step) = quote(&server, "carol", "OVERAGE").await;
    let step = step.unwrap();
    assert_eq!((decision, step.passed), (Decision::InsufficientCredits, false));
    assert!(step.detail.starts_with("off: "), "{}", step.detail);
    assert_eq!(ask_toll_free(&server, "t").await.decision(), Decision::TollFreeUnfunded);

    // Rule 33 is the condition for overage as well.
    apply(&server, "billing: postpaid\n    overage: true", &[]).await.unwrap();
    assert_eq!(ask(&server, "e", "carol").await.decision(), Decision::Allowed);
    assert_eq!(ask(&server, "f", "alice").await.decision(), Decision::CreditsNotLicensed);
    let (_, step) = quote(&server, "alice", "OVERAGE").await;
    assert!(step.is_some_and(|step| !step.passed && step.detail.contains("licence")));
    // A prepaid tenant does not come to it.
    apply(&server, "billing: prepaid", &[]).await.unwrap();
    assert_eq!(quote(&server, "carol", "OVERAGE").await.1, None);
}

#[tokio::test]
async fn a_post_paid_tenant_cannot_buy_credits() {
    let server = server().await;
    buy(&server, "po-2").await.unwrap();
    let applied = apply(&server, "billing: postpaid", &[BOUGHT]).await.unwrap();
    assert_eq!((applied.updated, applied.purchases_applied), (1, 0));
    let (field, why) = contradiction(buy(&server, "po-3").await.unwrap_err());
    assert_eq!(field, "tenant_id");
    assert!(why.contains("rule 43"), "{why}");
    // What was bought before is answered as it was.
    assert!(buy(&server, "po-2").await.unwrap().replayed);
    let new =
        apply(&server, "billing: postpaid\n    overage: true", &[BOUGHT, "key: po-4, amount: 5"]);
    let (field, why) = contradiction(new.await.unwrap_err());
    assert_eq!(field, "tenants[0].credits[1].key");
    assert!(why.contains("rule 43"), "{why}");
    assert_eq!(quote(&server, "carol", "OVERAGE").await.1.map(|step| step.passed), Some(false));
    assert_eq!(balance(&server).await.credits.unwrap().available, usd("20"));
    let reserved = buy(&server, "overage:2026-11").await.unwrap_err();
    assert_eq!(reserved.code(), Code::InvalidArgument, "{reserved}");
    apply(&server, "billing: prepaid", &[BOUGHT, "key: po-4, amount: 5"]).await.unwrap();
    assert!(!buy(&server, "po-3").await.unwrap().replayed);
}

#[tokio::test]
async fn spend_velocity_refuses_as_suspected_fraud_and_shortens_what_is_left() {
    let server = server().await;
    let settings = "spend_velocity: { amount: \"0.90\", per: 1h }";
    let applied = apply(&server, settings, &[BOUGHT]).await.unwrap();
    assert_eq!(applied.warnings, Vec::<String>::new());
    let mut calls = server.calls().await;
    assert_eq!(ask(&server, "a", "carol").await.grant.unwrap().granted_duration, length(300));
    let second = ask(&server, "b", "carol").await;
    let grant = second.grant.unwrap();
    assert_eq!((grant.granted_duration, grant.final_grant), (length(180), true));
    let extended = calls.extend_call(extend("b", 100, 1)).await.unwrap().into_inner();
    let grant = extended.grant.unwrap();
    assert_eq!((grant.granted_duration, grant.final_grant), (length(180), true));
    let denial = ask(&server, "c", "carol").await.denial.unwrap();
    assert_eq!((denial.reason(), denial.sip_status), (Decision::FraudSuspected, 603));
    assert!(denial.detail.contains("spend velocity"), "{}", denial.detail);
    let (decision, step) = quote(&server, "carol", "SPEND VELOCITY").await;
    let step = step.unwrap();
    assert_eq!((decision, step.passed), (Decision::FraudSuspected, false));
    assert!(step.detail.starts_with("0 of 0.9 left"), "{}", step.detail);
    // The caller of a toll-free number is a stranger.
    let stranger = ask_toll_free(&server, "t").await;
    assert_eq!(stranger.decision(), Decision::TollFreeUnfunded);
    // Plan minutes are no money.
    let domestic = authorize("m", "alice", "+12065550100");
    let domestic = calls.authorize_call(domestic).await.unwrap().into_inner();
    assert_eq!(domestic.funding[0].source(), FundingSource::Pool);
    // What is given back may be used again.
    calls.settle_call(settle("a", 60)).await.unwrap();
    assert_eq!(ask(&server, "d", "carol").await.grant.unwrap().granted_duration, length(180));
}

#[test]
fn the_program_on_redis_tells_what_to_invoice_and_audits_it() {
    // Its own: a deck that is activated reaches every tenant of a server.
    let redis = RedisServer::started();
    let server = Sidecar::on(&redis.url());
    let document = |settings: &str| {
        let credits = "{ key: po-1, amount: \"0.15\", purchased_at: TODAY }";
        bought_today(&organisation_with("invoiced", settings, credits))
    };
    // Bought while prepaid, used while post-paid.
    server.set_up(&document("billing: prepaid"));
    let settings =
        "billing: postpaid\n    overage: true\n    spend_velocity: { amount: \"0.60\", per: 1h }";
    let files = Files::default();
    let org = files.write("org.yaml", &document(settings));
    let applied = server.json(&["apply", "--file", &org]);
    assert_eq!((&applied["updated"], &applied["warnings"]), (&json!(1), &json!([])), "{applied:#}");
    let call = ["--tenant", "invoiced", "--payer", "carol", "--called", FRANCE, "--call-id"];
    let authorize = |id| [&["authorize"], &call[..], &[id]].concat();
    let answer = server.json(&authorize("a"));
    let sources: Vec<_> =
        answer["funding"].as_array().unwrap().iter().map(|line| &line["source"]).collect();
    assert_eq!(sources, ["FUNDING_SOURCE_CREDITS", "FUNDING_SOURCE_OVERAGE"], "{answer:#}");
    let said = server.client(&authorize("b")).succeeded();
    assert!(said.contains("FRAUD_SUSPECTED"), "{said}");
    let settle = ["settle", "--tenant", "invoiced", "--call-id", "a", "--used", "61s"];
    let settled = server.client(&settle).succeeded();
    assert!(settled.contains("OVERAGE"), "{settled}");
    let table = server.client(&["balance", "--tenant", "invoiced"]).succeeded();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(table.lines().any(|line| words(line) == "this month 0 USD 0.1 USD"), "{table}");
    let audited = server.client(&["audit", "--tenant", "invoiced"]).succeeded();
    assert!(audited.contains("clean"), "{audited}");
}
