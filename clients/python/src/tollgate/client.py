"""The client for threads, and for processes that fork."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Unpack

import grpc

from tollgate import _core, answers
from tollgate import _requests as requests
from tollgate._policy import Breaker, Exchange, GiveUp, Retry, Start
from tollgate._watch import FOLLOW_IDLE, FOLLOW_RETRY, Followed, Watch
from tollgate.answers import Answer, Directive, EndedCalls, Quote, Settlement
from tollgate.call import Call
from tollgate.errors import NoDecisionError, RejectedError, TollgateError
from tollgate.journal import DEFAULT_CAPACITY, EndRequest, Entry, Journal, Refused
from tollgate.v1 import call_authorization_service_pb2 as service

__all__ = ["Tollgate"]


class Tollgate(_core.Common[grpc.Channel]):
    """Asks Tollgate whether calls may proceed. Safe to use from many threads at a time.

    `endpoints`: one or more sidecars for calls (`HOST:PORT`, `http://…`, `https://…`, `unix:PATH`),
    the nearest first. All times are in seconds.

    - `timeout`: how long a call of a method may take in all, repetitions included.
    - `attempt_timeout`: how long one attempt may take; a third of `timeout` unless given.
    - `hedge_after`: after how long without an answer a second sidecar is asked beside the first.
      The same key makes that safe. None: never. It needs two endpoints.
    - `journal`: a directory for settles that are not answered yet; None: they are not kept.
    - `journal_capacity`: how many may wait before ordinary calls are refused with JournalFullError.
    - `on_refused`: told of each settle that the server will never take.
    - `emergency_numbers`: local ones that go through when no sidecar can be asked; 112, 911 and
      `sos` URNs always do.
    - `tls_ca`, `tls_cert`, `tls_key`: files of PEM for `https://` endpoints (`HOST:PORT` is one
      then): who certifies the server, and what the client shows. Read again when they change, for
      connections from then on. Without any of them the system's authorities count.
    - `credentials`: gRPC's own instead of these files.
    - `token_file`: a bearer token, sent with each request and read again when the file changes.
    - `metadata`: sent with each request.

    Nothing is opened before the first call, so that a client may be made before a fork; each process
    makes channels, a thread and a journal file of its own.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str] = "127.0.0.1:7601",
        *,
        timeout: float = 2.0,
        attempt_timeout: float | None = None,
        hedge_after: float | None = 0.1,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        journal: str | os.PathLike[str] | None = None,
        journal_capacity: int = DEFAULT_CAPACITY,
        on_refused: Callable[[Refused], None] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        token_file: str | os.PathLike[str] | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        emergency_numbers: Sequence[str] = (),
    ) -> None:
        known = _core.settings(
            endpoints,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            hedge_after=hedge_after,
            retry=retry,
            breaker=breaker,
            credentials=credentials,
            metadata=metadata,
            token_file=token_file,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            emergency_numbers=emergency_numbers,
        )
        kept = None
        if journal is not None:
            kept = Journal(journal, capacity=journal_capacity, on_refused=on_refused)
        super().__init__(known, kept)

    def _forget(self) -> None:
        super()._forget()
        self._lock = threading.RLock()
        self._streams: set[Any] = set()
        self._rooms: dict[tuple[str, str], _Room] = {}
        self._resender: threading.Thread | None = None
        self._wake = threading.Event()

    # The calls of a switch.

    def authorize(
        self,
        *,
        timeout: float | None = None,
        emergency: bool = False,
        give_up: bool = True,
        **call: Unpack[requests.CallFields],
    ) -> Answer:
        """Asks whether a call leg may proceed, and holds what it may cost.

        A denial is an answer. Raises NoDecisionError when there is none; `give_up` then releases, in
        the background and through the journal, what may be held unknown to us, and the call_id is
        used up. Set it to False to ask again later with the same one.

        An emergency call (`emergency`, or a number that the client knows) is always allowed: without
        a server after 1 s, with a full journal, with every breaker open, with malformed fields.
        """
        emergency = self._is_emergency(call, emergency)
        try:
            self._ready_for(emergency)
            request = self._authorize_request(call, emergency=emergency)
            try:
                message = self._call(requests.AUTHORIZE, request, timeout, emergency=emergency)
            except NoDecisionError as error:
                if give_up and not emergency:
                    self._give_up(request, error)
                raise
            answer = answers.answer(message)
        except Exception as error:
            if not emergency:
                raise
            return self._put_through(error)
        if emergency and not answer.allowed:
            # The server knows other numbers than the switch: who dialled this must get through.
            return self._put_through(TollgateError(f"the server says {answer.decision}"))
        if answer.decision == "LEDGER_UNAVAILABLE" and give_up:
            self._give_up(request, answer)
        return answer

    def quote(self, *, timeout: float | None = None, **call: Unpack[requests.CallFields]) -> Quote:
        """What authorize would answer, and why; holds nothing."""
        request = service.QuoteCallRequest()
        requests.fill(request, call, lenient=False)
        return answers.quote(self._call(requests.QUOTE, request, timeout))

    def report_answer(
        self,
        *,
        tenant_id: str,
        call_id: str,
        answered_at: datetime | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Reports that a call was answered, for calls authorized with `reports_answer`."""
        request = requests.report_answer(tenant_id, call_id, answered_at)
        return answers.answer(self._call(requests.REPORT_ANSWER, request, timeout))

    def extend(
        self,
        *,
        tenant_id: str,
        call_id: str,
        used_seconds: float,
        sequence: int | None = None,
        requested_seconds: float | None = None,
        token: str = "",
        timeout: float | None = None,
    ) -> Answer:
        """Reports usage since answer, cumulative, and asks for a further grant."""
        request = requests.extend(
            tenant_id, call_id, used_seconds, sequence, requested_seconds, token
        )
        return answers.answer(self._call(requests.EXTEND, request, timeout))

    def settle(
        self,
        *,
        tenant_id: str,
        call_id: str,
        used_seconds: float,
        sequence: int | None = None,
        q850_cause: int = 0,
        answered_at: datetime | None = None,
        ended_at: datetime | None = None,
        token: str = "",
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Settlement:
        """The call ended after `used_seconds` since answer; exactly 0: it was never answered.

        With a journal it is on the disk before it is sent, and a settlement that is `pending` is sent
        until it is answered. Raises NoDecisionError without a journal, and when the server refuses.
        """
        request = requests.settle(
            tenant_id,
            call_id,
            used_seconds,
            sequence,
            q850_cause,
            answered_at,
            ended_at,
            token,
            labels,
        )
        return self._end(requests.SETTLE, request, timeout)

    def release(
        self,
        *,
        tenant_id: str,
        call_id: str,
        q850_cause: int = 0,
        timeout: float | None = None,
    ) -> Settlement:
        """The call was never answered: everything is given back. Kept like a settle."""
        request = service.ReleaseCallRequest(
            tenant_id=tenant_id, call_id=call_id, q850_cause=q850_cause
        )
        return self._end(requests.RELEASE, request, timeout)

    def end_calls(
        self,
        *,
        tenant_id: str,
        trunk_id: str,
        started_before: datetime,
        timeout: float | None = None,
    ) -> EndedCalls:
        """The switch restarted: ends the trunk's calls that were authorized before then."""
        request = service.EndCallsRequest(tenant_id=tenant_id, trunk_id=trunk_id)
        request.started_before.CopyFrom(requests.timestamp(started_before))
        return answers.ended_calls(self._call(requests.END_CALLS, request, timeout))

    def watch_calls(self, *, tenant_id: str, trunk_id: str = "") -> Iterator[Directive]:
        """Directives for the running calls of a tenant, or of one trunk of it, as they come up.

        First whatever applies when it begins. A stream that is lost, or that ended with its token or
        certificate, is opened again at the next sidecar with the renewed ones; each directive is
        given once. Ends when the client is closed; RejectedError where the tenant is unknown or not
        the caller's, and where a stream is refused from the start.
        """
        return self._directives(tenant_id, trunk_id, None)

    @contextlib.contextmanager
    def follow_call(self, call: Call, *, trunk_id: str = "") -> Iterator[threading.Event]:
        """Tells the call what Tollgate says of it (`Call.directed`) as long as the context lasts; the
        event is set each time. One stream and one thread for all calls of a tenant and trunk
        (`trunk_id` as sent in authorize; empty: all of the tenant), kept for a minute after the last.

        A stream that is lost or refused harms nothing: it is tried again, and extensions tell the
        same later.
        """
        told = threading.Event()
        place = (call.tenant_id, trunk_id)
        with self._lock:
            room = self._rooms.get(place)
            if room is None and not self._closed:
                room = self._rooms[place] = _Room()
                threading.Thread(
                    target=self._follow_for_ever,
                    args=(place, room),
                    name="tollgate-watch",
                    daemon=True,
                ).start()
            if room is not None:
                # Before `_leave` looks whether anybody needs it.
                room.followed.add(call, told.set)
        try:
            yield told
        finally:
            if room is not None and room.followed.remove(call):
                idle = threading.Timer(FOLLOW_IDLE, self._leave, (place, room))
                idle.daemon = True
                idle.start()

    def _leave(self, place: tuple[str, str], room: "_Room") -> None:
        """Ends a stream that nobody has needed for a while."""
        with self._lock:
            if self._rooms.get(place) is not room or not room.followed.is_idle(FOLLOW_IDLE):
                return
            del self._rooms[place]
        room.over.set()
        if room.stream is not None:
            room.stream.cancel()

    def _follow_for_ever(self, place: tuple[str, str], room: "_Room") -> None:
        while not self._closed and not room.over.is_set():
            try:
                for directive in self._directives(*place, room):
                    room.followed.hand(directive)
            except Exception as error:
                if not self._closed and not room.over.is_set():
                    _core.log.warning("the directives of %s are not watched: %s", place[0], error)
                    self._wake.wait(FOLLOW_RETRY)

    def _directives(
        self, tenant_id: str, trunk_id: str, room: "_Room | None"
    ) -> Iterator[Directive]:
        known = self._settings
        watch = Watch(tenant_id, trunk_id, len(known.endpoints), known.rng)
        while not self._closed and not (room and room.over.is_set()):
            with self._lock:
                if self._closed:
                    return
                # Before `close` looks what there is to end.
                stream = self._stub(watch.endpoint, requests.WATCH_CALLS, streams=True)(
                    watch.request, metadata=known.sent()
                )
                self._streams.add(stream)
            if room is not None:
                room.stream = stream
                if room.over.is_set():
                    stream.cancel()
            try:
                for message in stream:
                    told = watch.told(message)
                    if told is not None:
                        yield told
                code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
                details: str | None = None
            except grpc.RpcError:
                code, details = stream.code(), stream.details()
            finally:
                stream.cancel()
                with self._lock:
                    self._streams.discard(stream)
            if not self._closed and not (room and room.over.is_set()):
                self._wake.wait(watch.ended(code, details))

    # Its life.

    def start(self) -> None:
        """Begins to send what the journal holds, in the background. Any call does that too; to be
        called after a fork, not before."""
        if self._journal is None or self._resender is not None:
            return
        with self._lock:
            if self._resender is None and not self._closed:
                self._resender = threading.Thread(
                    target=self._resend_for_ever, name="tollgate-journal", daemon=True
                )
                self._resender.start()

    def flush(self, timeout: float = 10.0) -> bool:
        """Sends what the journal holds, now; whether all of it was answered in that time."""
        if self._journal is None:
            return True
        end = time.monotonic() + timeout
        self._journal.adopt()
        while True:
            progress = self._resend(min(end - time.monotonic(), self._settings.timeout))
            if not len(self._journal):
                return True
            if time.monotonic() >= end:
                return False
            if not progress:
                self._wake.wait(min(RESEND_PAUSE, max(0.0, end - time.monotonic())))

    def close(self) -> None:
        """Ends it. What the journal holds stays there, for the next client."""
        self._closed = True
        self._wake.set()
        thread = self._resender
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2 * self._settings.timeout)
        with self._lock:
            for stream in list(self._streams):
                stream.cancel()
            for channel in [*self._retired.values(), *(c for c, _ in self._channels.values())]:
                channel.close()
            self._retired.clear()
            self._channels.clear()
            self._stubs.clear()
            self._rooms.clear()
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> "Tollgate":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How it is done.

    def _end(
        self,
        method: requests.Method[Any, Any],
        request: EndRequest,
        timeout: float | None,
    ) -> Settlement:
        entry = self._keep(method.name, request)
        try:
            # What is kept need not wait for a sidecar that is known to be away.
            message = self._call(method, request, timeout, trial=entry is None)
            settlement = answers.settlement(message)
        except NoDecisionError as error:
            self._ended(entry, error)
            if entry is None or error.code in _core.REFUSED_FOR_GOOD:
                raise
            return answers.PENDING
        except BaseException:
            if entry is not None and self._journal is not None:
                self._journal.give_back(entry)
            raise
        self._ended(entry, settlement)
        return settlement

    def _call(
        self,
        method: requests.Method[requests.Request, requests.Response],
        request: requests.Request,
        timeout: float | None,
        *,
        emergency: bool = False,
        trial: bool = False,
    ) -> requests.Response:
        exchange = self._exchange(method.name, timeout, emergency=emergency, trial=trial)
        self.start()
        return self._carry_out(exchange, method, request)

    def _carry_out(
        self,
        exchange: Exchange,
        method: requests.Method[requests.Request, requests.Response],
        request: requests.Request,
    ) -> requests.Response:
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        flights: dict[int, tuple[int, Any]] = {}
        breaker = self._settings.breaker
        try:
            while True:
                now = time.monotonic()
                todo = exchange.step(now)
                if isinstance(todo, GiveUp):
                    for index, _ in flights.values():
                        breaker.failed(index, now)
                    raise _core.error(method.name, exchange, todo)
                if isinstance(todo, Start):
                    request = requests.attempt(request, todo.attempt)
                    stub = self._stub(todo.endpoint, method)
                    flight = stub.future(
                        request, timeout=todo.timeout, metadata=self._settings.sent()
                    )
                    flights[todo.attempt] = (todo.endpoint, flight)
                    flight.add_done_callback(lambda _, attempt=todo.attempt: ended.put(attempt))
                    continue
                try:
                    attempt = ended.get(timeout=max(0.0, todo.until - now))
                except queue.Empty:
                    continue
                index, flight = flights.pop(attempt)
                code = flight.code()
                if code is grpc.StatusCode.OK:
                    breaker.answered(index)
                    response: requests.Response = flight.result()
                    return response
                now = time.monotonic()
                if _core.answered_by_server(code):
                    breaker.answered(index)
                else:
                    breaker.failed(index, now)
                seen = _core.failure(code, flight.details(), flight.trailing_metadata())
                exchange.failed(attempt, seen, now)
        finally:
            for _, flight in flights.values():
                flight.cancel()

    def _stub(self, index: int, method: requests.Method[Any, Any], *, streams: bool = False) -> Any:
        with self._lock:
            return super()._stub(index, method, streams=streams)

    def _open(
        self, where: _core.Endpoint, credentials: grpc.ChannelCredentials | None
    ) -> grpc.Channel:
        if credentials is None:
            return grpc.insecure_channel(where.target, options=where.options)
        return grpc.secure_channel(where.target, credentials, options=where.options)

    def _close_retired(self, channel: grpc.Channel) -> None:
        channel.close()

    def _resend_for_ever(self) -> None:
        """Takes over what dead clients left, and sends what waits, until the client is closed."""
        journal = self._journal
        assert journal is not None
        pause = _core.RESEND_FIRST
        adopt_at = 0.0
        while not self._closed:
            try:
                if time.monotonic() >= adopt_at:
                    journal.adopt()
                    adopt_at = time.monotonic() + _core.ADOPT_EVERY
                answered = self._resend(self._settings.timeout)
            except Exception:
                _core.log.exception("the journal could not be sent; tried again")
                answered = False
            if answered or not len(journal):
                pause = _core.RESEND_FIRST
            else:
                pause = min(pause * 2, _core.RESEND_LONGEST)
            self._wake.wait(pause * (0.5 + self._settings.rng() / 2))

    def _resend(self, timeout: float) -> bool:
        """Sends some of what waits, until one is not answered; whether all of them were."""
        assert self._journal is not None
        entries = self._journal.take()
        for position, entry in enumerate(entries):
            if self._closed or not self._resend_one(entry, timeout):
                for untouched in entries[position:]:
                    self._journal.give_back(untouched)
                return False
        return True

    def _resend_one(self, entry: Entry, timeout: float) -> bool:
        settle = entry.kind == requests.SETTLE.name
        method: requests.Method[Any, Any] = requests.SETTLE if settle else requests.RELEASE
        try:
            exchange = self._exchange(method.name, max(timeout, 0.05), trial=True)
            message = self._carry_out(exchange, method, entry.request)
        except NoDecisionError as error:
            self._ended(entry, error)
            # One that the server does not like must not hold up those behind it.
            return isinstance(error, RejectedError)
        self._ended(entry, answers.settlement(message))
        return True


class _Room:
    """The followed calls of one tenant and trunk, and their stream."""

    def __init__(self) -> None:
        self.followed = Followed()
        self.over = threading.Event()
        self.stream: Any = None


RESEND_PAUSE = 0.05
"""Between two attempts of `flush`, in seconds."""
