"""How a stream of directives is followed: where it is opened, after which pause, what is new."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import grpc

from tollgate import answers
from tollgate.answers import Directive
from tollgate.errors import RejectedError
from tollgate.v1 import call_authorization_service_pb2 as service

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Before a stream is opened again, in seconds."""

MOST_KNOWN: Final = 20_000
"""Directives of which it is remembered that they were given."""

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
        self._known: OrderedDict[str, None] = OrderedDict()

    def told(self, message: service.WatchCallsResponse) -> Directive | None:
        """The directive of a message, unless it was given before."""
        self._pause = FIRST_PAUSE
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
        if code in FOR_GOOD:
            raise RejectedError(f"WatchCalls: {code.name}: {details or ''}", code=code, attempts=1)
        self.endpoint = (self.endpoint + 1) % self._endpoints
        pause = self._pause
        self._pause = min(pause * 2, LONGEST_PAUSE)
        return pause * (0.5 + self._rng() / 2)
