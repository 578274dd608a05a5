//! Which events are told, by the contract's names.

use crate::events::EventKind;

/// Declares every kind of event: its name in the contract, and whether a channel tells it unless the
/// settings say otherwise. A kind that is missing here does not compile.
macro_rules! kinds {
    ($($kind:ident, $name:literal, webhook $webhook:literal, mail $mail:literal;)*) => {
        const ALL: &[(EventKind, &str, bool, bool)] =
            &[$((EventKind::$kind, $name, $webhook, $mail)),*];

        /// Its name in the contract, such as `POOL_EXHAUSTED`.
        pub fn name(kind: EventKind) -> &'static str {
            match kind { $(EventKind::$kind => $name),* }
        }
    };
}

kinds! {
    CallSettled, "CALL_SETTLED", webhook false, mail false;
    CallDenied, "CALL_DENIED", webhook false, mail false;
    CallExpired, "CALL_EXPIRED", webhook false, mail false;
    LateSettle, "LATE_SETTLE", webhook false, mail false;
    RechargeRequested, "RECHARGE_REQUESTED", webhook true, mail false;
    RechargeSucceeded, "RECHARGE_SUCCEEDED", webhook true, mail true;
    RechargeFailed, "RECHARGE_FAILED", webhook true, mail true;
    CreditsDepleted, "CREDITS_DEPLETED", webhook true, mail true;
    CreditsExpired, "CREDITS_EXPIRED", webhook false, mail false;
    PoolThreshold, "POOL_THRESHOLD", webhook true, mail true;
    PoolExhausted, "POOL_EXHAUSTED", webhook true, mail true;
    Shortfall, "SHORTFALL", webhook false, mail false;
    // One a call: a trunk that does not ask would fill a mailbox.
    UnauthorizedUsage, "UNAUTHORIZED_USAGE", webhook true, mail false;
    EmergencyCall, "EMERGENCY_CALL", webhook false, mail false;
    LedgerRegressed, "LEDGER_REGRESSED", webhook true, mail false;
}

/// The kinds that a channel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(Vec<EventKind>);

impl Kinds {
    /// None at all.
    pub const NONE: Kinds = Kinds(vec![]);

    /// What a webhook tells where nothing else is set.
    pub fn of_webhooks() -> Kinds {
        Kinds(ALL.iter().filter(|(_, _, webhook, _)| *webhook).map(|kind| kind.0).collect())
    }

    /// What a mail tells where nothing else is set.
    pub fn of_mails() -> Kinds {
        Kinds(ALL.iter().filter(|(_, _, _, mail)| *mail).map(|kind| kind.0).collect())
    }

    /// `default`, `all`, or names separated by commas; the names of unknown kinds are an error.
    pub fn parse(text: &str, default: Kinds) -> Result<Kinds, String> {
        match text.trim() {
            "default" => return Ok(default),
            "all" => return Ok(Kinds(ALL.iter().map(|kind| kind.0).collect())),
            _ => {}
        }
        let find = |name: &str| {
            let found = ALL.iter().find(|(_, known, _, _)| *known == name);
            found.map(|kind| kind.0).ok_or_else(|| name.to_owned())
        };
        let (mut kinds, mut unknown) = (vec![], vec![]);
        for name in text.split(',').map(str::trim) {
            match find(name) {
                Ok(kind) => kinds.push(kind),
                Err(name) => unknown.push(name),
            }
        }
        if unknown.is_empty() {
            return Ok(Kinds(kinds));
        }
        let known: Vec<&str> = ALL.iter().map(|(_, name, _, _)| *name).collect();
        Err(format!(
            "expected default, all, or names separated by commas, of {}; found {unknown:?}",
            known.join(", ")
        ))
    }

    /// Whether it is told.
    pub fn contains(&self, kind: EventKind) -> bool {
        self.0.contains(&kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_chosen_by_name_and_none_is_ignored_silently() {
        let parse = |text| Kinds::parse(text, Kinds::of_mails());
        assert_eq!(parse("default"), Ok(Kinds::of_mails()));
        assert_eq!(
            parse("POOL_EXHAUSTED, SHORTFALL"),
            Ok(Kinds(vec![EventKind::PoolExhausted, EventKind::Shortfall]))
        );
        let all = parse("all").expect("a word");
        for (kind, told, _, _) in ALL {
            assert!(all.contains(*kind));
            assert_eq!((name(*kind), parse(told)), (*told, Ok(Kinds(vec![*kind]))));
        }
        for (text, unknown) in
            [("", "[\"\"]"), ("POOL_EXHAUSTED,x,SHORTFAL", "[\"x\", \"SHORTFAL\"]")]
        {
            let error = parse(text).expect_err("a name is unknown");
            assert!(error.ends_with(&format!("; found {unknown}")), "{error}");
        }
    }

    #[test]
    fn what_administrators_must_know_is_told_without_settings() {
        for kind in [EventKind::CreditsDepleted, EventKind::PoolThreshold, EventKind::PoolExhausted]
        {
            assert!(Kinds::of_mails().contains(kind) && Kinds::of_webhooks().contains(kind));
        }
        assert!(!Kinds::of_webhooks().contains(EventKind::CallSettled));
    }
}
