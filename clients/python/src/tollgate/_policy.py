"""When a request is sent again, and to whom: no clock, no network, no threads.

An exchange is told the time and what became of each attempt, and says what to do next. The clients
carry it out. Every request may be repeated with its key, so several attempts may be under way.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc

MAX_IN_FLIGHT = 2
"""Attempts of one request at a time: the first and its hedge."""

RETRIED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Codes that say nothing about the request, only about who was asked."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How a request is repeated, in seconds.

    Sidecars that were not asked yet are asked at once. When all were, the pause grows from `first`
    by `factor` to `longest`; of each pause a random part is taken (full jitter), so that clients that
    failed together do not come back together. `attempts` bounds one request, hedges included.
    """

    first: float = 0.05
    longest: float = 1.0
    factor: float = 2.0
    attempts: int = 6

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.longest:
            raise ValueError("retry: expected 0 < first <= longest")
        if self.factor < 1:
            raise ValueError("retry: expected a factor of at least 1")
        if self.attempts < 1:
            raise ValueError("retry: expected at least 1 attempt")

    def pause(self, round_: int, rng: Callable[[], float]) -> float:
        """The pause after the given round (from 0) in which every sidecar failed."""
        return min(self.longest, self.first * self.factor ** min(round_, 60)) * rng()


@dataclass(frozen=True, slots=True)
class Failure:
    """What became of an attempt. `retry_after`: seconds, where the server said so."""

    code: grpc.StatusCode
    details: str = ""
    retry_after: float | None = None
    violations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """Send the request: attempt number (from 1), to the endpoint of that index, within seconds."""

    attempt: int
    endpoint: int
    timeout: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for an attempt to end, at the longest until that time."""

    until: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No attempt is left. `failure` is the last, or None if the time ran out in silence."""

    failure: Failure | None


@dataclass(slots=True)
class Exchange:
    """One request on its way to an answer. `order`: the endpoints, the one to ask first foremost."""

    order: Sequence[int]
    started: float
    timeout: float
    attempt_timeout: float
    hedge_after: float | None
    retry: Retry
    rng: Callable[[], float] = random.random
    attempts: int = 0
    _in_flight: dict[int, int] = field(default_factory=dict)
    _untried: list[int] = field(default_factory=list)
    _round: int = 0
    _next_start: float | None = None
    _over: Failure | None = None
    _last: Failure | None = None
    _maybe_executed: bool = False

    def __post_init__(self) -> None:
        self._untried = list(self.order)
        self._next_start = self.started

    @property
    def deadline(self) -> float:
        """When the caller's patience ends."""
        return self.started + self.timeout

    @property
    def maybe_executed(self) -> bool:
        """Whether an attempt may have been carried out though no answer came."""
        return self._maybe_executed or bool(self._in_flight)

    def step(self, now: float) -> Start | Wait | GiveUp:
        """What to do now."""
        if self._over is not None:
            return GiveUp(self._over)
        if now >= self.deadline:
            return GiveUp(None if self._in_flight else self._last)
        if self._next_start is not None and self._next_start <= now:
            endpoint = self._choose()
            if endpoint is not None:
                return self._start(endpoint, now)
            self._next_start = None
        if self._next_start is None and not self._in_flight:
            return GiveUp(self._last)
        until = self.deadline if self._next_start is None else min(self._next_start, self.deadline)
        return Wait(until)

    def failed(self, attempt: int, failure: Failure, now: float) -> None:
        """An attempt ended without an answer."""
        endpoint = self._in_flight.pop(attempt, None)
        if endpoint is None:
            return
        self._last = failure
        if failure.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            # UNAVAILABLE may also mean that the ledger did not answer, or that the reply was lost.
            # CANCELLED, that its channel was closed under it.
            unknown = failure.code in RETRIED or failure.code is grpc.StatusCode.CANCELLED
            self._maybe_executed = self._maybe_executed or unknown
        at: float | None
        if failure.code in RETRIED:
            at = now if self._untried else now + self._pause()
        elif failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            # Shed: another sidecar may have room; the same one only when it said when.
            if self._untried:
                at = now
            elif failure.retry_after is not None:
                at = now + max(failure.retry_after, self._pause())
            else:
                at = None
        else:
            self._over = failure
            return
        if at is not None and at < self.deadline and self.attempts < self.retry.attempts:
            self._next_start = at if self._next_start is None else min(at, self._next_start)

    def _pause(self) -> float:
        pause = self.retry.pause(self._round, self.rng)
        self._round += 1
        return pause

    def _choose(self) -> int | None:
        """The endpoint to ask next: one that has nothing under way, those not asked yet first."""
        if self.attempts >= self.retry.attempts or len(self._in_flight) >= MAX_IN_FLIGHT:
            return None
        busy = set(self._in_flight.values())
        for candidate in [*self._untried, *self.order]:
            if candidate not in busy:
                return candidate
        return None

    def _start(self, endpoint: int, now: float) -> Start:
        if endpoint in self._untried:
            self._untried.remove(endpoint)
        self.attempts += 1
        self._in_flight[self.attempts] = endpoint
        hedged = self.hedge_after is not None and len(self.order) > 1
        self._next_start = now + (self.hedge_after or 0.0) if hedged else None
        timeout = min(self.attempt_timeout, self.deadline - now)
        return Start(self.attempts, endpoint, timeout)


@dataclass(slots=True)
class Breaker:
    """Remembers which endpoints do not answer, so that no call waits for them.

    After `failures` in a row an endpoint is left out for `cool_down` seconds; then one request tries
    it. What a server answers, a refusal too, closes it.
    """

    failures: int = 5
    cool_down: float = 1.0
    _failed: dict[int, int] = field(default_factory=dict)
    _open_until: dict[int, float] = field(default_factory=dict)

    def order(self, endpoints: int, now: float, *, emergency: bool) -> list[int]:
        """The endpoints to ask, in order; none if all are left out.

        For an emergency all of them, those that are thought to be alive first.
        """
        known = range(endpoints)
        alive = [index for index in known if self._open_until.get(index, 0.0) <= now]
        if emergency:
            return alive + [index for index in known if index not in alive]
        for index in alive:
            if index in self._open_until:
                # This request is the trial; the others wait for its result.
                self._open_until[index] = now + self.cool_down
        # A trial does not come first while others answer: hedging and failures lead to it.
        return sorted(alive, key=lambda index: self._failed.get(index, 0) >= self.failures)

    def answered(self, endpoint: int) -> None:
        """The endpoint answered."""
        self._failed.pop(endpoint, None)
        self._open_until.pop(endpoint, None)

    def failed(self, endpoint: int, now: float) -> None:
        """The endpoint did not answer."""
        count = self._failed.get(endpoint, 0) + 1
        self._failed[endpoint] = count
        if count >= self.failures:
            self._open_until[endpoint] = now + self.cool_down
