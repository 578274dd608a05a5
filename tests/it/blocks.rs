//! Blocked users and minute pools, as an operator's clients and the program see them.

use std::process::{Command, Output};

use prost_types::Timestamp;
use tollgate::config::Listen;
use tollgate::proto::v1::{
    ApplyRequest, AuthorizeCallRequest, BlockRecord, BlockSource, BlockUserRequest, CallType,
    Decision, ExtendCallRequest, ListBlockedUsersRequest, Organisation, Tenant, UnblockUserRequest,
    User,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::server::Server;

fn block(user: &str) -> BlockUserRequest {
    BlockUserRequest {
        tenant_id: "contoso".to_owned(),
        user_id: user.to_owned(),
        reason: "premium calls at night".to_owned(),
        operator: "olga".to_owned(),
    }
}

fn unblock(user: &str) -> UnblockUserRequest {
    UnblockUserRequest {
        tenant_id: "contoso".to_owned(),
        user_id: user.to_owned(),
        reason: "it was the cat".to_owned(),
        operator: "otto".to_owned(),
    }
}

fn list(include_unblocked: bool) -> ListBlockedUsersRequest {
    ListBlockedUsersRequest {
        tenant_id: "contoso".to_owned(),
        include_unblocked,
        ..ListBlockedUsersRequest::default()
    }
}

fn authorize(call: &str, payer: &str) -> AuthorizeCallRequest {
    AuthorizeCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: call.to_owned(),
        call_type: CallType::UserOutbound.into(),
        payer_id: payer.to_owned(),
        called_number: "+12065550142".to_owned(),
        ..AuthorizeCallRequest::default()
    }
}

/// alice as the document has her, but for her state.
fn document(state: &str) -> ApplyRequest {
    let alice = User {
        id: "alice".to_owned(),
        usage_location: "US".to_owned(),
        licences: vec!["MCOEV".to_owned(), "MCOPSTN1".to_owned()],
        numbers: vec!["+14255550100".to_owned()],
        state: state.to_owned(),
        ..User::default()
    };
    let tenant = Tenant {
        id: "contoso".to_owned(),
        currency: "USD".to_owned(),
        country: "US".to_owned(),
        users: vec![alice],
        ..Tenant::default()
    };
    ApplyRequest { organisation: Some(Organisation { tenants: vec![tenant] }) }
}

async fn decision(server: &Server, call: &str) -> Decision {
    let mut calls = server.calls().await;
    calls.authorize_call(authorize(call, "alice")).await.unwrap().into_inner().decision()
}

async fn listed(server: &Server, request: ListBlockedUsersRequest) -> Vec<BlockRecord> {
    server.account().await.list_blocked_users(request).await.unwrap().into_inner().blocks
}

fn rows(records: &[BlockRecord]) -> Vec<(&str, bool, BlockSource, &str)> {
    let row = |r: &'_ BlockRecord| (r.blocked, r.source());
    records.iter().map(|r| (r.user_id.as_str(), row(r).0, row(r).1, r.operator.as_str())).collect()
}

#[tokio::test]
async fn a_blocked_user_calls_no_more_until_unblocked_whatever_is_applied() {
    let server = Server::start().await;
    let mut account = server.account().await;
    assert_eq!(decision(&server, "before").await, Decision::Allowed);
    let set = account.block_user(block("alice")).await.unwrap().into_inner();
    assert!(set.changed);
    let record = set.block.unwrap();
    assert_eq!(record.numbers, ["+14255550100"]);
    assert_eq!(record.reason, "premium calls at night");
    // The sidecar remembers alice as she was, and the ledger tells it better.
    let mut calls = server.calls().await;
    let refused = calls.authorize_call(authorize("blocked", "alice")).await.unwrap().into_inner();
    let denial = refused.denial.clone().unwrap();
    assert_eq!((refused.decision(), denial.sip_status), (Decision::FraudSuspected, 603));
    let quote = tollgate::proto::v1::QuoteCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "quote".to_owned(),
        call_type: CallType::UserOutbound.into(),
        payer_id: "alice".to_owned(),
        called_number: "+12065550142".to_owned(),
        ..Default::default()
    };
    let quote = calls.quote_call(quote).await.unwrap().into_inner();
    assert_eq!(quote.decision(), Decision::FraudSuspected);
    assert!(quote.steps.iter().any(|step| step.rule == "91" && !step.passed), "{quote:?}");
    let extend = ExtendCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "before".to_owned(),
        used_duration: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
        sequence: Some(1),
        ..ExtendCallRequest::default()
    };
    let extended = calls.extend_call(extend).await.unwrap().into_inner();
    assert_eq!((extended.allowed, extended.decision()), (false, Decision::FraudSuspected));

    // Twice is once, and no document lifts it.
    let again = BlockUserRequest { reason: "another".to_owned(), ..block("alice") };
    let again = account.block_user(again).await.unwrap().into_inner();
    assert_eq!((again.changed, again.block.unwrap()), (false, record));
    account.apply(document("blocked")).await.unwrap();
    let both = listed(&server, list(false)).await;
    let (file, operator) = (BlockSource::OrganisationFile, BlockSource::Operator);
    let expected = [("alice", true, file, ""), ("alice", true, operator, "olga")];
    assert_eq!(rows(&both), expected);
    assert_eq!(both[0].reason, "state: blocked in the organisation file");
    let lifted = account.unblock_user(unblock("alice")).await.unwrap().into_inner();
    assert_eq!((lifted.changed, lifted.still_blocked), (true, true));
    account.block_user(block("alice")).await.unwrap();
    account.apply(document("active")).await.unwrap();
    assert_eq!(decision(&server, "applied").await, Decision::FraudSuspected);
    assert_eq!(listed(&server, list(false)).await.len(), 1);

    let lifted = account.unblock_user(unblock("alice")).await.unwrap().into_inner();
    assert_eq!((lifted.changed, lifted.still_blocked), (true, false));
    assert_eq!(lifted.block.unwrap().operator, "olga");
    assert_eq!(decision(&server, "after").await, Decision::Allowed);
    let nothing = account.unblock_user(unblock("alice")).await.unwrap().into_inner();
    assert_eq!((nothing.changed, nothing.block), (false, None));
    assert!(listed(&server, list(false)).await.is_empty());
    let audit = account.run_audit(tollgate::proto::v1::RunAuditRequest::default()).await.unwrap();
    assert!(audit.into_inner().clean);
}

#[tokio::test]
async fn the_report_tells_who_was_blocked_and_unblocked_in_a_window() {
    let server = Server::start().await;
    let mut account = server.account().await;
    account.block_user(block("alice")).await.unwrap();
    account.block_user(block("carol")).await.unwrap();
    account.unblock_user(unblock("alice")).await.unwrap();
    let by = BlockSource::Operator;
    let all = listed(&server, list(true)).await;
    let expected =
        [("alice", true, by, "olga"), ("carol", true, by, "olga"), ("alice", false, by, "otto")];
    assert_eq!(rows(&all), expected);
    assert_eq!(all[2].reason, "it was the cat");
    let first = all[0].occurred_at.unwrap();
    let ahead = Timestamp { seconds: first.seconds + 3_600, nanos: 0 };
    let later = ListBlockedUsersRequest { from: Some(ahead), ..list(true) };
    assert!(listed(&server, later).await.is_empty());
    let earlier = ListBlockedUsersRequest {
        from: Some(Timestamp { seconds: first.seconds - 3_600, nanos: 0 }),
        to: Some(first),
        ..list(true)
    };
    assert!(listed(&server, earlier).await.is_empty());
    // Page by page it is the same.
    for include_unblocked in [false, true] {
        let whole = listed(&server, list(include_unblocked)).await;
        let mut request = ListBlockedUsersRequest { page_size: 1, ..list(include_unblocked) };
        let mut found = vec![];
        loop {
            let page = account.list_blocked_users(request.clone()).await.unwrap().into_inner();
            assert!(page.blocks.len() <= 1);
            found.extend(page.blocks);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(found, whole);
    }
}

#[track_caller]
fn violations(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let details = status.get_details_bad_request().expect("field violations");
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn a_block_without_a_reason_or_of_nobody_is_refused() {
    let server = Server::start().await;
    let mut account = server.account().await;
    let unknown = account.block_user(block("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let unknown = account.unblock_user(unblock("nobody")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let elsewhere = BlockUserRequest { tenant_id: "nowhere".to_owned(), ..block("alice") };
    assert_eq!(account.block_user(elsewhere).await.unwrap_err().code(), Code::NotFound);
    for (reason, operator, expected) in [
        (String::new(), "", vec!["reason"]),
        ("x".repeat(257), "", vec!["reason"]),
        ("a\nb".to_owned(), "o\u{7}", vec!["operator", "reason"]),
    ] {
        let request = BlockUserRequest { reason, operator: operator.to_owned(), ..block("alice") };
        assert_eq!(violations(&account.block_user(request).await.unwrap_err()), expected);
    }
    let longest = BlockUserRequest { reason: "é".repeat(128), ..block("alice") };
    assert!(account.block_user(longest).await.unwrap().into_inner().changed);
    let window = Some(Timestamp { seconds: 10, nanos: 0 });
    let odd = ListBlockedUsersRequest { from: window, ..list(false) };
    assert_eq!(violations(&account.list_blocked_users(odd).await.unwrap_err()), ["from"]);
    let to = Some(Timestamp { seconds: 9, nanos: 0 });
    let odd = ListBlockedUsersRequest { from: window, to, ..list(true) };
    assert_eq!(violations(&account.list_blocked_users(odd).await.unwrap_err()), ["to"]);
    for include_unblocked in [false, true] {
        let odd =
            ListBlockedUsersRequest { page_token: "x y".to_owned(), ..list(include_unblocked) };
        let refused = account.list_blocked_users(odd).await.unwrap_err();
        assert_eq!(violations(&refused), ["page_token"]);
    }
}

/// Runs the program against a server, apart from the tests' own tasks.
async fn tollgate(server: &Server, arguments: &[&str]) -> Output {
    let Listen::Tcp(address) = server.running.addresses().administration.clone() else {
        panic!("expected a TCP listener")
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).env("TOLLGATE_ADMIN_ENDPOINT", format!("http://{address}"));
    command.env("TOLLGATE_TENANT", "contoso");
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn the_program_blocks_unblocks_and_writes_the_report() {
    let server = Server::start().await;
    let reason = "=cmd|x, at night";
    let blocked = ["users", "block", "alice", "--reason", reason, "--operator", "olga"];
    assert!(text(&tollgate(&server, &blocked).await).starts_with("result    blocked\n"));
    let again = text(&tollgate(&server, &blocked).await);
    assert!(again.contains("nothing changed"), "{again}");
    let table = text(&tollgate(&server, &["users", "blocked"]).await);
    let row = table.lines().nth(1).unwrap();
    assert!(row.contains("blocked") && row.contains("alice") && row.contains(reason), "{table}");
    let json = text(&tollgate(&server, &["users", "blocked", "--output", "json"]).await);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["blocks"][0]["numbers"][0], "+14255550100");
    assert_eq!(json["blocks"][0]["source"], "BLOCK_SOURCE_OPERATOR");
    assert!(text(&tollgate(&server, &["users", "unblock", "alice"]).await).contains("unblocked"));
    assert_eq!(text(&tollgate(&server, &["users", "blocked"]).await), "nobody\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocked.csv");
    let to = ["users", "blocked", "--include-unblocked", "--output-file", path.to_str().unwrap()];
    assert!(text(&tollgate(&server, &to).await).starts_with("2 rows in "));
    let csv = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(
        lines[0],
        "user_id,user_display_name,upn,numbers,blocked_reason,action,time_utc,source,operator"
    );
    // A formula stays a text.
    assert!(lines[1].starts_with("alice,,,+14255550100,\"'=cmd|x, at night\",blocked,20"));
    assert!(lines[1].ends_with("Z,operator,olga"), "{csv}");
    assert!(lines[2].contains(",unblocked,20"), "{csv}");
    let nobody = tollgate(&server, &["users", "block", "nobody", "--reason", "x"]).await;
    assert_eq!(nobody.status.code(), Some(1));
}

#[tokio::test]
async fn the_report_of_pools_shows_total_used_and_available_as_they_are_now() {
    let server = Server::start().await;
    let mut calls = server.calls().await;
    calls.authorize_call(authorize("c", "alice")).await.unwrap();
    let settle = tollgate::proto::v1::SettleCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "c".to_owned(),
        used_duration: Some(prost_types::Duration { seconds: 61, nanos: 0 }),
        ..Default::default()
    };
    calls.settle_call(settle).await.unwrap();
    let table = text(&tollgate(&server, &["pools"]).await);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["MCOPSTN1", "US", "DOMESTIC"], "{table}");
    assert_eq!(row[4..], ["50h0m0s", "2m0s", "0s", "49h58m0s"], "{table}");
    let csv = text(&tollgate(&server, &["pools", "--format", "csv"]).await);
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(
        lines[0],
        "capability,usage_location,counter,user_id,period,total_seconds,used_seconds,held_seconds,\
         available_seconds,pool_id"
    );
    assert!(lines[1].starts_with("MCOPSTN1,US,DOMESTIC,,") && lines[1].contains(",180000,120,0,"));
    let json = text(&tollgate(&server, &["pools", "--output", "json"]).await);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["pools"][0]["spent"], "120s");
    assert!(json["credits"].is_null(), "{json}");
}
