"""Numbers as people dial them, and what Python's `phonenumbers` makes of each.

Standard input: the countries that numbers are dialled in, one a line: ISO 3166-1 alpha-2, a blank, and
the E.164 calling code (0 for a territory without numbers).

Standard output: one case a line, fields between tabs:
  context   the country that the number is dialled in
  dialled   the number as dialled
  verdict   `valid`, `possible` (of possible length, in no range that the metadata knows), `short`
            (more digits could make it a number), `unstable` (possible or valid, but its E.164 form is read as
            another number) or `invalid`
  e164      the number; empty where the text could not be read as one
  country   region of the number, else the main region of its calling code; empty for +800 and its like
  type      of a valid number, as NumberType names it; UNKNOWN of another
  digits    how many digits the national number has

The same cases every time: random ones come from a generator of this file's own, of a fixed seed.
"""

import sys

import phonenumbers as pn
from phonenumbers import PhoneNumberFormat, PhoneNumberType, ValidationResult

# Of each territory's numbers, so many are altered at random: most keep their range, some leave it.
ALTERED = 24

# Where foreign numbers are dialled from, too: international prefixes 011, 00, 0011, 010, 810 and others.
ABROAD = ["US", "GB", "DE", "AU", "JP", "BR", "KZ", "IT"]

TYPES = {
    PhoneNumberType.FIXED_LINE: "FIXED_LINE",
    PhoneNumberType.MOBILE: "MOBILE",
    PhoneNumberType.FIXED_LINE_OR_MOBILE: "FIXED_LINE_OR_MOBILE",
    PhoneNumberType.TOLL_FREE: "TOLL_FREE",
    PhoneNumberType.PREMIUM_RATE: "PREMIUM_RATE",
    PhoneNumberType.SHARED_COST: "SHARED_COST",
    PhoneNumberType.VOIP: "VOIP",
    PhoneNumberType.PERSONAL_NUMBER: "PERSONAL_NUMBER",
    PhoneNumberType.PAGER: "PAGER",
    PhoneNumberType.UAN: "UAN",
    PhoneNumberType.VOICEMAIL: "VOICEMAIL",
    PhoneNumberType.UNKNOWN: "UNKNOWN",
}

WORLD = "001"


class Chance:
    """Numbers at random that are the same with every Python (Knuth's MMIX generator)."""

    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % bound

    def digits(self, count):
        return "".join(str(self.below(10)) for _ in range(count))


def digits(text):
    return "".join(letter for letter in text if letter in "+0123456789")


def e164(number):
    return pn.format_number(number, PhoneNumberFormat.E164)


def region_of(context, calling_code):
    """The region whose dialling rules hold: that of the calling code where the metadata has no other."""
    if context in pn.SUPPORTED_REGIONS:
        return context
    region = pn.region_code_for_country_code(calling_code)
    return None if region in (pn.UNKNOWN_REGION, WORLD) else region


def examples(region):
    for kind in TYPES:
        number = pn.example_number_for_type(region, kind)
        if number is not None:
            yield number
    invalid = pn.invalid_example_number(region)
    if invalid is not None:
        yield invalid


def altered(chance, number):
    """The number with its last digits replaced, now and then one more or one less."""
    text = e164(number)
    keep = len(str(number.country_code)) + 1
    changed = 1 + chance.below(max(1, len(text) - keep))
    text = text[: len(text) - changed] + chance.digits(changed)
    length = chance.below(10)
    if length == 0:
        text += chance.digits(1)
    elif length == 1:
        text = text[:-1]
    return text


def dialled_at_home(number, region):
    """E.164, national, and with the international prefix of the region."""
    yield e164(number)
    yield e164(number)[1:]
    yield digits(pn.format_number(number, PhoneNumberFormat.NATIONAL))
    yield pn.national_significant_number(number)
    yield digits(pn.format_out_of_country_calling_number(number, region))


def cases(countries):
    chance = Chance(20260101)
    regions = [(context, region_of(context, code)) for context, code in countries]
    for context, region in regions:
        if region is None:
            # No dialling rules of its own: only what needs none.
            yield context, "+14255550100"
            yield context, "0014255550100"
            continue
        own = list(examples(region))
        for number in own:
            for form in dialled_at_home(number, region):
                yield context, form
            for abroad in ABROAD:
                yield abroad, digits(pn.format_out_of_country_calling_number(number, abroad))
        for n in range(ALTERED):
            text = altered(chance, own[n % len(own)])
            yield context, text
            yield "US", text
            home = pn.parse(text, region)
            if home.country_code == pn.country_code_for_region(region):
                yield context, digits(pn.format_number(home, PhoneNumberFormat.NATIONAL))
        # With each of the prefixes that people know, whether they mean anything here or not.
        fixed = pn.example_number_for_type(region, PhoneNumberType.FIXED_LINE)
        if fixed is not None:
            for prefix in ["00", "011", "+", "0", "1", "8", "+0", "000", "0011", "010"]:
                yield context, prefix + e164(fixed)[1:]
                yield context, prefix + pn.national_significant_number(fixed)
            number = e164(fixed)
            for length in range(2, len(number)):
                yield context, number[:length]
            for more in range(1, 6):
                yield context, number + "0" * more
        for short in ["1", "12", "110", "118", "1400", "11880", "123456"]:
            yield context, short
        # +1 and a few neighbours, dialled here.
        for foreign in ["US", "CA", "JM", "GG", "KZ", "VA", "NO", "AX", "MF"]:
            number = pn.example_number(foreign)
            yield context, digits(pn.format_out_of_country_calling_number(number, region))
    yield from of_the_world(chance)
    yield from north_america(chance)
    yield from neighbours(chance)


def of_the_world(chance):
    """+800 universal toll-free, +808, +870, +878, +881, +882, +883, +888, +979, and codes of nobody."""
    for code in sorted(pn.COUNTRY_CODE_TO_REGION_CODE):
        if pn.COUNTRY_CODE_TO_REGION_CODE[code] != (WORLD,):
            continue
        number = pn.example_number_for_non_geo_entity(code)
        for text in [e164(number)] + [altered(chance, number) for _ in range(60)]:
            yield "US", text
            yield "DE", text
            yield "DE", "00" + text[1:]
            yield "US", "011" + text[1:]
    for code in range(1, 1000):
        if code not in pn.COUNTRY_CODE_TO_REGION_CODE:
            yield "US", f"+{code}{chance.digits(9)}"


def north_america(chance):
    """Every area code there can be, with a fictional number, one at random, and one too long."""
    for area in range(200, 1000):
        exchange = str(2 + chance.below(8))
        number = f"{area}{exchange}{chance.digits(6)}"
        for text in [f"+1{area}5550100", f"+1{number}"]:
            for context in ["US", "CA", "JM", "DE"]:
                yield context, text
        yield "US", number
        yield "CA", "1" + number
        yield "BS", "0111" + number
        yield "US", f"+1{number}{chance.digits(1)}"
        yield "US", f"+1{number[:-1]}"
    for area in ["800", "833", "844", "855", "866", "877", "888", "900", "500", "521", "600", "710"]:
        for context in ["US", "PR", "CA", "SX", "DO", "GB"]:
            yield context, f"+1{area}{2 + chance.below(8)}{chance.digits(6)}"


def neighbours(chance):
    """Territories that share a calling code, by ranges that are known to tell them apart."""
    for prefix, lengths in {
        "+441481": 6, "+441534": 6, "+441624": 6, "+447781": 6, "+447797": 6, "+447624": 6,
        "+448": 9, "+4484": 8, "+4487": 8, "+449": 9, "+443": 9, "+4455": 8, "+4456": 8,
        "+4470": 8, "+4476": 8, "+35818": 5, "+358457": 7, "+4779": 6, "+478": 7, "+470": 4,
        "+59059027": 4, "+59059087": 4, "+590690": 6, "+26226": 7, "+262269": 6, "+262639": 6,
        "+76": 9, "+77": 9, "+79": 9, "+7800": 7, "+3906698": 5, "+39": 10, "+5999": 7, "+5993": 6,
        "+5997": 6, "+618": 8, "+6189162": 4, "+6189164": 4, "+67210": 4, "+6723": 5, "+2125288": 5,
        "+2902": 4, "+2908": 4, "+247": 5, "+38": 9, "+383": 8, "+33899": 6, "+3380": 7, "+3381": 7,
        "+1246976": 4, "+1868800": 4, "+18090": 6, "+18091": 6, "+1246431": 4,
        "+4913": 8, "+491801": 6, "+49900": 7, "+43900": 6, "+43930": 6, "+43810": 6, "+1649": 7,
    }.items():
        for _ in range(12):
            yield "GB", prefix + chance.digits(lengths)


def reads_back(number):
    try:
        return e164(pn.parse(e164(number))) == e164(number)
    except pn.NumberParseException:
        return False


def judged(context, dialled, region):
    try:
        number = pn.parse(dialled, region)
    except pn.NumberParseException as error:
        short = (error.TOO_SHORT_NSN, error.TOO_SHORT_AFTER_IDD)
        return ["short" if error.error_type in short else "invalid", "", "", "UNKNOWN", "0"]
    national = pn.national_significant_number(number)
    rest = [str(len(national))]
    if pn.is_valid_number(number) and reads_back(number):
        country = pn.region_code_for_number(number)
        country = "" if country == WORLD else country
        return ["valid", e164(number), country, TYPES[pn.number_type(number)]] + rest
    verdict = {
        ValidationResult.IS_POSSIBLE: "possible",
        ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "short",
        ValidationResult.TOO_SHORT: "short",
    }.get(pn.is_possible_number_with_reason(number), "invalid")
    if verdict == "possible" and not reads_back(number):
        verdict = "unstable"
    country = pn.region_code_for_number(number) or pn.region_code_for_country_code(number.country_code)
    country = "" if country in (WORLD, pn.UNKNOWN_REGION) else country
    return [verdict, e164(number), country, "UNKNOWN"] + rest


def main():
    countries = [line.split() for line in sys.stdin if line.strip()]
    countries = [(context, int(code)) for context, code in countries]
    codes = dict(countries)
    seen = set()
    for context, dialled in cases(countries):
        if (context, dialled) in seen:
            continue
        seen.add((context, dialled))
        region = region_of(context, codes[context])
        print("\t".join([context, dialled] + judged(context, dialled, region)))


if __name__ == "__main__":
    main()
