"""What the two clients share: their settings, their channels' options, what an error means."""

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from tollgate import _keys
from tollgate import _requests as requests
from tollgate._policy import Breaker, Exchange, Failure, GiveUp, Retry
from tollgate.answers import Answer, Settlement, emergency_answer
from tollgate.errors import (
    ClosedError,
    JournalError,
    JournalFullError,
    NoDecisionError,
    RejectedError,
    UnavailableError,
)
from tollgate.journal import EndRequest, Entry, Journal
from tollgate.v1 import call_authorization_service_pb2 as service

Channel = TypeVar("Channel", grpc.Channel, grpc.aio.Channel)

log = logging.getLogger("tollgate")

EMERGENCY_TIMEOUT: Final = 1.0
"""Longest wait, in seconds, before an emergency call goes through without an answer."""

RESEND_FIRST: Final = 0.5
RESEND_LONGEST: Final = 30.0
"""Pauses between two looks at the journal, in seconds, while nobody answers."""

ADOPT_EVERY: Final = 5.0
"""Seconds between two looks for journals of dead clients."""

REFUSED_FOR_GOOD: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
"""What a repetition will not cure. Missing rights may be given, and are waited for."""

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # this client repeats by itself, with its own deadline
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 2_000),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a sidecar listens for calls."""

    target: str
    options: tuple[tuple[str, str | int], ...]
    secure: bool


def endpoint(text: str, *, credentials: bool) -> Endpoint:
    """Reads `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`."""
    scheme, separator, rest = text.partition("://")
    if text.startswith("unix:") and len(text) > len("unix:"):
        # HTTP/2 forbids a path as authority.
        return Endpoint(text, (*_OPTIONS, ("grpc.default_authority", "localhost")), credentials)
    if not separator:
        scheme, rest = ("https" if credentials else "http"), text
    rest = rest.rstrip("/")
    host, colon, port = rest.rpartition(":")
    if scheme not in ("http", "https") or not (host and colon and port.isdigit()):
        raise ValueError(f"endpoint {text!r}: expected HOST:PORT, http(s)://HOST:PORT or unix:PATH")
    return Endpoint(rest, _OPTIONS, scheme == "https")


@dataclass(slots=True)
class Settings:
    """How a client asks; checked once."""

    endpoints: list[Endpoint]
    timeout: float
    attempt_timeout: float
    hedge_after: float | None
    retry: Retry
    breaker: Breaker
    credentials: grpc.ChannelCredentials | None
    metadata: tuple[tuple[str, str], ...]
    emergency_numbers: tuple[str, ...]
    token: "TokenFile | None" = None
    tls: "TlsFiles | None" = None
    rng: Callable[[], float] = field(default=random.random)

    def sent(self) -> tuple[tuple[str, str], ...]:
        """What goes along with a request: `metadata`, and who asks."""
        token = self.token.read() if self.token else ""
        return (*self.metadata, ("authorization", f"Bearer {token}")) if token else self.metadata

    def trusted(self, where: Endpoint) -> grpc.ChannelCredentials | None:
        """What a channel to that endpoint is encrypted with; None: it is not. The same object as
        long as nothing is renewed."""
        if not where.secure:
            return None
        if self.tls is not None:
            return self.tls.read()
        if self.credentials is None:
            self.credentials = grpc.ssl_channel_credentials()
        return self.credentials


class TlsFiles:
    """Authorities, certificate and key in files of PEM, read again when one of them changes."""

    def __init__(
        self,
        ca: str | os.PathLike[str] | None,
        cert: str | os.PathLike[str] | None,
        key: str | os.PathLike[str] | None,
    ) -> None:
        if (cert is None) != (key is None):
            raise ValueError("tls_cert and tls_key: expected both or neither")
        self._paths = [None if path is None else Path(path) for path in (ca, key, cert)]
        self._seen: list[tuple[int, int, int] | None] = []
        self._credentials: grpc.ChannelCredentials | None = None
        for path in self._paths:
            if path is not None and not os.access(path, os.R_OK):
                raise ValueError(f"{path} cannot be read")

    def read(self) -> grpc.ChannelCredentials:
        """The credentials. The last ones where a file cannot be read."""
        try:
            seen = [None if path is None else _state(path) for path in self._paths]
            if seen != self._seen or self._credentials is None:
                texts = [None if path is None else path.read_bytes() for path in self._paths]
                self._credentials = grpc.ssl_channel_credentials(*texts)
                self._seen = seen
        except OSError as error:
            log.warning("a certificate or key cannot be read: %s", error)
            if self._credentials is None:
                raise UnavailableError(f"a certificate or key cannot be read: {error}") from error
        return self._credentials


def _state(path: Path) -> tuple[int, int, int]:
    about = path.stat()
    return (about.st_ino, about.st_mtime_ns, about.st_size)


class TokenFile:
    """A bearer token in a file, read again when that changes: tokens are renewed while calls run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """The token. The last one where the file cannot be read: the server judges it."""
        try:
            seen = _state(self._path)
            if seen != self._seen:
                self._token = self._path.read_text(encoding="ascii").strip()
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            log.warning("the token cannot be read: %s", error)
        return self._token


def settings(
    endpoints: str | Sequence[str],
    *,
    timeout: float,
    attempt_timeout: float | None,
    hedge_after: float | None,
    retry: Retry | None,
    breaker: Breaker | None,
    credentials: grpc.ChannelCredentials | None,
    metadata: Sequence[tuple[str, str]],
    emergency_numbers: Sequence[str],
    token_file: str | os.PathLike[str] | None = None,
    tls_ca: str | os.PathLike[str] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
) -> Settings:
    """Checks the arguments of a client."""
    listed = [endpoints] if isinstance(endpoints, str) else list(endpoints)
    if not listed:
        raise ValueError("endpoints: expected at least one")
    attempt = timeout / 3 if attempt_timeout is None else attempt_timeout
    if not 0 < attempt <= timeout:
        raise ValueError("expected 0 < attempt_timeout <= timeout")
    if hedge_after is not None and hedge_after <= 0:
        raise ValueError("hedge_after: expected more than 0 seconds, or None")
    files = None
    if tls_ca is not None or tls_cert is not None or tls_key is not None:
        if credentials is not None:
            raise ValueError("credentials: expected them or tls_ca, tls_cert and tls_key")
        files = TlsFiles(tls_ca, tls_cert, tls_key)
    # A sidecar keeps its unix sockets plain: files are for what goes over the network.
    encrypted = [
        credentials is not None or (files is not None and not text.startswith("unix:"))
        for text in listed
    ]
    return Settings(
        endpoints=[
            endpoint(text, credentials=secure)
            for text, secure in zip(listed, encrypted, strict=True)
        ],
        timeout=timeout,
        attempt_timeout=attempt,
        hedge_after=hedge_after,
        retry=retry or Retry(),
        breaker=breaker or Breaker(),
        credentials=credentials,
        metadata=tuple(metadata),
        emergency_numbers=tuple(emergency_numbers),
        token=None if token_file is None else TokenFile(token_file),
        tls=files,
    )


def failure(
    code: grpc.StatusCode, details: str | None, metadata: Sequence[tuple[str, str | bytes]] | None
) -> Failure:
    """What an attempt's error says, with what google.rpc.RetryInfo and BadRequest add."""
    retry_after: float | None = None
    violations: list[str] = []
    for key, value in metadata or ():
        if key == "grpc-retry-pushback-ms":
            text = value.decode() if isinstance(value, bytes) else value
            if text.isdigit():
                retry_after = int(text) / 1000
        elif key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                for detail in status_pb2.Status.FromString(value).details:
                    info = error_details_pb2.RetryInfo()
                    bad = error_details_pb2.BadRequest()
                    if detail.Unpack(info):
                        delay = info.retry_delay
                        retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)
                    elif detail.Unpack(bad):
                        violations += [f"{v.field}: {v.description}" for v in bad.field_violations]
            except DecodeError:
                log.debug("a status with details that cannot be read")
    return Failure(code, details or "", retry_after, tuple(violations))


def answered_by_server(code: grpc.StatusCode) -> bool:
    """Whether an error shows that its sender is alive."""
    return code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def error(method: str, exchange: Exchange, end: GiveUp) -> NoDecisionError:
    """The error of an exchange that brought no answer."""
    last = end.failure
    if last is None or last.code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    ):
        why = f"{last.code.name}: {last.details}" if last else "no answer in time"
        return UnavailableError(
            f"{method}: {why} ({exchange.attempts} attempts)",
            code=last.code if last else grpc.StatusCode.DEADLINE_EXCEEDED,
            attempts=exchange.attempts,
            maybe_executed=exchange.maybe_executed,
        )
    return RejectedError(
        f"{method}: {last.code.name}: {last.details}",
        code=last.code,
        attempts=exchange.attempts,
        violations=last.violations,
    )


_grpc_used_in: int | None = None
_lock = threading.Lock()


def grpc_is_used() -> None:
    """To be called before a channel is made: refuses where gRPC would hang for ever.

    gRPC's threads do not survive a fork. A child may use it only if its parent did not before the
    fork, or with GRPC_ENABLE_FORK_SUPPORT=1 in the environment from the start.
    """
    global _grpc_used_in
    with _lock:
        pid = os.getpid()
        if _grpc_used_in not in (None, pid):
            supported = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower()
            if supported not in ("1", "true", "yes", "y", "t"):
                raise UnavailableError(
                    "this process was forked from one that had used gRPC already: fork first, or "
                    "start with GRPC_ENABLE_FORK_SUPPORT=1"
                )
        _grpc_used_in = pid


# What a fork copied: its threads are gone, and even to close it could hang.
_inherited: list[object] = []
_clients: "weakref.WeakSet[Common[Any]]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    global _lock
    # Another thread of the parent may have had it.
    _lock = threading.Lock()
    for client in list(_clients):
        _inherited.append(vars(client).copy())
        client._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Common(Generic[Channel]):
    """What both clients do alike: all but to wait for an answer."""

    def __init__(self, settings: Settings, journal: Journal | None) -> None:
        self._settings = settings
        self._journal = journal
        self._closed = False
        self._forget()
        _clients.add(self)

    def _forget(self) -> None:
        """The state of a process that has opened nothing yet."""
        self._channels: dict[int, tuple[Channel, grpc.ChannelCredentials | None]] = {}
        self._retired: dict[int, Channel] = {}
        self._stubs: dict[tuple[int, str], Any] = {}

    def _open(self, where: Endpoint, credentials: grpc.ChannelCredentials | None) -> Channel:
        """A new channel; plain without credentials."""
        raise NotImplementedError

    def _close_retired(self, channel: Channel) -> None:
        """Closes a channel that was renewed twice, with what is still under way on it."""
        raise NotImplementedError

    def _stub(self, index: int, method: requests.Method[Any, Any], *, streams: bool = False) -> Any:
        """How a method is called at an endpoint, on the channel of today's credentials."""
        where = self._settings.endpoints[index]
        stub = self._stubs.get((index, method.name))
        if stub is not None and not where.secure:
            return stub
        if index not in self._channels:
            grpc_is_used()
        credentials = self._settings.trusted(where)
        channel, of = self._channels.get(index, (None, None))
        if channel is not None and of is not credentials:
            # Renewed: what is under way on the old channel may end, until the next renewal.
            retired = self._retired.pop(index, None)
            if retired is not None:
                self._close_retired(retired)
            self._retired[index] = channel
            for name in [name for name in self._stubs if name[0] == index]:
                del self._stubs[name]
            channel = None
        if channel is None:
            channel = self._open(where, credentials)
            self._channels[index] = (channel, credentials)
        stub = self._stubs.get((index, method.name))
        if stub is not None:
            return stub
        make = channel.unary_stream if streams else channel.unary_unary
        stub = make(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        self._stubs[index, method.name] = stub
        return stub

    @property
    def journal(self) -> Journal | None:
        """The journal of unsent settles, if the client has one."""
        return self._journal

    def is_emergency(self, *numbers: str) -> bool:
        """Whether a number is an emergency number as far as this client knows."""
        local = self._settings.emergency_numbers
        return any(_keys.is_emergency(number, local) for number in numbers)

    def _is_emergency(self, call: requests.CallFields, emergency: bool) -> bool:
        dialled = (call.get("called_number", ""), call.get("original_called_number", ""))
        return emergency or self.is_emergency(*(number or "" for number in dialled))

    def _exchange(
        self, method: str, timeout: float | None, *, emergency: bool = False, trial: bool = False
    ) -> Exchange:
        """A new exchange; UnavailableError if no endpoint is thought to be alive.

        `trial`: asks all endpoints in any case, as the resending of settles does.
        """
        if self._closed:
            raise ClosedError(f"{method}: the client is closed")
        known = self._settings
        now = time.monotonic()
        order = known.breaker.order(len(known.endpoints), now, emergency=emergency or trial)
        if not order:
            raise UnavailableError(f"{method}: no sidecar answers; asked again in a moment")
        patience = known.timeout if timeout is None else timeout
        if patience <= 0:
            raise ValueError("timeout: expected more than 0 seconds")
        if emergency:
            patience = min(patience, EMERGENCY_TIMEOUT)
        # Without a timeout of its own, an attempt has its share of the call's.
        share = known.attempt_timeout * patience / known.timeout
        return Exchange(
            order=order,
            started=now,
            timeout=patience,
            attempt_timeout=share,
            hedge_after=known.hedge_after,
            retry=known.retry,
            rng=known.rng,
        )

    def _ready_for(self, emergency: bool) -> None:
        """A call whose settle might be lost is not begun; an emergency call is."""
        if self._journal is not None and self._journal.full and not emergency:
            raise JournalFullError(f"{len(self._journal)} settles wait to be sent")

    def _authorize_request(
        self, call: requests.CallFields, *, emergency: bool
    ) -> service.AuthorizeCallRequest:
        request = service.AuthorizeCallRequest()
        requests.fill(request, call, lenient=emergency)
        return request

    def _put_through(self, why: Exception) -> Answer:
        """An emergency call goes through, whatever happened."""
        log.error("an emergency call is put through without an answer: %s", why)
        return emergency_answer(str(why))

    def _give_up(
        self, request: service.AuthorizeCallRequest, why: NoDecisionError | Answer
    ) -> None:
        """A hold may have been taken without our knowing: it is released in the background."""
        if self._journal is None or not (isinstance(why, Answer) or why.maybe_executed):
            return
        release = service.ReleaseCallRequest(tenant_id=request.tenant_id, call_id=request.call_id)
        try:
            self._journal.give_back(self._journal.add(requests.RELEASE.name, release))
        except (JournalError, JournalFullError) as error:
            log.warning("the hold of %s is left to its expiry: %s", request.call_id, error)

    def _keep(self, kind: str, request: EndRequest) -> Entry | None:
        """Keeps a settle before it is sent. One that cannot be kept is sent nevertheless."""
        if self._journal is None:
            return None
        try:
            return self._journal.add(kind, request)
        except (JournalError, JournalFullError) as error:
            log.error("%s of %s is sent without being kept: %s", kind, request.call_id, error)
            return None

    def _ended(self, entry: Entry | None, result: NoDecisionError | Settlement) -> None:
        """What becomes of a kept settle once it was sent."""
        if isinstance(result, Settlement) and result.result == "PARKED":
            log.error("usage without a grant was recorded and not charged: %s", result.message)
        if entry is None or self._journal is None:
            return
        if isinstance(result, Settlement):
            self._journal.done(entry)
        elif result.code in REFUSED_FOR_GOOD:
            self._journal.set_aside(entry, result.code.name if result.code else "", str(result))
        else:
            self._journal.give_back(entry)
