//! Rules 46 to 56: the wallet of Communications Credits.

use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tollgate::charging::units::Seconds;
use tollgate::config::{self, Flags};
use tollgate::ledger::state::EntryKind;
use tollgate::proto::v1::report_recharge_request::Outcome;
use tollgate::proto::v1::{
    Decision, EventType, Payment, PurchaseCreditsRequest, RechargeFailed, RechargeSucceeded,
    ReportRechargeRequest,
};
use tonic::Code;

use crate::rules::{
    DECK, HARARE, PARIS, SEATTLE, SUPPORT, TEN, Town, amount, call, charged, dial_out, lasting,
    timestamp, toll_free, usd, user, users,
};

on_every_ledger! {
    rule_46_unused_credits_carry_over_from_month_to_month
    rule_47_funds_expire_twelve_months_after_their_purchase
    rule_48_purchases_are_consumed_first_in_first_out
    rule_49_auto_recharge_adds_its_amount_below_the_trigger
    rule_50_without_auto_recharge_what_credits_pay_stops
    rule_52_a_charge_uses_the_rate_in_force
    rule_53_credits_can_be_bought_by_hand_at_any_time
    rule_54_a_purchase_names_its_agreement_and_its_order
    rule_56_a_charge_of_credits_is_reported_as_mcopstnpp
}

on_any_ledger! {
    rule_55_credits_cannot_be_set_up_in_eleven_countries
}

/// Sells minutes for money in the US.
const PAYG: &str = "MCOEV, MCOPSTN_PAYG_1, MCOPSTNPP";

async fn report(town: &Town, key: &str, outcome: Outcome) {
    let of = ReportRechargeRequest {
        tenant_id: town.tenant.clone(),
        key: key.to_owned(),
        outcome: Some(outcome),
    };
    town.account.clone().report_recharge(of).await.unwrap();
}

async fn rule_46_unused_credits_carry_over_from_month_to_month(town: Town) {
    town.apply(&format!("{TEN}{}", users([user("alice", "US", PAYG)]))).await;
    town.talk(call("alice", HARARE), 60).await;
    for month in ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-10-31T23:59:59Z"] {
        town.at(month);
        assert_eq!(town.available().await, "9.5", "{month}");
    }
    assert_eq!(charged(&town.talk(call("alice", HARARE), 60).await), (60, "0.5"));
}

async fn rule_47_funds_expire_twelve_months_after_their_purchase(town: Town) {
    let bought = |key, at| format!("{{ key: {key}, amount: 10, purchased_at: {at} }}");
    let credits = [bought("old", "2026-01-31T10:00:00Z"), bought("new", "2026-11-01T00:00:00Z")];
    let alice = users([user("alice", "US", PAYG)]);
    town.apply(&format!("credits: [{}], {alice}", credits.join(", "))).await;
    town.talk(call("alice", HARARE), 60).await;
    for (at, left, expired) in [
        ("2027-01-31T09:59:59Z", "19.5", "0"),
        ("2027-01-31T10:00:00Z", "10", "9.5"),
        ("2027-10-31T23:59:59Z", "10", "9.5"),
        ("2027-11-01T00:00:00Z", "0", "19.5"),
    ] {
        town.at(at);
        // A call sweeps what is due, whether or not the sweeper has come by.
        let decision = town.decision(call("alice", HARARE)).await;
        let expected = if left == "0" { Decision::InsufficientCredits } else { Decision::Allowed };
        assert_eq!(decision, expected, "{at}");
        until("expired", &town, async |town| {
            let credits = town.credits().await;
            amount(&credits.available) == left && amount(&credits.expired) == expired
        })
        .await;
    }
}

/// Looks until it is so.
async fn until(what: &str, town: &Town, right: impl AsyncFn(&Town) -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !right(town).await {
        assert!(Instant::now() < patience, "not {what}: {:?}", town.credits().await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn rule_48_purchases_are_consumed_first_in_first_out(town: Town) {
    // 50 on 1 October, 100 on 3 October; 60 are spent.
    let credits = "credits: [{ key: second, amount: 100, purchased_at: 2026-10-03T00:00:00Z }, \
                   { key: first, amount: 50, purchased_at: 2026-10-01T00:00:00Z }], ";
    town.apply(&format!("{credits}{}", users([user("alice", "US", PAYG)]))).await;
    assert_eq!(charged(&town.talk(call("alice", HARARE), 7_200).await), (7_200, "60"));
    let credits = town.credits().await;
    let left: Vec<_> = credits.lots.iter().map(|lot| (&*lot.key, amount(&lot.remaining))).collect();
    assert_eq!(left, [("second", "90")], "the first is used up, and no longer listed");
    assert_eq!(amount(&credits.spent), "60");
}

async fn rule_49_auto_recharge_adds_its_amount_below_the_trigger(town: Town) {
    let credits =
        "credits: [{ key: po, amount: \"100.01\", purchased_at: 2026-11-01T00:00:00Z }], ";
    let recharge = "auto_recharge: { trigger: 100, amount: 200 }, ";
    town.apply(&format!("{credits}{recharge}{}", users([user("alice", "US", PAYG)]))).await;
    let asked = [EventType::RechargeRequested];
    town.talk(call("alice", SEATTLE), 60).await;
    assert_eq!(town.available().await, "100");
    assert!(town.events(&asked).await.is_empty(), "at the trigger nothing");
    town.talk(call("alice", SEATTLE), 60).await;
    assert_eq!(town.available().await, "99.99");
    let requests = town.events(&asked).await;
    assert_eq!((requests.len(), amount(&requests[0].amount)), (1, "200"));
    let in_flight = town.balance().await.recharge.unwrap();
    assert_eq!(amount(&in_flight.in_flight_amount), "200");
    report(&town, &in_flight.in_flight_key, Outcome::Succeeded(RechargeSucceeded {})).await;
    assert_eq!(town.available().await, "299.99");
    town.assert_audits_clean().await;
}

async fn rule_50_without_auto_recharge_what_credits_pay_stops(town: Town) {
    let little = "credits: [{ key: po-1, amount: \"0.15\", purchased_at: 2026-11-01T00:00:00Z }], ";
    let alice = users([user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP, MCOMEETADD")]);
    town.apply(&format!("{little}{SUPPORT}{alice}")).await;
    assert_eq!(charged(&town.talk(call("alice", PARIS), 60).await), (60, "0.15"));
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::InsufficientCredits);
    assert_eq!(town.decision(dial_out("alice", HARARE)).await, Decision::InsufficientCredits);
    assert_eq!(town.decision(toll_free(SEATTLE)).await, Decision::TollFreeUnfunded);
    assert_eq!(town.decision(call("alice", SEATTLE)).await, Decision::Allowed, "pool calls go on");
    assert_eq!(town.decision(dial_out("alice", PARIS)).await, Decision::Allowed);
    assert!(town.events(&[EventType::RechargeRequested]).await.is_empty());
}

/// A relay that takes every mail and hands its text on.
pub async fn relay() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mails, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mails = mails.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut answer = "220 relay\r\n";
                let (mut is_data, mut mail, mut line) = (false, String::new(), String::new());
                loop {
                    if !answer.is_empty() && stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    line.clear();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    answer = match (is_data, line.trim_end()) {
                        (true, ".") => {
                            is_data = false;
                            // Nobody may listen any more.
                            let _ = mails.send(std::mem::take(&mut mail));
                            "250 taken\r\n"
                        }
                        (true, _) => {
                            mail.push_str(&line);
                            ""
                        }
                        (false, "DATA") => {
                            is_data = true;
                            "354 go on\r\n"
                        }
                        (false, "QUIT") => "221 bye\r\n",
                        (false, _) => "250 relay\r\n",
                    };
                }
            });
        }
    });
    (port, received)
}

/// A town whose administrators are mailed through a relay.
pub async fn town_with_mail() -> (Town, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (port, received) = relay().await;
    let port_0 = || Some("127.0.0.1:0".to_owned());
    let flags = Flags {
        listen: port_0(),
        admin_listen: port_0(),
        http_listen: port_0(),
        sweep_interval: Some("10ms".to_owned()),
        ledger_timeout: Some("2s".to_owned()),
        notices_smtp_url: Some(format!("smtp://127.0.0.1:{port}")),
        notices_mail_from: Some("tollgate@example.com".to_owned()),
        notices_interval: Some("10ms".to_owned()),
        ..Flags::default()
    };
    let config = config::load(flags, None).expect("the settings are right");
    (Town::on_memory_with(config).await, received)
}

/// The subject of the next mail.
pub async fn subject(mails: &mut tokio::sync::mpsc::UnboundedReceiver<String>) -> String {
    let next = tokio::time::timeout(Duration::from_secs(20), mails.recv()).await;
    let mail = next.expect("a mail in time").expect("a relay");
    let subject = mail.lines().find_map(|line| line.strip_prefix("Subject: "));
    subject.unwrap_or_else(|| panic!("no subject: {mail}")).to_owned()
}

#[tokio::test]
async fn rule_51_mail_tells_of_recharges_and_of_an_empty_wallet() {
    let (town, mut mails) = town_with_mail().await;
    let credits = "credits: [{ key: po, amount: \"0.02\", purchased_at: 2026-11-01T00:00:00Z }], ";
    let rest =
        "notices: { emails: [ops@example.com] }, auto_recharge: { trigger: 10, amount: 20 }, ";
    town.apply(&format!("{credits}{rest}{}", users([user("alice", "US", PAYG)]))).await;
    town.talk(call("alice", SEATTLE), 120).await;
    let first = town.balance().await.recharge.unwrap().in_flight_key;
    assert!(!first.is_empty(), "asked for");
    let card = RechargeFailed { reason: "the card has expired".to_owned() };
    report(&town, &first, Outcome::Failed(card)).await;
    let found = [subject(&mut mails).await, subject(&mut mails).await];
    let tells = |what: &str| found.iter().any(|subject| subject.to_lowercase().contains(what));
    assert!(tells("credits") && tells("failed"), "{found:?}");
    town.clock.advance(Seconds(15 * 60));
    until("asked for again", &town, async |town| {
        !town.balance().await.recharge.unwrap().in_flight_key.is_empty()
    })
    .await;
    let second = town.balance().await.recharge.unwrap().in_flight_key;
    report(&town, &second, Outcome::Succeeded(RechargeSucceeded {})).await;
    let succeeded = subject(&mut mails).await;
    assert!(!succeeded.to_lowercase().contains("failed"), "{succeeded}");
    assert_eq!(town.available().await, "20");
}

async fn rule_52_a_charge_uses_the_rate_in_force(town: Town) {
    let dearer = DECK.replace(
        "263,Zimbabwe,0.50,0,60,60,USD,2020-01-01,,outbound",
        "263,Zimbabwe,0.50,0,60,60,USD,2020-01-01,2026-12-01,outbound\n\
         263,Zimbabwe,0.75,0,60,60,USD,2026-12-01,,outbound",
    );
    town.deck(&dearer).await;
    town.apply(&format!("{TEN}{}", users([user("alice", "US", PAYG)]))).await;
    town.at("2026-11-30T23:59:59Z");
    let of = crate::rules::named(lasting(call("alice", HARARE), 60), "before");
    town.ask(of).await;
    town.at("2026-12-01T00:00:00Z");
    assert_eq!(charged(&town.talk(call("alice", HARARE), 60).await), (60, "0.75"));
    assert_eq!(charged(&town.settle("before", 120).await), (120, "1"), "the rate when it began");
}

async fn rule_53_credits_can_be_bought_by_hand_at_any_time(town: Town) {
    town.apply(&users([user("alice", "US", PAYG)])).await;
    assert_eq!(town.decision(call("alice", PARIS)).await, Decision::InsufficientCredits);
    assert!(!town.buy("po-1", "50").await.unwrap().replayed);
    assert!(town.buy("po-1", "50").await.unwrap().replayed, "once by its key");
    town.talk(call("alice", PARIS), 60).await;
    town.clock.advance(Seconds(86_400));
    town.buy("po-2", "0.01").await.unwrap();
    assert_eq!(town.available().await, "49.86");
    for wrong in ["0", "-5", "1.0000001"] {
        let refused = town.buy("po-3", wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}: {refused}");
    }
}

async fn rule_54_a_purchase_names_its_agreement_and_its_order(town: Town) {
    let paid = |key: &str, agreement: &str, order: &str| PurchaseCreditsRequest {
        tenant_id: town.tenant.clone(),
        key: key.to_owned(),
        amount: usd("5"),
        purchased_at: timestamp("2026-11-02T00:00:00Z"),
        payment: Some(Payment {
            agreement: agreement.to_owned(),
            purchase_order: order.to_owned(),
        }),
    };
    let credits = "credits: [{ key: file, amount: 5, purchased_at: 2026-11-01T00:00:00Z, \
                   payment: { agreement: EA-77, purchase_order: PO-9 } }]";
    town.apply(credits).await;
    // Another of several agreements, and none.
    let mut account = town.account.clone();
    account.purchase_credits(paid("rpc", "EA-78", "PO-10")).await.unwrap();
    account.purchase_credits(paid("card", "", "")).await.unwrap();
    let refused = account.purchase_credits(paid("bad", "EA\n77", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_eq!(town.available().await, "15");
    let kept: Vec<_> = (town.journal)()
        .await
        .into_iter()
        .filter(|entry| entry.kind == EntryKind::Purchased)
        .map(|entry| (entry.subject, String::from_utf8(entry.context).unwrap()))
        .collect();
    let of = |key: &str, payment: &str| (key.to_owned(), payment.to_owned());
    assert_eq!(
        kept,
        [
            of("file", "{\"agreement\":\"EA-77\",\"purchase_order\":\"PO-9\"}"),
            of("rpc", "{\"agreement\":\"EA-78\",\"purchase_order\":\"PO-10\"}"),
            of("card", "{}"),
        ]
    );
}

async fn rule_55_credits_cannot_be_set_up_in_eleven_countries(town: Town) {
    let none = ["BH", "CN", "IN", "KZ", "KR", "MK", "NI", "PK", "RU", "TW", "UA"];
    for country in none {
        let faults = town.faults(&users([user("u", country, "MCOMEETADD, MCOPSTNPP")])).await;
        let expected =
            format!("users[0].licences[1]: MCOPSTNPP cannot be used in {country} (rule 55)");
        assert_eq!(faults, [expected]);
    }
    let some = ["US", "CA", "FR", "GB", "ZA", "BR", "TR", "JP"];
    town.apply(&users(some.map(|country| user(country, country, "MCOMEETADD, MCOPSTNPP")))).await;
}

async fn rule_56_a_charge_of_credits_is_reported_as_mcopstnpp(town: Town) {
    let all = users([
        user("alice", "US", "MCOEV, MCOPSTN1, MCOPSTNPP"),
        user("payg", "US", PAYG),
        user("olga", "US", "MCOMEETADD, MCOPSTNPP"),
        user("pete", "US", "MCOMEETACPEA"),
    ]);
    town.apply(&format!("{TEN}{SUPPORT}{all}")).await;
    town.talk(call("alice", PARIS), 60).await;
    town.talk(call("payg", SEATTLE), 60).await;
    town.talk(dial_out("olga", HARARE), 60).await;
    town.talk(toll_free(SEATTLE), 60).await;
    town.talk(dial_out("pete", SEATTLE), 60).await;
    let records = town.usage().await;
    let told: Vec<_> = records.iter().map(|r| (&*r.capability, amount(&r.charge))).collect();
    assert_eq!(
        told,
        [
            ("MCOPSTNPP", "0.15"),
            ("MCOPSTNPP", "0.01"),
            ("MCOPSTNPP", "0.5"),
            ("MCOPSTNPP", "0.02"),
            ("MCOMEETACPEA", "0.01"),
        ]
    );
}
