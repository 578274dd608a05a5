//! What a fuzzer is let loose on: each target takes any bytes, and panics where the program would be wrong.
//!
//! `make fuzz` runs them with coverage; the tests here replay the kept corpus (`fuzz/corpus`) and bytes near it.
//! Not part of the program.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use prost_reflect::MethodDescriptor;
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Routes;
use tower_layer::Layer;

use crate::administration::Administration;
use crate::app;
use crate::charging::catalogue::{self, CountryCode};
use crate::charging::deck::{Deck, Direction};
use crate::charging::ids::{CallId, TenantId};
use crate::charging::number;
use crate::charging::profile::TenantDocument;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::config::{self, Flags};
use crate::credit_control::directives::{Directives, Limits};
use crate::credit_control::signed_grant::TokenKeys;
use crate::credit_control::{CreditControl, Settings};
use crate::grpc::account::{self, Account};
use crate::grpc::call_authorization::{self, CallAuthorization};
use crate::grpc::gate::Gate;
use crate::journal;
use crate::ledger::audit::audit;
use crate::ledger::memory::MemoryLedger;
use crate::ledger::{ClockOffset, Ledger, file, redis};
use crate::organisation;
use crate::proto;
use crate::records::cdr::CdrReader;
use crate::records::reconcile::{self, Reconciliation};
use crate::security::identities::Identities;
use crate::transcoding::{Api, JsonLayer};

/// A name, and what takes any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Name, and what takes the bytes.
pub const TARGETS: [Target; 8] = [
    ("number", number),
    ("deck", deck),
    ("organisation", organisation),
    ("stored", stored),
    ("messages", messages),
    ("json", json),
    ("settings", settings),
    ("records", records),
];

/// 2026-11-10T12:00:00Z.
const NOON: Millis = Millis(1_794_312_000_000);

/// The target of that name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// A number as dialled; the first byte chooses the country.
fn number(bytes: &[u8]) {
    let [country, dialled @ ..] = bytes else { return };
    let Ok(dialled) = std::str::from_utf8(dialled) else { return };
    let countries = catalogue::countries();
    let context = countries[usize::from(*country) % countries.len()].code;
    if number::is_emergency(dialled, Some(context)) {
        assert!(number::is_emergency_anywhere(dialled), "{dialled:?}");
    }
    let masked = number::masked(dialled);
    assert!(masked.len() <= 24 && masked.chars().rev().take(4).all(|c| c == '*'), "{masked:?}");
    let Ok(read) = number::read(dialled, context) else { return };
    assert!((3..=15).contains(&read.digits().len()), "{}", read.e164());
    assert!(read.digits().starts_with(&read.calling_code.to_string()), "{}", read.e164());
    // What was understood is understood again as E.164, by whoever reads it.
    let again = number::read(&read.e164(), context);
    let same = again.is_ok_and(|again| again == read);
    assert!(same, "{dialled:?} in {context}: {} {read:?}, then {again:?}", read.e164());
    for elsewhere in [CountryCode::US, countries[usize::from(*country) / 2].code] {
        let there = number::read(&read.e164(), elsewhere).map(|there| there.e164());
        assert_eq!(there, Ok(read.e164()), "{dialled:?} in {context}, then in {elsewhere}");
    }
}

/// A rate deck.
fn deck(bytes: &[u8]) {
    let deck = match Deck::parse(bytes) {
        Ok(deck) => deck,
        Err(errors) => return assert!(errors.total > 0 && !errors.errors.is_empty()),
    };
    assert!(deck.len() > 0 && deck.len() == deck.rows().len());
    // Every row's own number, and what a search of all rows finds for it.
    let own = deck.rows().iter().take(8).map(|row| format!("{}0", row.prefix.replace('*', "")));
    let some = ["", "1", "12065550100", "999999999999999"].map(str::to_owned);
    for digits in own.chain(some) {
        for direction in Direction::ALL {
            let in_force = || {
                let rows = deck.rows().iter().filter(|row| row.direction == direction);
                rows.filter(|row| (row.from..row.to).contains(&NOON))
            };
            let matching = in_force().filter(|row| digits.starts_with(&*row.prefix));
            let longest = matching.max_by_key(|row| row.prefix.len());
            let row = longest.or_else(|| in_force().find(|row| &*row.prefix == "*"));
            let found = deck.rate(direction, &digits, NOON);
            let expected = row.map(|row| (row.tariff, &*row.prefix));
            assert_eq!(found.map(|rate| (rate.tariff, rate.prefix)), expected, "{digits:?}");
            let under = in_force().filter(|row| row.prefix.starts_with(&*digits));
            let dearest = under.filter(|row| &*row.prefix != "*");
            let dearest = dearest.map(|row| row.tariff.rate_per_minute).max();
            let found = deck.dearest(direction, &digits, NOON);
            assert_eq!(found.map(|rate| rate.tariff.rate_per_minute), dearest, "{digits:?}");
        }
    }
}

/// An organisation file: refused with words, or applied; applying it once more changes nothing.
fn organisation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match organisation::read(text).and_then(|raw| organisation::check(&raw)) {
        Ok(documents) => awaited(applied_twice(&documents)),
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| !fault.to_string().is_empty()));
        }
    }
}

async fn applied_twice(documents: &[TenantDocument]) {
    let Some(control) = control() else { return };
    let administration = Administration::new(control.clone(), Seconds(60));
    // What only a ledger can refuse.
    let Ok(first) = administration.apply(documents).await else { return };
    let again = administration.apply(documents).await.expect("what was applied before");
    let changed = (again.created, again.updated, again.removed, again.purchases_applied);
    assert_eq!(changed, (0, 0, 0, 0), "after {first:?}");
    audit_is_clean(&control).await;
}

/// Files of a server, by the first byte: settings, callers, keys of signed grants.
fn settings(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match which % 3 {
        0 => config::fuzzed(text),
        1 => {
            let read = || Identities::parse(Path::new("callers.toml"), text, None);
            match read() {
                Ok(callers) => {
                    assert!(!callers.is_empty());
                    assert_eq!(read().map(|again| again.len()).ok(), Some(callers.len()));
                    let _ = callers.by_token(bytes);
                }
                Err(error) => assert!(error.to_string().contains("callers.toml")),
            }
        }
        _ => match TokenKeys::parse(text) {
            Ok(keys) => assert!(format!("{keys:?}").len() < 1000),
            Err(error) => assert!(error.starts_with("expected")),
        },
    }
}

/// Call records of another system, which `reconcile` compares with ours; the first byte chooses the
/// delimiter.
fn records(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    let delimiter = b",;\t|"[usize::from(*which % 4)];
    let mut reader = match CdrReader::new(bytes, delimiter, &[]) {
        Ok(reader) => reader,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let settings = reconcile::Settings {
        tolerance: Millis(i64::from(*which) * 1000),
        charge_tolerance: Micros(i64::from(*which)),
        from: (*which & 4 != 0).then_some(NOON),
        to: (*which & 8 != 0).then_some(NOON.after(Seconds(86_400))),
    };
    let mut all = Reconciliation::new(settings);
    let mut theirs = vec![];
    while let Some(call) = reader.next_call() {
        match call {
            Ok(call) => {
                theirs.push(call.clone());
                all.add_theirs(call);
            }
            Err(error) if error.is_end => break,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    // Every other one was ours too.
    for call in theirs.iter().step_by(2) {
        all.add_ours(&reconcile::OurRecord {
            call_id: &call.call_id,
            sip_call_id: &call.sip_call_id,
            called: &call.called,
            start: call.start,
            duration: call.duration,
            charge: call.charge.unwrap_or(Micros::ZERO),
            currency: call.currency,
            refused: false,
        });
    }
    let totals = all.finish().totals;
    assert_eq!(totals.outside + totals.theirs.calls, theirs.len() as u64, "{totals:?}");
}

/// Values as Redis, the ledger file, the sidecar's journal and signed grants hold them; the first byte chooses.
fn stored(bytes: &[u8]) {
    let [which, bytes @ ..] = bytes else { return };
    match which % 4 {
        0 => redis::fuzzed(bytes),
        1 => file::fuzzed(bytes),
        2 => journal::fuzzed(bytes),
        _ => {
            static KEYS: OnceLock<Option<TokenKeys>> = OnceLock::new();
            let line = "k AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
            let keys = KEYS.get_or_init(|| TokenKeys::parse(line).ok());
            let (keys, text) = (keys.as_ref(), String::from_utf8_lossy(bytes));
            let (tenant, call) = (TenantId::literal("contoso"), CallId::literal("call"));
            let read = keys.map(|keys| keys.read(&text, &tenant, &call, Seconds(86_400)));
            assert!(!matches!(read, Some(Ok(_))), "a forged token was believed");
            let _ = TokenKeys::parse(&text);
        }
    }
}

const ORGANISATION: &str = "
tenants:
  - id: contoso
    currency: USD
    country: US
    users:
      - { id: alice, usage_location: US, licences: [MCOEV, MCOPSTN1], numbers: [\"+14255550100\"] }
      - { id: bob, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1], numbers: [\"+14255550101\"] }
";

/// Most requests of one input.
const MOST_REQUESTS: usize = 12;

fn awaited(future: impl Future<Output = ()>) {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_all().build().ok());
    let Some(runtime) = runtime else { return };
    runtime.block_on(future);
}

type Control = Arc<CreditControl<MemoryLedger>>;

fn control() -> Option<Control> {
    static SETTINGS: OnceLock<Option<Settings>> = OnceLock::new();
    let settings =
        || config::load(Flags::default(), None).ok().map(|config| app::settings(&config));
    let settings = SETTINGS.get_or_init(settings).clone()?;
    let clock = ClockOffset::default();
    clock.freeze_at(NOON);
    Some(Arc::new(CreditControl::new(Arc::new(MemoryLedger::new(clock)), settings)))
}

async fn audit_is_clean(control: &Control) {
    for tenant in control.ledger().tenants().await.expect("memory") {
        let snapshot = control.ledger().snapshot(&tenant).await.expect("memory");
        let report = audit(&tenant, snapshot.now, Seconds(1_000_000_000), &snapshot.outcome);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}

/// A server with one tenant, without its listeners.
struct Server {
    control: Control,
    rpcs: Routes,
}

impl Server {
    async fn start() -> Option<Server> {
        let control = control()?;
        let administration = Administration::new(control.clone(), Seconds(60));
        let document = organisation::read(ORGANISATION).and_then(|raw| organisation::check(&raw));
        let applied = administration.apply(&document.expect("a document of our own")).await;
        applied.expect("a document of our own");
        let gate = Arc::new(Gate::new(1000));
        let directives = Directives::new(control.ledger().clone(), Limits::default(), || false);
        let most = Arc::new(AtomicUsize::new(4 << 20));
        let calls = CallAuthorization::serve(control.clone(), gate.clone(), directives, most);
        let accounts = Account::serve(administration, control.clone(), gate);
        let rpcs = Routes::new(calls).add_service(accounts).prepare();
        Some(Server { control, rpcs })
    }
}

/// Requests to a server with one tenant, one after another: two bytes for the RPC ([`methods`]), two for the
/// length of the message, the message. Every answer must be one that the contract has, and the audit clean after all.
fn messages(bytes: &[u8]) {
    awaited(send_all(bytes));
}

async fn send_all(bytes: &[u8]) {
    let Some(mut server) = Server::start().await else { return };
    let mut rest = bytes;
    for _ in 0..MOST_REQUESTS {
        let [w0, w1, low, high, after @ ..] = rest else { break };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (message, after) = after.split_at(length);
        rest = after;
        let method = chosen(u16::from_le_bytes([*w0, *w1]));
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_be_bytes());
        body.extend_from_slice(message);
        let service = method.parent_service().full_name().to_owned();
        let request = http::Request::post(format!("/{service}/{}", method.name()))
            .header("content-type", "application/grpc")
            .body(Body::new(Full::new(bytes::Bytes::from(body))));
        let Ok(request) = request else { continue };
        let answered = async {
            let Ok(answer) = Service::call(&mut server.rpcs, request).await;
            let (head, body) = answer.into_parts();
            // Streams that wait for events begin to be answered at once, and never end.
            if method.name().starts_with("Watch") || head.headers.contains_key("grpc-status") {
                return head.headers;
            }
            let body = body.collect().await.expect("an answer of our own");
            body.trailers().cloned().unwrap_or_default()
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), answered).await;
        let answer = answer.unwrap_or_else(|_| panic!("{} does not answer", method.full_name()));
        let status = answer.get("grpc-status").and_then(|status| status.to_str().ok());
        let status = status.unwrap_or("0");
        assert!(!matches!(status, "2" | "13" | "15"), "{}: status {status}", method.full_name());
    }
    audit_is_clean(&server.control).await;
}

/// The same in JSON over HTTP/1.1: requests with a zero byte between them, each a listener (`c` or `a`),
/// a method, a blank and a path on the first line, and a body under it.
fn json(bytes: &[u8]) {
    awaited(ask_all(bytes));
}

async fn ask_all(bytes: &[u8]) {
    static APIS: OnceLock<Option<[Arc<Api>; 2]>> = OnceLock::new();
    let api = |name| Some(Arc::new(Api::of(name, Arc::new(AtomicUsize::new(4 << 20))).ok()?));
    let apis = || Some([api(call_authorization::NAME)?, api(account::NAME)?]);
    let Some([for_calls, for_accounts]) = APIS.get_or_init(apis) else { return };
    let Some(server) = Server::start().await else { return };
    let mut calls = JsonLayer(for_calls.clone()).layer(server.rpcs.clone());
    let mut accounts = JsonLayer(for_accounts.clone()).layer(server.rpcs);
    for asked in bytes.split(|byte| *byte == 0).take(MOST_REQUESTS) {
        let mut parts = asked.splitn(2, |byte| *byte == b'\n');
        let (head, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Some((listener, line)) = head.split_first() else { continue };
        let Ok(Some((method, path))) = std::str::from_utf8(line).map(|line| line.split_once(' '))
        else {
            continue;
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::new(Full::new(bytes::Bytes::copy_from_slice(body))));
        let Ok(request) = request else { continue };
        let answered = async {
            let answer = match listener {
                b'c' => calls.call(request).await,
                _ => accounts.call(request).await,
            };
            let Ok(answer) = answer;
            let status = answer.status();
            let body = answer.into_body().collect().await.expect("an answer of our own");
            (status, body.to_bytes())
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), answered).await;
        let (status, body) = answer.unwrap_or_else(|_| panic!("{method} {path}: no answer"));
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        assert!(value.is_object() && status != 500 && status != 499, "{path}: {status} {value}");
        assert_eq!(status.is_success(), value.get("code").is_none(), "{path}: {status} {value}");
    }
    audit_is_clean(&server.control).await;
}

/// The RPC of that number, else of the next higher one.
fn chosen(which: u16) -> &'static MethodDescriptor {
    let mut following = methods().range(which..).chain(methods());
    following.next().expect("there are RPCs").1
}

/// All RPCs, by numbers made of their names, so that a new one does not give the inputs that are kept to
/// others.
fn methods() -> &'static BTreeMap<u16, MethodDescriptor> {
    static METHODS: OnceLock<BTreeMap<u16, MethodDescriptor>> = OnceLock::new();
    METHODS.get_or_init(|| {
        let pool = proto::json::descriptors().expect("descriptors of our own");
        let services = [call_authorization::NAME, account::NAME];
        let found = services.iter().filter_map(|name| pool.get_service_by_name(name));
        let methods = found.flat_map(|service| service.methods().collect::<Vec<_>>());
        methods.map(|method| (number_of(method.full_name()), method)).collect()
    })
}

fn number_of(name: &str) -> u16 {
    let [low, high, ..] = crc32fast::hash(name.as_bytes()).to_be_bytes();
    u16::from_be_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::time::Instant;

    use fastrand::Rng;

    use super::*;

    /// What was kept of a target, and bytes near it.
    fn replay(name: &str) {
        let target = target(name).expect("a target");
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut kept: Vec<_> = std::fs::read_dir(&folder)
            .expect("a corpus")
            .map(|file| std::fs::read(file.expect("a file").path()).expect("bytes"))
            .collect();
        kept.sort();
        assert!(kept.len() >= 3, "{name} has {} inputs", kept.len());
        for bytes in &kept {
            target(bytes);
        }
        // Without a fuzzer: `TOLLGATE_FUZZ_SECONDS=180 cargo test --lib fuzzing -- --nocapture`.
        let seconds = std::env::var("TOLLGATE_FUZZ_SECONDS").ok().and_then(|n| n.parse().ok());
        let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut random = fastrand::Rng::with_seed(seconds.map_or(7, |_| fastrand::u64(..)));
        let mut runs = 0;
        while until.map_or(runs < 200, |until| Instant::now() < until) {
            runs += 1;
            let bytes = near(&kept, &mut random);
            let went = catch_unwind(|| target(&bytes));
            assert!(went.is_ok(), "{name}: {}", hex::encode(&bytes));
        }
        eprintln!("{name}: {} inputs, {runs} runs near them", kept.len());
    }

    /// One of the inputs with some changes, or parts of two.
    fn near(kept: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
        let mut bytes = kept[random.usize(..kept.len())].clone();
        for _ in 0..random.usize(1..6) {
            let place = random.usize(..=bytes.len());
            let other = &kept[random.usize(..kept.len())];
            let end = (place + random.usize(..8)).min(bytes.len());
            match random.u8(..8) {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, random.u8(..)),
                2 => bytes.extend_from_slice(other),
                3 => drop(bytes.drain(place..end)),
                4 => {
                    let again = bytes[place..end].to_vec();
                    bytes.splice(place..place, again).for_each(drop);
                }
                5 => {
                    let from = random.usize(..=other.len());
                    let part = &other[from..(from + random.usize(..32)).min(other.len())];
                    bytes.splice(place..end, part.iter().copied()).for_each(drop);
                }
                6 if place < bytes.len() => {
                    bytes[place] = [0, 1, 0x7f, 0x80, 0xff, b'9', b'-', b'"'][random.usize(..8)];
                }
                _ if place < bytes.len() => bytes[place] ^= 1 << random.u8(..8),
                _ => {}
            }
        }
        bytes
    }

    #[test]
    fn every_rpc_has_an_input_that_begins_with_it() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/messages");
        let mut rpcs = 0;
        for method in methods().values() {
            let kept = std::fs::read(folder.join(format!("one-{}", method.name())));
            let kept = kept.unwrap_or_else(|error| panic!("{}: {error}", method.name()));
            let number = u16::from_le_bytes([kept[0], kept[1]]);
            assert_eq!(chosen(number).full_name(), method.full_name());
            rpcs += 1;
        }
        let services = [call_authorization::NAME, account::NAME];
        let pool = proto::json::descriptors().expect("descriptors of our own");
        let all = services.iter().filter_map(|name| pool.get_service_by_name(name));
        assert_eq!(all.map(|service| service.methods().count()).sum::<usize>(), rpcs);
    }

    #[test]
    fn numbers_that_a_fuzzer_found() {
        replay("number");
    }

    #[test]
    fn decks_that_a_fuzzer_found() {
        replay("deck");
    }

    #[test]
    fn organisations_that_a_fuzzer_found() {
        replay("organisation");
    }

    #[test]
    fn stored_values_that_a_fuzzer_found() {
        replay("stored");
    }

    #[test]
    fn messages_that_a_fuzzer_found() {
        replay("messages");
    }

    #[test]
    fn requests_in_json_that_a_fuzzer_found() {
        replay("json");
    }

    #[test]
    fn settings_that_a_fuzzer_found() {
        replay("settings");
    }

    #[test]
    fn call_records_that_a_fuzzer_found() {
        replay("records");
    }
}
