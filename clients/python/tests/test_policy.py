"""When a request is sent again, told step by step without a clock."""

import grpc
import pytest

from tollgate import Breaker, Retry
from tollgate._policy import Exchange, Failure, GiveUp, Start, Wait

Code = grpc.StatusCode


def exchange(endpoints: int, *, hedge: float | None = None, timeout: float = 2.0) -> Exchange:
    return Exchange(
        order=range(endpoints),
        started=0.0,
        timeout=timeout,
        attempt_timeout=0.5,
        hedge_after=hedge,
        retry=Retry(first=0.1, longest=1.0, attempts=6),
        rng=lambda: 1.0,
    )


def test_a_single_sidecar_is_asked_again_after_growing_pauses_until_the_deadline() -> None:
    asked = exchange(1)
    now = 0.0
    starts = []
    while not isinstance(todo := asked.step(now), GiveUp):
        if isinstance(todo, Start):
            starts.append(round(now, 3))
            asked.failed(todo.attempt, Failure(Code.UNAVAILABLE), now)
        else:
            now = todo.until
    assert starts == [0.0, 0.1, 0.3, 0.7, 1.5]
    assert todo.failure == Failure(Code.UNAVAILABLE)


def test_another_sidecar_is_asked_at_once() -> None:
    asked = exchange(2)
    assert asked.step(0.0) == Start(1, 0, 0.5)
    asked.failed(1, Failure(Code.UNAVAILABLE), 0.25)
    assert asked.step(0.25) == Start(2, 1, 0.5)
    asked.failed(2, Failure(Code.UNAVAILABLE), 0.5)
    assert asked.step(0.5) == Wait(0.6)


@pytest.mark.parametrize(
    "code",
    [Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.INTERNAL, Code.UNKNOWN],
)
def test_what_a_repetition_cannot_cure_is_not_repeated(code: grpc.StatusCode) -> None:
    asked = exchange(2)
    asked.step(0.0)
    asked.failed(1, Failure(code), 0.1)
    assert asked.step(0.1) == GiveUp(Failure(code))


def test_a_sidecar_that_sheds_is_asked_again_only_when_it_says_when() -> None:
    asked = exchange(1)
    asked.step(0.0)
    asked.failed(1, Failure(Code.RESOURCE_EXHAUSTED), 0.0)
    assert isinstance(asked.step(0.0), GiveUp)

    asked = exchange(1)
    asked.step(0.0)
    asked.failed(1, Failure(Code.RESOURCE_EXHAUSTED, retry_after=0.7), 0.0)
    assert asked.step(0.0) == Wait(0.7)
    assert asked.step(0.7) == Start(2, 0, 0.5)

    asked = exchange(2)
    asked.step(0.0)
    asked.failed(1, Failure(Code.RESOURCE_EXHAUSTED), 0.0)
    assert asked.step(0.0) == Start(2, 1, 0.5)


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    asked = exchange(1, timeout=0.5)
    asked.step(0.0)
    asked.failed(1, Failure(Code.RESOURCE_EXHAUSTED, retry_after=9.0), 0.0)
    assert isinstance(asked.step(0.0), GiveUp)


def test_a_slow_sidecar_is_hedged_by_one_other_and_never_more() -> None:
    asked = exchange(3, hedge=0.1)
    assert asked.step(0.0) == Start(1, 0, 0.5)
    assert asked.step(0.05) == Wait(0.1)
    assert asked.step(0.1) == Start(2, 1, 0.5)
    assert asked.step(0.2) == Wait(2.0)
    asked.failed(1, Failure(Code.DEADLINE_EXCEEDED), 0.5)
    assert asked.step(0.5) == Start(3, 2, 0.5)


def test_a_single_sidecar_is_not_hedged() -> None:
    asked = exchange(1, hedge=0.1)
    asked.step(0.0)
    assert asked.step(0.1) == Wait(2.0)


def test_attempts_end_with_the_deadline() -> None:
    asked = exchange(1, timeout=0.3)
    assert asked.step(0.0) == Start(1, 0, 0.3)
    assert asked.step(0.3) == GiveUp(None)
    assert asked.maybe_executed


def test_what_was_shed_was_not_executed() -> None:
    asked = exchange(1)
    asked.step(0.0)
    asked.failed(1, Failure(Code.RESOURCE_EXHAUSTED), 0.0)
    assert not asked.maybe_executed


def test_an_endpoint_that_fails_is_left_out_and_tried_again_by_one_request() -> None:
    breaker = Breaker(failures=2, cool_down=1.0)
    breaker.failed(0, 0.0)
    assert breaker.order(2, 0.0, emergency=False) == [0, 1]
    breaker.failed(0, 0.0)
    assert breaker.order(2, 0.5, emergency=False) == [1]
    assert breaker.order(2, 1.0, emergency=False) == [1, 0]
    assert breaker.order(2, 1.0, emergency=False) == [1]
    breaker.answered(0)
    assert breaker.order(2, 1.0, emergency=False) == [0, 1]


def test_an_emergency_asks_endpoints_that_are_left_out_too() -> None:
    breaker = Breaker(failures=1)
    breaker.failed(0, 0.0)
    breaker.failed(1, 0.0)
    assert breaker.order(2, 0.0, emergency=False) == []
    assert breaker.order(2, 0.0, emergency=True) == [0, 1]
