//! How numbers are read, compared with Python's `phonenumbers`: another port of libphonenumber, with its
//! own metadata, that no one here wrote.
//!
//! [`number_oracle/oracle.py`] dials some 58,000 numbers from every country and territory of the
//! catalogue and says what it makes of each. What differs on purpose is in [`EXPLAINED`], with how often
//! it occurs: a difference that is not explained fails, and so does an explanation that no longer holds.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use tollgate::charging::catalogue::{self, CountryCode};
use tollgate::charging::number::{self, NumberError, NumberType};

use crate::stock_client::tool;

/// Fewest national digits of a number that the metadata does not hold valid; see `number.rs`.
const FEWEST_DIGITS: usize = 7;

/// A number as dialled, and what the oracle makes of it.
struct Case {
    context: CountryCode,
    dialled: String,
    verdict: Verdict,
    e164: String,
    country: Option<CountryCode>,
    number_type: NumberType,
    national_digits: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Valid,
    Possible,
    Short,
    Unstable,
    Invalid,
}

/// What a dialled text is read as.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reading {
    Number(String, Option<CountryCode>, NumberType),
    Refused(NumberError),
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reading::Number(e164, country, number_type) => {
                let country = country.map_or("no country".to_owned(), |c| c.to_string());
                write!(f, "{e164} {country} {number_type}")
            }
            Reading::Refused(NumberError::TooShort) => f.write_str("too short"),
            Reading::Refused(NumberError::Invalid) => f.write_str("invalid"),
        }
    }
}

impl Case {
    fn read(line: &str) -> Case {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[context, dialled, verdict, e164, country, number_type, national_digits] =
            fields.as_slice()
        else {
            panic!("not seven fields: {line:?}")
        };
        Case {
            context: CountryCode::parse(context).expect("a country of the catalogue"),
            dialled: dialled.to_owned(),
            verdict: match verdict {
                "valid" => Verdict::Valid,
                "possible" => Verdict::Possible,
                "short" => Verdict::Short,
                "unstable" => Verdict::Unstable,
                "invalid" => Verdict::Invalid,
                other => panic!("no verdict: {other:?}"),
            },
            e164: e164.to_owned(),
            country: (!country.is_empty())
                .then(|| CountryCode::parse(country).unwrap_or_else(|| panic!("no {country}"))),
            number_type: serde_json::from_value(number_type.into()).expect("a type"),
            national_digits: national_digits.parse().expect("a count"),
        }
    }

    /// What we are to make of it, by the one rule that is ours: a number that the metadata does not hold
    /// valid is accepted with an unknown type where its length is possible, it has enough digits, its
    /// calling code names a country, and its E.164 form is read as the same number.
    fn expected(&self) -> Reading {
        let number = |number_type| Reading::Number(self.e164.clone(), self.country, number_type);
        match self.verdict {
            Verdict::Valid => number(self.number_type),
            Verdict::Possible | Verdict::Unstable if self.national_digits < FEWEST_DIGITS => {
                Reading::Refused(NumberError::TooShort)
            }
            Verdict::Possible if self.country.is_some() => number(NumberType::Unknown),
            Verdict::Short => Reading::Refused(NumberError::TooShort),
            Verdict::Possible | Verdict::Unstable | Verdict::Invalid => {
                Reading::Refused(NumberError::Invalid)
            }
        }
    }

    fn found(&self) -> Reading {
        match number::read(&self.dialled, self.context) {
            Ok(number) => Reading::Number(number.e164(), number.country, number.number_type),
            Err(error) => Reading::Refused(error),
        }
    }
}

/// What the oracle says of the catalogue, asked once.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(asked);

fn asked() -> Vec<Case> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/number_oracle/oracle.py");
    let mut child = Command::new(tool("python3"))
        .arg(script)
        .env_remove("PYTHONPATH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let countries: String = catalogue::countries()
        .iter()
        .map(|country| format!("{} {}\n", country.code, country.calling_code))
        .collect();
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(countries.as_bytes()).expect("the oracle reads the countries");
    drop(stdin);
    let output = child.wait_with_output().expect("the oracle ends");
    assert!(output.status.success(), "the oracle failed: run `make tools`");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(Case::read).collect()
}

/// A kind of difference that is on purpose.
struct Explained {
    reason: &'static str,
    /// How many cases differ so: another number means that one side reads otherwise than before.
    cases: usize,
    applies: fn(&Case, &Reading, &Reading) -> bool,
}

use NumberError::{Invalid, TooShort};
use Reading::{Number, Refused};

const EXPLAINED: &[Explained] = &[
    Explained {
        reason: "North America: an area code that nobody has, or a first digit that none begins with. Ten \
                 digits are all that the metadata asks for; the table of area codes is complete.",
        cases: 3990,
        applies: |_, oracle, ours| {
            let Number(e164, _, NumberType::Unknown) = oracle else { return false };
            e164.starts_with("+1") && e164.len() == 12 && *ours == Refused(Invalid)
        },
    },
    Explained {
        reason: "North America: a 1 and nine digits lack one. The metadata takes the 1 for the beginning of \
                 an area code, which none has.",
        cases: 56,
        applies: |_, oracle, ours| {
            let Number(e164, _, NumberType::Unknown) = oracle else { return false };
            e164.starts_with("+11") && *ours == Refused(TooShort)
        },
    },
    Explained {
        reason: "North America: a number in no range that the metadata knows has the country of its area \
                 code, and the type of most there.",
        cases: 356,
        applies: |_, oracle, ours| {
            let (
                Number(e164, country, NumberType::Unknown),
                Number(e164_too, country_too, of_most),
            ) = (oracle, ours)
            else {
                return false;
            };
            e164.starts_with("+1")
                && (e164, country) == (e164_too, country_too)
                && *of_most == NumberType::FixedLineOrMobile
        },
    },
    Explained {
        reason: "North America: toll-free and premium numbers are shared by all countries there. The \
                 metadata lists them under the US, we under the caller's country.",
        cases: 396,
        applies: |case, oracle, ours| {
            let (Number(e164, us, number_type), Number(e164_too, country, type_too)) =
                (oracle, ours)
            else {
                return false;
            };
            (e164, number_type) == (e164_too, type_too)
                && matches!(number_type, NumberType::TollFree | NumberType::PremiumRate)
                && (*us, *country) == (Some(CountryCode::US), Some(case.context))
        },
    },
    Explained {
        reason: "North America: a second 1 behind the first is no part of a number. libphonenumber takes it \
                 for a trunk prefix behind the calling code.",
        cases: 29,
        applies: |case, oracle, ours| {
            matches!(oracle, Number(e164, ..) if e164.starts_with("+1"))
                && case.dialled.trim_start_matches('+').starts_with("11")
                && *ours == Refused(Invalid)
        },
    },
    Explained {
        reason: "Canada: 310 and four digits are a number of seven digits that is dialled there alone; no \
                 trunk carries it as +1 310 xxxx.",
        cases: 14,
        applies: |_, oracle, ours| {
            let Number(e164, _, NumberType::Uan) = oracle else { return false };
            e164.starts_with("+1310") && e164.len() == 9 && *ours == Refused(TooShort)
        },
    },
    Explained {
        reason: "E.164 has 15 digits at most; the metadata lets a few plans have more.",
        cases: 15,
        applies: |_, oracle, ours| {
            matches!(oracle, Number(e164, ..) if e164.len() > 16) && *ours == Refused(Invalid)
        },
    },
    Explained {
        reason: "A plus is followed by a calling code, never by a 0. libphonenumber then tries the digits \
                 without the plus.",
        cases: 10,
        applies: |case, _, ours| case.dialled.starts_with("+0") && *ours == Refused(Invalid),
    },
    Explained {
        reason: "Up to three digits are the beginning of a number (SIP 484), also where the oracle looks \
                 for a calling code in them and finds none.",
        cases: 756,
        applies: |case, oracle, ours| {
            case.dialled.trim_start_matches('+').len() < 4
                && (oracle, ours) == (&Refused(Invalid), &Refused(TooShort))
        },
    },
];

/// Where the differences are listed, each with its explanation.
const LIST: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/number_oracle_differences.tsv");

#[test]
fn numbers_are_read_as_an_independent_port_of_libphonenumber_reads_them() {
    let cases = &*CASES;
    let mut found = vec![0; EXPLAINED.len()];
    let mut unexplained = vec![];
    let mut list = "context\tdialled\toracle\ttollgate\treason\n".to_owned();
    for case in cases {
        let (oracle, ours) = (case.expected(), case.found());
        if oracle == ours {
            continue;
        }
        let reasons = EXPLAINED.iter().position(|known| (known.applies)(case, &oracle, &ours));
        let reason = match reasons {
            Some(known) => {
                found[known] += 1;
                EXPLAINED[known].reason
            }
            None => "NOT EXPLAINED",
        };
        let line = format!("{}\t{}\t{oracle}\t{ours}\t{reason}\n", case.context, case.dialled);
        list.push_str(&line);
        if reasons.is_none() {
            unexplained.push(line);
        }
    }
    std::fs::write(LIST, list).expect("the list is written");
    let total = unexplained.len();
    unexplained.truncate(40);
    assert!(total == 0, "{total} differences, all in {LIST}:\n{}", unexplained.concat());
    for (known, found) in EXPLAINED.iter().zip(found) {
        assert_eq!(found, known.cases, "see {LIST}; cases of: {}", known.reason);
    }
}

#[test]
fn the_oracle_dials_every_kind_of_number_from_every_country_of_the_catalogue() {
    let cases = &*CASES;
    assert!(cases.len() > 50_000, "{}", cases.len());
    let from: BTreeSet<CountryCode> = cases.iter().map(|case| case.context).collect();
    assert_eq!(from.len(), catalogue::countries().len());
    let valid = || cases.iter().filter(|case| case.verdict == Verdict::Valid);
    let types: BTreeSet<String> = valid().map(|case| case.number_type.to_string()).collect();
    assert_eq!(types.len(), 11, "{types:?}");
    // All regions of the metadata but two, whose ranges it gives to a neighbour first: EH and MF.
    let to: BTreeSet<CountryCode> = valid().filter_map(|case| case.country).collect();
    assert_eq!(to.len(), 243);
    for world in ["+800", "+808", "+870", "+878", "+881", "+882", "+883", "+888", "+979"] {
        assert!(valid().any(|case| case.e164.starts_with(world)), "{world}");
    }
}
