//! Which licences may stand together, and where (rules 14, 34, 55, 65, 75).

use crate::charging::catalogue::{self, CountryCode, Licence};
use crate::charging::profile::PayerKind;

/// A licence that may not be assigned as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misassigned {
    /// Which.
    pub licence: Licence,
    /// What is missing, with the rule that asks for it.
    pub reason: String,
}

/// Plans that need a phone system.
const CALLING_PLANS: [Licence; 8] = [
    Licence::Domestic,
    Licence::DomesticAndInternational,
    Licence::Domestic120,
    Licence::Domestic240,
    Licence::Domestic120PerUser,
    Licence::International,
    Licence::PayAsYouGo1,
    Licence::PayAsYouGo2,
];

/// Plans with domestic minutes.
const DOMESTIC_PLANS: [Licence; 5] = [
    Licence::Domestic,
    Licence::DomesticAndInternational,
    Licence::Domestic120,
    Licence::Domestic240,
    Licence::Domestic120PerUser,
];

/// Every rule that the licences of one payer break, in the order of the licences.
///
/// A pay-as-you-go licence outside its zone is none: it may be held, and opens nothing (D25).
pub fn misassigned(
    kind: PayerKind,
    usage_location: CountryCode,
    licences: &[Licence],
) -> Vec<Misassigned> {
    let holds = |licence: Licence| licences.contains(&licence);
    let holds_any = |of: &[Licence]| of.iter().any(|&licence| holds(licence));
    let phone_system = match kind {
        PayerKind::ResourceAccount => Licence::ResourceAccount,
        _ => Licence::PhoneSystem,
    };
    let has_calling_plan = holds(phone_system) && holds_any(&CALLING_PLANS);
    let mut found = vec![];
    for &licence in licences {
        let mut add = |reason: String| found.push(Misassigned { licence, reason });
        if CALLING_PLANS.contains(&licence) && !holds(phone_system) {
            add(format!("{licence} needs {phone_system} (rule 75)"));
        }
        if is_sold_by_country(licence) && licence.plan_minutes(usage_location).is_none() {
            add(format!("{licence} is not sold in {usage_location} (rule 8)"));
        }
        match licence {
            Licence::International if !holds_any(&DOMESTIC_PLANS) => {
                add(format!("{licence} needs a domestic plan (rule 14)"));
            }
            Licence::ExtendedDialOut if !holds(Licence::AudioConferencing) => {
                add(format!("{licence} needs {} (rule 65)", Licence::AudioConferencing));
            }
            Licence::CommunicationsCredits => {
                let conferencing = Licence::AudioConferencing;
                if !holds(conferencing) && !has_calling_plan {
                    add(format!(
                        "{licence} needs {conferencing}, or {phone_system} and a calling plan \
                         (rule 34)"
                    ));
                }
                if !catalogue::country(usage_location).is_some_and(|country| country.credits) {
                    add(format!("{licence} cannot be used in {usage_location} (rule 55)"));
                }
            }
            _ => {}
        }
    }
    found
}

/// Whether the tables say where it is sold.
fn is_sold_by_country(licence: Licence) -> bool {
    CALLING_PLANS.contains(&licence)
        && !matches!(licence, Licence::PayAsYouGo1 | Licence::PayAsYouGo2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: PayerKind, location: &str, licences: &str, expected: &[&str]) {
        let location = CountryCode::parse(location).expect("a country");
        let licences: Vec<Licence> = licences
            .split_whitespace()
            .map(|code| Licence::parse(code).expect("a licence"))
            .collect();
        let found = misassigned(kind, location, &licences);
        let reasons: Vec<&str> = found.iter().map(|broken| broken.reason.as_str()).collect();
        assert_eq!(reasons, expected, "{licences:?} in {location}");
    }

    #[test]
    fn a_calling_plan_needs_a_phone_system() {
        check(PayerKind::User, "US", "MCOEV MCOPSTN1", &[]);
        check(PayerKind::User, "US", "MCOPSTN1", &["MCOPSTN1 needs MCOEV (rule 75)"]);
        check(PayerKind::ResourceAccount, "US", "MCOEV_VIRTUALUSER MCOPSTN_PAYG_1", &[]);
        let expected = ["MCOPSTN_PAYG_1 needs MCOEV_VIRTUALUSER (rule 75)"];
        check(PayerKind::ResourceAccount, "US", "MCOPSTN_PAYG_1", &expected);
    }

    #[test]
    fn a_plan_is_assigned_only_where_it_is_sold() {
        check(PayerKind::User, "FR", "MCOEV MCOPSTN2", &[]);
        let expected = ["MCOPSTN1 is not sold in ZW (rule 8)"];
        check(PayerKind::User, "ZW", "MCOEV MCOPSTN1", &expected);
        // The partner's plans carry no minutes here (rule 80).
        let expected = ["MCOPSTN1 is not sold in JP (rule 8)"];
        check(PayerKind::User, "JP", "MCOEV MCOPSTN1", &expected);
    }

    #[test]
    fn credits_need_something_to_pay_for_and_a_country_that_has_them() {
        check(PayerKind::User, "US", "MCOMEETADD MCOPSTNPP", &[]);
        check(PayerKind::User, "US", "MCOEV MCOPSTN5 MCOPSTNPP", &[]);
        let alone = "MCOPSTNPP needs MCOMEETADD, or MCOEV and a calling plan (rule 34)";
        check(PayerKind::User, "US", "MCOPSTNPP", &[alone]);
        check(PayerKind::User, "US", "MCOEV MCOPSTNPP", &[alone]);
        let nowhere = "MCOPSTNPP cannot be used in KR (rule 55)";
        check(PayerKind::User, "KR", "MCOMEETADD MCOPSTNPP", &[nowhere]);
    }

    #[test]
    fn add_ons_need_what_they_add_to() {
        let expected = ["MCOPSTN9 needs a domestic plan (rule 14)"];
        check(PayerKind::User, "US", "MCOEV MCOPSTN9", &expected);
        check(PayerKind::User, "US", "MCOEV MCOPSTN5 MCOPSTN9", &[]);
        let expected = ["MCOMEETADD_DIALOUT_US needs MCOMEETADD (rule 65)"];
        check(PayerKind::User, "US", "MCOMEETADD_DIALOUT_US", &expected);
    }
}
