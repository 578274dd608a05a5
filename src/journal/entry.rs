//! What an entry says: something that the ledger has done, that it has to do, or what became of the latter.
//!
//! Entries are MessagePack maps by field name: fields may be added (with `#[serde(default)]`), never
//! renamed, so that a release reads what the one before has written. The commands and stored values of the
//! ledger port are written as they are, so that whatever a command learns to carry is kept here too.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use crate::charging::ids::{CallId, TenantId};
use crate::charging::profile::Purchase;
use crate::charging::units::{Micros, Millis, Seconds};
use crate::ledger::marks::Mark;
use crate::ledger::state::Call;
use crate::ledger::{
    AdjustBalance, AdjustSettlement, Authorize, End, Ending, ReportRecharge, Restore, SetBlock,
};

/// Something that the ledger has acknowledged.
///
/// Enough to tell later that it is missing, and to do it again: the command's key and the whole call as
/// the ledger stored it, so that the last entry about a call restores it without any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done<'a> {
    /// Whose ledger.
    pub tenant: TenantId,
    /// The store's clock when it was done; zero where it did not say.
    pub now: Millis,
    /// What was done.
    pub effect: Effect<'a>,
    /// The highest that had been acknowledged of the tenant by then: not below what the ledger counted this
    /// as. Zero in entries of releases that did not know it.
    #[serde(default)]
    pub mark: Mark,
}

/// The little of [`Done`] that is read at the start.
#[derive(Deserialize)]
pub(super) struct Head {
    pub(super) tenant: TenantId,
    #[serde(default)]
    pub(super) mark: Mark,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect<'a> {
    /// A call was granted or denied.
    Authorized {
        /// The call leg.
        id: CallId,
        /// As it is stored.
        call: Cow<'a, Call>,
        /// Out of which it was granted while the ledger was away.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        leases: Vec<CallId>,
    },
    /// A call was answered.
    Answered {
        /// The call leg.
        id: CallId,
        /// As it is stored.
        call: Cow<'a, Call>,
    },
    /// Usage of a call was reported, and its grant lengthened as far as funds allowed.
    Extended {
        /// The call leg.
        id: CallId,
        /// What was reported.
        used: Seconds,
        /// As it is stored.
        call: Cow<'a, Call>,
    },
    /// A call was settled, released or ended.
    Ended {
        /// The call leg.
        id: CallId,
        /// How it was asked for.
        how: Ending,
        /// What the client said about it.
        report: Cow<'a, Bytes>,
        /// As it is stored.
        call: Cow<'a, Call>,
    },
    /// A lot was bought.
    Purchased {
        /// With its key.
        purchase: Cow<'a, Purchase>,
        /// When it lapses.
        expires_at: Millis,
    },
    /// A recharge was reported.
    Recharged {
        /// With its key.
        report: Cow<'a, ReportRecharge>,
        /// The money that arrived; zero of a failure, and in entries of releases that did not know it.
        #[serde(default)]
        amount: Micros,
    },
    /// A balance was corrected.
    BalanceAdjusted {
        /// With its key.
        command: Cow<'a, AdjustBalance>,
    },
    /// The usage of a settled call was corrected.
    SettlementAdjusted {
        /// With its key.
        command: Cow<'a, AdjustSettlement>,
    },
    /// A payer was blocked, or a block lifted, by an operator.
    BlockSet {
        /// As it was asked for.
        command: Cow<'a, SetBlock>,
    },
    /// Telephone numbers were erased, for an operator; everybody's or one.
    NumbersErased {
        /// Names this erasure, and says nothing of the number.
        key: String,
        /// The store's clock when it was asked for.
        at: Millis,
        /// In E.164 with its plus; `None`: everybody's.
        number: Option<String>,
        /// Those seen before this instant only.
        before: Option<Millis>,
        /// Why, in the operator's words.
        reason: String,
        /// Who asked for it.
        operator: String,
    },
}

impl Effect<'_> {
    /// The call that it is about, as it was stored then.
    pub fn call(&self) -> Option<(&CallId, &Call)> {
        match self {
            Effect::Authorized { id, call, .. }
            | Effect::Answered { id, call }
            | Effect::Extended { id, call, .. }
            | Effect::Ended { id, call, .. } => Some((id, call)),
            Effect::Purchased { .. }
            | Effect::Recharged { .. }
            | Effect::BalanceAdjusted { .. }
            | Effect::SettlementAdjusted { .. }
            | Effect::BlockSet { .. }
            | Effect::NumbersErased { .. } => None,
        }
    }

    /// Without what it borrows.
    pub fn into_owned(self) -> Effect<'static> {
        match self {
            Effect::Authorized { id, call, leases } => {
                Effect::Authorized { id, call: Cow::Owned(call.into_owned()), leases }
            }
            Effect::Answered { id, call } => {
                Effect::Answered { id, call: Cow::Owned(call.into_owned()) }
            }
            Effect::Extended { id, used, call } => {
                Effect::Extended { id, used, call: Cow::Owned(call.into_owned()) }
            }
            Effect::Ended { id, how, report, call } => Effect::Ended {
                id,
                how,
                report: Cow::Owned(report.into_owned()),
                call: Cow::Owned(call.into_owned()),
            },
            Effect::Purchased { purchase, expires_at } => {
                Effect::Purchased { purchase: Cow::Owned(purchase.into_owned()), expires_at }
            }
            Effect::Recharged { report, amount } => {
                Effect::Recharged { report: Cow::Owned(report.into_owned()), amount }
            }
            Effect::BalanceAdjusted { command } => {
                Effect::BalanceAdjusted { command: Cow::Owned(command.into_owned()) }
            }
            Effect::SettlementAdjusted { command } => {
                Effect::SettlementAdjusted { command: Cow::Owned(command.into_owned()) }
            }
            Effect::BlockSet { command } => {
                Effect::BlockSet { command: Cow::Owned(command.into_owned()) }
            }
            Effect::NumbersErased { key, at, number, before, reason, operator } => {
                Effect::NumbersErased { key, at, number, before, reason, operator }
            }
        }
    }
}

/// Something that was accepted and that the ledger has to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Keep the record of a call that was decided without it (contract rule 13).
    Record(Box<Authorize>),
    /// End a call.
    End {
        /// As the ledger is asked.
        end: End,
        /// The last grant's, as the client sent it; empty where it sent none.
        #[serde(default)]
        token: String,
    },
    /// Put a call there that was granted out of a lease (D20).
    Restore(Box<Restore>),
}

impl Command {
    /// Whose ledger.
    pub fn tenant(&self) -> &TenantId {
        match self {
            Command::Record(command) => &command.tenant,
            Command::End { end, .. } => &end.tenant,
            Command::Restore(command) => &command.tenant,
        }
    }

    /// The call leg.
    pub fn call(&self) -> &CallId {
        match self {
            Command::Record(command) => &command.call,
            Command::End { end, .. } => &end.call,
            Command::Restore(command) => &command.call,
        }
    }

    /// In a word or two, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Record(_) => "record",
            Command::Restore(_) => "grant",
            Command::End { end: End { how: Ending::Settle(_), .. }, .. } => "settle",
            Command::End { end: End { how: Ending::Release, .. }, .. } => "release",
            Command::End { end: End { how: Ending::Proven, .. }, .. } => "end",
        }
    }

    /// The usage that it reports, where it does.
    pub fn used(&self) -> Option<Seconds> {
        match self {
            Command::End { end: End { how: Ending::Settle(used), .. }, .. } => Some(*used),
            _ => None,
        }
    }

    /// Whether doing the one does the other: usage is cumulative, so that the same end of the same call is
    /// the same message, whatever is said about it besides.
    pub(super) fn repeats(&self, other: &Command) -> bool {
        let same_call = self.tenant() == other.tenant() && self.call() == other.call();
        same_call
            && match (self, other) {
                (Command::End { end: one, .. }, Command::End { end: other, .. }) => {
                    one.how == other.how
                }
                (Command::Record(one), Command::Record(other)) => {
                    one.fingerprint == other.fingerprint
                }
                (Command::Restore(one), Command::Restore(other)) => one == other,
                _ => false,
            }
    }
}

/// A command with the instant of its acceptance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// By the clock of this machine.
    pub at: Millis,
    /// What to do.
    pub command: Command,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The sequence of its entry.
    pub of: u64,
    /// By the clock of this machine.
    pub at: Millis,
    /// By the contract's names: `SETTLED`, `PARKED`, `NOT_FOUND`, …
    pub result: String,
    /// Whether the ledger did not do what was accepted: somebody should look.
    pub refused: bool,
}

/// The bytes of an entry; `None` where it cannot be written, which no value of these types is.
pub(super) fn encode(entry: &impl Serialize) -> Option<Vec<u8>> {
    rmp_serde::to_vec_named(entry).ok()
}

/// The entry of the bytes; why it cannot be read, else.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charging::ids::LotId;
    use crate::ledger::state::CallState;

    #[test]
    fn entries_come_back_as_they_went() {
        let id = CallId::literal("call");
        let call = Call { context: vec![0, 255], ..Call::new(CallState::Ringing, Millis(7)) };
        let purchase = Purchase {
            key: LotId::literal("po-1"),
            amount: Micros(5),
            purchased_at: Millis(1),
            payment: [("agreement".to_owned(), "EA".to_owned())].into(),
        };
        let effects = [
            Effect::Authorized { id: id.clone(), call: Cow::Borrowed(&call), leases: vec![] },
            Effect::Authorized {
                id: id.clone(),
                call: Cow::Borrowed(&call),
                leases: vec![CallId::lease("process", 1)],
            },
            Effect::Answered { id: id.clone(), call: Cow::Borrowed(&call) },
            Effect::Extended { id: id.clone(), used: Seconds(3), call: Cow::Borrowed(&call) },
            Effect::Ended {
                id,
                how: Ending::Settle(Seconds(9)),
                report: Cow::Borrowed(Bytes::new(b"\x80bye")),
                call: Cow::Borrowed(&call),
            },
            Effect::Purchased { purchase: Cow::Borrowed(&purchase), expires_at: Millis(8) },
            Effect::NumbersErased {
                key: "key".to_owned(),
                at: Millis(7),
                number: Some("+4930901820".to_owned()),
                before: None,
                reason: "request".to_owned(),
                operator: "dpo".to_owned(),
            },
        ];
        for effect in effects {
            let mark = Mark { epoch: 1, sequence: 6 };
            let done = Done { tenant: TenantId::literal("contoso"), now: Millis(5), effect, mark };
            let bytes = encode(&done).expect("it can be written");
            assert_eq!(decode::<Done<'_>>(&bytes), Ok(done));
        }
    }

    /// A settle as the first release with a journal wrote it: fields that came later have defaults.
    #[test]
    fn a_settle_that_an_earlier_release_accepted_can_still_be_read() {
        #[derive(Serialize)]
        struct Earlier {
            tenant: &'static str,
            call: &'static str,
            how: Ending,
            #[serde(with = "serde_bytes")]
            report: &'static [u8],
            ended_retention: i64,
        }
        #[derive(Serialize)]
        enum EarlierCommand {
            End { end: Earlier },
        }
        #[derive(Serialize)]
        struct EarlierEntry {
            at: i64,
            command: EarlierCommand,
        }
        let end = Earlier {
            tenant: "contoso",
            call: "call",
            how: Ending::Settle(Seconds(60)),
            report: b"bye",
            ended_retention: 86_400,
        };
        let bytes = encode(&EarlierEntry { at: 7, command: EarlierCommand::End { end } });
        let read: Accepted = decode(&bytes.expect("it can be written")).expect("it can be read");
        assert_eq!(read.at, Millis(7));
        let Command::End { end, token } = read.command else { panic!("expected an end") };
        assert_eq!((token.as_str(), end.has_grant), ("", false));
        assert_eq!((end.call.as_str(), end.how), ("call", Ending::Settle(Seconds(60))));
        assert_eq!((&*end.report, end.ended_retention), (&b"bye"[..], Seconds(86_400)));
    }
}
