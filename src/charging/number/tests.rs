use proptest::prelude::*;

use super::NumberError::{Invalid, TooShort};
use super::*;

fn code(text: &str) -> CountryCode {
    CountryCode::parse(text).unwrap_or_else(|| panic!("{text} is assigned"))
}

#[track_caller]
fn check(context: &str, dialled: &str, e164: &str, country: &str, number_type: NumberType) {
    let number = read(dialled, code(context)).unwrap_or_else(|e| panic!("{dialled:?}: {e}"));
    let country = (!country.is_empty()).then(|| code(country));
    let found = (number.e164(), number.country, number.number_type);
    assert_eq!(found, (e164.to_owned(), country, number_type), "{dialled:?} in {context}");
    assert_eq!(read(&number.e164(), code(context)), Ok(number), "E.164 reads back as itself");
}

#[track_caller]
fn check_refused(context: &str, dialled: &str, error: NumberError) {
    assert_eq!(read(dialled, code(context)), Err(error), "{dialled:?} in {context}");
}

use NumberType::*;

#[test]
fn the_tables_are_read() {
    let codes = parse_area_codes().expect("area codes");
    assert_eq!(codes.iter().filter(|c| matches!(c, AreaCode::Of(_))).count(), 441);
    let emergency = parse_emergency().expect("emergency numbers");
    assert_eq!(emergency.of.iter().filter(|of| !of.is_empty()).count(), 240);
}

#[test]
fn area_codes_tell_the_countries_of_north_america_apart() {
    for (number, country) in [
        ("+14255550100", "US"),
        ("+12025550123", "US"),
        ("+14165550100", "CA"),
        ("+16045550100", "CA"),
        ("+17875550100", "PR"),
        ("+19395550100", "PR"),
        ("+18765550100", "JM"),
        ("+16585550100", "JM"),
        ("+18095550100", "DO"),
        ("+18295550100", "DO"),
        ("+18495550100", "DO"),
        ("+12425550100", "BS"),
        ("+17215550100", "SX"),
        ("+13405550100", "VI"),
        ("+16715550100", "GU"),
    ] {
        let number_type = match number {
            "+18765550100" => Mobile,
            "+16585550100" => FixedLine,
            _ => FixedLineOrMobile,
        };
        for context in ["US", "JM", "DE"] {
            check(context, number, number, country, number_type);
        }
    }
}

#[test]
fn north_american_numbers_have_the_type_of_their_range_where_it_is_known() {
    check("US", "+1 246 976 1234", "+12469761234", "BB", PremiumRate);
    check("US", "+1 246 310 1234", "+12463101234", "BB", Voip);
    check("US", "+1 868 619 1234", "+18686191234", "TT", Voicemail);
    check("US", "+1 876 210 1234", "+18762101234", "JM", Mobile);
    check("US", "+1 721 542 1234", "+17215421234", "SX", FixedLine);
    // In no range that is known.
    check("US", "+1 242 555 0100", "+12425550100", "BS", FixedLineOrMobile);
    assert!(read("+12469761234", CountryCode::US).expect("a number").is_premium());
}

#[test]
fn the_dominican_republic_has_toll_free_numbers_with_a_0_or_1_in_fourth_place() {
    check("DO", "809 001 4077", "+18090014077", "DO", TollFree);
    check("US", "+1 829 101 4077", "+18291014077", "DO", TollFree);
    check_refused("US", "+1 425 101 4077", Invalid);
}

#[test]
fn north_america_dials_ten_digits_with_or_without_a_one() {
    for dialled in [
        "4255550100",
        "14255550100",
        "+14255550100",
        "(425) 555-0100",
        "1-425-555-0100",
        "425.555.0100",
        "0111 425 555 0100",
        "tel:+1-425-555-0100",
        "TEL:4255550100;ext=12",
        "tel:5550100;phone-context=+1425",
        "tel:+14255550100;phone-context=+44",
        "sip:+14255550100@sbc.example.com;user=phone",
        "sips:14255550100;phone-context=example.com@10.0.0.1",
    ] {
        for context in ["US", "CA", "PR", "JM"] {
            check(context, dialled, "+14255550100", "US", FixedLineOrMobile);
        }
    }
}

#[test]
fn international_prefixes_are_those_of_the_country_dialled_from() {
    check("US", "011 44 20 7946 0958", "+442079460958", "GB", FixedLine);
    check("GB", "020 7946 0958", "+442079460958", "GB", FixedLine);
    check("GB", "+44 (0)20 7946 0958", "+442079460958", "GB", FixedLine);
    check("DE", "00 1 425 555 0100", "+14255550100", "US", FixedLineOrMobile);
    check("AU", "0011 1 787 555 0100", "+17875550100", "PR", FixedLineOrMobile);
    check("JP", "010 33 1 42 68 53 00", "+33142685300", "FR", FixedLine);
    check("FR", "01 42 68 53 00", "+33142685300", "FR", FixedLine);
    check("GN", "00 1 876 555 0100", "+18765550100", "JM", Mobile);
    check_refused("US", "0044 20 7946 0958", Invalid);
    check_refused("DE", "+0014255550100", Invalid);
}

#[test]
fn leading_zeros_that_belong_to_the_number_stay() {
    check("IT", "06 6982 1234", "+390669821234", "VA", FixedLine);
    check("IT", "02 3661 8300", "+390236618300", "IT", FixedLine);
    check("US", "011 39 02 3661 8300", "+390236618300", "IT", FixedLine);
}

#[test]
fn territories_that_share_a_calling_code_are_told_apart() {
    check("GB", "01481 712345", "+441481712345", "GG", FixedLine);
    check("GB", "+44 7624 412345", "+447624412345", "IM", Mobile);
    check("US", "+7 727 258 1234", "+77272581234", "KZ", FixedLine);
    check("US", "+7 495 123 45 67", "+74951234567", "RU", FixedLine);
    check("US", "+599 9 461 1234", "+59994611234", "CW", FixedLine);
    check("AN", "+1 721 542 1234", "+17215421234", "SX", FixedLine);
}

#[test]
fn a_number_of_possible_length_in_no_known_range_is_accepted_with_its_country() {
    // Ofcom keeps 07700 900xxx free for drama; the metadata knows no such mobile range.
    check("US", "+44 7700 900123", "+447700900123", "GB", Unknown);
    check("GB", "07700 900123", "+447700900123", "GB", Unknown);
    check("GG", "07700 900123", "+447700900123", "GB", Unknown);
}

#[test]
fn digits_that_nobody_could_send_on_are_no_number() {
    // A trunk prefix dialled twice: the zero behind the calling code would be dropped by whoever reads the
    // number next, and the record would name another number than the network was given.
    check_refused("TW", "000500555040", Invalid);
    // In a range, for whoever keeps to the letter of it.
    check_refused("TJ", "000000000", Invalid);
    check("TW", "0500555040", "+886500555040", "TW", Uan);
}

#[test]
fn toll_free_north_america_belongs_to_the_callers_country_there_else_to_the_us() {
    for area in ["800", "833", "844", "855", "866", "877", "888"] {
        let number = format!("+1{area}5550199");
        check("US", &number, &number, "US", TollFree);
        check("CA", &number, &number, "CA", TollFree);
        check("DE", &number, &number, "US", TollFree);
    }
    check("US", "1-800-555-0199", "+18005550199", "US", TollFree);
}

#[test]
fn premium_numbers_are_known_as_such() {
    check("US", "1 900 555 0100", "+19005550100", "US", PremiumRate);
    check("FR", "0899 12 34 56", "+33899123456", "FR", PremiumRate);
    check("GB", "0906 123 4567", "+449061234567", "GB", PremiumRate);
    check("GB", "0845 123 4567", "+448451234567", "GB", PremiumRate);
    check("DE", "0180 1234567", "+491801234567", "DE", SharedCost);
    for (dialled, premium) in [
        ("+33899123456", true),
        ("+448451234567", true),
        ("+448731234567", true),
        ("+449061234567", true),
        ("+19005550100", true),
        ("+442079460958", false),
        ("+448001234567", false),
        ("+14255550100", false),
    ] {
        let number = read(dialled, CountryCode::US).expect("a number");
        assert_eq!(number.is_premium(), premium, "{dialled}");
    }
}

#[test]
fn numbers_of_the_world_have_no_country() {
    check("US", "+800 1234 5678", "+80012345678", "", TollFree);
    check("DE", "00 800 1234 5678", "+80012345678", "", TollFree);
    check("US", "+870 773 111 632", "+870773111632", "", Mobile);
    check("US", "+979 123 456 789", "+979123456789", "", PremiumRate);
    check_refused("US", "+999 1234 5678", Invalid);
}

#[test]
fn unassigned_area_codes_are_refused_unless_the_metadata_knows_them() {
    check_refused("US", "+12115550100", Invalid);
    check_refused("US", "+19115550100", Invalid);
    check_refused("US", "+19995550100", Invalid);
    check("US", "+15002345678", "+15002345678", "US", PersonalNumber);
}

#[test]
fn what_is_too_short_or_no_number_is_refused_with_the_difference() {
    for dialled in ["", "+", "1", "5550100", "425555010", "1425555010", "+1425555010", "tel:", "-"]
    {
        check_refused("US", dialled, TooShort);
    }
    for dialled in ["0", "01", "020", "+44", "+4420", "+4420794"] {
        check_refused("GB", dialled, TooShort);
    }
    for dialled in ["118", "11880"] {
        check_refused("DE", dialled, TooShort);
    }
    let long = "1".repeat(10_000);
    for dialled in [
        "+142555501000",
        "+1 125 555 0100",
        "+1 425 155 0100",
        "1800FLOWERS",
        "+1 425 555 0100 ext 5",
        "++14255550100",
        "+1425+5550100",
        "*67 4255550100",
        "4255550100#",
        "4255550100\n",
        "\u{ff0b}14255550100",
        "+１4255550100",
        "mailto:+14255550100",
        "http://14255550100",
        long.as_str(),
    ] {
        check_refused("US", dialled, Invalid);
    }
    check_refused("GB", "+44 20 7946 0958 1234", Invalid);
}

#[test]
fn toll_free_is_free_only_in_the_payers_own_numbering_plan() {
    for (dialled, payer, free) in [
        ("+18005550199", "US", true),
        ("+18005550199", "CA", true),
        ("+18005550199", "JM", true),
        ("+18005550199", "GB", false),
        ("+448001234567", "GB", true),
        ("+448001234567", "GG", true),
        ("+448001234567", "US", false),
        ("+80012345678", "US", false),
        ("+14255550100", "US", false),
        // Under an area code of one country: free there alone.
        ("+18688001234", "TT", true),
        ("+18688001234", "US", false),
        ("+18090014077", "DO", true),
        ("+18090014077", "CA", false),
    ] {
        let number = read(dialled, code(payer)).expect("a number");
        assert_eq!(toll_free_of_own_plan(&number, code(payer)), free, "{dialled} paid by {payer}");
    }
}

#[test]
fn every_example_of_the_metadata_reads_as_its_own_country_and_type() {
    for region in PHONE_NUMBER_UTIL.get_supported_regions() {
        let Ok(example) = PHONE_NUMBER_UTIL.get_example_number(region) else { continue };
        // Not always `region`: the examples of BL and MF are each other's and those of GP.
        let country = country_of(&example).expect("every example has a country");
        let e164 = example.format_as(rlibphonenumber::PhoneNumberFormat::E164);
        let number = read(&e164, CountryCode::US).unwrap_or_else(|e| panic!("{e164}: {e}"));
        assert_eq!((number.e164().as_str(), number.country), (&*e164, Some(country)));
        if example.country_code != 1 {
            assert_eq!(number.number_type, self::number_type(example.get_type()), "{e164}");
        }
        let national = example.format_as(rlibphonenumber::PhoneNumberFormat::National);
        assert_eq!(read(&national, country), Ok(number), "{national} in {country}");
    }
}

#[track_caller]
fn check_emergency(dialled: &str, country: &str, expected: bool) {
    let country = (!country.is_empty()).then(|| code(country));
    assert_eq!(is_emergency(dialled, country), expected, "{dialled:?} in {country:?}");
}

#[test]
fn emergency_numbers_are_those_of_the_country() {
    for (country, yes, no) in [
        ("US", vec!["911", "112"], vec!["999", "000", "110", "9111", "91", ""]),
        ("GB", vec!["999", "112"], vec!["000", "101"]),
        ("AU", vec!["000", "112", "106"], vec!["00", "0000", "0"]),
        ("DE", vec!["110", "112"], vec!["999", "0112"]),
        ("FR", vec!["15", "17", "18", "112"], vec!["015", "5"]),
        ("SE", vec!["112", "90000"], vec!["9000"]),
        ("LT", vec!["01", "011", "112"], vec!["1", "11"]),
        // 112 and 911 for everybody, whatever the list of the country says.
        ("UG", vec!["999", "112", "911"], vec!["000"]),
        ("", vec!["112", "911"], vec!["999", "110"]),
        // Without an entry: as if the country were unknown.
        ("GQ", vec!["112", "911"], vec!["999"]),
    ] {
        for number in yes {
            check_emergency(number, country, true);
            check_emergency(&format!("+{number}"), country, true);
            check_emergency(&format!("tel:{number}"), country, true);
            check_emergency(&format!("sip:{number}@sbc.example.com;user=phone"), country, true);
        }
        for number in no {
            check_emergency(number, country, false);
            check_emergency(&format!("+{number}"), country, false);
        }
    }
}

#[test]
fn only_the_whole_number_is_an_emergency_number() {
    let long = "9".repeat(10_000);
    let separated = "-".repeat(10_000) + "911";
    let spaced = " ".repeat(10_000) + "911";
    for dialled in [
        "+9111234567",
        "+911 1234",
        "+1911",
        "++911",
        "911\n",
        "911\u{0}",
        "911;ext=1",
        "911@host",
        "９１１",
        "911a",
        "tel:",
        "tel:+",
        "sip:@host",
        "sip:alice@911",
        "urn:service:sosx",
        "urn:service:test.sos",
        "urn:service:so",
        long.as_str(),
        separated.as_str(),
        spaced.as_str(),
        " ",
        "tel: ",
    ] {
        check_emergency(dialled, "US", false);
        check_emergency(dialled, "", false);
        assert!(!is_emergency_anywhere(dialled), "{dialled:?}");
    }
}

#[test]
fn sos_urns_and_separated_digits_are_emergencies_everywhere() {
    for dialled in [
        "urn:service:sos",
        "URN:Service:SOS",
        "urn:service:sos.fire",
        "urn:service:sos.animal-control",
        "SIP:911@host",
        "sips:+911@host",
        "tel:+911;phone-context=+1",
        "9-1-1",
        "911 ",
        " 911",
        "9 1 1",
        "9\t11",
        " +911",
        "tel:9 1 1",
        " tel: +911 ",
        "sip: 911 @host",
    ] {
        check_emergency(dialled, "US", true);
        check_emergency(dialled, "", true);
        assert!(is_emergency_anywhere(dialled), "{dialled:?}");
    }
    for dialled in ["999", "000", "110", "+15", "90000", "10111"] {
        assert!(is_emergency_anywhere(dialled), "{dialled:?}");
    }
    assert!(!is_emergency_anywhere("+14255550100"));
}

#[test]
fn masking_keeps_the_first_part_and_hides_the_last_four_characters() {
    for (number, expected) in [
        ("+14255550100", "+1425555****"),
        ("911", "***"),
        ("", ""),
        ("sip:+14255550100@10.0.0.1", "sip:+1425555****"),
        ("tel:+14255550100;ext=9", "tel:+1425555****"),
        ("+1425\u{1b}[31m0100", "+1425?[31m****"),
        ("é12345", "?1****"),
    ] {
        assert_eq!(masked(number), expected, "{number:?}");
    }
    assert_eq!(masked(&"1".repeat(10_000)), "11111111111111111111****");
    let number = read("+14255550100", CountryCode::US).expect("a number");
    assert_eq!(format!("{number:?}"), "+1425555**** Some(US) FixedLineOrMobile");
}

#[test]
fn warming_up_meets_no_pattern_that_cannot_be_compiled() {
    warm_up();
}

/// Texts that look like dialled numbers, and texts that do not.
fn dialled() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{0,20}",
        "\\+?[0-9]{0,20}",
        "(00|011|0011|0|1|\\+)[1-9][0-9]{0,16}",
        "(tel:|sip:|sips:)?\\+?[-0-9. ()]{0,24}(;[a-z-]{0,13}=\\+?[0-9]{0,4})?(@[a-z0-9.]{0,9})?",
        "\\PC{0,70}",
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn reading_never_panics_and_what_is_read_is_e164(text in dialled(), country in 0usize..253) {
        let context = catalogue::countries()[country].code;
        is_emergency(&text, Some(context));
        is_emergency_anywhere(&text);
        masked(&text);
        if let Ok(number) = read(&text, context) {
            let digits = number.digits();
            prop_assert!((5..=15).contains(&digits.len()), "{digits}");
            prop_assert!(digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0'));
            prop_assert!(digits.starts_with(&number.calling_code.to_string()));
        }
    }
}
