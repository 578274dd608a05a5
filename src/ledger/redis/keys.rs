//! The names of everything that the ledger keeps in Redis, spelt here and nowhere else.
//!
//! A tenant has a fixed, small set of keys, so that every key of every script is declared, and all of
//! them carry the tenant's hash tag, so that a cluster keeps them on one node. An identifier holds no
//! brace, so it is always a safe tag. The global keys never meet a tenant's in one command.

use crate::charging::ids::{PayerId, TenantId};
use crate::ledger::state::BlockedBy;

/// A key of one tenant; each is one value whatever the number of calls and payers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Hash: `t` the tenant's account, `u:` and a payer its account, `p:` and a pool its bucket, `-` nothing.
    Accounts,
    /// Hash: pool family to seconds per month.
    Sizes,
    /// Set: ids of all pools, so that a balance need not walk the payers.
    Pools,
    /// Hash: `w` the wallet, `l:` and a lot its bucket, `r:` and a key the recharge that was asked for, `v`
    /// what counts for the spend velocity.
    Lots,
    /// Hash: call id to call; open, refused and ended alike.
    Calls,
    /// Sorted set: open calls by expiry.
    Deadlines,
    /// Sorted set: all other calls by the instant at which they are forgotten.
    Retained,
    /// Stream: one packed entry each, in the field `e`, with its context in `c` and its report in `r`, if
    /// any; a rewritten one has all in `e`.
    Journal,
    /// Hash: `t` the tenant's record, `u:` and a payer what was applied.
    Profiles,
    /// Hash: number to the payers that have it.
    Numbers,
    /// Hash: key of a correction to what was asked for and its entry; never forgotten.
    Adjustments,
    /// Hash: how far each reader of the journal is, and who reads for it.
    Readers,
    /// Hash: `u:` and a payer the block that an operator set, `f:` and a payer that of what was applied.
    Blocks,
    /// Stream: the journal as it is being rewritten, with the ids of the journal.
    JournalNew,
    /// The name that a replaced journal has while a script throws it away.
    JournalOld,
    /// Hash: `j` how far the journal was trimmed and erased, and who rewrites it.
    Upkeep,
    /// Hash: `e` the epoch, `s:` and a sidecar how far it was told the ledger has come, `l:` and a sidecar what
    /// it misses ([`marks`](crate::ledger::marks)).
    Sequence,
}

impl Key {
    /// Its name in the scripts' headers, and in Redis after the tenant.
    pub(super) fn name(self) -> &'static str {
        match self {
            Key::Accounts => "accounts",
            Key::Sizes => "sizes",
            Key::Pools => "pools",
            Key::Lots => "lots",
            Key::Calls => "calls",
            Key::Deadlines => "deadlines",
            Key::Retained => "retained",
            Key::Journal => "journal",
            Key::Profiles => "profiles",
            Key::Numbers => "numbers",
            Key::Adjustments => "adjustments",
            Key::Readers => "readers",
            Key::Blocks => "blocks",
            Key::JournalNew => "journal_new",
            Key::JournalOld => "journal_old",
            Key::Upkeep => "upkeep",
            Key::Sequence => "sequence",
        }
    }

    /// Its whole name in Redis.
    pub(super) fn of(self, tenant: &TenantId) -> String {
        format!("tg:{{{tenant}}}:{}", self.name())
    }
}

/// Set: every tenant that was ever applied.
pub(super) const TENANTS: &str = "tg:tenants";

/// Hash: name of a deck to its active version.
pub(super) const DECKS: &str = "tg:decks";

/// String: the text of a deck.
pub(super) fn deck(version: &str) -> String {
    format!("tg:deck:{version}")
}

/// Field of the tenant as a whole, in accounts and profiles.
pub(super) const TENANT: &str = "t";

/// Field of accounts that says nothing, and is longer than what Redis keeps as a list that it searches from the front.
pub(super) const LONG: &str = "-";

/// Field of the wallet, in lots.
pub(super) const WALLET: &str = "w";

/// Field of what counts for the spend velocity, in lots.
pub(super) const RING: &str = "v";

/// Field of an entry, in the journal.
pub(super) const ENTRY: &str = "e";

/// Field of what Rust said about the call, where the entry itself has nothing there.
pub(super) const CONTEXT: &str = "c";

/// Field of what was reported, likewise.
pub(super) const REPORT: &str = "r";

/// Field of the journal's state, in upkeep.
pub(super) const UPKEEP: &str = "j";

/// Field of how far a sidecar was told the ledger has come.
pub(super) fn mark(sidecar: &str) -> String {
    format!("s:{sidecar}")
}

/// The sidecar of such a field; `None` where it is another.
pub(super) fn sidecar(field: &str) -> Option<&str> {
    field.strip_prefix("s:")
}

/// Field of what a sidecar misses.
pub(super) fn missing(sidecar: &str) -> String {
    format!("l:{sidecar}")
}

/// Field of a payer, in accounts and profiles.
pub(super) fn payer(payer: &str) -> String {
    format!("u:{payer}")
}

/// Field of a block.
pub(super) fn block(payer: &str, by: BlockedBy) -> String {
    match by {
        BlockedBy::Operator => format!("u:{payer}"),
        BlockedBy::File => format!("f:{payer}"),
    }
}

/// Whose block a field is; `None` where it is none.
pub(super) fn blocked(field: &str) -> Option<(PayerId, BlockedBy)> {
    let (by, payer) = match field.split_once(':')? {
        ("u", payer) => (BlockedBy::Operator, payer),
        ("f", payer) => (BlockedBy::File, payer),
        _ => return None,
    };
    Some((PayerId::new(payer).ok()?, by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_tenant_share_its_hash_tag() {
        let tenant = TenantId::new("contoso").expect("a tenant id");
        assert_eq!(Key::Accounts.of(&tenant), "tg:{contoso}:accounts");
        assert_eq!(Key::Journal.of(&tenant), "tg:{contoso}:journal");
    }
}
