"""A call's life, on a clock that jumps to whatever is waited for."""

import asyncio
import contextlib
import selectors
from collections.abc import Iterator
from typing import Any

import pytest

from tollgate import (
    Answer,
    Call,
    Cause,
    Denial,
    Directive,
    Grant,
    Settlement,
    UnavailableError,
    run_call,
)
from tollgate._watch import MOST_EARLY, Followed
from tollgate.v1 import call_authorization_service_pb2 as service
from tollgate.v1 import call_pb2


class _Jumps(selectors.SelectSelector):
    """Nobody sends anything here: to wait is to be there."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now


def grant(hard_stop: int, refresh: int, *, final: bool = False, announce: bool = False) -> Grant:
    return Grant(
        hard_stop=hard_stop,
        refresh_after=refresh,
        ringing_timeout=180,
        hold_timeout=540,
        final=final,
        announce=announce,
        token="token",
    )


def answer(granted: Grant | None) -> Answer:
    denial = None if granted else Denial(403, "Forbidden", 21, False, 0, "")
    return Answer(
        decision="ALLOWED" if granted else "TENANT_SUSPENDED",
        allowed=granted is not None,
        replayed=False,
        grant=granted,
        denial=denial,
        funding=(),
        decision_id="",
        warnings=(),
        message=service.AuthorizeCallResponse(),
    )


def directive(kind: str, call_id: str = "leg") -> Directive:
    return Directive(kind, "OPERATOR", call_id, kind, "alice", "", "test", call_pb2.Directive())


class Recorder:
    """A client that answers as told and notes what it was asked, and when."""

    def __init__(self, *extensions: Grant | Exception | None) -> None:
        self.asked: list[tuple[int, str, Any]] = []
        self.directives: list[tuple[float, str]] = []
        self.followed: list[str] = []
        self._extensions = list(extensions)

    @contextlib.contextmanager
    def follow_call(self, call: Call, *, trunk_id: str = "") -> Iterator[asyncio.Event]:
        self.followed.append(trunk_id)
        told, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell(kind: str) -> None:
            call.directed(directive(kind))
            told.set()

        timers = [loop.call_at(at, tell, kind) for at, kind in self.directives]
        yield told
        for timer in timers:
            timer.cancel()

    def _note(self, what: str, value: Any) -> None:
        self.asked.append((round(asyncio.get_running_loop().time()), what, value))

    async def report_answer(self, *, tenant_id: str, call_id: str) -> Answer:
        self._note("answer", None)
        raise UnavailableError("away")

    async def extend(
        self, *, tenant_id: str, call_id: str, used_seconds: float, sequence: int, token: str
    ) -> Answer:
        self._note("extend", (round(used_seconds), sequence))
        await asyncio.sleep(0.01)
        next_one = self._extensions.pop(0)
        if isinstance(next_one, Exception):
            raise next_one
        return answer(next_one)

    async def settle(self, *, used_seconds: float, q850_cause: int, **_: Any) -> Settlement:
        self._note("settle", (round(used_seconds), q850_cause))
        return Settlement("SETTLED")

    async def release(self, *, q850_cause: int, **_: Any) -> Settlement:
        self._note("release", q850_cause)
        return Settlement("RELEASED")


class Played:
    """What happened to a call."""

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.hung_up: list[tuple[int, Cause]] = []
        self.announced: list[tuple[int, int]] = []


def play(
    client: Recorder,
    first: Grant | None,
    *,
    ring: float | None = 10,
    talk: float | None = None,
    busy_after: float | None = None,
    cancel_after: float | None = None,
    reports_answer: bool = False,
) -> Played:
    """Plays a call that is answered after `ring` and ends by itself after `talk`."""
    played = Played()

    async def live() -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[int | None] = loop.create_future()
        picked_up = asyncio.Event()
        if ring is not None:
            loop.call_later(ring, picked_up.set)
            if talk is not None:
                loop.call_later(ring + talk, over.set_result, 16)
        if busy_after is not None:
            loop.call_later(busy_after, over.set_result, 17)

        async def hang_up(cause: Cause) -> None:
            played.hung_up.append((round(loop.time()), cause))

        async def announce(left: float) -> None:
            played.announced.append((round(loop.time()), round(left)))

        emergency = Answer(
            "ALLOWED_EMERGENCY", True, False, None, None, (), "", (), answer(None).message
        )
        call = Call(
            "contoso",
            "leg",
            answer(first) if first else emergency,
            clock=loop.time,
            reports_answer=reports_answer,
        )
        running = asyncio.ensure_future(
            run_call(
                client,
                call,
                answered=picked_up.wait(),
                ended=over,
                hang_up=hang_up,
                announce=announce,
            )
        )
        if cancel_after is not None:
            loop.call_later(cancel_after, running.cancel)
        try:
            played.cause = (await running).cause
        except asyncio.CancelledError:
            played.cause = Cause.CANCELLED

    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(live())
    return played


def test_a_short_call_is_settled_with_what_was_talked() -> None:
    client = Recorder()
    played = play(client, grant(300, 240), talk=61)
    assert client.asked == [(71, "settle", (61, 16))]
    assert (played.cause, played.hung_up) == (Cause.PARTIES, [])


def test_a_busy_line_is_released() -> None:
    client = Recorder()
    assert play(client, grant(300, 240), ring=None, busy_after=3).cause is Cause.PARTIES
    assert client.asked == [(3, "release", 17)]


def test_a_phone_that_nobody_answers_is_given_up_at_the_ringing_timeout() -> None:
    client = Recorder()
    played = play(client, grant(300, 240), ring=None)
    assert played.hung_up == [(180, Cause.RINGING_TIMEOUT)]
    assert client.asked == [(180, "release", 0)]


def test_a_long_call_is_extended_in_time_and_counted_from_its_answer() -> None:
    client = Recorder(grant(540, 480), grant(780, 720))
    play(client, grant(300, 240), talk=500)
    assert client.asked == [
        (250, "extend", (240, 1)),
        (490, "extend", (480, 2)),
        (510, "settle", (500, 16)),
    ]


def test_a_call_ends_at_its_hard_stop_when_nobody_extends_it() -> None:
    away = [UnavailableError("away") for _ in range(60)]
    client = Recorder(*away)
    played = play(client, grant(300, 240))
    assert played.hung_up == [(310, Cause.HARD_STOP)]
    assert client.asked[-1] == (310, "settle", (300, 0))
    extensions = [at for at, what, _ in client.asked if what == "extend"]
    assert extensions == list(range(250, 310, 5))


def test_a_final_grant_is_asked_about_once_more_then_announced_and_ended() -> None:
    last = grant(300, 0, final=True, announce=True)
    client = Recorder(last)
    played = play(client, last)
    assert client.asked == [(295, "extend", (285, 1)), (310, "settle", (300, 0))]
    assert played.announced == [(295, 15)]
    assert played.hung_up == [(310, Cause.HARD_STOP)]


def test_funds_that_come_during_a_final_grant_lengthen_the_call() -> None:
    client = Recorder(grant(600, 525))
    played = play(client, grant(300, 0, final=True, announce=True), talk=400)
    assert (played.cause, played.announced) == (Cause.PARTIES, [])
    assert client.asked[-1] == (410, "settle", (400, 16))


def test_a_refused_extension_ends_the_call() -> None:
    client = Recorder(None)
    played = play(client, grant(300, 240))
    assert played.hung_up == [(250, Cause.REFUSED)]
    assert client.asked[-1] == (250, "settle", (240, 0))


def test_an_answer_that_cannot_be_reported_does_not_disturb_the_call() -> None:
    client = Recorder()
    play(client, grant(300, 240), talk=5, reports_answer=True)
    assert client.asked == [(10, "answer", None), (15, "settle", (5, 16))]


def test_a_cancelled_call_is_hung_up_and_settled() -> None:
    client = Recorder()
    played = play(client, grant(300, 240), cancel_after=40)
    assert (played.cause, played.hung_up) == (Cause.CANCELLED, [(40, Cause.CANCELLED)])
    assert client.asked == [(40, "settle", (30, 0))]


def test_a_call_that_ends_as_it_is_answered_is_settled_not_released() -> None:
    client = Recorder()
    play(client, grant(300, 240), ring=10, talk=0)
    assert [what for _, what, _ in client.asked] == ["settle"]


def test_an_emergency_call_without_a_grant_has_no_end() -> None:
    client = Recorder()
    played = play(client, None, ring=300, talk=100_000)
    assert played.cause is Cause.PARTIES
    assert client.asked == [(100_300, "settle", (100_000, 16))]


def test_a_denied_call_has_no_life() -> None:
    with pytest.raises(ValueError, match="TENANT_SUSPENDED"):
        Call("contoso", "leg", answer(None))


def test_usage_is_counted_from_the_first_answer_to_the_first_end() -> None:
    now = [100.0]
    call = Call("contoso", "leg", answer(grant(300, 240)), clock=lambda: now[0])
    assert (call.used_seconds, call.hard_stop_at, call.ring_until) == (0.0, None, 280.0)
    now[0] = 110.0
    call.answered()
    call.answered(at=120.0)
    assert (call.hard_stop_at, call.extend_at, call.ring_until) == (410.0, 350.0, None)
    now[0] = 171.5
    assert call.used_seconds == 61.5
    call.ended()
    now[0] = 200.0
    call.ended()
    assert call.used_seconds == 61.5


def test_very_short_grants_are_not_extended_in_a_busy_loop() -> None:
    client = Recorder(*[grant(2 + n, 0) for n in range(1, 60)])
    play(client, grant(2, 0), talk=20)
    assert len(client.asked) <= 22


def directed(client: Recorder, *directives: tuple[float, str]) -> Recorder:
    client.directives = list(directives)
    return client


def test_end_now_hangs_up_and_settles() -> None:
    client = directed(Recorder(), (50, "WARN"), (70, "END_NOW"), (71, "END_NOW"))
    played = play(client, grant(300, 240))
    assert played.hung_up == [(70, Cause.DIRECTED)]
    assert client.asked == [(70, "settle", (60, 0))]


def test_end_now_hangs_up_what_rings() -> None:
    client = directed(Recorder(), (4, "END_NOW"))
    played = play(client, grant(300, 240))
    assert played.hung_up == [(4, Cause.DIRECTED)]
    assert client.asked == [(4, "release", 0)]


def test_refresh_extends_at_once_and_the_call_goes_on() -> None:
    client = directed(Recorder(grant(600, 500)), (100, "REFRESH"))
    played = play(client, grant(300, 0, final=True), talk=400)
    assert (played.cause, played.hung_up) == (Cause.PARTIES, [])
    assert client.asked == [(100, "extend", (90, 1)), (410, "settle", (400, 16))]


def test_refresh_while_it_rings_extends_when_it_is_answered() -> None:
    client = directed(Recorder(grant(600, 500)), (5, "REFRESH"))
    play(client, grant(300, 240), talk=20)
    assert client.asked == [(10, "extend", (0, 1)), (30, "settle", (20, 16))]


def test_a_refresh_that_nobody_answers_is_asked_again_and_one_that_brings_nothing_is_not() -> None:
    same = grant(300, 0, final=True)
    client = directed(Recorder(UnavailableError("away"), same, same), (100, "REFRESH"))
    played = play(client, same)
    extensions = [at for at, what, _ in client.asked if what == "extend"]
    # At once, again after a pause, and once more before the end, as without a directive.
    assert extensions == [100, 105, 295]
    assert played.hung_up == [(310, Cause.HARD_STOP)]


def test_an_emergency_call_without_a_grant_is_not_followed() -> None:
    client = Recorder()
    play(client, None, talk=5)
    assert client.followed == []
    play(client, grant(300, 240), talk=5)
    assert client.followed == [""]


def test_a_directive_that_comes_before_its_call_is_followed_is_kept_for_it() -> None:
    followed = Followed()
    woken: list[int] = []
    for number in range(MOST_EARLY + 5):
        followed.hand(directive("END_NOW", f"leg-{number}"))
    followed.hand(directive("REFRESH", "leg-9"))
    calls = [Call("contoso", f"leg-{n}", answer(grant(300, 240))) for n in (0, 9, 9)]
    for number, call in enumerate(calls):
        followed.add(call, lambda number=number: woken.append(number))  # type: ignore[misc]
    assert [call.end_now is not None for call in calls] == [False, True, False]
    assert woken == [1]
    assert not followed.remove(calls[0])
    assert followed.remove(calls[1])
    assert not followed.is_idle(60)
    assert followed.is_idle(0)
