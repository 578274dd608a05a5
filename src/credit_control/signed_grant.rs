//! Signed grants: what a client carries for the ledger, in case the ledger forgets.
//!
//! A token tells a call as it was granted: whose, frozen terms and rate, what each source held. Whoever
//! holds a key can prove by it that the call was granted, and when. It is looked at only where the ledger
//! has no memory of the call, and believed for less long than an ended call is remembered, so that nothing
//! is charged by it a second time. Format and reasons: docs/RELIABILITY.md, "Signed grants".

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;
use sha2::Sha256;

use crate::charging::decision::Decision;
use crate::charging::ids::{CallId, LotId, PoolId, TenantId};
use crate::charging::month::Month;
use crate::charging::rating::Tariff;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::credit_control::answer::CallContext;
use crate::ledger::Restore;
use crate::ledger::state::{Call, CallState, LotLine, MoneyLine, PoolLine, Terms, VelocityLine};

/// Longest token in bytes. One that would be longer leaves labels, warnings and the names of lots out.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// What the record of a restored call is flagged with.
pub const RESTORED: &str = "RESTORED_BY_TOKEN";

/// Most keys of a server.
const MAX_KEYS: usize = 16;

/// Length of a key's secret, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=128;

/// Longest name of a key, in bytes.
const MAX_KEY_ID_BYTES: usize = 32;

/// Of the layout below; another layout has another number.
const VERSION: u8 = 1;

/// Bytes of the HMAC that a token carries.
const TAG_BYTES: usize = 16;

/// Signed with every token, so that a key that is used elsewhere too proves nothing here.
const PURPOSE: &[u8] = b"tollgate grant\n";

/// How much earlier than an ended call is forgotten its grant ceases to count: what the clocks of two
/// stores may be apart when one follows the other.
const CLOCKS_APART: Seconds = Seconds(60);

/// What grants are signed with: the first key signs, all verify.
#[derive(Clone)]
pub struct TokenKeys(Arc<[Key]>);

struct Key {
    id: String,
    secret: Vec<u8>,
    /// Keyed once: a clone of it saves half of the work of a short text.
    mac: Hmac<Sha256>,
}

/// The keys of a server, shared by its threads; they may change while it runs.
#[derive(Clone, Default)]
pub struct SharedKeys(Arc<ArcSwapOption<TokenKeys>>);

impl SharedKeys {
    /// Those in force.
    pub fn get(&self) -> arc_swap::Guard<Option<Arc<TokenKeys>>> {
        self.0.load()
    }

    /// From now on these; `None`: nothing is signed, and no token believed.
    pub fn set(&self, keys: Option<TokenKeys>) {
        self.0.store(keys.map(Arc::new));
    }
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// There is nothing to verify it with.
    #[error("no_keys")]
    NoKeys,
    /// Not a token of this layout.
    #[error("malformed")]
    Malformed,
    /// Signed with a key that is not known here, or not any more.
    #[error("unknown_key")]
    UnknownKey,
    /// Not signed by the key that it names.
    #[error("forged")]
    Forged,
    /// Of another tenant or call.
    #[error("foreign")]
    Foreign,
    /// Too old: the ledger may have ended and forgotten the call since.
    #[error("expired")]
    Expired,
}

impl PartialEq for TokenKeys {
    fn eq(&self, other: &Self) -> bool {
        let parts = |keys: &TokenKeys| -> Vec<_> {
            keys.0.iter().map(|key| (key.id.clone(), key.secret.clone())).collect()
        };
        parts(self) == parts(other)
    }
}

impl Eq for TokenKeys {}

/// Without the secrets.
impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

/// What is signed: an array of these in this order, in MessagePack.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    tenant: &'a str,
    call: &'a str,
    issued_at: Millis,
    expires_at: Millis,
    month: &'a str,
    month_starts: Millis,
    month_ends: Millis,
    state: CallState,
    fingerprint: &'a str,
    decision: &'a str,
    payer: &'a str,
    trunk: &'a str,
    #[serde(borrow)]
    context: &'a Bytes,
    authorized_at: Millis,
    answered_at: Millis,
    deadline: Millis,
    sequence: i64,
    used: Seconds,
    granted: Seconds,
    granted_from: Seconds,
    reach: u8,
    /// As in [`Terms`]; spelt out, so that a new term does not make older tokens unreadable.
    terms: (bool, bool, bool, bool, Seconds, Seconds, Seconds),
    #[serde(borrow)]
    pools: Vec<PoolPart<'a>>,
    #[serde(borrow)]
    money: Option<MoneyPart<'a>>,
}

/// A pool, what closes it, its increment, and what the call took of it.
type PoolPart<'a> = (&'a str, &'a str, Seconds, Seconds);

#[derive(Serialize, Deserialize)]
struct MoneyPart<'a> {
    tariff: Tariff,
    spend_limit: i64,
    month: &'a str,
    overage: bool,
    /// Of the spend velocity: most money, and the length of a slot.
    velocity: Option<(Micros, i64)>,
    /// Lots, and what the call took of each.
    #[serde(borrow)]
    lots: Vec<(&'a str, Micros)>,
}

/// How long a grant is believed after it was made: less than an ended call is kept, since the call may
/// have ended at once.
pub(super) fn lasting(ended_retention: Seconds) -> Seconds {
    ended_retention.minus_or_zero(CLOCKS_APART.min(Seconds(ended_retention.0 / 2)))
}

impl TokenKeys {
    /// Lines of `ID BASE64`: the name of a key and its secret; `#` begins a comment.
    ///
    /// The error counts the keys and never repeats one.
    pub fn parse(text: &str) -> Result<TokenKeys, String> {
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut keys: Vec<Key> = vec![];
        for (n, line) in lines.enumerate() {
            let key = Key::parse(line).ok_or_else(|| {
                format!(
                    "expected a name and 32 to 128 bytes in base64, such as that of `openssl rand \
                     -base64 32`, in key {}",
                    n + 1
                )
            })?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(format!(
                    "expected another name than that of an earlier key in key {}",
                    n + 1
                ));
            }
            keys.push(key);
        }
        match keys.len() {
            1..=MAX_KEYS => Ok(TokenKeys(keys.into())),
            found => Err(format!("expected 1 to {MAX_KEYS} keys, found {found}")),
        }
    }

    /// The token of a call that was granted by the store's clock at `now`; empty where none of
    /// [`MAX_TOKEN_BYTES`] can tell it.
    pub fn sign(
        &self,
        tenant: &TenantId,
        id: &CallId,
        call: &Call,
        month: &Month,
        now: Millis,
        ended_retention: Seconds,
    ) -> String {
        let expires_at = now.after(lasting(ended_retention));
        let payload = Payload::of(tenant, id, call, month, (now, expires_at));
        let token = self.seal(&payload);
        if token.len() <= MAX_TOKEN_BYTES {
            return token;
        }
        let context = CallContext::decode(&call.context).map(|mut context| {
            context.labels.clear();
            context.warnings.clear();
            context.detail.clear();
            context.encode()
        });
        let mut thin = Call { context: context.unwrap_or_default(), ..call.clone() };
        if let Some(money) = &mut thin.money {
            let all = money.held() + money.spent();
            money.lots.truncate(1);
            for line in &mut money.lots {
                (line.held, line.spent) = (all, Micros::ZERO);
            }
        }
        let token = self.seal(&Payload::of(tenant, id, &thin, month, (now, expires_at)));
        if token.len() <= MAX_TOKEN_BYTES {
            return token;
        }
        tracing::warn!(%tenant, call = %id, "a grant is too long to be signed");
        String::new()
    }

    fn seal(&self, payload: &Payload<'_>) -> String {
        let key = &self.0[0];
        let mut bytes = Vec::with_capacity(1024);
        bytes.push(VERSION);
        bytes.push(key.id.len() as u8);
        bytes.extend_from_slice(key.id.as_bytes());
        // Only a writer that fails could make this fail, and this one is memory.
        let _ = rmp_serde::encode::write(&mut bytes, payload);
        let tag = key.tag(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token says of a call, to be put back: still to be refused where it is too old by the store's
    /// clock.
    pub fn read(
        &self,
        token: &str,
        tenant: &TenantId,
        call: &CallId,
        ended_retention: Seconds,
    ) -> Result<Restore, TokenFault> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| TokenFault::Malformed)?;
        let Some((signed, tag)) = bytes.split_last_chunk::<TAG_BYTES>() else {
            return Err(TokenFault::Malformed);
        };
        let [VERSION, id_length, rest @ ..] = signed else { return Err(TokenFault::Malformed) };
        let Some((id, payload)) = rest.split_at_checked(usize::from(*id_length)) else {
            return Err(TokenFault::Malformed);
        };
        let key = self.0.iter().find(|key| key.id.as_bytes() == id);
        let key = key.ok_or(TokenFault::UnknownKey)?;
        key.tag(signed).verify_truncated_left(tag).map_err(|_| TokenFault::Forged)?;
        let payload: Payload<'_> =
            rmp_serde::from_slice(payload).map_err(|_| TokenFault::Malformed)?;
        if payload.tenant != tenant.as_str() || payload.call != call.as_str() {
            return Err(TokenFault::Foreign);
        }
        payload.restore(tenant, call, ended_retention).ok_or(TokenFault::Malformed)
    }
}

impl Key {
    fn parse(line: &str) -> Option<Key> {
        let (id, secret) = line.split_once(char::is_whitespace)?;
        let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if id.len() > MAX_KEY_ID_BYTES || !id.chars().all(named) {
            return None;
        }
        let secret = STANDARD.decode(secret.trim()).ok()?;
        let secret = Some(secret).filter(|secret| SECRET_BYTES.contains(&secret.len()))?;
        // A key of any length is right.
        let mac = Hmac::<Sha256>::new_from_slice(&secret).ok()?.chain_update(PURPOSE);
        Some(Key { id: id.to_owned(), secret, mac })
    }

    fn tag(&self, signed: &[u8]) -> Hmac<Sha256> {
        self.mac.clone().chain_update(signed)
    }
}

impl<'a> Payload<'a> {
    fn of(
        tenant: &'a TenantId,
        id: &'a CallId,
        call: &'a Call,
        month: &'a Month,
        (issued_at, expires_at): (Millis, Millis),
    ) -> Payload<'a> {
        let terms = call.terms;
        let pool = |line: &'a PoolLine| -> PoolPart<'a> {
            (line.pool.as_str(), &line.closed_by, line.increment, line.held + line.spent)
        };
        let money = |money: &'a MoneyLine| MoneyPart {
            tariff: money.tariff,
            spend_limit: money.spend_limit,
            month: &money.month,
            overage: money.overage,
            velocity: money.velocity.as_ref().map(|line| (line.most, line.width)),
            lots: money.lots.iter().map(|l| (l.lot.as_str(), l.held + l.spent)).collect(),
        };
        Payload {
            tenant: tenant.as_str(),
            call: id.as_str(),
            issued_at,
            expires_at,
            month: &month.key,
            month_starts: month.starts,
            month_ends: month.ends,
            state: call.state,
            fingerprint: &call.fingerprint,
            decision: call.decision.map(Decision::name).unwrap_or_default(),
            payer: &call.payer,
            trunk: &call.trunk,
            context: Bytes::new(&call.context),
            authorized_at: call.authorized_at,
            answered_at: call.answered_at,
            deadline: call.deadline,
            sequence: call.sequence,
            used: call.used,
            granted: call.granted,
            granted_from: call.granted_from,
            reach: call.reach,
            terms: (
                terms.reports_answer,
                terms.free,
                terms.counted,
                terms.charge_granted_when_lost,
                terms.ringing,
                terms.grace,
                terms.longest,
            ),
            pools: call.pools.iter().map(pool).collect(),
            money: call.money.as_ref().map(money),
        }
    }

    fn restore(
        self,
        tenant: &TenantId,
        call: &CallId,
        ended_retention: Seconds,
    ) -> Option<Restore> {
        let (reports_answer, free, counted, charge_granted_when_lost, ringing, grace, longest) =
            self.terms;
        let pool = |(pool, closed_by, increment, held): PoolPart<'_>| {
            Some(PoolLine {
                pool: PoolId::new(pool).ok()?,
                closed_by: closed_by.to_owned(),
                increment: Some(increment).filter(|increment| increment.is_positive())?,
                held,
                spent: Seconds::ZERO,
            })
        };
        let lot = |(lot, held): (&str, Micros)| {
            Some(LotLine { lot: LotId::new(lot).ok()?, held, spent: Micros::ZERO })
        };
        let money = |money: MoneyPart<'_>| {
            let velocity = money.velocity;
            Some(MoneyLine {
                tariff: money.tariff,
                spend_limit: money.spend_limit,
                month: money.month.to_owned(),
                lots: money.lots.into_iter().map(lot).collect::<Option<_>>()?,
                overage: money.overage,
                velocity: velocity.map(|(most, width)| VelocityLine { most, width, slots: vec![] }),
            })
        };
        let money = match self.money {
            Some(of) => Some(money(of)?),
            None => None,
        };
        let context = CallContext::decode(self.context).map(|mut context| {
            context.flags.push(RESTORED.to_owned());
            context.encode()
        });
        let mut granted = Call::new(self.state, self.authorized_at);
        granted.fingerprint = self.fingerprint.to_owned();
        granted.decision = Some(Decision::parse(self.decision)?);
        granted.payer = self.payer.to_owned();
        granted.trunk = self.trunk.to_owned();
        granted.context = context.unwrap_or_else(|| self.context.to_vec());
        granted.answered_at = self.answered_at;
        granted.deadline = self.deadline;
        granted.sequence = self.sequence;
        granted.used = self.used;
        granted.granted = self.granted;
        granted.granted_from = self.granted_from;
        granted.reach = self.reach;
        granted.terms = Terms {
            reports_answer,
            free,
            counted,
            charge_granted_when_lost,
            ringing,
            grace,
            longest,
        };
        granted.pools = self.pools.into_iter().map(pool).collect::<Option<_>>()?;
        granted.money = money;
        Some(Restore {
            tenant: tenant.clone(),
            call: call.clone(),
            // Both what was promised then and what is kept now: the setting may have been lowered.
            until: self.expires_at.min(self.issued_at.after(lasting(ended_retention))),
            granted,
            month: Month {
                key: self.month.to_owned(),
                starts: self.month_starts,
                ends: self.month_ends,
            },
            leases: vec![],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::profile::SpendVelocity;

    const DAY: Seconds = Seconds(86_400);

    fn keys(ids: &[(&str, u8)]) -> TokenKeys {
        let line = |&(id, byte): &(&str, u8)| format!("{id} {}", STANDARD.encode([byte; 32]));
        TokenKeys::parse(&ids.iter().map(line).collect::<Vec<_>>().join("\n")).expect("keys")
    }

    fn tenant() -> TenantId {
        TenantId::new("contoso").expect("a tenant")
    }

    fn id() -> CallId {
        CallId::literal("realm|a@b|x|1")
    }

    fn month() -> Month {
        Month { key: "2026-11".to_owned(), starts: Millis(5), ends: Millis(9) }
    }

    fn call() -> Call {
        let mut call = Call::new(CallState::Answered, Millis(7_000));
        call.fingerprint = "f".repeat(32);
        call.decision = Some(Decision::Allowed);
        call.payer = "carol".to_owned();
        call.context = vec![0xff, 0, 1];
        call.sequence = 3;
        call.used = Seconds(61);
        call.granted = Seconds(300);
        call.deadline = Millis(99_000);
        call.terms.grace = Seconds(60);
        call.pools = vec![PoolLine {
            pool: PoolId::of("US:MCOPSTN1:DOMESTIC", "2026-11"),
            closed_by: String::new(),
            increment: Seconds(60),
            held: Seconds(120),
            spent: Seconds::ZERO,
        }];
        let velocity = SpendVelocity { amount: Micros(5), per: Seconds(600) };
        call.money = Some(MoneyLine {
            tariff: Tariff {
                rate_per_minute: Micros(100_000),
                connection_fee: Micros(50_000),
                initial_increment: Seconds(60),
                increment: Seconds(60),
            },
            spend_limit: -1,
            month: "2026-11".to_owned(),
            lots: vec![LotLine {
                lot: LotId::new("po-1").expect("a lot"),
                held: Micros(350_000),
                spent: Micros::ZERO,
            }],
            overage: false,
            velocity: Some(VelocityLine::new(&velocity)),
        });
        call
    }

    fn token(keys: &TokenKeys) -> String {
        keys.sign(&tenant(), &id(), &call(), &month(), Millis(10_000), DAY)
    }

    #[test]
    fn a_token_tells_the_call_as_it_was_granted() {
        let keys = keys(&[("k1", 1)]);
        let token = token(&keys);
        assert!(token.len() < 600, "{}", token.len());
        let found = keys.read(&token, &tenant(), &id(), DAY).expect("a grant");
        assert_eq!(found.granted, call());
        assert_eq!((found.month, found.until), (month(), Millis(10_000).after(DAY - Seconds(60))));
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed() {
        let keys = keys(&[("k1", 1), ("k2", 2)]);
        let token = token(&keys);
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("bytes");
        for i in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[i] ^= 1 << bit;
                let found = keys.read(&URL_SAFE_NO_PAD.encode(bytes), &tenant(), &id(), DAY);
                assert!(found.is_err(), "bit {bit} of byte {i}");
            }
            let cut = URL_SAFE_NO_PAD.encode(&bytes[..i]);
            assert!(keys.read(&cut, &tenant(), &id(), DAY).is_err(), "{i} bytes");
        }
        let longer = URL_SAFE_NO_PAD.encode([&bytes[..], &[0]].concat());
        assert_eq!(keys.read(&longer, &tenant(), &id(), DAY), Err(TokenFault::Forged));
    }

    #[test]
    fn a_token_is_of_one_call_of_one_tenant() {
        let keys = keys(&[("k1", 1)]);
        let token = token(&keys);
        let other = TenantId::new("fabrikam").expect("a tenant");
        assert_eq!(keys.read(&token, &other, &id(), DAY), Err(TokenFault::Foreign));
        let other = CallId::literal("other");
        assert_eq!(keys.read(&token, &tenant(), &other, DAY), Err(TokenFault::Foreign));
        for nothing in ["", "%", "AAAA", "bye"] {
            assert_eq!(keys.read(nothing, &tenant(), &id(), DAY), Err(TokenFault::Malformed));
        }
    }

    #[test]
    fn keys_rotate() {
        let (old, both) = (keys(&[("k1", 1)]), keys(&[("k2", 2), ("k1", 1)]));
        let new = keys(&[("k2", 2)]);
        assert!(both.read(&token(&old), &tenant(), &id(), DAY).is_ok());
        assert!(new.read(&token(&both), &tenant(), &id(), DAY).is_ok());
        let gone = new.read(&token(&old), &tenant(), &id(), DAY);
        assert_eq!(gone, Err(TokenFault::UnknownKey));
        let renamed = keys(&[("k1", 9)]);
        assert_eq!(renamed.read(&token(&old), &tenant(), &id(), DAY), Err(TokenFault::Forged));
    }

    #[test]
    fn a_grant_counts_for_less_long_than_an_ended_call_is_kept() {
        let keys = keys(&[("k1", 1)]);
        let made = Millis(10_000);
        for kept in [60, 61, 119, 120, 121, 3_600, 86_400, 31 * 86_400].map(Seconds) {
            let token = keys.sign(&tenant(), &id(), &call(), &month(), made, kept);
            for now in [kept, DAY, Seconds(60)] {
                let until = keys.read(&token, &tenant(), &id(), now).expect("a grant").until;
                assert!(until > made && until.after(Seconds(30)) <= made.after(kept.min(now)));
            }
        }
    }

    #[test]
    fn a_long_token_leaves_out_what_the_charge_does_not_need() {
        let keys = keys(&[("k1", 1)]);
        let mut long = call();
        let lots = (0..200).map(|n| LotLine {
            lot: LotId::new(&format!("{n:0128}")).expect("a lot"),
            held: Micros(1),
            spent: Micros(1),
        });
        long.money.as_mut().expect("money").lots = lots.collect();
        let token = keys.sign(&tenant(), &id(), &long, &month(), Millis(0), DAY);
        assert!(token.len() <= MAX_TOKEN_BYTES);
        let found = keys.read(&token, &tenant(), &id(), DAY).expect("a grant").granted;
        assert_eq!(found.money.expect("money").held(), Micros(400));
        long.payer = "p".repeat(MAX_TOKEN_BYTES);
        assert_eq!(keys.sign(&tenant(), &id(), &long, &month(), Millis(0), DAY), "");
    }

    #[test]
    fn keys_are_read_whole_or_refused_without_being_repeated() {
        let good = STANDARD.encode([7; 32]);
        let found = TokenKeys::parse(&format!("# now\n\n k.1-a\t{good} \n")).expect("a key");
        assert_eq!(format!("{found:?}"), "[\"k.1-a\"]");
        for wrong in [
            String::new(),
            "# none".to_owned(),
            good.clone(),
            format!("k1 {}", STANDARD.encode([7; 31])),
            format!("k1 {}", STANDARD.encode([7; 129])),
            "k1 secret!".to_owned(),
            format!("k/1 {good}"),
            format!("{} {good}", "k".repeat(33)),
            format!("k1 {good}\nk1 {good}"),
        ] {
            let error = TokenKeys::parse(&wrong).expect_err("no keys");
            assert!(error.starts_with("expected") && !error.contains(&good), "{error}");
        }
    }
}
