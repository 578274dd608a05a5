"""What the server answered, in terms that a switch can act on.

Durations are whole seconds, money is exact (`decimal.Decimal`), enum values are their names without
prefix ("POOL_EXHAUSTED"). The message itself is kept beside, for what has no name here.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from google.protobuf.duration_pb2 import Duration

from tollgate.v1 import call_authorization_service_pb2 as service
from tollgate.v1 import call_pb2, money_pb2

DecisionMessage = (
    service.AuthorizeCallResponse
    | service.ReportAnswerResponse
    | service.ExtendCallResponse
    | service.QuoteCallResponse
)
EndMessage = service.SettleCallResponse | service.ReleaseCallResponse

_Q850_TEXT: Final = {
    1: "Unallocated number",
    17: "User busy",
    21: "Call rejected",
    28: "Invalid number format",
    31: "Normal, unspecified",
    41: "Temporary failure",
}


def reason_header(cause: int, text: str | None = None) -> str:
    """The value of a SIP Reason header (RFC 3326), such as `Q.850;cause=21;text="Call rejected"`;
    empty for cause 0. The default text is that of the cause, which tells the caller nothing of funds.
    """
    if cause == 0:
        return ""
    if not 1 <= cause <= 127:
        raise ValueError(f"expected a Q.850 cause from 1 to 127, not {cause}")
    text = _Q850_TEXT.get(cause, "") if text is None else text
    # Nothing may end the quotes or the header line.
    quoted = "".join(c for c in text if c.isprintable()).replace("\\", "\\\\").replace('"', '\\"')
    return f'Q.850;cause={cause};text="{quoted}"' if quoted else f"Q.850;cause={cause}"


def seconds(duration: Duration) -> int:
    """A duration of an answer: the server sends whole seconds."""
    return duration.seconds


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount."""

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}".rstrip()


@dataclass(frozen=True, slots=True)
class Grant:
    """How long the call may run, in whole seconds."""

    hard_stop: int
    """The call ends by then, counted from its answer, over all its extensions."""
    refresh_after: int
    """Extend by then, counted from its answer; meaningless in a final grant."""
    ringing_timeout: int
    """Give up ringing after that, counted from when the grant came."""
    hold_timeout: int
    """Send something within that, counted from when the grant came, or the hold expires."""
    final: bool
    """There is no more: the call ends at the hard stop, unless a later extension finds funds."""
    announce: bool
    """At a final hard stop the caller hears an announcement first."""
    token: str
    """To be sent back with extend and settle."""


@dataclass(frozen=True, slots=True)
class Denial:
    """Why the call may not proceed."""

    sip_status: int
    sip_phrase: str
    q850_cause: int
    """0 where no Reason header is to be sent."""
    reroute_allowed: bool
    retry_after: int
    """Seconds; for this client, with a new call_id. Never to be sent as a SIP Retry-After."""
    detail: str
    """For the operator, never for the caller."""

    @property
    def reason_header(self) -> str:
        """The value of the SIP Reason header, or nothing."""
        return reason_header(self.q850_cause)


@dataclass(frozen=True, slots=True)
class FundingLine:
    """One part of what pays."""

    source: str
    bucket_id: str
    seconds: int
    money: Money
    rate_per_minute: Money


@dataclass(frozen=True, slots=True)
class Answer:
    """The decision on a call."""

    decision: str
    allowed: bool
    replayed: bool
    grant: Grant | None
    """Present if the call is allowed, except for an emergency call that no server was asked about."""
    denial: Denial | None
    """Present if it is not."""
    funding: tuple[FundingLine, ...]
    decision_id: str
    warnings: tuple[str, ...]
    message: DecisionMessage
    local: bool = False
    """Decided by this client alone: an emergency call while no server could be asked."""

    @property
    def sip_status(self) -> int:
        """The SIP final response to give; 0 if the call is allowed."""
        return self.denial.sip_status if self.denial else 0

    @property
    def sip_phrase(self) -> str:
        """Its reason phrase; empty if the call is allowed."""
        return self.denial.sip_phrase if self.denial else ""

    @property
    def reason_header(self) -> str:
        """The value of its SIP Reason header; empty where none is to be sent."""
        return self.denial.reason_header if self.denial else ""


@dataclass(frozen=True, slots=True)
class Step:
    """One check on the way to a decision."""

    check: str
    passed: bool
    detail: str
    rule: str


@dataclass(frozen=True, slots=True)
class Quote:
    """What authorize would answer, and why."""

    answer: Answer
    steps: tuple[Step, ...]

    @property
    def allowed(self) -> bool:
        """Whether the call would be allowed."""
        return self.answer.allowed


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a settle or a release."""

    result: str
    """SETTLED, ALREADY_SETTLED, RELEASED, PARKED, ACCEPTED; PENDING: it is in this client's journal,
    and sent until it is answered."""
    replayed: bool = False
    charged_seconds: int = 0
    charged: Money | None = None
    funding: tuple[FundingLine, ...] = ()
    shortfall_seconds: int = 0
    shortfall: Money | None = None
    recorded_seconds: int = 0
    message: EndMessage | None = None
    """Absent while it is pending."""

    @property
    def pending(self) -> bool:
        """Whether it waits in this client's journal."""
        return self.result == "PENDING"


@dataclass(frozen=True, slots=True)
class EndedCalls:
    """What `end_calls` ended."""

    ended: int
    released: int
    charged_seconds: int
    charged: Money
    call_ids: tuple[str, ...]
    """At most the first 1,000."""


@dataclass(frozen=True, slots=True)
class Directive:
    """What a switch is to do about one of its running calls."""

    type: str
    """REFRESH: extend now; END_NOW: hang up both legs and settle; WARN: nothing."""
    reason: str
    """FUNDS_ARRIVED, TENANT_SUSPENDED, PAYER_BLOCKED, FRAUD_SUSPECTED, OPERATOR, FUNDS_ENDING."""
    call_id: str
    directive_id: str
    """The same for each delivery of the same directive."""
    payer_id: str
    trunk_id: str
    detail: str
    """For the operator, never for the caller."""
    message: call_pb2.Directive


PENDING: Final = Settlement(result="PENDING")


def _money(message: money_pb2.Money) -> Money:
    return Money(Decimal(message.amount or "0"), message.currency_code)


def _funding(lines: list[call_pb2.FundingLine]) -> tuple[FundingLine, ...]:
    return tuple(
        FundingLine(
            source=_name(call_pb2.FundingSource, line.source),
            bucket_id=line.bucket_id,
            seconds=seconds(line.duration),
            money=_money(line.money),
            rate_per_minute=_money(line.rate_per_minute),
        )
        for line in lines
    )


def _name(enum: object, value: int) -> str:
    """The name of a value without its prefix; that of a newer server by number, never an error."""
    descriptor = enum.DESCRIPTOR  # type: ignore[attr-defined]
    known = descriptor.values_by_number.get(value)
    if known is None:
        return f"UNKNOWN_{value}"
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(known.name.removeprefix(prefix))


def answer(message: DecisionMessage) -> Answer:
    """Reads a decision."""
    grant = denial = None
    if message.HasField("grant"):
        sent = message.grant
        grant = Grant(
            hard_stop=seconds(sent.granted_duration),
            refresh_after=seconds(sent.refresh_after),
            ringing_timeout=seconds(sent.ringing_timeout),
            hold_timeout=seconds(sent.hold_timeout),
            final=sent.final_grant,
            announce=sent.final_action == call_pb2.FINAL_ACTION_ANNOUNCE_THEN_END,
            token=sent.token,
        )
    if message.HasField("denial"):
        refused = message.denial
        denial = Denial(
            sip_status=refused.sip_status,
            sip_phrase=refused.sip_phrase,
            q850_cause=refused.q850_cause,
            reroute_allowed=refused.reroute_allowed,
            retry_after=seconds(refused.retry_after),
            detail=refused.detail,
        )
    return Answer(
        decision=_name(call_pb2.Decision, message.decision),
        allowed=message.allowed,
        replayed=message.replayed,
        grant=grant,
        denial=denial,
        funding=_funding(list(message.funding)),
        decision_id=message.decision_id,
        warnings=tuple(message.warnings),
        message=message,
    )


def emergency_answer(why: str) -> Answer:
    """The decision on an emergency call that no server could be asked about: it goes through."""
    message = service.AuthorizeCallResponse(
        decision=call_pb2.DECISION_ALLOWED_EMERGENCY, allowed=True
    )
    return Answer(
        decision="ALLOWED_EMERGENCY",
        allowed=True,
        replayed=False,
        grant=None,
        denial=None,
        funding=(),
        decision_id="",
        warnings=(f"put through without a server: {why}",),
        message=message,
        local=True,
    )


def quote(message: service.QuoteCallResponse) -> Quote:
    """Reads a quote."""
    steps = (Step(s.check, s.passed, s.detail, s.rule) for s in message.steps)
    return Quote(answer(message), tuple(steps))


def settlement(message: EndMessage) -> Settlement:
    """Reads what became of a settle or a release."""
    return Settlement(
        result=_name(call_pb2.SettleResult, message.result),
        replayed=message.replayed,
        charged_seconds=seconds(message.charged_duration),
        charged=_money(message.charged_money),
        funding=_funding(list(message.funding)),
        shortfall_seconds=seconds(message.shortfall_duration),
        shortfall=_money(message.shortfall_money),
        recorded_seconds=seconds(message.recorded_duration),
        message=message,
    )


def ended_calls(message: service.EndCallsResponse) -> EndedCalls:
    """Reads what was ended."""
    return EndedCalls(
        ended=message.ended_calls,
        released=message.released_calls,
        charged_seconds=seconds(message.charged_duration),
        charged=_money(message.charged_money),
        call_ids=tuple(message.call_ids),
    )


def directive(message: call_pb2.Directive) -> Directive:
    """Reads a directive."""
    return Directive(
        type=_name(call_pb2.DirectiveType, message.type),
        reason=_name(call_pb2.DirectiveReason, message.reason),
        call_id=message.call_id,
        directive_id=message.directive_id,
        payer_id=message.payer_id,
        trunk_id=message.trunk_id,
        detail=message.detail,
        message=message,
    )
