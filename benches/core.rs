//! The parts of a decision that need no ledger: reading a number, the rules, the price, the wire.
//!
//! `cargo bench --bench core`; as a test each runs once.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "parts/decision.rs"]
mod decision;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use decision::{Decision, NOON};
use prost::Message;
use tollgate::charging::catalogue::CountryCode;
use tollgate::charging::deck::{Deck, Direction};
use tollgate::charging::ids::{CallId, PoolId, TenantId};
use tollgate::charging::month::Month;
use tollgate::charging::number;
use tollgate::charging::units::Seconds;
use tollgate::cli::loadtest::setup::deck;
use tollgate::credit_control::signed_grant::TokenKeys;
use tollgate::ledger::state::{Call, CallState, PoolLine};
use tollgate::proto::v1;

fn numbers(c: &mut Criterion) {
    number::warm_up();
    let mut group = c.benchmark_group("classify");
    for (name, dialled) in
        [("domestic", "+12065550142"), ("national", "2065550142"), ("abroad", "+442079460123")]
    {
        group.bench_function(name, |b| {
            b.iter(|| number::read(black_box(dialled), CountryCode::US));
        });
    }
    group.finish();
}

fn decisions(c: &mut Criterion) {
    let decision = Decision::default();
    c.bench_function("decide: classify, rate and fund", |b| b.iter(|| decision.make()));
}

fn decks(c: &mut Criterion) {
    let mut group = c.benchmark_group("deck lookup");
    for prefixes in [1_000, 100_000] {
        let deck = Deck::parse(deck(prefixes).as_bytes()).unwrap();
        group.bench_function(format!("{prefixes} prefixes"), |b| {
            b.iter(|| deck.rate(Direction::Outbound, black_box("12065550142"), NOON).is_some());
        });
    }
    group.finish();
}

fn wire(c: &mut Criterion) {
    let request = v1::AuthorizeCallRequest {
        tenant_id: "contoso".to_owned(),
        call_id: "0192f0c1a2b37c4d8e9f0a1b2c3d4e5f|12|345678".to_owned(),
        call_type: v1::CallType::UserOutbound.into(),
        payer_id: "user-12345".to_owned(),
        calling_number: "+14255550100".to_owned(),
        called_number: "+12065550142".to_owned(),
        requested_duration: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        trunk_id: "sbc-1".to_owned(),
        ..Default::default()
    };
    let bytes = request.encode_to_vec();
    let mut group = c.benchmark_group("codec");
    group.bench_function("decode AuthorizeCallRequest", |b| {
        b.iter(|| v1::AuthorizeCallRequest::decode(black_box(bytes.as_slice())).is_ok());
    });
    group.bench_function("encode AuthorizeCallRequest", |b| {
        b.iter(|| black_box(&request).encode_to_vec());
    });
    group.finish();
}

/// What a signed grant costs each answer that has one, and what reading one costs, which only happens
/// where the ledger has forgotten the call.
fn signed_grants(c: &mut Criterion) {
    let keys = TokenKeys::parse("k1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=").unwrap();
    let (tenant, id) =
        (TenantId::new("contoso").unwrap(), CallId::new("0192f0c1a2b3|12|345678").unwrap());
    let month = Month { key: "2026-11".to_owned(), starts: NOON, ends: NOON };
    let mut call = Call::new(CallState::Ringing, NOON);
    call.decision = Some(tollgate::charging::decision::Decision::Allowed);
    call.fingerprint = "f".repeat(32);
    call.payer = "user-12345".to_owned();
    // About what the context of a call comes to.
    call.context = vec![b'x'; 400];
    call.pools = vec![PoolLine {
        pool: PoolId::of("US:MCOPSTN1:DOMESTIC", "2026-11"),
        closed_by: String::new(),
        increment: Seconds(60),
        held: Seconds(300),
        spent: Seconds(0),
    }];
    let sign = || keys.sign(&tenant, &id, &call, &month, NOON, Seconds(86_400));
    let token = sign();
    let mut group = c.benchmark_group("signed grant");
    group.bench_function("sign", |b| b.iter(sign));
    group.bench_function("read", |b| {
        b.iter(|| keys.read(black_box(&token), &tenant, &id, Seconds(86_400)).is_ok());
    });
    group.finish();
}

criterion_group!(benches, numbers, decisions, decks, wire, signed_grants);
criterion_main!(benches);
