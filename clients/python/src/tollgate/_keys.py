"""What a client decides by itself, before it asks: the name of a leg, and what an emergency is."""

import hashlib
import re
from collections.abc import Iterable

MAX_CALL_ID_BYTES = 128
"""Longest call_id that the server takes."""

_EMERGENCY = frozenset({"112", "911"})
_SOS = re.compile(r"(?:sips?:|tel:)?<?urn:service:sos(?:\.[a-z0-9.-]+)?$")
_SCHEME = re.compile(r"^<?(?:sips?|tel):")
_VISUAL = re.compile(r"[\s().\-]")


def call_id(realm: str, sip_call_id: str, from_tag: str, leg: str | int = 1) -> str:
    """Names a call leg, the same each time: `realm|Call-ID|from-tag|leg` (rule 1).

    If that is longer than 128 bytes, its lower-case hex SHA-256; never cut, as cut names collide.
    `realm` tells installations apart, `leg` the legs of one dialog: a number, or a branch.

    What comes off the wire may hold anything. Where a part has a control character, a byte that is
    no UTF-8, or the separator, so that two legs could get one name, the name is a hash too.

    Raises ValueError without a SIP Call-ID or a leg: such legs could not be told apart.
    """
    parts = (realm, sip_call_id, from_tag, str(leg))
    if not sip_call_id or not parts[3]:
        raise ValueError("expected a SIP Call-ID and a leg")
    if any(not part.isprintable() or "|" in part for part in parts):
        # The lengths keep the parts apart, whatever is in them.
        octets = [part.encode("utf-8", "surrogatepass") for part in parts]
        return hashlib.sha256(b"".join(b"%d:%s," % (len(o), o) for o in octets)).hexdigest()
    name = "|".join(parts).encode()
    return name.decode() if len(name) <= MAX_CALL_ID_BYTES else hashlib.sha256(name).hexdigest()


def is_emergency(number: str, local_numbers: Iterable[str] = ()) -> bool:
    """Whether `number` is an emergency number as far as a client knows: 112, 911, an `sos` URN, or
    one of `local_numbers` (those of the country where the switch stands, "999" say).

    The match is on the whole number, with or without a leading plus. The server knows the numbers of
    the payer's country too; this is for what must go through when no server can be asked.
    """
    text = number.strip().lower()
    if _SOS.match(text.rstrip(">").split(";")[0]):
        return True
    text = _SCHEME.sub("", text).split("@")[0].split(";")[0].rstrip(">")
    digits = _digits(text)
    if not digits:
        return False
    return digits in _EMERGENCY or digits in {_digits(local) for local in local_numbers}


def _digits(number: str) -> str:
    return _VISUAL.sub("", number).removeprefix("+")
