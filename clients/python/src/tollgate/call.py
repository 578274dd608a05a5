"""A running call: when to stop ringing, when to extend, when to end."""

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from tollgate.answers import Answer, Directive, Grant, Settlement
from tollgate.errors import NoDecisionError, TollgateError

log = logging.getLogger("tollgate.call")

LAST_WORD_SECONDS = 15.0
"""How long before the hard stop of a final grant funds are asked for once more; then it is
announced."""

RETRY_EXTEND_SECONDS = 5.0
"""Between two extensions that nobody answered."""


class Call:
    """The times of one call leg, by a monotonic clock in seconds.

    It sends nothing: ask it when, tell it what happened. Usage counts from `answered`; a grant
    replaces the one before (rules 4 to 8).
    """

    def __init__(
        self,
        tenant_id: str,
        call_id: str,
        answer: Answer,
        *,
        reports_answer: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not answer.allowed:
            raise ValueError(f"the call is not allowed: {answer.decision}")
        self.tenant_id = tenant_id
        self.call_id = call_id
        self.reports_answer = reports_answer
        self.grant: Grant | None = answer.grant
        """None for an emergency call that no server was asked about: it has no hard stop."""
        self._clock = clock
        self._asked_at = clock()
        self._answered_at: float | None = None
        self._ended_at: float | None = None
        self._sequence = 0
        self._not_before = 0.0
        self._last_word = False
        self._refresh_at: float | None = None
        self._refreshing = False
        self.end_now: Directive | None = None
        """What Tollgate said, if the call must end now."""

    def now(self) -> float:
        """The time, by the clock of this call."""
        return self._clock()

    @property
    def token(self) -> str:
        """To be sent with extend and settle."""
        return self.grant.token if self.grant else ""

    @property
    def final(self) -> bool:
        """Whether the grant is the last that can be had."""
        return self.grant is not None and self.grant.final

    @property
    def is_answered(self) -> bool:
        """Whether `answered` was told."""
        return self._answered_at is not None

    @property
    def used_seconds(self) -> float:
        """Usage since answer until now, or until the end; 0 if it was never answered."""
        if self._answered_at is None:
            return 0.0
        end = self._clock() if self._ended_at is None else self._ended_at
        # A call that was answered is never charged as one that was not: 0 would release it.
        return max(0.001, end - self._answered_at)

    @property
    def ring_until(self) -> float | None:
        """When to give up ringing; None once it is answered, or if nothing limits it."""
        if self._answered_at is not None or self.grant is None:
            return None
        return self._asked_at + self.grant.ringing_timeout

    @property
    def hard_stop_at(self) -> float | None:
        """When the call must end; None before its answer, or if nothing limits it."""
        if self._answered_at is None or self.grant is None:
            return None
        return self._answered_at + self.grant.hard_stop

    @property
    def extend_at(self) -> float | None:
        """When to extend; None if there is no need to.

        At once after a directive REFRESH. A final grant is asked about once more shortly before
        its end: funds may have come.
        """
        stop = self.hard_stop_at
        if stop is None or self.grant is None or self._answered_at is None:
            return None
        if self._refresh_at is not None:
            at = self._refresh_at
        elif self.grant.final:
            at = stop - LAST_WORD_SECONDS
            if self._last_word:
                return None
        else:
            at = self._answered_at + self.grant.refresh_after
        at = max(at, self._not_before)
        return at if at < stop else None

    def next_sequence(self) -> int:
        """The number of the next report; a report that is repeated keeps the number it had."""
        self._sequence += 1
        # Its answer is what the directive wanted; one that comes meanwhile wants another.
        self._refreshing, self._refresh_at = self._refresh_at is not None, None
        return self._sequence

    def directed(self, directive: Directive) -> None:
        """Tollgate says something of this call: END_NOW sets `end_now`, REFRESH moves `extend_at`."""
        if directive.type == "END_NOW":
            self.end_now = directive
        elif directive.type == "REFRESH":
            self._refresh_at = self._clock()

    def answered(self, at: float | None = None) -> None:
        """The called party answered; the first time counts."""
        if self._answered_at is None:
            self._answered_at = self._clock() if at is None else at

    def ended(self, at: float | None = None) -> None:
        """The call is over; the first time counts."""
        if self._ended_at is None:
            self._ended_at = self._clock() if at is None else at

    def extended(self, answer: Answer) -> bool:
        """An extension was answered; whether the call may go on."""
        if not answer.allowed:
            return False
        if answer.grant is not None:
            before = self.grant
            asked_in_final = self.final
            self.grant = answer.grant
            longer = before is None or answer.grant.hard_stop > before.hard_stop
            self._last_word = asked_in_final and not longer and not self._refreshing
            # A short grant wants its next extension at once; not in a busy loop.
            self._not_before = self._clock() + 1.0
        return True

    def not_extended(self) -> None:
        """An extension was not answered: the call runs on to the hard stop that it has."""
        self._not_before = self._clock() + RETRY_EXTEND_SECONDS
        if self._refreshing:
            self._refresh_at = self._clock()


class Cause(enum.StrEnum):
    """Who ended a call."""

    PARTIES = "PARTIES"
    """Caller or called party, or the network."""
    RINGING_TIMEOUT = "RINGING_TIMEOUT"
    HARD_STOP = "HARD_STOP"
    REFUSED = "REFUSED"
    """An extension was refused: blocked, suspended, ended."""
    DIRECTED = "DIRECTED"
    """Tollgate said END_NOW: suspended, blocked, suspected of fraud, or ended by an operator."""
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended."""

    cause: Cause
    used_seconds: float
    settlement: Settlement | None
    """None if no server took it and no journal keeps it."""


class _Client(Protocol):
    """What `run_call` needs of `AsyncTollgate`."""

    def follow_call(
        self, call: Call, *, trunk_id: str = ""
    ) -> AbstractContextManager[asyncio.Event]: ...
    async def report_answer(self, *, tenant_id: str, call_id: str) -> Answer: ...
    async def extend(
        self, *, tenant_id: str, call_id: str, used_seconds: float, sequence: int, token: str
    ) -> Answer: ...
    async def settle(
        self,
        *,
        tenant_id: str,
        call_id: str,
        used_seconds: float,
        sequence: int,
        q850_cause: int,
        token: str,
    ) -> Settlement: ...
    async def release(self, *, tenant_id: str, call_id: str, q850_cause: int) -> Settlement: ...


async def run_call(
    client: _Client,
    call: Call,
    *,
    answered: Awaitable[object],
    ended: Awaitable[int | None],
    hang_up: Callable[[Cause], Awaitable[object]],
    announce: Callable[[float], Awaitable[object]] | None = None,
    trunk_id: str = "",
) -> Ended:
    """Leads an authorized call through its life, and settles it whatever happens.

    `answered` completes when the called party answers; `ended` when the leg is over, before or after
    that, with its Q.850 cause or None. `hang_up` is called when the call must end; `announce`, with
    the seconds that are left, shortly before the hard stop of a grant that asks for it. The clock of
    `call` must be the loop's (`time.monotonic` is).

    Directives are watched meanwhile, those of one trunk where `trunk_id` says which was sent in
    authorize: END_NOW hangs up, also while it rings; REFRESH extends at once. Without them, as when
    their stream is lost, the next extension tells the same.

    Cancelled, it hangs up and settles before it is done.
    """
    answer_task = asyncio.ensure_future(answered)
    end_task = asyncio.ensure_future(ended)
    side: set[asyncio.Future[Any]] = set()
    cause = Cause.CANCELLED
    # An emergency call that no server knows is nobody's to end.
    directives = (
        contextlib.nullcontext(asyncio.Event())
        if call.grant is None
        else client.follow_call(call, trunk_id=trunk_id)
    )
    try:
        with directives as told:
            cause = await _follow(client, call, answer_task, end_task, announce, side, told)
    finally:
        call.ended()
        closing = asyncio.ensure_future(_finish(client, call, cause, end_task, hang_up))
        try:
            outcome = await asyncio.shield(closing)
        except asyncio.CancelledError:
            outcome = await closing
            raise
        finally:
            for task in (answer_task, end_task, *side):
                task.cancel()
            await asyncio.gather(answer_task, end_task, *side, return_exceptions=True)
    return outcome


async def _follow(
    client: _Client,
    call: Call,
    answered: "asyncio.Future[Any]",
    ended: "asyncio.Future[int | None]",
    announce: Callable[[float], Awaitable[object]] | None,
    side: "set[asyncio.Future[Any]]",
    told: asyncio.Event,
) -> Cause:
    """Waits and extends until the call is over or must end; why."""
    extension: asyncio.Future[Answer] | None = None
    directed: asyncio.Future[Any] = asyncio.ensure_future(told.wait())
    side.add(directed)
    announced = False
    while True:
        if ended.done():
            if answered.done() and not answered.cancelled() and answered.exception() is None:
                call.answered()
            return Cause.PARTIES
        if directed.done():
            told.clear()
            side.discard(directed)
            directed = asyncio.ensure_future(told.wait())
            side.add(directed)
        if answered.done() and not call.is_answered:
            answered.result()
            call.answered()
            if call.reports_answer:
                # Beside the call: a sidecar that is away must not hold up the timers.
                side.add(asyncio.ensure_future(_report_answer(client, call)))
        if call.end_now is not None:
            log.warning("%s is ended: %s", call.call_id, call.end_now.detail)
            return Cause.DIRECTED
        now = call.now()
        stop = call.hard_stop_at
        if stop is not None and now >= stop:
            return Cause.HARD_STOP
        ring_until = call.ring_until
        if ring_until is not None and now >= ring_until:
            return Cause.RINGING_TIMEOUT
        if extension is not None and extension.done():
            try:
                if not call.extended(extension.result()):
                    return Cause.REFUSED
            except NoDecisionError as error:
                log.warning("the call runs on without an extension: %s", error)
                call.not_extended()
            side.discard(extension)
            extension = None
            continue
        extend_at = call.extend_at if extension is None else None
        if extend_at is not None and now >= extend_at:
            extension = asyncio.ensure_future(
                client.extend(
                    tenant_id=call.tenant_id,
                    call_id=call.call_id,
                    used_seconds=call.used_seconds,
                    sequence=call.next_sequence(),
                    token=call.token,
                )
            )
            side.add(extension)
            extend_at = None
        last_word = None
        if announce and not announced and stop is not None and call.grant and call.grant.announce:
            last_word = stop - LAST_WORD_SECONDS
            if now >= last_word and extension is None and extend_at is None:
                announced = True
                last_word = None
                side.add(asyncio.ensure_future(announce(stop - now)))
        times = [
            at for at in (stop, ring_until, extend_at, last_word) if at is not None and at > now
        ]
        waiting: set[asyncio.Future[Any]] = {ended, directed}
        if not call.is_answered:
            waiting.add(answered)
        if extension is not None:
            waiting.add(extension)
        timeout = min(times) - now if times else None
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def _report_answer(client: _Client, call: Call) -> None:
    # Not in the way of the call: the first extension proves the answer as well.
    with contextlib.suppress(TollgateError):
        await client.report_answer(tenant_id=call.tenant_id, call_id=call.call_id)


async def _finish(
    client: _Client,
    call: Call,
    cause: Cause,
    ended: "asyncio.Future[int | None]",
    hang_up: Callable[[Cause], Awaitable[object]],
) -> Ended:
    """Hangs up where the call is not over, and settles it."""
    if cause is not Cause.PARTIES and not ended.done():
        try:
            await hang_up(cause)
        except Exception:
            log.exception("hang_up failed; the call is settled nevertheless")
    q850 = 0
    if ended.done() and not ended.cancelled() and ended.exception() is None:
        q850 = ended.result() or 0
    used = call.used_seconds
    settlement = None
    try:
        if used == 0:
            settlement = await client.release(
                tenant_id=call.tenant_id, call_id=call.call_id, q850_cause=q850
            )
        else:
            settlement = await client.settle(
                tenant_id=call.tenant_id,
                call_id=call.call_id,
                used_seconds=used,
                sequence=call.next_sequence(),
                q850_cause=q850,
                token=call.token,
            )
    except TollgateError as error:
        log.error("%s was not settled: %s", call.call_id, error)
    return Ended(cause, used, settlement)
