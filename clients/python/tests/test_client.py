"""Both clients against the real server, and against sidecars that misbehave in front of it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from tests.conftest import Asked
from tests.servers import Fake, abort_with, dead_port, silent_port, until
from tollgate import (
    AsyncTollgate,
    Breaker,
    CallFields,
    ClosedError,
    JournalFullError,
    NoDecisionError,
    Refused,
    RejectedError,
    Retry,
    Tollgate,
    UnavailableError,
)
from tollgate.v1.call_authorization_service_pb2 import ReleaseCallRequest

Code = grpc.StatusCode
MakeFake = Callable[..., Fake]


class Blocking:
    """`AsyncTollgate` for tests that wait: each test runs with both clients."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncTollgate(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not asyncio.iscoroutinefunction(method):
            return method
        return lambda *args, **kwargs: self._loop.run_until_complete(method(*args, **kwargs))

    @property
    def journal(self) -> Any:
        return self._client.journal

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes clients of either kind."""
    made: list[Any] = []

    def make(*args: Any, **kwargs: Any) -> Any:
        made.append((Tollgate if request.param == "sync" else Blocking)(*args, **kwargs))
        return made[-1]

    yield make
    for client in made:
        client.close()


Connect = Callable[..., Any]


def key(leg: CallFields) -> dict[str, Any]:
    return {"tenant_id": leg["tenant_id"], "call_id": leg["call_id"]}


def methods(fake: Fake) -> list[str]:
    return [method for method, _ in fake.requests]


# Calls that go well.


def test_a_call_is_authorized_answered_extended_and_settled(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    client = connect(server.endpoint)
    answer = client.authorize(**leg, reports_answer=True)
    assert (answer.decision, answer.allowed, answer.sip_status) == ("ALLOWED", True, 0)
    assert answer.grant is not None
    assert (answer.grant.hard_stop, answer.grant.refresh_after, answer.grant.final) == (
        300,
        240,
        False,
    )
    assert [line.source for line in answer.funding] == ["CREDITS"]
    assert client.report_answer(**key(leg)).allowed
    extended = client.extend(**key(leg), used_seconds=240.0, sequence=1)
    assert extended.grant is not None
    assert extended.grant.hard_stop == 540
    settled = client.settle(**key(leg), used_seconds=61.2, sequence=2, q850_cause=16)
    # What was proven before counts.
    assert (settled.result, settled.charged_seconds, str(settled.charged)) == (
        "SETTLED",
        240,
        "2.4 USD",
    )
    assert server.credits["spent"] == "2.4"
    assert server.credits["held"] == "0"


def test_a_call_that_was_not_answered_is_released(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    client = connect(server.endpoint)
    client.authorize(**leg)
    assert client.release(**key(leg), q850_cause=17).result == "RELEASED"
    assert server.credits["held"] == "0"


def test_a_denial_is_an_answer_with_a_sip_status_and_a_reason(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    client = connect(server.endpoint)
    answer = client.authorize(**{**leg, "payer_id": "bob"})
    assert (answer.decision, answer.allowed, answer.grant) == ("NOT_ENTITLED", False, None)
    assert (answer.sip_status, answer.sip_phrase) == (403, "Forbidden")
    assert answer.reason_header == 'Q.850;cause=21;text="Call rejected"'


def test_a_quote_says_why_and_holds_nothing(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    quote = connect(server.endpoint).quote(**{**leg, "payer_id": "bob"})
    assert not quote.allowed
    assert [step.passed for step in quote.steps][-1] is False


def test_a_restarted_switch_ends_its_calls(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    client = connect(server.endpoint)
    client.authorize(**leg, trunk_id="sbc-1")
    ended = client.end_calls(
        tenant_id=leg["tenant_id"],
        trunk_id="sbc-1",
        started_before=datetime.now(UTC) + timedelta(seconds=5),
    )
    assert (ended.ended, ended.released, ended.call_ids) == (1, 1, (leg["call_id"],))


# Refusals and errors.


def test_what_is_malformed_names_its_fields(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    client = connect(server.endpoint)
    with pytest.raises(RejectedError) as raised:
        client.authorize(**{**leg, "tenant_id": "no spaces"})
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert raised.value.attempts == 1
    assert [violation.split(":")[0] for violation in raised.value.violations] == ["tenant_id"]
    with pytest.raises(ValueError, match="NONSENSE"):
        client.authorize(**{**leg, "call_type": "NONSENSE"})


def test_a_denial_is_never_repeated(
    connect: Connect, server: Asked, leg: CallFields, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    connect(fake.endpoint).authorize(**{**leg, "payer_id": "bob"})
    assert len(fake.requests) == 1


def test_an_unavailable_sidecar_is_asked_again_with_the_same_key_within_the_timeout(
    connect: Connect, leg: CallFields, fakes: MakeFake
) -> None:
    fake = fakes()
    fake.behave = abort_with(Code.UNAVAILABLE)
    started = time.monotonic()
    with pytest.raises(UnavailableError) as raised:
        connect(fake.endpoint, timeout=0.5).authorize(**leg)
    assert time.monotonic() - started < 1.5
    # The timeout may cut off the last attempt, also before it arrives.
    assert raised.value.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    sent = [request for _, request in fake.requests]
    assert raised.value.attempts in (len(sent), len(sent) + 1)
    assert len(sent) > 1
    assert {request.call_id for request in sent} == {leg["call_id"]}
    assert [request.attempt for request in sent] == list(range(1, len(sent) + 1))


def test_a_channel_that_is_closed_under_a_request_leaves_no_answer(
    connect: Connect, server: Asked, leg: CallFields, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    client = connect(fake.endpoint, timeout=20)

    def close_meanwhile(_method: Any, _request: Any, forward: Any, _context: Any) -> Any:
        answer = forward()
        # As a second renewal of its certificate does.
        closing = client._channels[0][0].close()
        if closing is not None:
            asyncio.run_coroutine_threadsafe(closing, client._loop)
        fake.cancelled.wait(20)
        return answer

    fake.behave = close_meanwhile
    with pytest.raises(UnavailableError) as raised:
        client.authorize(**leg)
    fake.cancelled.set()
    assert raised.value.code is Code.CANCELLED
    assert raised.value.maybe_executed


def test_a_sidecar_that_sheds_is_asked_again_after_the_time_that_it_names(
    connect: Connect, server: Asked, leg: CallFields, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.nanos = 150_000_000
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=8, details=[detail]).SerializeToString()
    shed = abort_with(Code.RESOURCE_EXHAUSTED, grpc_status_details_bin=status)
    times: list[float] = []

    def once(method: Any, request: Any, forward: Any, context: Any) -> Any:
        times.append(time.monotonic())
        return shed(method, request, forward, context) if len(times) == 1 else forward()

    fake.behave = once
    assert connect(fake.endpoint).authorize(**leg).allowed
    assert times[1] - times[0] >= 0.15


def test_a_sidecar_that_only_sheds_is_not_asked_again(
    connect: Connect, leg: CallFields, fakes: MakeFake
) -> None:
    fake = fakes()
    fake.behave = abort_with(Code.RESOURCE_EXHAUSTED)
    with pytest.raises(UnavailableError):
        connect(fake.endpoint).authorize(**leg)
    assert len(fake.requests) == 1


def test_a_dead_sidecar_is_passed_over_for_the_next(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    with dead_port() as dead:
        client = connect([dead, server.endpoint], hedge_after=None)
        assert client.authorize(**leg).allowed


def test_a_silent_sidecar_is_passed_over_for_the_next(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    with silent_port() as silent:
        client = connect([silent, server.endpoint], hedge_after=0.05, timeout=30.0)
        started = time.monotonic()
        assert client.authorize(**leg).allowed
        assert time.monotonic() - started < 5, "long before the attempt's end"


def test_a_breaker_opens_and_nothing_waits_any_more(connect: Connect, leg: CallFields) -> None:
    with dead_port() as dead:
        breaker = Breaker(failures=2, cool_down=60)
        client = connect(dead, timeout=20.0, retry=Retry(attempts=2), breaker=breaker)
        with pytest.raises(UnavailableError):
            client.authorize(**leg)
        with pytest.raises(UnavailableError, match="no sidecar answers") as raised:
            client.authorize(**leg)
    assert raised.value.attempts == 0


def test_a_closed_client_asks_nobody(connect: Connect, server: Asked, leg: CallFields) -> None:
    client = Tollgate(server.endpoint)
    client.close()
    with pytest.raises(ClosedError):
        client.authorize(**leg)


# Money: the same key.


def test_a_lost_reply_is_asked_for_again_and_charged_once(
    connect: Connect, server: Asked, leg: CallFields, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    lost: set[str] = set()

    def lose_the_first(method: Any, _request: Any, forward: Any, context: Any) -> Any:
        answer = forward()
        if method.name not in lost:
            lost.add(method.name)
            context.abort(Code.UNAVAILABLE, "the reply is lost")
        return answer

    fake.behave = lose_the_first
    client = connect(fake.endpoint)
    assert client.authorize(**leg).replayed
    assert client.extend(**key(leg), used_seconds=100, sequence=1).allowed
    settled = client.settle(**key(leg), used_seconds=120)
    assert (settled.result, settled.replayed) == ("SETTLED", True)
    assert lost == {"AuthorizeCall", "ExtendCall", "SettleCall"}
    assert server.credits["spent"] == "1.2"
    assert server.credits["held"] == "0"


def test_hedging_asks_a_second_sidecar_and_never_charges_twice(
    connect: Connect, server: Asked, leg: CallFields, fakes: MakeFake
) -> None:
    slow, fast = fakes(server.endpoint), fakes(server.endpoint)
    let_go, late = threading.Event(), []
    cancelled = threading.Event()

    def late_but_real(method: Any, _request: Any, forward: Any, context: Any) -> Any:
        context.add_callback(cancelled.set)
        let_go.wait(5)
        answer = forward()
        late.append((method.name, answer))
        return answer

    slow.behave = late_but_real
    client = connect([slow.endpoint, fast.endpoint], hedge_after=0.05)
    started = time.monotonic()
    assert client.authorize(**leg).allowed
    assert cancelled.wait(5), "the loser is cancelled"
    settled = client.settle(**key(leg), used_seconds=60)
    assert time.monotonic() - started < 3
    assert settled.result == "SETTLED"
    # Only now do the slow sidecar's requests reach the ledger.
    let_go.set()
    until(lambda: len(late) == 2)
    assert {method for method, _ in late} == {"AuthorizeCall", "SettleCall"}
    assert [answer.replayed for method, answer in late if method == "SettleCall"] == [True]
    assert server.credits["spent"] == "0.6"
    assert server.credits["held"] == "0"


def test_a_quick_sidecar_is_not_hedged(
    connect: Connect, server: Asked, leg: CallFields, fakes: MakeFake
) -> None:
    second = fakes(server.endpoint)
    client = connect([server.endpoint, second.endpoint], hedge_after=5.0, timeout=15.0)
    assert client.authorize(**leg).allowed
    assert second.requests == []


def test_an_authorize_that_was_given_up_holds_nothing_once_the_server_is_back(
    connect: Connect, server: Asked, leg: CallFields, journal: Path
) -> None:
    client = connect(server.endpoint, timeout=0.4, journal=journal)
    client.authorize(**{**leg, "call_id": "warm"})
    client.release(tenant_id=leg["tenant_id"], call_id="warm")
    server.server.stop()
    with pytest.raises(UnavailableError) as raised:
        client.authorize(**leg)
    assert raised.value.maybe_executed
    server.server.go_on()
    assert client.flush()
    assert server.credits["held"] == "0"
    again = connect(server.endpoint).authorize(**leg)
    assert again.decision == "CALL_ALREADY_ENDED"


# The journal.


def test_a_settle_that_nobody_answers_is_pending_and_sent_until_it_is(
    connect: Connect, server: Asked, leg: CallFields, journal: Path, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    client = connect(fake.endpoint, timeout=0.3, journal=journal)
    assert client.authorize(**leg).allowed
    well, fake.behave = fake.behave, abort_with(Code.UNAVAILABLE)
    settled = client.settle(**key(leg), used_seconds=30)
    assert (settled.result, settled.pending) == ("PENDING", True)
    assert server.credits["spent"] == "0"
    fake.behave = well
    assert client.flush()
    assert server.credits["spent"] == "0.3"


def test_it_is_sent_in_the_background_too(
    server: Asked, leg: CallFields, journal: Path, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    with Tollgate(fake.endpoint, timeout=0.3, journal=journal) as client:
        assert client.authorize(**leg).allowed
        well, fake.behave = fake.behave, abort_with(Code.UNAVAILABLE)
        assert client.settle(**key(leg), used_seconds=30).pending
        fake.behave = well
        assert client.journal is not None
        kept = client.journal
        until(lambda: len(kept) == 0)
    assert server.credits["spent"] == "0.3"


async def test_it_is_sent_in_the_background_of_the_loop_too(
    server: Asked, leg: CallFields, journal: Path, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    async with AsyncTollgate(fake.endpoint, timeout=0.3, journal=journal) as client:
        await client.authorize(**leg)
        well, fake.behave = fake.behave, abort_with(Code.UNAVAILABLE)
        assert (await client.settle(**key(leg), used_seconds=30)).pending
        fake.behave = well
        assert client.journal is not None
        async with asyncio.timeout(10):
            while len(client.journal):
                await asyncio.sleep(0.02)
    assert server.credits["spent"] == "0.3"


def test_a_settle_does_not_wait_for_a_sidecar_that_is_known_to_be_away(
    connect: Connect, leg: CallFields, journal: Path
) -> None:
    with dead_port() as dead:
        breaker = Breaker(failures=1, cool_down=60)
        client = connect(dead, timeout=20.0, journal=journal, breaker=breaker)
        breaker.failed(0, time.monotonic())
        started = time.monotonic()
        assert client.settle(**key(leg), used_seconds=1).pending
        assert time.monotonic() - started < 5


async def test_an_authorize_that_is_cancelled_gives_its_hold_back(
    server: Asked, leg: CallFields, journal: Path, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    held, let_go = threading.Event(), threading.Event()

    def answer_late(method: Any, _request: Any, forward: Any, _context: Any) -> Any:
        answer = forward()
        if method.name == "AuthorizeCall":
            held.set()
            let_go.wait(5)
        return answer

    fake.behave = answer_late
    async with AsyncTollgate(
        fake.endpoint, timeout=9.0, attempt_timeout=9.0, journal=journal
    ) as client:
        asking = asyncio.ensure_future(client.authorize(**leg))
        assert await asyncio.to_thread(held.wait, 5)
        assert server.credits["held"] != "0"
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await client.flush()
        let_go.set()
    assert server.credits["held"] == "0"


def test_without_a_journal_an_unanswered_settle_is_an_error(
    connect: Connect, leg: CallFields
) -> None:
    with dead_port() as dead, pytest.raises(UnavailableError):
        connect(dead, timeout=0.2).settle(**key(leg), used_seconds=1)


def test_what_the_server_refuses_for_good_is_kept_aside_and_holds_up_nothing(
    connect: Connect, server: Asked, leg: CallFields, journal: Path
) -> None:
    told: list[Refused] = []
    client = connect(server.endpoint, journal=journal, on_refused=told.append)
    client.authorize(**leg)
    with pytest.raises(RejectedError):
        client.settle(tenant_id=leg["tenant_id"], call_id="x" * 200, used_seconds=9)
    assert client.settle(**key(leg), used_seconds=1).result == "SETTLED"
    assert [(refused.code, refused.used_seconds) for refused in told] == [("INVALID_ARGUMENT", 9)]
    assert client.journal is not None
    assert client.journal.refused() == told
    assert len(client.journal) == 0


def test_missing_rights_are_waited_for_and_hold_up_nobody_else(
    connect: Connect, server: Asked, leg: CallFields, journal: Path, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    client = connect(fake.endpoint, timeout=0.3, journal=journal)
    client.authorize(**leg)

    def not_yet(_method: Any, request: Any, forward: Any, context: Any) -> Any:
        if request.call_id == "other":
            context.abort(Code.PERMISSION_DENIED, "not yet")
        return forward()

    fake.behave = not_yet
    assert client.settle(tenant_id=leg["tenant_id"], call_id="other", used_seconds=1).pending
    fake.behave = abort_with(Code.UNAVAILABLE)
    assert client.settle(**key(leg), used_seconds=30).pending
    fake.behave = not_yet
    assert not client.flush(timeout=0.5)
    assert server.credits["spent"] == "0.3"
    assert client.journal is not None
    assert len(client.journal) == 1
    assert client.journal.refused() == []


def test_a_full_journal_refuses_ordinary_calls_and_keeps_those_that_run(
    connect: Connect, leg: CallFields, journal: Path
) -> None:
    with dead_port() as dead:
        client = connect(dead, timeout=0.1, journal=journal, journal_capacity=1)
        assert client.settle(tenant_id=leg["tenant_id"], call_id="a", used_seconds=1).pending
        with pytest.raises(JournalFullError):
            client.authorize(**leg)
        assert client.settle(tenant_id=leg["tenant_id"], call_id="b", used_seconds=1).pending
        with pytest.raises(NoDecisionError):
            client.settle(tenant_id=leg["tenant_id"], call_id="c", used_seconds=1)


# Emergency calls.


@pytest.mark.parametrize("number", ["911", "112", "urn:service:sos"])
def test_an_emergency_call_is_asked_about_and_recorded(
    connect: Connect, server: Asked, leg: CallFields, number: str
) -> None:
    client = connect(server.endpoint)
    answer = client.authorize(**{**leg, "called_number": number})
    assert (answer.decision, answer.local) == ("ALLOWED_EMERGENCY", False)


def test_an_emergency_call_with_everything_malformed_reaches_the_server(
    connect: Connect, server: Asked
) -> None:
    malformed: Any = {
        "tenant_id": "no spaces\x00",
        "call_id": "x" * 500,
        "payer_id": "\udcff",
        "call_type": "NONSENSE",
        "called_number": "911",
        "requested_seconds": float("nan"),
        "labels": {"": "\udcff"},
        "origin": None,
    }
    answer = connect(server.endpoint).authorize(**malformed)
    assert (answer.decision, answer.local) == ("ALLOWED_EMERGENCY", False)


def test_an_emergency_call_goes_through_without_a_server_soon(
    connect: Connect, leg: CallFields
) -> None:
    with silent_port() as silent:
        client = connect(silent, timeout=10.0)
        started = time.monotonic()
        answer = client.authorize(**{**leg, "called_number": "911"})
        assert time.monotonic() - started < 2
    assert (answer.decision, answer.allowed, answer.local) == ("ALLOWED_EMERGENCY", True, True)
    assert answer.grant is None


def test_neither_a_full_journal_nor_an_open_breaker_stops_an_emergency_call(
    connect: Connect, server: Asked, leg: CallFields, journal: Path
) -> None:
    breaker = Breaker(failures=1, cool_down=60)
    client = connect(server.endpoint, journal=journal, journal_capacity=1, breaker=breaker)
    assert client.journal is not None
    client.journal.add("ReleaseCall", ReleaseCallRequest(tenant_id=leg["tenant_id"], call_id="a"))
    breaker.failed(0, time.monotonic())
    with pytest.raises(JournalFullError):
        client.authorize(**leg)
    answer = client.authorize(**{**leg, "called_number": "911"})
    # The server was asked nevertheless.
    assert (answer.decision, answer.local) == ("ALLOWED_EMERGENCY", False)


def test_a_local_emergency_number_goes_through_whatever_the_server_says(
    connect: Connect, server: Asked, leg: CallFields
) -> None:
    client = connect(server.endpoint, emergency_numbers=["0118 999"])
    answer = client.authorize(**{**leg, "payer_id": "bob", "called_number": "0118999"})
    assert (answer.allowed, answer.local) == (True, True)
    answer = client.authorize(**{**leg, "payer_id": "bob"}, emergency=True)
    assert (answer.allowed, answer.local) == (True, True)
