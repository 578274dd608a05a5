"""How a stream of directives is followed: where it is opened, after which pause, what is new."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import grpc

from tollgate import answers
from tollgate.answers import Directive
from tollgate.call import Call
from tollgate.errors import RejectedError
from tollgate.v1 import call_authorization_service_pb2 as service

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Before a stream is opened again, in seconds."""

MOST_KNOWN: Final = 20_000
"""Directives of which it is remembered that they were given."""

MOST_EARLY: Final = 1_000
"""Directives that are kept for calls that are not followed yet."""

FOLLOW_IDLE: Final = 60.0
"""How long a stream is kept after the last call that was followed, in seconds."""

FOLLOW_RETRY: Final = 30.0
"""Before directives that were refused are asked for again, in seconds."""

FOR_GOOD: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
"""What another sidecar would answer too."""


class Watch:
    """One follower of directives; the clients only carry messages."""

    def __init__(
        self, tenant_id: str, trunk_id: str, endpoints: int, rng: Callable[[], float]
    ) -> None:
        self.request = service.WatchCallsRequest(tenant_id=tenant_id, trunk_id=trunk_id)
        self.endpoint = 0
        self._endpoints = endpoints
        self._rng = rng
        self._pause = FIRST_PAUSE
        self._stood = False
        self._known: OrderedDict[str, None] = OrderedDict()

    def told(self, message: service.WatchCallsResponse) -> Directive | None:
        """The directive of a message, unless it was given before."""
        self._pause = FIRST_PAUSE
        self._stood = True
        if not message.HasField("directive"):
            return None
        name = message.directive.directive_id
        if name in self._known:
            self._known.move_to_end(name)
            return None
        self._known[name] = None
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return answers.directive(message.directive)

    def ended(self, code: grpc.StatusCode, details: str | None) -> float:
        """After how many seconds the next sidecar is asked; RejectedError if none would answer."""
        # A stream that stood ends with its token or certificate: a renewed one may be there.
        renewed = self._stood and code is grpc.StatusCode.UNAUTHENTICATED
        self._stood = False
        if code in FOR_GOOD and not renewed:
            raise RejectedError(f"WatchCalls: {code.name}: {details or ''}", code=code, attempts=1)
        self.endpoint = (self.endpoint + 1) % self._endpoints
        pause = self._pause
        self._pause = min(pause * 2, LONGEST_PAUSE)
        return pause * (0.5 + self._rng() / 2)


class Followed:
    """Calls that are followed by one stream: each directive goes to its call. For threads too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[str, tuple[Call, Callable[[], None]]] = {}
        self._early: OrderedDict[str, Directive] = OrderedDict()
        self._left_at = time.monotonic()

    def add(self, call: Call, wake: Callable[[], None]) -> None:
        """Follows a call; what came before it was followed is told at once."""
        with self._lock:
            self._calls[call.call_id] = (call, wake)
            early = self._early.pop(call.call_id, None)
        if early is not None:
            call.directed(early)
            wake()

    def remove(self, call: Call) -> bool:
        """Follows it no more; whether that was the last."""
        with self._lock:
            self._calls.pop(call.call_id, None)
            self._left_at = time.monotonic()
            return not self._calls

    def is_idle(self, seconds: float) -> bool:
        """Whether nothing was followed for so long, but for a moment that a timer may come early."""
        with self._lock:
            return not self._calls and time.monotonic() - self._left_at >= seconds * 0.9

    def hand(self, directive: Directive) -> None:
        """Tells the call of it, now or when it is followed."""
        with self._lock:
            found = self._calls.get(directive.call_id)
            if found is None:
                before = self._early.get(directive.call_id)
                if before is None or before.type != "END_NOW":
                    self._early[directive.call_id] = directive
                while len(self._early) > MOST_EARLY:
                    self._early.popitem(last=False)
                return
        call, wake = found
        call.directed(directive)
        wake()
