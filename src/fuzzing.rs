//! What a fuzzer is let loose on: each target takes any bytes, and panics where the program would be wrong.
//!
//! `make fuzz` runs them with coverage; the tests here replay the kept corpus (`fuzz/corpus`) and bytes near it.
//! Not part of the program.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::Full;
use prost_reflect::MethodDescriptor;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::administration::Administration;
use crate::app;
use crate::charging::catalogue;
use crate::charging::deck::{Deck, Direction};
use crate::charging::ids::{CallId, TenantId};
use crate::charging::number::{self, NumberType};
use crate::charging::units::{Millis, Seconds};
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
use crate::proto::json;

/// A name, and what takes any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Name, and what takes the bytes.
pub const TARGETS: [Target; 5] = [
    ("number", number),
    ("deck", deck),
    ("organisation", organisation),
    ("stored", stored),
    ("messages", messages),
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
    number::is_emergency(dialled, Some(context));
    number::is_emergency_anywhere(dialled);
    number::masked(dialled);
    let Ok(read) = number::read(dialled, context) else { return };
    assert!((3..=15).contains(&read.digits().len()), "{}", read.e164());
    assert!(read.digits().starts_with(&read.calling_code.to_string()), "{}", read.e164());
    // What was understood is understood again as E.164. Digits that no plan assigns need not be: a trunk prefix
    // dialled twice leaves a zero there that the second reading drops.
    if read.number_type != NumberType::Unknown {
        let again = number::read(&read.e164(), context).map(|number| number.e164());
        assert_eq!(again, Ok(read.e164()));
    }
}

/// A rate deck.
fn deck(bytes: &[u8]) {
    match Deck::parse(bytes) {
        Ok(deck) => {
            assert!(deck.len() > 0 && deck.len() == deck.rows().len());
            for direction in Direction::ALL {
                for digits in ["", "1", "12065550100", "999999999999999"] {
                    let _ = deck.rate(direction, digits, NOON);
                    let _ = deck.dearest(direction, digits, NOON);
                }
                assert_eq!(
                    deck.default_rate(direction, NOON).is_some(),
                    deck.rows().iter().any(|row| row.direction == direction
                        && &*row.prefix == "*"
                        && (row.from..row.to).contains(&NOON)),
                );
            }
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

/// An organisation file.
fn organisation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let faults = match organisation::read(text) {
        Ok(raw) => match organisation::check(&raw) {
            Ok(_) => return,
            Err(faults) => faults,
        },
        Err(faults) => faults,
    };
    assert!(!faults.is_empty());
    assert!(faults.iter().all(|fault| !fault.to_string().is_empty()));
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

/// Most messages of one input.
const MOST_MESSAGES: usize = 12;

/// Requests to a server with one tenant, one after another: two bytes for the RPC ([`methods`]), two for the
/// length of the message, the message. Every answer must be one that the contract has, and the audit clean after all.
fn messages(bytes: &[u8]) {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_all().build().ok());
    let Some(runtime) = runtime else { return };
    runtime.block_on(send_all(bytes));
}

async fn send_all(bytes: &[u8]) {
    static SETTINGS: OnceLock<Option<Settings>> = OnceLock::new();
    let settings =
        || config::load(Flags::default(), None).ok().map(|config| app::settings(&config));
    let Some(settings) = SETTINGS.get_or_init(settings).clone() else { return };
    let clock = ClockOffset::default();
    clock.freeze_at(NOON);
    let control = Arc::new(CreditControl::new(Arc::new(MemoryLedger::new(clock)), settings));
    let administration = Administration::new(control.clone(), Seconds(60));
    let document = organisation::read(ORGANISATION).and_then(|raw| organisation::check(&raw));
    let applied = administration.apply(&document.expect("a document of our own")).await;
    applied.expect("a document of our own");

    let gate = Arc::new(Gate::new(1000));
    let directives = Directives::new(control.ledger().clone(), Limits::default(), || false);
    let most = Arc::new(AtomicUsize::new(4 << 20));
    let mut calls = CallAuthorization::serve(control.clone(), gate.clone(), directives, most);
    let mut accounts = Account::serve(administration, control.clone(), gate);
    let mut rest = bytes;
    for _ in 0..MOST_MESSAGES {
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
        // Streams that wait for events begin to be answered at once.
        let answered = async {
            match service == call_authorization::NAME {
                true => calls.call(request).await.ok().map(|answer| answer.headers().clone()),
                false => accounts.call(request).await.ok().map(|answer| answer.headers().clone()),
            }
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), answered).await;
        let answer = answer.unwrap_or_else(|_| panic!("{} does not answer", method.full_name()));
        let status = answer.and_then(|headers| headers.get("grpc-status").cloned());
        let status = status.as_ref().and_then(|status| status.to_str().ok()).unwrap_or("0");
        assert!(!matches!(status, "2" | "13" | "15"), "{}: status {status}", method.full_name());
    }
    for tenant in control.ledger().tenants().await.expect("memory") {
        let snapshot = control.ledger().snapshot(&tenant).await.expect("memory");
        let report = audit(&tenant, snapshot.now, Seconds(1_000_000_000), &snapshot.outcome);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
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
        let pool = json::descriptors().expect("descriptors of our own");
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
        let pool = json::descriptors().expect("descriptors of our own");
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
}
