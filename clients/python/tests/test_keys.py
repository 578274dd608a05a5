"""Names of legs, and emergency numbers."""

import hashlib

import pytest

from tollgate import call_id, is_emergency, reason_header


def test_a_leg_is_named_by_realm_call_id_tag_and_leg() -> None:
    assert call_id("sbc-1", "abc@host", "tag", 2) == "sbc-1|abc@host|tag|2"


def test_a_name_of_128_bytes_stays_and_a_longer_one_is_hashed_never_cut() -> None:
    fits = call_id("r", "x" * 122, "t", 1)
    assert fits == f"r|{'x' * 122}|t|1"
    assert len(fits.encode()) == 128
    longer = call_id("r", "x" * 123, "t", 1)
    assert longer == hashlib.sha256(f"r|{'x' * 123}|t|1".encode()).hexdigest()
    assert call_id("r", "x" * 200, "t", 1) != call_id("r", "x" * 200, "t", 2)


def test_bytes_are_counted_not_characters() -> None:
    assert len(call_id("r", "é" * 70, "t", 1)) == 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a|b", "c", "d", 1), ("a", "b|c", "d", 1)),
        (("a", "c", "d\n", 1), ("a", "c", "d", 1)),
        (("a", "c\udcff", "d", 1), ("a", "c\udcfe", "d", 1)),
    ],
)
def test_whatever_comes_off_the_wire_legs_keep_their_own_names(
    one: tuple[str, str, str, int], other: tuple[str, str, str, int]
) -> None:
    assert call_id(*one) != call_id(*other)
    for name in (call_id(*one), call_id(*other)):
        assert name.isprintable()
        assert len(name.encode()) <= 128


def test_a_leg_without_a_call_id_has_no_name() -> None:
    with pytest.raises(ValueError, match="Call-ID"):
        call_id("r", "", "t", 1)


@pytest.mark.parametrize(
    "number",
    [
        "911",
        "+911",
        "112",
        "urn:service:sos",
        "urn:service:sos.fire",
        "sip:911@sbc",
        "tel:112",
        "9-1-1",
    ],
)
def test_emergency_numbers_are_known_without_a_server(number: str) -> None:
    assert is_emergency(number)


@pytest.mark.parametrize(
    "number", ["", "9111", "+19115550100", "0911", "urn:service:sosx", "sip:alice@911"]
)
def test_the_match_is_on_the_whole_number(number: str) -> None:
    assert not is_emergency(number)


def test_local_emergency_numbers_can_be_added() -> None:
    assert not is_emergency("999")
    assert is_emergency("999", ["999"])


def test_a_reason_header_has_cause_and_text_and_cannot_be_broken_out_of() -> None:
    assert reason_header(21) == 'Q.850;cause=21;text="Call rejected"'
    assert reason_header(0) == ""
    assert reason_header(90) == "Q.850;cause=90"
    assert reason_header(17, 'a"b\\\r\nVia: x') == 'Q.850;cause=17;text="a\\"b\\\\Via: x"'
    with pytest.raises(ValueError, match="127"):
        reason_header(128)
