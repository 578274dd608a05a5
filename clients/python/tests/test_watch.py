"""Directives for running calls, by both clients."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.conftest import Asked
from tests.servers import Fake, abort_with, dead_port, until
from tollgate import (
    AsyncTollgate,
    Call,
    CallFields,
    Cause,
    Directive,
    Ended,
    RejectedError,
    Tollgate,
    run_call,
)
from tollgate import aio as tollgate_aio
from tollgate import client as tollgate_client
from tollgate._watch import FOLLOW_IDLE, LONGEST_PAUSE, MOST_KNOWN, Watch
from tollgate.v1 import call_pb2
from tollgate.v1.call_authorization_service_pb2 import WatchCallsResponse

MakeFake = Callable[..., Fake]
Follow = Callable[[list[str] | str, str, int], list[Directive]]


def sync_follow(endpoints: list[str] | str, tenant: str, count: int) -> list[Directive]:
    with Tollgate(endpoints) as client:
        stream = client.watch_calls(tenant_id=tenant)
        return [next(stream) for _ in range(count)]


def async_follow(endpoints: list[str] | str, tenant: str, count: int) -> list[Directive]:
    async def follow() -> list[Directive]:
        found: list[Directive] = []
        async with AsyncTollgate(endpoints) as client:
            async for directive in client.watch_calls(tenant_id=tenant):
                found.append(directive)
                if len(found) == count:
                    break
        return found

    return asyncio.run(follow())


@pytest.fixture(params=[sync_follow, async_follow])
def follow(request: pytest.FixtureRequest) -> Follow:
    """Reads so many directives."""
    reader: Follow = request.param
    return reader


def told(*names: str) -> Callable[..., Any]:
    """A behaviour: each stream has the next of these directives, the last one again and again."""
    left = list(names)

    def behave(_method: Any, _request: Any, _forward: Any, _context: Any) -> Any:
        name = left.pop(0) if len(left) > 1 else left[0]
        response = WatchCallsResponse()
        response.directive.CopyFrom(
            call_pb2.Directive(
                type=call_pb2.DIRECTIVE_TYPE_REFRESH,
                reason=call_pb2.DIRECTIVE_REASON_FUNDS_ARRIVED,
                call_id="c1",
                directive_id=name,
            )
        )
        return response

    return behave


def test_what_an_operator_ends_is_told(server: Asked, leg: CallFields, follow: Follow) -> None:
    with Tollgate(server.endpoint, timeout=10) as client:
        assert client.authorize(**leg).allowed
        found: list[Directive] = []
        reader = threading.Thread(
            target=lambda: found.extend(follow(server.endpoint, server.tenant, 1))
        )
        reader.start()
        by = ["--reason", "test", "--operator", "olga"]
        which = ["--tenant", server.tenant, "--call-id", leg["call_id"]]
        server.server.tollgate("calls", "end", *which, *by)
        reader.join(20)
        (directive,) = found
        assert (directive.type, directive.reason) == ("END_NOW", "OPERATOR")
        assert (directive.call_id, directive.payer_id) == (leg["call_id"], "alice")
        assert directive.detail == "olga ended the call: test"


def test_a_lost_stream_is_opened_again_and_a_directive_is_given_once(
    fakes: MakeFake, follow: Follow
) -> None:
    fake = fakes()
    fake.behave = told("a", "a", "b", "a", "c")
    assert [d.directive_id for d in follow(fake.endpoint, "contoso", 3)] == ["a", "b", "c"]
    assert len(fake.requests) == 5


def test_the_next_sidecar_is_asked_when_one_is_away(fakes: MakeFake, follow: Follow) -> None:
    fake, drains = fakes(), fakes()
    fake.behave = told("a")
    drains.behave = abort_with(grpc.StatusCode.UNAVAILABLE)
    with dead_port() as dead:
        (directive,) = follow([dead, drains.endpoint, fake.endpoint], "contoso", 1)
    assert directive.directive_id == "a"


def test_an_unknown_tenant_is_an_error(server: Asked, follow: Follow) -> None:
    with pytest.raises(RejectedError) as caught:
        follow(server.endpoint, "nobody", 1)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_a_stream_that_ends_with_its_token_is_opened_with_the_renewed_one(
    fakes: MakeFake, follow: Follow
) -> None:
    fake = fakes()
    begun: list[int] = []

    def stand_a_while(method: Any, request: Any, forward: Any, context: Any) -> Iterator[Any]:
        begun.append(1)
        yield told(str(len(begun)))(method, request, forward, context)
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token has expired")

    fake.behave = stand_a_while
    assert [d.directive_id for d in follow(fake.endpoint, "contoso", 3)] == ["1", "2", "3"]


def test_a_renewed_token_that_is_refused_is_an_error(fakes: MakeFake, follow: Follow) -> None:
    fake = fakes()
    begun: list[int] = []

    def stand_once(method: Any, request: Any, forward: Any, context: Any) -> Iterator[Any]:
        begun.append(1)
        if len(begun) == 1:
            yield told("1")(method, request, forward, context)
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not known")

    fake.behave = stand_once
    with pytest.raises(RejectedError) as caught:
        follow(fake.endpoint, "contoso", 2)
    assert (caught.value.code, len(begun)) == (grpc.StatusCode.UNAUTHENTICATED, 2)


def test_closing_the_client_ends_its_streams(server: Asked) -> None:
    client = Tollgate(server.endpoint)
    found: list[list[Directive]] = []
    reader = threading.Thread(
        target=lambda: found.append(list(client.watch_calls(tenant_id=server.tenant)))
    )
    reader.start()
    until(lambda: bool(client._streams))
    client.close()
    reader.join(10)
    assert found == [[]]


@pytest.mark.parametrize("before", [True, False])
def test_a_client_that_is_closed_while_a_stream_is_opened_ends_it(
    server: Asked, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    client = Tollgate(server.endpoint)
    closing = threading.Thread(target=client.close)
    stub = client._stub

    def close_meanwhile(*which: Any, **how: Any) -> Any:
        found = None if before else stub(*which, **how)
        closing.start()
        closing.join(0.2)  # as far as it comes
        return found or stub(*which, **how)

    monkeypatch.setattr(client, "_stub", close_meanwhile)
    found: list[list[Directive]] = []
    reader = threading.Thread(
        target=lambda: found.append(list(client.watch_calls(tenant_id=server.tenant))), daemon=True
    )
    reader.start()
    reader.join(10)
    closing.join(10)
    assert (found, client._channels) == ([[]], {})


@pytest.mark.parametrize("closed", [True, False])
async def test_a_reader_in_the_event_loop_ends_with_its_client_or_when_it_is_cancelled(
    fakes: MakeFake, closed: bool
) -> None:
    fake = fakes()

    def say_nothing(*_: Any) -> WatchCallsResponse:
        fake.cancelled.wait(20)
        return WatchCallsResponse(caught_up=True)

    async def read() -> list[Directive]:
        return [told async for told in client.watch_calls(tenant_id="contoso")]

    fake.behave = say_nothing
    async with AsyncTollgate(fake.endpoint) as client:
        reader = asyncio.create_task(read())
        await asyncio.to_thread(fake.wait_for, 1)
        if closed:
            await client.close()
        else:
            reader.cancel()
        (end,) = await asyncio.wait_for(asyncio.gather(reader, return_exceptions=True), 10)
    assert end == [] if closed else isinstance(end, asyncio.CancelledError)
    fake.cancelled.set()


def test_pauses_grow_and_what_is_known_is_bounded() -> None:
    watch = Watch("contoso", "", 2, lambda: 1.0)
    pauses = [watch.ended(grpc.StatusCode.UNAVAILABLE, "") for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    for number in range(MOST_KNOWN + 10):
        message = WatchCallsResponse(directive=call_pb2.Directive(directive_id=str(number)))
        assert watch.told(message) is not None
        assert watch.told(message) is None
    assert len(watch._known) == MOST_KNOWN
    assert watch.told(WatchCallsResponse(caught_up=True)) is None
    assert watch.ended(grpc.StatusCode.UNAVAILABLE, "") < 1


BY = ["--reason", "test", "--operator", "olga"]


async def follow_legs(
    client: AsyncTollgate, leg: CallFields, names: list[str], meanwhile: Callable[[], None]
) -> tuple[list[Ended], list[Cause]]:
    """Runs these legs, which nobody ends, with something done when all are answered."""
    hung_up: list[Cause] = []

    async def one(name: str) -> Ended:
        mine = leg.copy()
        mine["call_id"] = name
        answer = await client.authorize(**mine)
        over: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        async def hang_up(cause: Cause) -> None:
            hung_up.append(cause)

        picked_up = asyncio.Event()
        picked_up.set()
        return await run_call(
            client,
            Call(leg["tenant_id"], name, answer),
            answered=picked_up.wait(),
            ended=over,
            hang_up=hang_up,
        )

    running = [asyncio.create_task(one(name)) for name in names]
    await asyncio.to_thread(meanwhile)
    return list(await asyncio.gather(*running)), hung_up


async def test_run_call_hangs_up_what_an_operator_ends_and_one_stream_is_enough(
    server: Asked, leg: CallFields, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    legs = ["a", "b", "c"]
    watched: list[Any] = []

    def forward_or_watch(method: Any, request: Any, forward: Any, context: Any) -> Any:
        if method.name != "WatchCalls":
            return forward()
        watched.append(request)
        context.abort(grpc.StatusCode.UNAVAILABLE, "lost")

    fake.behave = forward_or_watch

    def end_all() -> None:
        until(lambda: bool(watched))  # lost there, and opened at the next
        server.server.tollgate("calls", "end", "--tenant", server.tenant, "--all", *BY)

    async with AsyncTollgate([fake.endpoint, server.endpoint], timeout=10) as client:
        # Asked at the first endpoint, whose streams are lost; watched at the second.
        ended, hung_up = await follow_legs(client, leg, legs, lambda: _opened(server, 3, end_all))
        assert len(client._rooms) == 1
    assert hung_up == [Cause.DIRECTED] * 3
    assert {e.settlement.result for e in ended if e.settlement} <= {"SETTLED", "ALREADY_SETTLED"}
    assert server.credits["held"] == "0"


def _opened(server: Asked, count: int, then: Callable[[], None]) -> None:
    def there() -> bool:
        found = server.server.tollgate("calls", "--tenant", server.tenant)
        return len(found.get("calls", [])) >= count if isinstance(found, dict) else False

    until(there)
    then()


def test_a_thread_follows_its_calls_by_one_stream_and_leaves_it_when_idle(
    server: Asked, leg: CallFields, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tollgate_client, "FOLLOW_IDLE", 0.05)
    with Tollgate(server.endpoint, timeout=10) as client:
        answer = client.authorize(**leg)
        call = Call(leg["tenant_id"], leg["call_id"], answer)
        call.answered()
        other = Call(leg["tenant_id"], "another", answer)
        with client.follow_call(call) as told, client.follow_call(other):
            assert len(client._rooms) == 1
            which = ["--tenant", server.tenant, "--call-id", leg["call_id"]]
            server.server.tollgate("calls", "end", *which, *BY)
            assert told.wait(20)
            assert call.end_now is not None
            assert call.end_now.detail == "olga ended the call: test"
            assert other.end_now is None
        client.settle(
            tenant_id=call.tenant_id, call_id=call.call_id, used_seconds=call.used_seconds
        )
        until(lambda: not client._rooms and not client._streams)


def test_a_call_is_followed_also_when_the_stream_was_just_about_to_be_left(
    server: Asked, leg: CallFields, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Tollgate(server.endpoint, timeout=10) as client:
        call = Call(leg["tenant_id"], leg["call_id"], client.authorize(**leg))
        with client.follow_call(call):
            ((place, room),) = client._rooms.items()
        room.followed._left_at -= FOLLOW_IDLE
        leaving = threading.Thread(target=client._leave, args=(place, room))
        add = room.followed.add

        def leave_meanwhile(call: Call, wake: Callable[[], None]) -> None:
            leaving.start()
            leaving.join(0.2)  # as far as it comes
            add(call, wake)

        monkeypatch.setattr(room.followed, "add", leave_meanwhile)
        with client.follow_call(call) as told:
            leaving.join(10)
            which = ["--tenant", server.tenant, "--call-id", leg["call_id"]]
            server.server.tollgate("calls", "end", *which, *BY)
            assert told.wait(20)


async def test_directives_that_are_refused_harm_no_call(
    fakes: MakeFake, leg: CallFields, server: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fakes(server.endpoint)
    monkeypatch.setattr(tollgate_aio, "FOLLOW_RETRY", 0.01)
    refused: list[int] = []

    def refuse(method: Any, _request: Any, forward: Any, context: Any) -> Any:
        if method.name != "WatchCalls":
            return forward()
        refused.append(1)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "not yours")

    fake.behave = refuse
    async with AsyncTollgate(fake.endpoint, timeout=10) as client:
        answer = await client.authorize(**leg)
        over: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.3, over.set_result, 16)
        picked_up = asyncio.Event()
        picked_up.set()

        async def hang_up(_: Cause) -> None:
            raise AssertionError

        call = Call(leg["tenant_id"], leg["call_id"], answer)
        ended = await run_call(client, call, answered=picked_up.wait(), ended=over, hang_up=hang_up)
    assert (ended.cause, ended.settlement and ended.settlement.result) == (
        Cause.PARTIES,
        "SETTLED",
    )
    assert len(refused) > 1


async def test_funds_that_arrive_lengthen_a_call_that_run_call_leads(
    server: Asked, leg: CallFields, fakes: MakeFake
) -> None:
    fake = fakes(server.endpoint)
    fake.behave = told("now")
    answers: list[WatchCallsResponse] = []
    extended = threading.Event()

    def behave(method: Any, request: Any, forward: Any, context: Any) -> Any:
        if method.name == "WatchCalls":
            response = told("now")(method, request, forward, context)
            response.directive.call_id = leg["call_id"]
            answers.append(response)
            return response
        if method.name == "ExtendCall":
            extended.set()
        return forward()

    fake.behave = behave
    async with AsyncTollgate(fake.endpoint, timeout=10) as client:
        answer = await client.authorize(**leg)
        over: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        picked_up = asyncio.Event()
        picked_up.set()

        async def hang_up(_: Cause) -> None: ...

        call = Call(leg["tenant_id"], leg["call_id"], answer)
        running = asyncio.create_task(
            run_call(client, call, answered=picked_up.wait(), ended=over, hang_up=hang_up)
        )
        # Long before refresh_after, which is minutes away.
        assert await asyncio.to_thread(extended.wait, 10)
        over.set_result(16)
        assert (await running).cause is Cause.PARTIES
