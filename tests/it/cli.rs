//! The commands as an operator types them, against running servers.

use serde_json::{Value, json};

use crate::server::{DECK, organisation};
use crate::support::process::{Files, Sidecar, run, tollgate};
use crate::support::redis::RedisServer;

const CALL: [&str; 4] = ["--tenant", "contoso", "--call-id", "a"];
const CAROL: [&str; 6] = ["--tenant", "contoso", "--payer", "carol", "--called", "+12065550100"];

#[test]
fn every_command_answers_in_both_forms() {
    let server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    let files = Files::default();
    let (deck, org) = (files.write("deck.csv", DECK), files.write("org.yaml", &organisation()));
    let instant = "2026-01-01T00:00:00Z";
    let pools = server.json(&["balance", "--tenant", "contoso"]);
    let pool = pools["pools"][0]["poolId"].as_str().expect("a pool").to_owned();
    for (line, word, field) in [
        ("rates check DECK", "no bad line", "rowCount"),
        ("rates activate --deck default DECK", "default", "deckVersion"),
        ("apply -f ORG", "unchanged", "unchanged"),
        ("quote --tenant contoso --payer carol --called +12065550100", "ALLOWED", "steps"),
        (
            "authorize --tenant contoso --payer carol --called +12065550100 --call-id a",
            "ALLOWED",
            "grant",
        ),
        ("answer --tenant contoso --call-id a", "ALLOWED", "grant"),
        ("extend --tenant contoso --call-id a --used 10s", "ALLOWED", "grant"),
        ("calls --tenant contoso", "a", "calls"),
        ("calls show --tenant contoso --call-id a", "ANSWERED", "call"),
        ("settle --tenant contoso --call-id a --used 61s", "SETTLED", "chargedMoney"),
        ("release --tenant contoso --call-id b", "RELEASED", "result"),
        ("calls end --tenant contoso --trunk sbc-1 --before INSTANT", "0", "endedCalls"),
        (
            "adjust settlement --tenant contoso --call-id a --used 30s --key s --reason r --operator o",
            "-0.1 USD of credits",
            "call",
        ),
        (
            "adjust balance --tenant contoso --bucket po-1 --amount -5.00 --key a --reason r --operator o",
            "-5 USD",
            "credits",
        ),
        (
            "adjust balance --tenant contoso --bucket POOL --minutes 30 --key p --reason r --operator o",
            "30m0s",
            "pool",
        ),
        ("adjustments --tenant contoso", "1m1s -> 30s", "adjustments"),
        ("balance --tenant contoso", "US:MCOPSTN1:DOMESTIC", "pools"),
        ("decisions --tenant contoso", "ALLOWED", "decisions"),
        ("audit", "clean", "clean"),
    ] {
        let words = line.split(' ').map(|word| match word {
            "DECK" => deck.as_str(),
            "ORG" => org.as_str(),
            "INSTANT" => instant,
            "POOL" => pool.as_str(),
            word => word,
        });
        let words: Vec<&str> = words.collect();
        let table = server.client(&words).succeeded();
        assert!(table.contains(word), "{line}: {table}");
        let answer = server.json(&words);
        assert!(!answer[field].is_null(), "{line}: {answer:#}");
    }
    let recharge = ["recharge", "--tenant", "contoso", "--key", "recharge.1", "--failed", "card"];
    let none = server.client(&recharge);
    assert!(none.failed(1).contains("no recharge recharge.1"));
    let balance = server.json(&["balance", "--tenant", "contoso"]);
    let credits = &balance["credits"];
    assert_eq!(credits["spent"], json!({ "currencyCode": "USD", "amount": "0.15" }), "{balance:#}");
    assert_eq!(credits["adjusted"]["amount"], "-5", "{balance:#}");
    assert_eq!(credits["held"]["amount"], "0", "{balance:#}");
}

#[test]
fn applying_twice_changes_nothing() {
    let server = Sidecar::ready(&[]);
    let files = Files::default();
    let org = files.write("org.yaml", &organisation());
    let first = server.json(&["apply", "--file", &org]);
    assert_eq!(
        (&first["created"], &first["purchasesApplied"]),
        (&json!(4), &json!(1)),
        "{first:#}"
    );
    let before = server.json(&["balance", "--tenant", "contoso"]);
    let second = server.json(&["apply", "--file", &org]);
    for count in ["created", "updated", "removed", "purchasesApplied"] {
        assert_eq!(second[count], 0, "{count}: {second:#}");
    }
    assert_eq!(second["unchanged"], 4, "{second:#}");
    assert_eq!(server.json(&["balance", "--tenant", "contoso"]), before);
}

#[test]
fn a_document_with_a_mistake_is_named_by_file_line_and_field_and_nothing_of_it_is_applied() {
    let server = Sidecar::ready(&[]);
    let files = Files::default();
    let document = organisation().replace("id: carol\n", "id: carol\n        licenses: [MCOEV]\n");
    let line =
        document.lines().position(|line| line.contains("licenses")).expect("it is there") + 1;
    let org = files.write("org.yaml", &document);
    let said = server.client(&["apply", "--file", &org]).failed(1);
    let expected =
        format!("tollgate: {org}: line {line}: tenants[0].users[1].licenses: unknown key");
    assert!(said.starts_with(&expected), "{said}");
    let said = server.client(&["balance", "--tenant", "contoso"]).failed(1);
    assert!(said.contains("NOT_FOUND"), "{said}");
}

#[test]
fn every_bad_line_of_a_deck_is_listed_and_the_deck_not_activated() {
    let server = Sidecar::ready(&[]);
    let files = Files::default();
    let row = DECK.lines().nth(1).expect("a row");
    let bad = [DECK, row, "\n", &row.replace("0.10", "NaN"), "\nx,y\n"].concat();
    let deck = files.write("deck.csv", &bad);
    let mut check = tollgate();
    check.args(["rates", "check", &deck]);
    let checked = run(check);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let said = server.client(&["rates", "activate", &deck]).failed(1);
    for line in ["line 3", "line 4", "line 5", "3 bad lines in all"] {
        assert!(checked.stdout.contains(line), "{line}: {}", checked.stdout);
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn all_bad_settings_are_listed_at_once() {
    let mut serve = tollgate();
    serve.args(["serve", "--listen", "nowhere", "--max-grant", "0s", "--ledger", "postgres://x"]);
    serve.env("TOLLGATE_SWEEP_INTERVAL", "never");
    let said = run(serve).failed(64);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for setting in ["TOLLGATE_LISTEN", "--max-grant", "--ledger", "TOLLGATE_SWEEP_INTERVAL"] {
        assert!(lines.iter().any(|line| line.contains(setting)), "{setting}: {said}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let mut ask = tollgate();
    // Nobody can listen on port 1 without being root, and root does not.
    ask.args(["balance", "--tenant", "contoso", "--admin-endpoint", "http://127.0.0.1:1"]);
    let said = run(ask).failed(1);
    assert_eq!(
        said,
        "tollgate: nothing listens on http://127.0.0.1:1; start it with `tollgate serve`\n"
    );
}

fn call(server: &Sidecar, verb: &str, more: &[&str]) -> Value {
    server.json(&[&[verb][..], &CALL, more].concat())
}

#[test]
fn a_call_may_be_handled_by_any_sidecar_and_outlives_them() {
    let redis = RedisServer::started();
    let (mut one, two) = (Sidecar::on(&redis.url()), Sidecar::on(&redis.url()));
    one.set_up(&organisation());
    let authorize = [&["authorize", "--call-id", "a"][..], &CAROL].concat();
    let granted = one.json(&authorize);
    assert_eq!((&granted["allowed"], &granted["replayed"]), (&json!(true), &json!(false)));
    let replayed = two.json(&authorize);
    assert_eq!(replayed["replayed"], true, "{replayed:#}");
    // All but `holdTimeout`, which runs.
    for same in ["/grant/grantedDuration", "/funding", "/decisionId", "/deckVersion"] {
        assert_eq!(replayed.pointer(same), granted.pointer(same), "{same}");
    }
    assert_eq!(call(&two, "extend", &["--used", "240s"])["allowed"], true);
    let charge = call(&one, "settle", &["--used", "301s"]);
    // Six minutes and one fee.
    assert_eq!(charge["chargedMoney"]["amount"], "0.65", "{charge:#}");

    assert_eq!(one.stop().code(), Some(0), "{}", one.log());
    let again = call(&two, "settle", &["--used", "301s"]);
    assert_eq!(
        (&again["replayed"], &again["chargedMoney"]),
        (&json!(true), &charge["chargedMoney"])
    );
    two.client(&["audit"]).succeeded();
}

#[test]
fn a_change_applied_at_one_sidecar_is_seen_by_the_next_call_at_another() {
    let redis = RedisServer::started();
    let (one, two) = (Sidecar::on(&redis.url()), Sidecar::on(&redis.url()));
    one.set_up(&organisation());
    let decision = |call: &str| {
        let answer = two.json(&[&["authorize", "--call-id", call][..], &CAROL].concat());
        answer["decision"].as_str().unwrap_or_default().to_owned()
    };
    // The other sidecar knows carol from here on.
    assert_eq!(decision("before"), "DECISION_ALLOWED");
    let files = Files::default();
    let licensed = organisation();
    let apply = |document: &str| {
        one.client(&["apply", "--file", &files.write("org.yaml", document)]).succeeded();
    };
    apply(&licensed.replace("[MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1]", "[MCOEV]"));
    assert_eq!(decision("without licences"), "DECISION_NOT_ENTITLED");
    apply(&licensed);
    assert_eq!(decision("with licences"), "DECISION_ALLOWED");
    apply(&licensed.replace("id: contoso\n", "id: contoso\n    blocked_prefixes: ['+1206']\n"));
    assert_eq!(decision("blocked"), "DECISION_DESTINATION_BLOCKED");
    // A new price, too: 10 units a minute are more than the wallet holds for one.
    apply(&licensed);
    let deck = files.write("deck.csv", &DECK.replace("0.10,0.05", "10,0.05"));
    one.client(&["rates", "activate", "--deck", "default", &deck]).succeeded();
    assert_eq!(decision("dear"), "DECISION_INSUFFICIENT_CREDITS");
}

#[test]
fn a_document_that_is_only_checked_is_summed_up() {
    let files = Files::default();
    let document = files.write("org.yaml", &organisation());
    let mut check = tollgate();
    check.args(["apply", "--dry-run", "--file", &document]);
    let expected = "the document is right: 1 tenant, 3 payers, 1 purchase; nothing was applied\n";
    assert_eq!(run(check).succeeded(), expected);
}

#[test]
fn usage_without_a_grant_is_called_by_its_name() {
    let server = Sidecar::ready(&[]);
    server.set_up(&organisation());
    let key = ["--tenant", "contoso", "--call-id", "unknown", "--used", "60s"];
    let said = server.client(&[&["settle"][..], &key].concat()).succeeded();
    assert!(said.contains("usage without a grant"), "{said}");
}
