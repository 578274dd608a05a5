//! AccountService as a client sees it.

use prost_types::{Duration, Timestamp};
use tollgate::organisation;
use tollgate::proto::v1::{
    ActivateDeckRequest, AdjustBalanceRequest, AdjustSettlementRequest, ApplyRequest,
    ApplyResponse, AuthorizeCallRequest, CallOrigin, CallState, CallType, CheckDeckRequest,
    CreditPurchase, Decision, FundingSource, GetBalanceRequest, GetCallRequest,
    ListAdjustmentsRequest, ListDecisionsRequest, ListOpenCallsRequest, Money, Organisation,
    PoolCounter, PurchaseCreditsRequest, ResourceAccount, RunAuditRequest, SettleCallRequest,
    Tenant, User, adjust_balance_request::Amount,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::server::{DECK, Server};

fn length(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn usd(amount: &str) -> Option<Money> {
    Some(Money { currency_code: "USD".to_owned(), amount: amount.to_owned() })
}

fn of(tenant: &str) -> GetBalanceRequest {
    GetBalanceRequest { tenant_id: tenant.to_owned() }
}

#[track_caller]
fn violations(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let details = status.get_details_bad_request().expect("field violations");
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}

fn fabrikam() -> Tenant {
    Tenant {
        id: "fabrikam".to_owned(),
        currency: "USD".to_owned(),
        credits: vec![CreditPurchase {
            key: "po-9".to_owned(),
            amount: "20".to_owned(),
            purchased_at: Some(Timestamp { seconds: 1_790_000_000, nanos: 0 }),
            payment: None,
        }],
        users: vec![User {
            id: "eve".to_owned(),
            usage_location: "US".to_owned(),
            licences: vec!["MCOEV".to_owned(), "MCOPSTN2".to_owned()],
            numbers: vec!["+14255550177".to_owned()],
            ..User::default()
        }],
        ..Tenant::default()
    }
}

fn apply(tenant: Tenant) -> ApplyRequest {
    ApplyRequest { organisation: Some(Organisation { tenants: vec![tenant] }) }
}

#[tokio::test]
async fn an_organisation_is_applied_once_and_looked_at() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let applied = account.apply(apply(fabrikam())).await.unwrap().into_inner();
    let expected = ApplyResponse { created: 2, purchases_applied: 1, ..ApplyResponse::default() };
    assert_eq!(ApplyResponse { warnings: vec![], ..applied }, expected);
    let again = account.apply(apply(fabrikam())).await.unwrap().into_inner();
    let expected = ApplyResponse { unchanged: 2, ..ApplyResponse::default() };
    assert_eq!(ApplyResponse { warnings: vec![], ..again }, expected);

    let balance = account.get_balance(of("fabrikam")).await.unwrap().into_inner();
    let pools: Vec<_> = balance
        .pools
        .iter()
        .map(|pool| (pool.counter(), pool.granted, pool.held, pool.spent, pool.available))
        .collect();
    let unused =
        |counter, seconds| (counter, length(seconds), length(0), length(0), length(seconds));
    let expected =
        [unused(PoolCounter::Domestic, 180_000), unused(PoolCounter::International, 36_000)];
    assert_eq!(pools, expected);
    let credits = balance.credits.unwrap();
    assert_eq!((credits.funded, credits.available, credits.held), (usd("20"), usd("20"), usd("0")));
    assert_eq!(credits.lots[0].key, "po-9");
}

#[test]
fn a_document_means_the_same_as_file_and_as_message() {
    let yaml = std::fs::read_to_string("samples/organisation.yaml").unwrap();
    let file = organisation::read(&yaml).unwrap();
    let message = tollgate::cli::organisation::message(&file).unwrap();
    let sent = tollgate::grpc::organisation::raw(message);
    let expected = organisation::check(&file);
    assert!(expected.is_ok(), "{expected:?}");
    assert_eq!(organisation::check(&sent), expected);
}

#[tokio::test]
async fn a_document_with_mistakes_is_refused_whole() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let status = account.apply(ApplyRequest::default()).await.unwrap_err();
    assert_eq!(violations(&status), ["organisation"]);

    let mut tenant = fabrikam();
    tenant.currency = "XXL".to_owned();
    tenant.users[0].licences.push("MCOPSTN77".to_owned());
    let status = account.apply(apply(tenant)).await.unwrap_err();
    let expected =
        ["organisation.tenants[0].currency", "organisation.tenants[0].users[0].licences[2]"];
    assert_eq!(violations(&status), expected);
    let status = account.get_balance(of("fabrikam")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);

    account.apply(apply(fabrikam())).await.unwrap();
    let other = Tenant { currency: "EUR".to_owned(), ..fabrikam() };
    let status = account.apply(apply(other)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let failure = status.get_details_precondition_failure().unwrap();
    assert_eq!(failure.violations[0].subject, "tenants[0].currency");
}

/// The field that contradicts what stands, and why.
#[track_caller]
fn contradiction(status: &Status) -> (String, String) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let failure = status.get_details_precondition_failure().expect("a violation");
    let violation = &failure.violations[0];
    (violation.subject.clone(), violation.description.clone())
}

#[tokio::test]
async fn a_document_must_fit_what_stands() {
    let server = Server::start().await;
    let mut account = server.account().await;
    account.apply(apply(fabrikam())).await.unwrap();
    let user = |id: &str, number: &str| User {
        id: id.to_owned(),
        usage_location: "US".to_owned(),
        numbers: vec![number.to_owned()],
        ..User::default()
    };
    let users = |users: Vec<User>| apply(Tenant { users, ..fabrikam() });

    let bot = ResourceAccount {
        id: "eve".to_owned(),
        usage_location: "US".to_owned(),
        ..ResourceAccount::default()
    };
    let (users_before, bots) = (vec![user("mallory", "+14255550178")], vec![bot]);
    let other_kind = Tenant { users: users_before, resource_accounts: bots, ..fabrikam() };
    let status = account.apply(apply(other_kind)).await.unwrap_err();
    let (field, reason) = contradiction(&status);
    assert_eq!(field, "tenants[0].resource_accounts[0].id");
    assert!(reason.contains("stands as a user"), "{reason}");

    let thief = vec![user("frank", "+14255550176"), user("mallory", "+14255550177")];
    let status = account.apply(users(thief)).await.unwrap_err();
    let (field, reason) = contradiction(&status);
    assert_eq!(field, "tenants[0].users[1].numbers[0]");
    assert!(reason.contains("+14255550177"), "{reason}");
    let decided = ListDecisionsRequest { tenant_id: "fabrikam".to_owned(), ..Default::default() };
    account.list_decisions(decided).await.unwrap();

    // A document that names both may move the number; a removed payer gives its number back.
    let moved = vec![user("frank", "+14255550177"), user("eve", "+14255550176")];
    let moved = account.apply(users(moved)).await.unwrap().into_inner();
    assert_eq!((moved.created, moved.updated), (1, 1), "nothing of what was refused stands");
    let gone = User { state: "removed".to_owned(), ..user("frank", "+14255550177") };
    account.apply(users(vec![gone])).await.unwrap();
    account.apply(users(vec![user("mallory", "+14255550177")])).await.unwrap();
}

#[tokio::test]
async fn a_wallet_stays_below_what_can_be_counted_exactly() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let purchase = |key: usize, amount: &str| PurchaseCreditsRequest {
        tenant_id: "contoso".to_owned(),
        key: format!("large-{key}"),
        amount: usd(amount),
        ..PurchaseCreditsRequest::default()
    };
    for key in 0..9 {
        account.purchase_credits(purchase(key, "100000000")).await.unwrap();
    }
    // 10 were there from the start.
    let status = account.purchase_credits(purchase(9, "99999990.000001")).await.unwrap_err();
    let (field, reason) = contradiction(&status);
    assert_eq!(field, "amount.amount");
    assert!(reason.contains("at most 1000000000"), "{reason}");
    account.purchase_credits(purchase(9, "99999990")).await.unwrap();
    let again = account.purchase_credits(purchase(9, "99999990")).await.unwrap().into_inner();
    assert!(again.replayed, "a repeat adds nothing");

    let mut tenant = fabrikam();
    let at = tenant.credits[0].purchased_at;
    tenant.credits = (0..11)
        .map(|key| CreditPurchase {
            key: format!("large-{key}"),
            amount: "100000000".to_owned(),
            purchased_at: at,
            payment: None,
        })
        .collect();
    let status = account.apply(apply(tenant.clone())).await.unwrap_err();
    assert_eq!(contradiction(&status).0, "tenants[0].credits[10].amount");
    tenant.credits.pop();
    account.apply(apply(tenant)).await.unwrap();
}

#[tokio::test]
async fn a_purchase_is_applied_once_by_its_key() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let purchase = PurchaseCreditsRequest {
        tenant_id: "contoso".to_owned(),
        key: "po-2".to_owned(),
        amount: usd("5.5"),
        ..PurchaseCreditsRequest::default()
    };
    for replayed in [false, true] {
        let bought = account.purchase_credits(purchase.clone()).await.unwrap().into_inner();
        assert_eq!(bought.replayed, replayed);
        assert_eq!(bought.lot.unwrap().remaining, usd("5.5"));
        assert_eq!(bought.credits.unwrap().available, usd("15.5"));
    }
    let other = PurchaseCreditsRequest { amount: usd("6"), ..purchase.clone() };
    let status = account.purchase_credits(other).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let euros = Some(Money { currency_code: "EUR".to_owned(), amount: "1".to_owned() });
    let other =
        PurchaseCreditsRequest { key: "po-3".to_owned(), amount: euros, ..purchase.clone() };
    let status = account.purchase_credits(other).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let unknown = PurchaseCreditsRequest { tenant_id: "nobody".to_owned(), ..purchase };
    assert_eq!(account.purchase_credits(unknown).await.unwrap_err().code(), Code::NotFound);

    for amount in [None, usd("0"), usd("-1"), usd("NaN"), usd("100000001"), usd("1e3")] {
        let request = PurchaseCreditsRequest {
            tenant_id: "contoso".to_owned(),
            key: "\n".to_owned(),
            amount,
            ..PurchaseCreditsRequest::default()
        };
        let fields = violations(&account.purchase_credits(request).await.unwrap_err());
        assert!(fields.len() == 2 && fields[1].starts_with("amount"), "{fields:?}");
    }
}

#[tokio::test]
async fn a_bad_deck_is_listed_line_by_line_and_never_active() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let row = "33,France,NaN,0,60,60,USD,2020-01-01,,outbound\n";
    let bad = format!("{DECK}{row}{row}");
    let request = CheckDeckRequest { csv: bad.clone().into() };
    let checked = account.check_deck(request).await.unwrap().into_inner();
    assert_eq!((checked.valid, checked.problem_count), (false, 2), "{checked:?}");
    let lines: Vec<u32> = checked.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [3, 4]);
    let request = ActivateDeckRequest { deck: "default".to_owned(), csv: bad.into() };
    let status = account.activate_deck(request).await.unwrap_err();
    assert_eq!(violations(&status), ["csv", "csv"]);

    let request = CheckDeckRequest { csv: DECK.into() };
    let checked = account.check_deck(request).await.unwrap().into_inner();
    assert!(checked.valid && checked.row_count == 1 && checked.currency == "USD", "{checked:?}");
    let request = ActivateDeckRequest { deck: "default".to_owned(), csv: DECK.into() };
    let active = account.activate_deck(request).await.unwrap().into_inner();
    assert_eq!((active.row_count, active.tenant_count), (1, 1));
    // Above tonic's default of 4 MiB: refused by the deck's rules, not as a message.
    let request = CheckDeckRequest { csv: vec![b'x'; 8 << 20].into() };
    assert!(!account.check_deck(request).await.unwrap().into_inner().valid);
}

#[tokio::test]
async fn calls_and_decisions_are_listed_and_the_audit_is_clean() {
    let server = Server::start().await;
    let (mut calls, mut account) = (server.calls().await, server.account().await);
    for (call, payer, called) in [
        ("a", "alice", "+12065550100"),
        ("b", "carol", "+33123456789"),
        ("c", "dave", "+33123456789"),
    ] {
        let request = AuthorizeCallRequest {
            tenant_id: "contoso".to_owned(),
            call_id: call.to_owned(),
            call_type: CallType::UserOutbound.into(),
            payer_id: payer.to_owned(),
            called_number: called.to_owned(),
            sip_call_id: format!("{call}@sbc"),
            conference_id: "meeting".to_owned(),
            on_behalf_of: "alice".to_owned(),
            origin: CallOrigin::Transfer.into(),
            labels: [("site".to_owned(), "SEA".to_owned())].into(),
            ..AuthorizeCallRequest::default()
        };
        calls.authorize_call(request).await.unwrap();
    }
    let request = ListOpenCallsRequest {
        tenant_id: "contoso".to_owned(),
        page_size: 1,
        ..ListOpenCallsRequest::default()
    };
    let first = account.list_open_calls(request.clone()).await.unwrap().into_inner();
    let page_token = first.next_page_token;
    assert!(first.calls.len() == 1 && !page_token.is_empty());
    let request = ListOpenCallsRequest { page_token, ..request };
    let second = account.list_open_calls(request.clone()).await.unwrap().into_inner();
    assert_eq!((second.calls.len(), second.next_page_token.as_str()), (1, ""));
    let open = &second.calls[0];
    assert_eq!(open.state(), CallState::Ringing);
    assert!(open.expires_at.is_some() && open.ended_at.is_none() && !open.funding.is_empty());
    let garbage = ListOpenCallsRequest { page_token: "garbage".to_owned(), ..request };
    let status = account.list_open_calls(garbage).await.unwrap_err();
    assert_eq!(violations(&status), ["page_token"]);

    let settle = SettleCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "b".to_owned(),
        used_duration: length(61),
        ..SettleCallRequest::default()
    };
    calls.settle_call(settle).await.unwrap();
    let request = GetCallRequest { tenant_id: "contoso".to_owned(), call_id: "b".to_owned() };
    let settled = account.get_call(request).await.unwrap().into_inner().call.unwrap();
    assert_eq!((settled.state(), settled.charged_money.clone()), (CallState::Settled, usd("0.25")));
    assert_eq!(settled.funding[0].money, usd("0.25"));
    assert!(settled.expires_at.is_none() && settled.ended_at.is_some());
    let request = GetCallRequest { tenant_id: "contoso".to_owned(), call_id: "z".to_owned() };
    assert_eq!(account.get_call(request).await.unwrap_err().code(), Code::NotFound);

    let request =
        ListDecisionsRequest { tenant_id: "contoso".to_owned(), ..ListDecisionsRequest::default() };
    let decisions = account.list_decisions(request).await.unwrap().into_inner().decisions;
    let made: Vec<_> =
        decisions.iter().map(|record| (record.call_id.as_str(), record.decision())).collect();
    let expected =
        [("c", Decision::NotEntitled), ("b", Decision::Allowed), ("a", Decision::Allowed)];
    assert_eq!(made, expected);
    let details = decisions.iter().map(|record| !record.detail.is_empty());
    assert!(details.eq([true, false, false]), "{decisions:?}");
    let line = &decisions[1].funding[0];
    assert_eq!((line.source(), line.duration), (FundingSource::Credits, length(300)));
    let traced = &decisions[2];
    assert_eq!((&*traced.sip_call_id, &*traced.conference_id), ("a@sbc", "meeting"));
    assert_eq!((&*traced.on_behalf_of, traced.origin()), ("alice", CallOrigin::Transfer));
    assert_eq!(traced.labels.get("site").map(String::as_str), Some("SEA"));

    for tenant_id in ["", "contoso"] {
        let request = RunAuditRequest { tenant_id: tenant_id.to_owned() };
        let audit = account.run_audit(request).await.unwrap().into_inner();
        assert!(audit.clean && audit.checked_tenants == 1 && audit.checked_calls == 3, "{audit:?}");
    }
    let request = RunAuditRequest { tenant_id: "nobody".to_owned() };
    assert_eq!(account.run_audit(request).await.unwrap_err().code(), Code::NotFound);
}

fn correction(key: &str, bucket: &str, amount: Amount) -> AdjustBalanceRequest {
    AdjustBalanceRequest {
        tenant_id: "contoso".to_owned(),
        key: key.to_owned(),
        bucket_id: bucket.to_owned(),
        amount: Some(amount),
        reason: "goodwill".to_owned(),
        operator: "olivia".to_owned(),
    }
}

fn dollars(amount: &str) -> Amount {
    Amount::Money(usd(amount).unwrap())
}

#[tokio::test]
async fn a_balance_is_corrected_with_a_reason_an_operator_and_a_key() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let up = correction("a-1", "po-1", dollars("5"));
    let adjusted = account.adjust_balance(up.clone()).await.unwrap().into_inner();
    let made = adjusted.adjustment.unwrap();
    assert!(!adjusted.replayed && made.adjusted_at.is_some());
    assert_eq!((&*made.bucket_id, made.adjusted_money.clone()), ("po-1", usd("5")));
    assert_eq!((&*made.key, &*made.reason, &*made.operator), ("a-1", "goodwill", "olivia"));
    let credits = adjusted.credits.unwrap();
    let sums = (credits.funded, credits.adjusted, credits.available);
    assert_eq!(sums, (usd("10"), usd("5"), usd("15")));
    assert_eq!(credits.lots[0].adjusted, usd("5"));
    let again = account.adjust_balance(up.clone()).await.unwrap().into_inner();
    assert!(again.replayed);
    assert_eq!(again.adjustment.unwrap(), made);
    let other = AdjustBalanceRequest { reason: "another".to_owned(), ..up };
    let status = account.adjust_balance(other).await.unwrap_err();
    assert_eq!(contradiction(&status).0, "key");
    let status =
        account.adjust_balance(correction("a-2", "po-1", dollars("-15.01"))).await.unwrap_err();
    assert_eq!(contradiction(&status), ("money".into(), "only 15 USD can be taken away".into()));
    account.adjust_balance(correction("a-2", "po-1", dollars("-5.00"))).await.unwrap();

    let pools = account.get_balance(of("contoso")).await.unwrap().into_inner().pools;
    let pool = &pools[0];
    let minutes = |seconds| Amount::Duration(length(seconds).unwrap());
    let down = correction("a-3", &pool.pool_id, minutes(-600));
    let adjusted = account.adjust_balance(down).await.unwrap().into_inner();
    let after = adjusted.pool.unwrap();
    assert_eq!((after.granted, after.available), (length(179_400), length(179_400)));
    assert_eq!(adjusted.adjustment.unwrap().adjusted_duration, length(-600));
    let too_much = correction("a-4", &pool.pool_id, minutes(-179_401));
    let status = account.adjust_balance(too_much).await.unwrap_err();
    assert!(contradiction(&status).1.contains("179400s"), "{status}");
    for bucket in ["po-9", "US:MCOPSTN1:DOMESTIC:2001-01"] {
        let amount = if bucket == "po-9" { dollars("1") } else { minutes(60) };
        let status = account.adjust_balance(correction("a-4", bucket, amount)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
    }
    let overage = correction("a-4", "overage:2026-11", dollars("-1"));
    let status = account.adjust_balance(overage).await.unwrap_err();
    let reason = "overage is what its calls were charged; correct those calls";
    assert_eq!(contradiction(&status), ("bucket_id".into(), reason.into()));
    let foreign = Amount::Money(Money { currency_code: "EUR".into(), amount: "1".into() });
    let status = account.adjust_balance(correction("a-4", "po-1", foreign)).await.unwrap_err();
    assert_eq!(contradiction(&status).0, "money.currency_code");

    let status = account.adjust_balance(AdjustBalanceRequest::default()).await.unwrap_err();
    let all = ["tenant_id", "bucket_id", "amount", "key", "reason", "operator"];
    assert_eq!(violations(&status), all);
    for (amount, field) in [(dollars("0"), "money"), (minutes(0), "duration")] {
        let status = account.adjust_balance(correction("a", "po-1", amount)).await.unwrap_err();
        assert_eq!(violations(&status), [field]);
    }
    let bad = AdjustBalanceRequest {
        reason: "a\nb".to_owned(),
        operator: "o".repeat(257),
        ..correction("a", "po-1", dollars("1"))
    };
    let status = account.adjust_balance(bad).await.unwrap_err();
    assert_eq!(violations(&status), ["reason", "operator"]);

    let list = |page_size, page_token: &str| ListAdjustmentsRequest {
        tenant_id: "contoso".to_owned(),
        page_size,
        page_token: page_token.to_owned(),
    };
    let all = account.list_adjustments(list(0, "")).await.unwrap().into_inner().adjustments;
    assert_eq!(all.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(), ["a-3", "a-2", "a-1"]);
    assert_eq!(all[2], made);
    let mut paged = vec![];
    let mut token = String::new();
    loop {
        let page = account.list_adjustments(list(1, &token)).await.unwrap().into_inner();
        paged.extend(page.adjustments);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all);
    let audit = account.run_audit(RunAuditRequest::default()).await.unwrap().into_inner();
    assert!(audit.clean, "{audit:?}");
}

#[tokio::test]
async fn a_settled_call_is_corrected_and_the_bill_with_it() {
    let server = Server::start().await;
    let (mut calls, mut account) = (server.calls().await, server.account().await);
    for call in ["settled", "ringing"] {
        let request = AuthorizeCallRequest {
            tenant_id: "contoso".to_owned(),
            call_id: call.to_owned(),
            call_type: CallType::UserOutbound.into(),
            payer_id: "carol".to_owned(),
            called_number: "+12065550142".to_owned(),
            ..AuthorizeCallRequest::default()
        };
        calls.authorize_call(request).await.unwrap();
    }
    let settle = SettleCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "settled".to_owned(),
        used_duration: length(121),
        ..SettleCallRequest::default()
    };
    let first = calls.settle_call(settle.clone()).await.unwrap().into_inner();
    assert_eq!(first.charged_money, usd("0.35"));
    let ask = |key: &str, call: &str, used| AdjustSettlementRequest {
        tenant_id: "contoso".to_owned(),
        key: key.to_owned(),
        call_id: call.to_owned(),
        used_duration: length(used),
        reason: "the meter ran on".to_owned(),
        operator: "olivia".to_owned(),
    };
    let adjusted = account.adjust_settlement(ask("s-1", "settled", 61)).await.unwrap().into_inner();
    let made = adjusted.adjustment.unwrap();
    assert_eq!((made.used_before, made.used_after), (length(121), length(61)));
    assert_eq!((&*made.call_id, &*made.payer_id, &*made.bucket_id), ("settled", "carol", ""));
    assert_eq!((made.charged_money.clone(), made.charged_duration), (usd("-0.1"), length(0)));
    let call = adjusted.call.unwrap();
    assert_eq!((call.state(), call.charged_money), (CallState::Settled, usd("0.25")));
    assert_eq!(call.used_duration, length(61));
    let again = account.adjust_settlement(ask("s-1", "settled", 61)).await.unwrap().into_inner();
    assert!(again.replayed);
    assert_eq!(again.adjustment, Some(made));
    // The settle is answered from the record, which is the corrected one.
    let repeat = calls.settle_call(settle).await.unwrap().into_inner();
    assert!(repeat.replayed);
    let found = (repeat.result, repeat.charged_money, repeat.recorded_duration);
    assert_eq!(found, (first.result, usd("0.25"), length(61)));

    for (call, used, field, word) in [
        ("ringing", 5, "call_id", "SettleCall"),
        ("settled", 61, "used_duration", "already"),
        ("settled", 7, "key", "s-1"),
    ] {
        let key = if field == "key" { "s-1" } else { "s-2" };
        let status = account.adjust_settlement(ask(key, call, used)).await.unwrap_err();
        let (found, reason) = contradiction(&status);
        assert!(found == field && reason.contains(word), "{status}");
    }
    let status = account.adjust_settlement(ask("s-2", "unknown", 5)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("AdjustBalance"), "{status}");
    let empty = AdjustSettlementRequest::default();
    let status = account.adjust_settlement(empty).await.unwrap_err();
    let all = ["tenant_id", "call_id", "used_duration", "key", "reason", "operator"];
    assert_eq!(violations(&status), all);
    let audit = account.run_audit(RunAuditRequest::default()).await.unwrap().into_inner();
    assert!(audit.clean, "{audit:?}");
}
