//! Which runs money is moved by: with `replicas_for=money` they alone wait until replicas have them.
//!
//! It is told by what a run answers, since a call's sources are known to the ledger alone. A repeat counts as
//! what it repeats (but for `Restore`, whose end is waited for): who asked first may not have been answered for want
//! of replicas.

use redis::Value;

use crate::ledger::redis::scripts::Verb;
use crate::ledger::redis::stored::read_call;
use crate::ledger::state::MoneyLine;

/// Whether a run moved money, or says how it was moved before: bought or recharged credits, a correction, or a
/// call that credits or overage pay for. What cannot be read may have.
pub(super) fn is_moved(verb: Verb, answer: &Value) -> bool {
    use Verb::*;
    let Value::Array(parts) = answer else { return false };
    let [told @ .., Value::Int(_), Value::Int(_)] = &parts[..] else { return false };
    if told.is_empty() {
        // A ledger that has gone back has done nothing.
        return false;
    }
    match verb {
        Purchase | ReportRecharge | AdjustBalance | AdjustSettlement => true,
        Calls | Ends => match told {
            [Value::Int(_), told @ ..] => told.chunks(2).any(is_paid_for),
            _ => true,
        },
        // What ends by itself was promised to nobody; a document changes no balance that is not bought.
        Sweep | ApplyTenant | ApplyPayers | Position | Balance | TakeReader | MoveReader
        | Block | BeginRewrite | AddRewritten | FinishRewrite | AbandonRewrite | ReplaceContext
        | Regressed | Replayed => false,
    }
}

/// Whether money pays for the call that a command was about.
fn is_paid_for(told: &[Value]) -> bool {
    let [Value::BulkString(said), Value::BulkString(call)] = told else { return true };
    if call.is_empty() {
        // Neither a call that is put back is shown, nor one that is decided as proposed: by one pool, or for nothing.
        return said == b"restored";
    }
    let has_lots = |money: &MoneyLine| !money.lots.is_empty();
    read_call(call).map_or(true, |call| call.money.as_ref().is_some_and(has_lots))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::ids::LotId;
    use crate::charging::rating::Tariff;
    use crate::charging::units::{Micros, Millis, Seconds};
    use crate::ledger::MoneyOffer;
    use crate::ledger::redis::stored::write_call;
    use crate::ledger::state::{Call, CallState, LotLine};

    fn run(told: Vec<Value>) -> Value {
        Value::Array([told, vec![Value::Int(0), Value::Int(7)]].concat())
    }

    fn calls(told: &[Option<Call>]) -> Value {
        let told = told.iter().flat_map(|call| {
            let call = call.as_ref().map(|call| write_call(call).expect("it can be packed"));
            [b"said".to_vec(), call.unwrap_or_default()].map(Value::BulkString)
        });
        run([Value::Int(1)].into_iter().chain(told).collect())
    }

    #[test]
    fn one_call_of_a_run_that_money_pays_for_is_enough_and_minutes_are_none() {
        let minutes = Call::new(CallState::Ringing, Millis(1));
        let lot = LotLine { lot: LotId::literal("po-1"), held: Micros(5), spent: Micros::ZERO };
        let tariff = Tariff {
            rate_per_minute: Micros(60),
            connection_fee: Micros::ZERO,
            initial_increment: Seconds(60),
            increment: Seconds(60),
        };
        let offer = MoneyOffer { tariff, spend_limit: None, overage: false, velocity: None };
        let line = |lots| MoneyLine { lots, ..offer.line("2026-11") };
        let offered = Call { money: Some(line(vec![])), ..minutes.clone() };
        let paid = Call { money: Some(line(vec![lot])), ..minutes.clone() };
        let (none, minutes, offered, paid) = (None, Some(minutes), Some(offered), Some(paid));
        for verb in [Verb::Calls, Verb::Ends] {
            let unpaid = calls(&[none.clone(), minutes.clone(), offered.clone()]);
            assert!(!is_moved(verb, &unpaid));
            assert!(is_moved(verb, &calls(&[minutes.clone(), paid.clone(), none.clone()])));
            let unreadable = [vec![], vec![0xc1]].map(Value::BulkString).to_vec();
            assert!(is_moved(verb, &run([vec![Value::Int(1)], unreadable.clone()].concat())));
            assert!(is_moved(verb, &run(unreadable)));
        }
        let said = |said: &str| {
            run(vec![Value::Int(1), Value::BulkString(said.into()), Value::BulkString(vec![])])
        };
        assert!(is_moved(Verb::Calls, &said("restored")) && !is_moved(Verb::Calls, &said("known")));
        assert!(!is_moved(Verb::Calls, &said("as_proposed")));
        assert!(is_moved(Verb::Purchase, &run(vec![Value::BulkString(vec![])])));
        let gone_back = Value::Array(vec![Value::Int(0), Value::Int(7)]);
        assert!(!is_moved(Verb::Purchase, &gone_back));
    }
}
