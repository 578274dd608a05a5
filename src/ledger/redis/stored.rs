//! How scripts store a call and an entry: fields of fixed length, then texts, as Lua's `struct` writes them.
//!
//! What is read and written with every call is laid out so that a script spends little on it: `cmsgpack` takes about
//! twice as long for the same fields. All is little-endian; a number has 8 bytes; a text has its length before it (4
//! bytes) or in a field of its own. What never changes of a call (terms, pools, price) is one text made in [`Shape`],
//! which a script passes on as it is. Reading never panics: bytes that are not what was asked for are
//! [`LedgerError::Corrupt`].

use serde::de::IntoDeserializer;
use serde::de::value::{Error as Unknown, StrDeserializer};
use serde::{Deserialize, Serialize};

use super::codec::decode;
#[cfg(any(test, fuzzing))]
use super::codec::encode;
use crate::charging::decision::Decision;
use crate::charging::ids::PoolId;
use crate::charging::rating::Tariff;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::LedgerError;
use crate::ledger::state::{
    Call, CallState, Entry, EntryKind, LotLine, MoneyLine, PoolLine, Posting, Slot, Terms,
    VelocityLine,
};

/// What never changes of a call, but for who makes it: calls to the same place by payers of the same plan share it, so
/// that a script unpacks it once.
#[derive(Serialize, Deserialize)]
pub(super) struct Shape<'a> {
    terms: Terms,
    #[serde(borrow)]
    pools: Vec<PoolShape<'a>>,
    /// Nothing or one.
    #[serde(borrow)]
    money: Vec<MoneyShape<'a>>,
}

/// What never changes of a line on a pool.
#[derive(Serialize, Deserialize)]
pub(super) struct PoolShape<'a> {
    pool: &'a str,
    closed_by: &'a str,
    increment: Seconds,
}

/// What never changes of the line on the wallet.
#[derive(Serialize, Deserialize)]
pub(super) struct MoneyShape<'a> {
    tariff: Tariff,
    /// -1 is no limit.
    spend_limit: i64,
    month: &'a str,
    overage: bool,
    /// Nothing or one, with no slots yet; the width may change.
    velocity: Vec<VelocityLine>,
}

/// What changes of the line on the wallet; not stored while money has nothing to do with the call.
#[derive(Serialize, Deserialize)]
pub(super) struct MoneyTaken {
    lots: Vec<LotLine>,
    /// Of a velocity's slots; says nothing where there is none.
    width: i64,
    slots: Vec<Slot>,
}

impl<'a> Shape<'a> {
    /// Of a call.
    pub(super) fn of_call(call: &'a Call) -> Shape<'a> {
        let pool = |line: &'a PoolLine| PoolShape {
            pool: line.pool.as_str(),
            closed_by: &line.closed_by,
            increment: line.increment,
        };
        let money = |line: &'a MoneyLine| MoneyShape {
            tariff: line.tariff,
            spend_limit: line.spend_limit,
            month: &line.month,
            overage: line.overage,
            velocity: line
                .velocity
                .iter()
                .map(|line| VelocityLine { slots: vec![], ..line.clone() })
                .collect(),
        };
        Shape {
            terms: call.terms,
            pools: call.pools.iter().map(pool).collect(),
            money: call.money.iter().map(money).collect(),
        }
    }
}

/// Reads fields one after the other.
struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn corrupt(&self, why: &str) -> LedgerError {
        LedgerError::Corrupt(format!("{}: {why}", self.what))
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], LedgerError> {
        let (bytes, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| self.corrupt("bytes are missing"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], LedgerError> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| self.corrupt("bytes are missing"))
    }

    fn byte(&mut self) -> Result<u8, LedgerError> {
        Ok(u8::from_le_bytes(self.fixed()?))
    }

    fn length(&mut self) -> Result<usize, LedgerError> {
        let length = u32::from_le_bytes(self.fixed()?);
        usize::try_from(length).map_err(|_| self.corrupt("a length beyond memory"))
    }

    fn number(&mut self) -> Result<i64, LedgerError> {
        Ok(i64::from_le_bytes(self.fixed()?))
    }

    fn text(&mut self) -> Result<&'a str, LedgerError> {
        let length = self.length()?;
        let bytes = self.bytes(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("a text that is not UTF-8"))
    }

    fn decision(&mut self) -> Result<Option<Decision>, LedgerError> {
        match self.text()? {
            "" => Ok(None),
            name => match Decision::parse(name) {
                None => Err(self.corrupt(&format!("unknown decision {name:?}"))),
                found => Ok(found),
            },
        }
    }
}

/// The call that these bytes are.
pub(super) fn read_call(bytes: &[u8]) -> Result<Call, LedgerError> {
    let mut fields = Fields { what: "call", rest: bytes };
    let (authorized_at, deadline) = (Millis(fields.number()?), Millis(fields.number()?));
    let lines = fields.byte()?;
    let state = CallState::try_from(fields.byte()?).map_err(LedgerError::Corrupt)?;
    let mut call = Call::new(state, authorized_at);
    call.deadline = deadline;
    call.nuance = fields.byte()?;
    call.reach = fields.byte()?;
    call.answered_at = Millis(fields.number()?);
    call.ended_at = Millis(fields.number()?);
    call.sequence = fields.number()?;
    call.used = Seconds(fields.number()?);
    call.settle_used = fields.number()?;
    call.granted = Seconds(fields.number()?);
    call.granted_from = Seconds(fields.number()?);
    call.money_duration = Seconds(fields.number()?);
    call.shortfall_duration = Seconds(fields.number()?);
    call.shortfall_money = Micros(fields.number()?);
    call.parked = Seconds(fields.number()?);
    call.presumed = Seconds(fields.number()?);
    let money = fields.length()?;
    let mut taken = vec![];
    for _ in 0..lines {
        taken.push((Seconds(fields.number()?), Seconds(fields.number()?)));
    }
    call.payer = fields.text()?.to_owned();
    call.decision = fields.decision()?;
    let (identity, shape, context) = (fields.length()?, fields.length()?, fields.length()?);
    let mut identity = Fields { what: "identity of a call", rest: fields.bytes(identity)? };
    call.fingerprint = identity.text()?.to_owned();
    call.trunk = identity.text()?.to_owned();
    if !identity.rest.is_empty() {
        return Err(identity.corrupt("bytes after the value"));
    }
    let shape = fields.bytes(shape)?;
    call.context = fields.bytes(context)?.to_vec();
    if fields.rest.len() != money {
        return Err(fields.corrupt("bytes are missing, or too many"));
    }
    let money = fields.rest;
    if shape.is_empty() {
        return match taken.is_empty() && money.is_empty() {
            true => Ok(call),
            false => Err(fields.corrupt("lines without a shape")),
        };
    }
    let shape: Shape<'_> = decode("shape of a call", shape)?;
    if shape.pools.len() != taken.len() {
        return Err(fields.corrupt("other lines than the shape's"));
    }
    call.terms = shape.terms;
    let line = |(pool, (held, spent)): (PoolShape<'_>, _)| {
        let id = PoolId::new(pool.pool).map_err(|_| fields.corrupt("a pool's name"))?;
        let (closed_by, increment) = (pool.closed_by.to_owned(), pool.increment);
        Ok(PoolLine { pool: id, closed_by, increment, held, spent })
    };
    call.pools = shape.pools.into_iter().zip(taken).map(line).collect::<Result<_, _>>()?;
    let frozen = shape.money.into_iter().next();
    if frozen.is_none() && !money.is_empty() {
        return Err(fields.corrupt("money without a price"));
    }
    let taken: Option<MoneyTaken> = match money {
        [] => None,
        bytes => Some(decode("money of a call", bytes)?),
    };
    call.money = frozen.map(|frozen| money_line(frozen, taken));
    Ok(call)
}

fn money_line(frozen: MoneyShape<'_>, taken: Option<MoneyTaken>) -> MoneyLine {
    let mut line = MoneyLine {
        tariff: frozen.tariff,
        spend_limit: frozen.spend_limit,
        month: frozen.month.to_owned(),
        lots: vec![],
        overage: frozen.overage,
        velocity: frozen.velocity.into_iter().next(),
    };
    if let Some(MoneyTaken { lots, width, slots }) = taken {
        line.lots = lots;
        line.velocity = line.velocity.map(|line| VelocityLine { width, slots, ..line });
    }
    line
}

/// The entry that these bytes are; its context and its report stand beside them.
pub(super) fn read_entry(
    bytes: &[u8],
    context: Option<&[u8]>,
    report: Option<&[u8]>,
) -> Result<Entry, LedgerError> {
    let mut fields = Fields { what: "journal entry", rest: bytes };
    let at = Millis(fields.number()?);
    let postings = fields.length()?;
    let (used, granted) = (Seconds(fields.number()?), Seconds(fields.number()?));
    let shortfall_duration = Seconds(fields.number()?);
    let shortfall_money = Micros(fields.number()?);
    let kind: StrDeserializer<'_, Unknown> = fields.text()?.into_deserializer();
    let kind = EntryKind::deserialize(kind).map_err(|why| fields.corrupt(&why.to_string()))?;
    let (subject, payer) = (fields.text()?.to_owned(), fields.text()?.to_owned());
    let decision = fields.decision()?;
    let mut entry = Entry {
        kind,
        at,
        subject,
        payer,
        decision,
        used,
        granted,
        shortfall_duration,
        shortfall_money,
        postings: vec![],
        context: context.unwrap_or_default().to_vec(),
        report: report.unwrap_or_default().to_vec(),
    };
    for _ in 0..postings {
        entry.postings.push(Posting {
            bucket: fields.text()?.to_owned(),
            funded: fields.number()?,
            held: fields.number()?,
            spent: fields.number()?,
            expired: fields.number()?,
            adjusted: fields.number()?,
        });
    }
    match fields.rest {
        [] => Ok(entry),
        _ => Err(fields.corrupt("bytes after the value")),
    }
}

fn name_of(kind: EntryKind) -> Result<String, LedgerError> {
    match serde_json::to_value(kind) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(LedgerError::Corrupt(format!("unwritable: {kind:?}"))),
    }
}

/// Bytes of the length before a text.
const LENGTH: usize = 4;

/// Writes fields one after the other.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn length(&mut self, length: usize) -> Result<(), LedgerError> {
        let too_long = |_| LedgerError::Corrupt("unwritable: too long".to_owned());
        let length = u32::try_from(length).map_err(too_long)?;
        self.0.extend(length.to_le_bytes());
        Ok(())
    }

    fn number(&mut self, number: i64) {
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) -> Result<(), LedgerError> {
        self.length(text.len())?;
        self.0.extend(text.as_bytes());
        Ok(())
    }

    fn behind_instant(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        self.length(entry.postings.len())?;
        self.number(entry.used.0);
        self.number(entry.granted.0);
        self.number(entry.shortfall_duration.0);
        self.number(entry.shortfall_money.0);
        self.text(&name_of(entry.kind)?)?;
        self.text(&entry.subject)?;
        self.text(&entry.payer)?;
        self.text(entry.decision.map(Decision::name).unwrap_or_default())?;
        for posting in &entry.postings {
            self.text(&posting.bucket)?;
            let Posting { funded, held, spent, expired, adjusted, .. } = posting;
            for number in [funded, held, spent, expired, adjusted] {
                self.number(*number);
            }
        }
        Ok(())
    }

    fn behind_instants(
        &mut self,
        call: &Call,
        shape: usize,
        money: usize,
    ) -> Result<(), LedgerError> {
        let lines = u8::try_from(call.pools.len())
            .map_err(|_| LedgerError::Corrupt("unwritable: too many lines".to_owned()))?;
        self.0.extend([lines, call.state.into(), call.nuance, call.reach]);
        self.number(call.answered_at.0);
        self.number(call.ended_at.0);
        self.number(call.sequence);
        self.number(call.used.0);
        self.number(call.settle_used);
        self.number(call.granted.0);
        self.number(call.granted_from.0);
        self.number(call.money_duration.0);
        self.number(call.shortfall_duration.0);
        self.number(call.shortfall_money.0);
        self.number(call.parked.0);
        self.number(call.presumed.0);
        self.length(money)?;
        for line in &call.pools {
            self.number(line.held.0);
            self.number(line.spent.0);
        }
        self.text(&call.payer)?;
        self.text(call.decision.map(Decision::name).unwrap_or_default())?;
        // The two texts of the identity, each behind its length.
        self.length(call.fingerprint.len() + call.trunk.len() + 2 * LENGTH)?;
        self.length(shape)?;
        self.length(call.context.len())?;
        self.text(&call.fingerprint)?;
        self.text(&call.trunk)
    }
}

/// The bytes of an entry without its context and its report.
pub(super) fn write_entry(entry: &Entry) -> Result<Vec<u8>, LedgerError> {
    let mut bytes = Bytes::default();
    bytes.number(entry.at.0);
    bytes.behind_instant(entry)?;
    Ok(bytes.0)
}

/// The bytes of an entry without its instant, its context and its report.
pub(super) fn write_entry_behind_instant(entry: &Entry) -> Result<Vec<u8>, LedgerError> {
    let mut bytes = Bytes(Vec::with_capacity(256));
    bytes.behind_instant(entry)?;
    Ok(bytes.0)
}

/// The bytes of a call for which money has not paid, without its instants, its shape (of that many bytes) and its context,
/// which a script puts around it.
pub(super) fn write_call_behind_instants(
    call: &Call,
    shape: usize,
) -> Result<Vec<u8>, LedgerError> {
    let mut bytes = Bytes(Vec::with_capacity(320));
    bytes.behind_instants(call, shape, 0)?;
    Ok(bytes.0)
}

/// The bytes of a call, which only scripts write whole but in tests.
#[cfg(any(test, fuzzing))]
pub(super) fn write_call(call: &Call) -> Result<Vec<u8>, LedgerError> {
    let is_known = call.terms != Terms::default() || !call.pools.is_empty() || call.money.is_some();
    let shape = if is_known { encode(&Shape::of_call(call))? } else { vec![] };
    let money = match &call.money {
        None => vec![],
        Some(line) => {
            let velocity = line.velocity.as_ref();
            encode(&MoneyTaken {
                lots: line.lots.clone(),
                width: velocity.map_or(0, |line| line.width),
                slots: velocity.map(|line| line.slots.clone()).unwrap_or_default(),
            })?
        }
    };
    let mut bytes = Bytes::default();
    bytes.number(call.authorized_at.0);
    bytes.number(call.deadline.0);
    bytes.behind_instants(call, shape.len(), money.len())?;
    Ok([bytes.0, shape, call.context.clone(), money].concat())
}

/// The fields of a stored call as a script numbers them; those of a further pool line follow.
#[cfg(test)]
#[derive(Deserialize)]
#[allow(dead_code)]
pub(super) struct StoredCall {
    payer: String,
    decision: String,
    shape: String,
    context: String,
    /// All of these and the identity, as they are stored.
    texts: String,
    money: String,
    authorized_at: i64,
    deadline: i64,
    lines: u8,
    state: u8,
    nuance: u8,
    reach: u8,
    answered_at: i64,
    ended_at: i64,
    sequence: i64,
    used: i64,
    settle_used: i64,
    granted: i64,
    granted_from: i64,
    money_duration: i64,
    shortfall_duration: i64,
    shortfall_money: i64,
    parked: i64,
    presumed: i64,
    money_length: u32,
    held: i64,
    spent: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::ids::LotId;
    use crate::charging::units::MAX_EXACT;
    use crate::ledger::state::{LotLine, Slot};

    fn call() -> Call {
        let mut call = Call::new(CallState::Answered, Millis(1_795_281_000_000));
        call.fingerprint = "abc".to_owned();
        call.decision = Some(Decision::Allowed);
        call.payer = "alice".to_owned();
        call.trunk = "trunk".to_owned();
        call.context = b"\xffcontext".to_vec();
        call.deadline = Millis(MAX_EXACT);
        call.used = Seconds(45);
        call.terms.grace = Seconds(60);
        call.pools = ["US:MCOPSTN1:DOMESTIC:2026-11", "US:MCOPSTN2:INTERNATIONAL:2026-11"]
            .map(|pool| PoolLine {
                pool: PoolId::new(pool).expect("a pool"),
                closed_by: String::new(),
                increment: Seconds(60),
                held: Seconds(120),
                spent: Seconds(60),
            })
            .to_vec();
        call.money = Some(MoneyLine {
            tariff: Tariff {
                rate_per_minute: Micros(10_000),
                connection_fee: Micros(0),
                initial_increment: Seconds(60),
                increment: Seconds(6),
            },
            spend_limit: -1,
            month: "2026-11".to_owned(),
            lots: vec![LotLine {
                lot: LotId::new("a").expect("a lot"),
                held: Micros(5),
                spent: Micros(7),
            }],
            overage: true,
            velocity: Some(VelocityLine {
                most: Micros(9),
                width: 300_000,
                slots: vec![Slot { number: 3, money: Micros(2) }],
            }),
        });
        call
    }

    #[track_caller]
    fn is_corrupt<T>(outcome: Result<T, LedgerError>) {
        assert!(matches!(outcome, Err(LedgerError::Corrupt(_))));
    }

    #[test]
    fn a_call_is_read_back_whole_or_not_at_all() {
        let bare = Call::new(CallState::Ended, Millis(1));
        for call in [call(), bare] {
            let bytes = write_call(&call).expect("bytes");
            assert_eq!(read_call(&bytes), Ok(call));
            for end in 0..bytes.len() {
                is_corrupt(read_call(&bytes[..end]));
            }
            is_corrupt(read_call(&[&bytes[..], &[0]].concat()));
        }
    }

    #[test]
    fn an_entry_is_read_back_whole_or_not_at_all_with_its_context_beside() {
        let posting = |bucket: &str| Posting {
            bucket: bucket.to_owned(),
            funded: 1,
            held: -2,
            spent: 3,
            expired: 0,
            adjusted: MAX_EXACT,
        };
        for postings in [vec![], vec![posting("p:a")], vec![posting("p:a"), posting("l:b")]] {
            let whole = Entry {
                kind: EntryKind::SettledLate,
                at: Millis(7),
                subject: "a".to_owned(),
                payer: "alice".to_owned(),
                decision: Some(Decision::Allowed),
                used: Seconds(45),
                granted: Seconds(60),
                shortfall_duration: Seconds::ZERO,
                shortfall_money: Micros::ZERO,
                postings,
                context: b"\xffcontext".to_vec(),
                report: b"report".to_vec(),
            };
            let bytes = write_entry(&whole).expect("bytes");
            assert_eq!(
                read_entry(&bytes, Some(b"\xffcontext"), Some(b"report")),
                Ok(whole.clone())
            );
            let bare = Entry { context: vec![], report: vec![], ..whole };
            assert_eq!(read_entry(&bytes, None, None), Ok(bare));
            for end in 0..bytes.len() {
                is_corrupt(read_entry(&bytes[..end], None, None));
            }
            is_corrupt(read_entry(&[&bytes[..], &[0]].concat(), None, None));
        }
    }

    #[test]
    fn an_enormous_length_is_corrupt_and_costs_no_memory() {
        let mut bytes = write_call(&call()).expect("bytes");
        let payer = 2 * 8 + 4 + 12 * 8 + 4 + 2 * 2 * 8;
        bytes[payer..payer + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        is_corrupt(read_call(&bytes));
        is_corrupt(read_entry(&[0xff; 64], None, None));
    }
}
