"""Directives for running calls, by both clients."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.conftest import Asked
from tests.servers import Fake, abort_with, dead_port, until
from tollgate import AsyncTollgate, CallFields, Directive, RejectedError, Tollgate
from tollgate._watch import LONGEST_PAUSE, MOST_KNOWN, Watch
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
