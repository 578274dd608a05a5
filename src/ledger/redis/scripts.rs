//! The Lua scripts: their text, built once, and the keys that each is given.
//!
//! A script is one verb, and Redis keeps all of them as one library of functions, with `fields.lua` and
//! `lib.lua` before them, and the verbs on calls, which `calls.lua` carries out together. The library is named by a
//! digest of its text, so that replicas of different versions use one Redis side by side. Each function declares its
//! flags, so that a store that is out of memory, read-only or short of replicas refuses it before its first
//! command, never between two.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::ledger::redis::keys::Key;

/// One verb.
pub(super) struct Script {
    /// Name of the file.
    pub(super) name: &'static str,
    /// KEYS, in order.
    pub(super) keys: &'static [Key],
    /// What Redis checks before it starts.
    flags: &'static str,
    /// As it is written.
    pub(super) source: &'static str,
}

impl Script {
    /// Whether it may change something.
    pub(super) fn writes(&self) -> bool {
        !self.flags.contains("no-writes")
    }
}

macro_rules! scripts {
    ($($name:ident, $file:literal, $flags:literal, [$($key:ident),*];)*) => {
        /// Every script.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub(super) enum Verb { $($name),* }

        impl Verb {
            pub(super) const ALL: &[Verb] = &[$(Verb::$name),*];

            /// Its script.
            pub(super) fn script(self) -> &'static Script {
                match self {
                    $(Verb::$name => &Script {
                        name: $file,
                        keys: &[$(Key::$key),*],
                        flags: $flags,
                        source: include_str!(concat!("scripts/", $file, ".lua")),
                    }),*
                }
            }
        }
    };
}

scripts! {
    Calls, "calls", "", [Accounts, Sizes, Pools, Lots, Calls, Deadlines, Retained, Journal];
    // What gives back must not wait for memory: what it adds is bounded, and forgetting frees more.
    Ends, "ends", "'allow-oom'", [Accounts, Sizes, Pools, Lots, Calls, Deadlines, Retained, Journal];
    Sweep, "sweep", "'allow-oom'", [Accounts, Lots, Calls, Deadlines, Retained, Journal];
    Purchase, "purchase", "", [Lots, Journal];
    ReportRecharge, "report_recharge", "", [Lots, Journal];
    ApplyTenant, "apply_tenant", "", [Accounts, Lots, Journal, Profiles];
    ApplyPayers, "apply_payers", "", [Accounts, Sizes, Profiles, Numbers, Blocks, Journal];
    Position, "position", "'no-writes'", [Accounts, Sizes, Lots, Calls];
    Balance, "balance", "'no-writes'", [Accounts, Sizes, Pools, Lots];
    AdjustBalance, "adjust_balance", "", [Accounts, Sizes, Pools, Lots, Journal, Adjustments];
    AdjustSettlement, "adjust_settlement", "", [Accounts, Lots, Calls, Journal, Adjustments];
    TakeReader, "take_reader", "", [Readers];
    MoveReader, "move_reader", "", [Readers];
    // A payer must be stopped when memory is short, too: a block is a few hundred bytes.
    Block, "block", "'allow-oom'", [Accounts, Blocks, Journal];
    BeginRewrite, "begin_rewrite", "", [JournalNew, Upkeep];
    AddRewritten, "add_rewritten", "", [JournalNew, Upkeep];
    FinishRewrite, "finish_rewrite", "", [Journal, JournalNew, JournalOld, Upkeep];
    // What throws away must not wait for memory.
    AbandonRewrite, "abandon_rewrite", "'allow-oom'", [JournalNew, Upkeep];
    ReplaceContext, "replace_context", "'allow-oom'", [Calls];
    // What was lost must be found when memory is short, too.
    Regressed, "regressed", "'allow-oom'", [Journal, Sequence];
    Replayed, "replayed", "'allow-oom'", [Sequence];
}

impl Verb {
    /// Whether its runs are counted for the sidecar that sends them, and refused where the ledger went back
    /// (ledger/marks.rs): verbs with effects that somebody was told of, and would miss. Such a run has the
    /// key of the sequences behind its own, and two more arguments.
    pub(super) fn is_counted(self) -> bool {
        use Verb::*;
        match self {
            Calls | Ends | Purchase | ReportRecharge | ApplyTenant | ApplyPayers
            | AdjustBalance | AdjustSettlement | Block | FinishRewrite => true,
            Sweep | Position | Balance | TakeReader | MoveReader | BeginRewrite | AddRewritten
            | AbandonRewrite | ReplaceContext | Regressed | Replayed => false,
        }
    }
}

/// A verb on one call, of which one run takes many; numbered as in VERB of the scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum CallVerb {
    Authorize = 1,
    Answer = 2,
    Extend = 3,
    End = 4,
    Restore = 5,
}

impl CallVerb {
    const ALL: &[CallVerb] = &[
        CallVerb::Authorize,
        CallVerb::Answer,
        CallVerb::Extend,
        CallVerb::End,
        CallVerb::Restore,
    ];

    /// Name of the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            CallVerb::Authorize => "authorize",
            CallVerb::Answer => "answer",
            CallVerb::Extend => "extend",
            CallVerb::End => "end",
            CallVerb::Restore => "restore",
        }
    }

    /// As it is written.
    fn source(self) -> &'static str {
        match self {
            CallVerb::Authorize => include_str!("scripts/authorize.lua"),
            CallVerb::Answer => include_str!("scripts/answer.lua"),
            CallVerb::Extend => include_str!("scripts/extend.lua"),
            CallVerb::End => include_str!("scripts/end.lua"),
            CallVerb::Restore => include_str!("scripts/restore.lua"),
        }
    }
}

const FIELDS: &str = include_str!("scripts/fields.lua");
const LIB: &str = include_str!("scripts/lib.lua");

/// What Redis keeps.
pub(super) struct Library {
    /// For FUNCTION LOAD.
    pub(super) text: String,
    /// The names by which FCALL knows the verbs, in the order of [`Verb::ALL`].
    functions: Vec<String>,
}

impl Library {
    /// The library of this version, built at first use.
    pub(super) fn get() -> &'static Library {
        static LIBRARY: LazyLock<Library> = LazyLock::new(Library::build);
        &LIBRARY
    }

    /// The name by which FCALL knows a verb.
    pub(super) fn function(&self, verb: Verb) -> &str {
        &self.functions[verb as usize]
    }

    fn build() -> Library {
        let mut source = format!("{FIELDS}{LIB}");
        // A block each, since what a verb names is no other's.
        for verb in CallVerb::ALL {
            let _ = write!(source, "do\n{}\nend\n", verb.source());
        }
        for one in Verb::ALL {
            let Script { name, flags, source: verb, .. } = one.script();
            let run = match one.is_counted() {
                true => "counted(verb, KEYS, ARGV)",
                false => "verb(KEYS, ARGV)",
            };
            let _ = write!(
                source,
                "do\nlocal function verb(KEYS, ARGV)\n{verb}\nend\n\
                 local function main(KEYS, ARGV)\nbegin()\nreturn {run}\nend\n\
                 redis.register_function{{ function_name = '{PREFIX}_{name}', callback = main, \
                 flags = {{ {flags} }} }}\nend\n",
            );
        }
        let text = fold(&source);
        let digest = hex::encode(&Sha256::digest(&text)[..8]);
        let prefix = format!("tollgate_{digest}");
        let text = format!("#!lua name={prefix}\n{}", text.replace(PREFIX, &prefix));
        let name = |verb: &Verb| format!("{prefix}_{}", verb.script().name);
        Library { text, functions: Verb::ALL.iter().map(name).collect() }
    }
}

/// Stands for the prefix while the text is not known yet.
const PREFIX: &str = "@PREFIX@";

/// Puts numbers in the place of the fields of constant tables (`local CALL = { state = 1, … }`), and
/// drops those tables and the comments: a look-up that costs nothing at run time.
fn fold(source: &str) -> String {
    let mut constants = HashMap::new();
    let mut text = String::with_capacity(source.len());
    for line in source.lines() {
        if let Some(table) = constant_table(line) {
            constants.extend(
                table.fields.into_iter().map(|(field, n)| (format!("{}.{field}", table.name), n)),
            );
        } else if !line.trim_start().starts_with("--") && !line.trim().is_empty() {
            text.push_str(&with_constants(line, &constants));
            text.push('\n');
        }
    }
    text
}

struct ConstantTable<'a> {
    name: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

/// A line that defines a constant table, and nothing else.
fn constant_table(line: &str) -> Option<ConstantTable<'_>> {
    let (name, body) = line.strip_prefix("local ")?.split_once(" = { ")?;
    let is_constant = |c: char| c.is_ascii_uppercase() || c == '_';
    let fields = body.strip_suffix(" }")?.split(", ").map(|field| field.split_once(" = "));
    let fields: Vec<_> = fields.collect::<Option<_>>()?;
    name.chars().all(is_constant).then_some(ConstantTable { name, fields })
}

fn with_constants(line: &str, constants: &HashMap<String, &str>) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word);
        text.push_str(constants.get(word).copied().unwrap_or(word));
        let next = after.find(is_word).unwrap_or(after.len());
        text.push_str(&after[..next]);
        rest = &after[next..];
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::forward_to_deserialize_any;

    use super::super::stored::{MoneyShape, MoneyTaken, PoolShape, Shape, StoredCall};
    use super::*;
    use crate::charging::decision::Nuance;
    use crate::charging::funding::Reach;
    use crate::charging::rating::Tariff;
    use crate::ledger::recharge::{Recharge, RechargeRequest, RechargeTerms};
    use crate::ledger::redis::codec::{
        AbandonRewriteArgs, AddRewrittenArgs, AdjustBalanceArgs, AdjustSettlementArgs, AnswerArgs,
        ApplyPayersArgs, ApplyTenantArgs, AuthorizeArgs, BasisArgs, BeginRewriteArgs, EndArgs,
        ExtendArgs, FinishRewriteArgs, MoveReaderArgs, OfferArgs, PayerUpdateArgs, PoolNameArgs,
        PoolOfMonthArgs, PositionArgs, PurchaseArgs, RegressedArgs, ReplaceContextArgs,
        ReplayedArgs, ReportRechargeArgs, RestoreArgs, RestoredPoolArgs, SetBlockArgs, StoredPayer,
        SweepArgs, TakeReaderArgs,
    };
    use crate::ledger::state::{
        Adjustment, Bucket, CallState, Entry, LotLine, MoneyLine, PayerAccount, Posting, Reader,
        Slot, SpendRing, TenantAccount, Terms, Upkeep, VelocityLine, Wallet, nuance_code,
        reach_code,
    };

    const CALLER: &str = include_str!("../redis.rs");

    /// Asks a struct for the names of its fields.
    struct Fields<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Error::custom("expected a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(Error::custom("only the names are wanted"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn numbered<'de, T: Deserialize<'de>>() -> Vec<(String, usize)> {
        let mut fields: &[&str] = &[];
        assert!(T::deserialize(Fields(&mut fields)).is_err());
        fields.iter().map(|field| (*field).to_owned()).zip(1..).collect()
    }

    fn coded<T>(
        all: &[T],
        name: impl Fn(&T) -> String,
        code: impl Fn(&T) -> u8,
    ) -> Vec<(String, usize)> {
        all.iter().map(|one| (name(one), usize::from(code(one)))).collect()
    }

    #[test]
    fn the_tables_of_positions_are_the_field_order_of_the_structs() {
        use CallState::*;
        let states = [Denied, Ringing, Answered, Settled, Released, Expired, Ended];
        let reaches =
            [Reach::Full, Reach::Shared, Reach::Exhausted, Reach::SpendLimit, Reach::Velocity];
        let written = |verb: &CallVerb| match verb {
            // `end` is a word of Lua's own.
            CallVerb::End => "finish".to_owned(),
            verb => verb.name().to_owned(),
        };
        let nuances = [Nuance::None, Nuance::TooShort, Nuance::OfTenant];
        let snake = |name: String| {
            let mut snake = String::new();
            for c in name.chars() {
                if c.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            snake
        };
        let expected = BTreeMap::from([
            ("CALL", numbered::<StoredCall>()),
            ("TERMS", numbered::<Terms>()),
            ("SHAPE", numbered::<Shape<'_>>()),
            ("POOL_SHAPE", numbered::<PoolShape<'_>>()),
            ("MONEY_SHAPE", numbered::<MoneyShape<'_>>()),
            ("MONEY_TAKEN", numbered::<MoneyTaken>()),
            ("LOT_LINE", numbered::<LotLine>()),
            ("MONEY_LINE", numbered::<MoneyLine>()),
            ("VELOCITY_LINE", numbered::<VelocityLine>()),
            ("SPEND_RING", numbered::<SpendRing>()),
            ("SLOT", numbered::<Slot>()),
            ("TARIFF", numbered::<Tariff>()),
            ("BUCKET", numbered::<Bucket>()),
            ("WALLET", numbered::<Wallet>()),
            ("RECHARGE", numbered::<Recharge>()),
            ("RECHARGE_TERMS", numbered::<RechargeTerms>()),
            ("RECHARGE_REQUEST", numbered::<RechargeRequest>()),
            ("REPORT_RECHARGE", numbered::<ReportRechargeArgs<'_>>()),
            ("TENANT_ACCOUNT", numbered::<TenantAccount>()),
            ("PAYER_ACCOUNT", numbered::<PayerAccount>()),
            ("AUTHORIZE", numbered::<AuthorizeArgs<'_>>()),
            ("BASIS", numbered::<BasisArgs<'_>>()),
            ("OFFER", numbered::<OfferArgs<'_>>()),
            ("ANSWER", numbered::<AnswerArgs<'_>>()),
            ("EXTEND", numbered::<ExtendArgs<'_>>()),
            ("END", numbered::<EndArgs<'_>>()),
            ("SWEEP", numbered::<SweepArgs>()),
            ("PURCHASE", numbered::<PurchaseArgs<'_>>()),
            ("APPLY_TENANT", numbered::<ApplyTenantArgs<'_>>()),
            ("APPLY_PAYERS", numbered::<ApplyPayersArgs<'_>>()),
            ("PAYER_UPDATE", numbered::<PayerUpdateArgs<'_>>()),
            ("STORED_PAYER", numbered::<StoredPayer>()),
            ("SET_BLOCK", numbered::<SetBlockArgs<'_>>()),
            ("POSITION", numbered::<PositionArgs<'_>>()),
            ("POOL_NAME", numbered::<PoolNameArgs<'_>>()),
            ("ENTRY", numbered::<Entry>()),
            ("POSTING", numbered::<Posting>()),
            ("ADJUSTMENT", numbered::<Adjustment>()),
            ("ADJUST_BALANCE", numbered::<AdjustBalanceArgs<'_>>()),
            ("POOL_OF_MONTH", numbered::<PoolOfMonthArgs<'_>>()),
            ("ADJUST_SETTLEMENT", numbered::<AdjustSettlementArgs<'_>>()),
            ("READER", numbered::<Reader>()),
            ("TAKE_READER", numbered::<TakeReaderArgs<'_>>()),
            ("MOVE_READER", numbered::<MoveReaderArgs<'_>>()),
            ("UPKEEP_STATE", numbered::<Upkeep>()),
            ("BEGIN_REWRITE", numbered::<BeginRewriteArgs<'_>>()),
            ("ADD_REWRITTEN", numbered::<AddRewrittenArgs<'_>>()),
            ("FINISH_REWRITE", numbered::<FinishRewriteArgs<'_>>()),
            ("ABANDON_REWRITE", numbered::<AbandonRewriteArgs<'_>>()),
            ("REPLACE_CONTEXT", numbered::<ReplaceContextArgs<'_>>()),
            ("RESTORE", numbered::<RestoreArgs<'_>>()),
            ("REGRESSED", numbered::<RegressedArgs<'_>>()),
            ("REPLAYED", numbered::<ReplayedArgs<'_>>()),
            ("RESTORED_POOL", numbered::<RestoredPoolArgs<'_>>()),
            ("VERB", coded(CallVerb::ALL, written, |v| *v as u8)),
            ("STATE", coded(&states, |s| s.to_string(), |s| *s as u8)),
            ("REACH", coded(&reaches, |r| snake(format!("{r:?}")), |r| reach_code(*r))),
            ("NUANCE", coded(&nuances, |n| snake(format!("{n:?}")), |n| nuance_code(*n))),
        ]);
        let mut sources = vec![FIELDS, LIB];
        sources.extend(CallVerb::ALL.iter().map(|verb| verb.source()));
        sources.extend(Verb::ALL.iter().map(|verb| verb.script().source));
        let mut found = BTreeMap::new();
        for table in sources.iter().flat_map(|source| source.lines()).filter_map(constant_table) {
            let number = |n: &str| n.parse::<usize>().expect("a number");
            let fields: Vec<_> =
                table.fields.iter().map(|(field, n)| ((*field).to_owned(), number(n))).collect();
            found.insert(table.name, fields);
        }
        assert_eq!(found, expected);
    }

    /// The lines of the comment at the top, without their dashes.
    fn header(source: &'static str) -> Vec<&'static str> {
        let comment = source.lines().take_while(|line| line.starts_with("--"));
        comment.map(|line| line.trim_start_matches('-')).collect()
    }

    /// Every file by its name, with what it says.
    fn sources() -> impl Iterator<Item = (&'static str, &'static str)> {
        let verbs = Verb::ALL.iter().map(|verb| (verb.script().name, verb.script().source));
        verbs.chain(CallVerb::ALL.iter().map(|verb| (verb.name(), verb.source())))
    }

    #[test]
    fn the_header_of_a_script_names_the_keys_that_it_is_given_and_unpacks() {
        for script in Verb::ALL.iter().map(|verb| verb.script()) {
            let listed: Vec<&str> = header(script.source)
                .iter()
                .filter_map(|line| line.strip_prefix(" KEYS["))
                .filter_map(|line| line.split_once("] ")?.1.split_once(':'))
                .map(|(name, _)| name)
                .collect();
            let given: Vec<&str> = script.keys.iter().map(|key| key.name()).collect();
            assert_eq!(listed, given, "{}.lua", script.name);
            let unpacked =
                script.source.lines().find_map(|line| line.strip_suffix(" = unpack(KEYS)"));
            assert_eq!(
                unpacked,
                Some(given.join(", ").to_uppercase().as_str()),
                "{}.lua",
                script.name
            );
        }
    }

    #[test]
    fn the_header_of_a_script_names_the_arguments_that_its_body_reads() {
        for (name, source) in sources() {
            let title = header(source)[0];
            assert!(title.starts_with(&format!(" {name}: ")), "{title}");
        }
        for Script { name, source, .. } in Verb::ALL.iter().map(|verb| verb.script()) {
            let (comment, body) = source.split_once("\n\n").expect("a header and a body");
            for (n, argument) in ["ARGV[1]", "ARGV[2]", "ARGV[3]"].iter().enumerate() {
                let is_listed = comment.contains(argument);
                // A verb without fields reads none; commands of calls are read by `carry_out`.
                let is_read =
                    body.contains(argument) || n == 0 || body.contains("return carry_out(ARGV)");
                assert_eq!(is_listed, is_read, "{argument} of {name}.lua");
            }
        }
        for verb in CallVerb::ALL {
            let (name, header) = (verb.name(), header(verb.source()));
            let told = |what: &str| header.iter().find_map(|line| line.strip_prefix(what));
            let fields = told(" FIELDS those of ").and_then(|line| line.split(';').next());
            assert_eq!(fields, Some(&*name.to_uppercase()), "{name}.lua");
            let is_argument = |line: &&&str| {
                let name = line.trim_start().split(' ').next().unwrap_or_default();
                name.len() > 2 && name.chars().all(|c| c.is_ascii_uppercase())
            };
            let listed = header.iter().filter(is_argument).count();
            let told_to_carry_out = verb
                .source()
                .lines()
                .find_map(|line| line.strip_prefix("arguments_of["))
                .and_then(|line| line.split_once("] = ")?.1.parse().ok());
            assert_eq!(told_to_carry_out, Some(listed), "{name}.lua");
            assert!(listed >= 2, "{name}.lua: answers take the place of two");
        }
    }

    #[test]
    fn the_header_of_a_script_names_its_outcomes_and_the_caller_knows_them() {
        for (name, source) in sources() {
            let outcome = |line: &'static str| Some(line.strip_prefix("   ")?.split_once(": ")?.0);
            let listed: BTreeSet<&str> = header(source).into_iter().filter_map(outcome).collect();
            let answer = |line: &'static str| match ["reply(", "reply_plainly("]
                .iter()
                .find_map(|reply| line.split_once(reply))
            {
                Some((_, answer)) => Some(answer),
                None => line.contains(", now").then_some(line),
            };
            let body = source.lines().filter(|line| !line.starts_with("--"));
            let given: BTreeSet<&str> = body
                .filter_map(answer)
                .flat_map(|answer| answer.split('\'').skip(1).step_by(2))
                .filter(|tag| !tag.is_empty())
                .collect();
            assert_eq!(listed, given, "{name}.lua");
            for tag in listed {
                assert!(CALLER.contains(&format!("\"{tag}\"")), "{tag} of {name}.lua");
            }
        }
    }

    #[test]
    fn the_library_declares_itself_first_and_its_constants_are_folded() {
        let Library { text, functions } = Library::get();
        let prefix = functions[Verb::Calls as usize].strip_suffix("_calls").expect("its name");
        assert!(text.starts_with(&format!("#!lua name={prefix}\n")));
        for verb in Verb::ALL {
            assert!(text.contains(&format!("'{}'", Library::get().function(*verb))), "{verb:?}");
        }
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
        let mut leftover = words.filter(|word| {
            word.split_once('.').is_some_and(|(table, _)| {
                !table.is_empty() && table.chars().all(|c| c.is_ascii_uppercase() || c == '_')
            })
        });
        assert_eq!(leftover.next(), None);
    }

    #[test]
    fn nothing_that_a_command_knew_is_known_to_the_next() {
        let (_, begin) = LIB.split_once("local function begin()").expect("the last function");
        for line in LIB.lines().filter_map(|line| line.strip_prefix("local ")) {
            let (names, value) = line.split_once(" = ").unwrap_or((line, "{}"));
            if names.starts_with("function ") || !value.starts_with("{}") {
                continue;
            }
            for name in names.split(", ") {
                // The clock is read by each; a function may be declared before it is written.
                let written = format!("function {name}(");
                let is_set =
                    name == "now" || LIB.lines().any(|line| line.trim().starts_with(&written));
                assert!(is_set || begin.contains(name), "{name}");
            }
        }
    }
}
