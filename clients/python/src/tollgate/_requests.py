"""Builds requests, so that the two clients send the same."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Generic, Required, TypedDict, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tollgate.v1 import call_authorization_service_pb2 as service
from tollgate.v1 import call_pb2

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

SERVICE = "tollgate.v1.CallAuthorizationService"


class CallType(StrEnum):
    """What kind of call leg asks, and so who may be its payer."""

    USER_OUTBOUND = "USER_OUTBOUND"
    CONFERENCE_DIAL_OUT = "CONFERENCE_DIAL_OUT"
    CONFERENCE_DIAL_IN = "CONFERENCE_DIAL_IN"
    TOLL_FREE_INBOUND = "TOLL_FREE_INBOUND"
    USER_INBOUND = "USER_INBOUND"


class CallOrigin(StrEnum):
    """How an outbound leg came about; recorded."""

    DIRECT = "DIRECT"
    TRANSFER = "TRANSFER"
    FORWARD = "FORWARD"
    ADD_PARTY = "ADD_PARTY"
    ON_BEHALF = "ON_BEHALF"


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One RPC: its name and its messages."""

    name: str
    request: type[Request]
    response: type[Response]

    @property
    def path(self) -> str:
        """As HTTP/2 names it."""
        return f"/{SERVICE}/{self.name}"


AUTHORIZE = Method("AuthorizeCall", service.AuthorizeCallRequest, service.AuthorizeCallResponse)
REPORT_ANSWER = Method("ReportAnswer", service.ReportAnswerRequest, service.ReportAnswerResponse)
EXTEND = Method("ExtendCall", service.ExtendCallRequest, service.ExtendCallResponse)
SETTLE = Method("SettleCall", service.SettleCallRequest, service.SettleCallResponse)
RELEASE = Method("ReleaseCall", service.ReleaseCallRequest, service.ReleaseCallResponse)
QUOTE = Method("QuoteCall", service.QuoteCallRequest, service.QuoteCallResponse)
END_CALLS = Method("EndCalls", service.EndCallsRequest, service.EndCallsResponse)
WATCH_CALLS = Method("WatchCalls", service.WatchCallsRequest, service.WatchCallsResponse)
METHODS = (AUTHORIZE, REPORT_ANSWER, EXTEND, SETTLE, RELEASE, QUOTE, END_CALLS, WATCH_CALLS)


def duration(secs: float) -> Duration:
    """Seconds as a duration, cut to milliseconds; the server cuts to seconds, but counts what is
    more than 0 and less than 1 s as 1 s, so that something is never cut to nothing here."""
    if not math.isfinite(secs):
        raise ValueError(f"expected a number of seconds, not {secs}")
    millis = int(Fraction(secs) * 1000)
    if millis == 0 and secs > 0:
        millis = 1
    whole = abs(millis) // 1000
    nanos = abs(millis) % 1000 * 1_000_000
    return (
        Duration(seconds=whole, nanos=nanos)
        if millis >= 0
        else Duration(seconds=-whole, nanos=-nanos)
    )


def timestamp(at: datetime) -> Timestamp:
    """An instant; one without a time zone is a mistake."""
    if at.tzinfo is None:
        raise ValueError("expected a time with a time zone")
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def used(secs: float) -> Duration:
    """Usage since answer."""
    if secs < 0:
        raise ValueError(f"used_seconds: expected at least 0, not {secs}")
    return duration(secs)


class CallFields(TypedDict, total=False):
    """What is said of a call leg that wants to proceed: the fields of AuthorizeCallRequest."""

    tenant_id: Required[str]
    call_id: Required[str]
    """See `call_id()`."""
    payer_id: Required[str]
    called_number: Required[str]
    """As dialled."""
    call_type: Required[CallType | str]
    calling_number: str
    original_called_number: str
    """What the caller dialled, where the switch itself rewrote it; never from Diversion."""
    requested_seconds: float
    origin: CallOrigin | str
    on_behalf_of: str
    conference_id: str
    sip_call_id: str
    trunk_id: str
    reports_answer: bool
    """Whether `report_answer` will be sent."""
    labels: Mapping[str, str]


def fill(
    request: service.AuthorizeCallRequest | service.QuoteCallRequest,
    call: CallFields,
    *,
    lenient: bool,
) -> None:
    """Fills an authorize or a quote.

    `lenient`, for an emergency: what cannot be sent is left out, and never an error.
    """
    for name, value in call.items():
        try:
            _fill_one(request, name, value, lenient=lenient)
        except (ValueError, TypeError, AttributeError):
            if not lenient:
                raise


def _fill_one(request: Message, name: str, value: object, *, lenient: bool) -> None:
    match name, value:
        case "call_type", str():
            value = call_pb2.CallType.Value(f"CALL_TYPE_{CallType(value)}")
        case "origin", str():
            value = call_pb2.CallOrigin.Value(f"CALL_ORIGIN_{CallOrigin(value)}")
        case "requested_seconds", None:
            return
        case "requested_seconds", float() | int():
            request.requested_duration.CopyFrom(duration(value))  # type: ignore[attr-defined]
            return
        case "labels", Mapping():
            for key, label in value.items():
                request.labels[_text(key, lenient)] = _text(label, lenient)  # type: ignore[attr-defined]
            return
        case _, str():
            value = _text(value, lenient)
    setattr(request, name, value)


def _text(value: str, lenient: bool) -> str:
    return value.encode("utf-8", "replace").decode() if lenient else value


def report_answer(
    tenant_id: str, call_id: str, answered_at: datetime | None
) -> service.ReportAnswerRequest:
    """Builds a ReportAnswer."""
    request = service.ReportAnswerRequest(tenant_id=tenant_id, call_id=call_id)
    if answered_at is not None:
        request.answered_at.CopyFrom(timestamp(answered_at))
    return request


def extend(
    tenant_id: str,
    call_id: str,
    used_seconds: float,
    sequence: int | None,
    requested_seconds: float | None,
    token: str,
) -> service.ExtendCallRequest:
    """Builds an ExtendCall."""
    request = service.ExtendCallRequest(tenant_id=tenant_id, call_id=call_id, token=token)
    request.used_duration.CopyFrom(used(used_seconds))
    if sequence is not None:
        request.sequence = sequence
    if requested_seconds is not None:
        request.requested_duration.CopyFrom(duration(requested_seconds))
    return request


def settle(
    tenant_id: str,
    call_id: str,
    used_seconds: float,
    sequence: int | None,
    q850_cause: int,
    answered_at: datetime | None,
    ended_at: datetime | None,
    token: str,
    labels: Mapping[str, str] | None,
) -> service.SettleCallRequest:
    """Builds a SettleCall."""
    request = service.SettleCallRequest(
        tenant_id=tenant_id, call_id=call_id, q850_cause=q850_cause, token=token
    )
    request.used_duration.CopyFrom(used(used_seconds))
    if sequence is not None:
        request.sequence = sequence
    if answered_at is not None:
        request.answered_at.CopyFrom(timestamp(answered_at))
    if ended_at is not None:
        request.ended_at.CopyFrom(timestamp(ended_at))
    for key, value in (labels or {}).items():
        request.labels[key] = value
    return request


def attempt(request: Request, number: int) -> Request:
    """The same request, with the number of the attempt where it has one."""
    if not isinstance(request, service.AuthorizeCallRequest):
        return request
    numbered = type(request)()
    numbered.CopyFrom(request)
    numbered.attempt = number
    return numbered
