"""The client for asyncio."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Unpack

import grpc
import grpc.aio

from tollgate import _core, answers
from tollgate import _requests as requests
from tollgate._policy import Breaker, Exchange, GiveUp, Retry, Start
from tollgate._watch import FOLLOW_IDLE, FOLLOW_RETRY, Followed, Watch
from tollgate.answers import Answer, Directive, EndedCalls, Quote, Settlement
from tollgate.call import Call
from tollgate.errors import NoDecisionError, RejectedError, TollgateError
from tollgate.journal import DEFAULT_CAPACITY, EndRequest, Entry, Journal, Refused
from tollgate.v1 import call_authorization_service_pb2 as service

__all__ = ["AsyncTollgate"]

CHANNEL_CLOSED: Final = "its channel was closed"
"""What is said of a request that gRPC ended with its channel."""


class AsyncTollgate(_core.Common[grpc.aio.Channel]):
    """Asks Tollgate whether calls may proceed, from one event loop.

    Arguments, methods and promises are those of `Tollgate`. The journal's writes wait for the disk in
    a thread, so that the loop goes on. Nothing is opened before the first call.
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
        self._rooms: dict[tuple[str, str], _Room] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._resender: asyncio.Task[None] | None = None

    # The calls of a switch.

    async def authorize(
        self,
        *,
        timeout: float | None = None,
        emergency: bool = False,
        give_up: bool = True,
        **call: Unpack[requests.CallFields],
    ) -> Answer:
        """See `Tollgate.authorize`."""
        emergency = self._is_emergency(call, emergency)
        try:
            self._ready_for(emergency)
            request = self._authorize_request(call, emergency=emergency)
            try:
                message = await self._call(
                    requests.AUTHORIZE, request, timeout, emergency=emergency
                )
            except NoDecisionError as error:
                if give_up and not emergency:
                    await asyncio.to_thread(self._give_up, request, error)
                raise
            except asyncio.CancelledError:
                # The caller hung up: the hold that may have been taken goes back.
                if give_up and not emergency:
                    self._give_up(request, NoDecisionError("cancelled", maybe_executed=True))
                raise
            answer = answers.answer(message)
        except Exception as error:
            if not emergency:
                raise
            return self._put_through(error)
        if emergency and not answer.allowed:
            return self._put_through(TollgateError(f"the server says {answer.decision}"))
        if answer.decision == "LEDGER_UNAVAILABLE" and give_up:
            await asyncio.to_thread(self._give_up, request, answer)
        return answer

    async def quote(
        self, *, timeout: float | None = None, **call: Unpack[requests.CallFields]
    ) -> Quote:
        """See `Tollgate.quote`."""
        request = service.QuoteCallRequest()
        requests.fill(request, call, lenient=False)
        return answers.quote(await self._call(requests.QUOTE, request, timeout))

    async def report_answer(
        self,
        *,
        tenant_id: str,
        call_id: str,
        answered_at: datetime | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """See `Tollgate.report_answer`."""
        request = requests.report_answer(tenant_id, call_id, answered_at)
        message = await self._call(requests.REPORT_ANSWER, request, timeout)
        return answers.answer(message)

    async def extend(
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
        """See `Tollgate.extend`."""
        request = requests.extend(
            tenant_id, call_id, used_seconds, sequence, requested_seconds, token
        )
        message = await self._call(requests.EXTEND, request, timeout)
        return answers.answer(message)

    async def settle(
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
        """See `Tollgate.settle`."""
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
        return await self._end(requests.SETTLE, request, timeout)

    async def release(
        self,
        *,
        tenant_id: str,
        call_id: str,
        q850_cause: int = 0,
        timeout: float | None = None,
    ) -> Settlement:
        """See `Tollgate.release`."""
        request = service.ReleaseCallRequest(
            tenant_id=tenant_id, call_id=call_id, q850_cause=q850_cause
        )
        return await self._end(requests.RELEASE, request, timeout)

    async def end_calls(
        self,
        *,
        tenant_id: str,
        trunk_id: str,
        started_before: datetime,
        timeout: float | None = None,
    ) -> EndedCalls:
        """See `Tollgate.end_calls`."""
        request = service.EndCallsRequest(tenant_id=tenant_id, trunk_id=trunk_id)
        request.started_before.CopyFrom(requests.timestamp(started_before))
        return answers.ended_calls(await self._call(requests.END_CALLS, request, timeout))

    async def watch_calls(self, *, tenant_id: str, trunk_id: str = "") -> AsyncIterator[Directive]:
        """See `Tollgate.watch_calls`."""
        known = self._settings
        watch = Watch(tenant_id, trunk_id, len(known.endpoints), known.rng)
        while not self._closed:
            stream = self._stub(watch.endpoint, requests.WATCH_CALLS, streams=True)(
                watch.request, metadata=known.sent()
            )
            try:
                async for message in stream:
                    told = watch.told(message)
                    if told is not None:
                        yield told
                code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
                details: str | None = None
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details()
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                code, details = grpc.StatusCode.CANCELLED, CHANNEL_CLOSED
            finally:
                stream.cancel()
            if not self._closed:
                await asyncio.sleep(watch.ended(code, details))

    @contextlib.contextmanager
    def follow_call(self, call: Call, *, trunk_id: str = "") -> Iterator[asyncio.Event]:
        """See `Tollgate.follow_call`; in the event loop instead of a thread. `run_call` does it."""
        told = asyncio.Event()
        place = (call.tenant_id, trunk_id)
        room = self._rooms.get(place)
        if room is None and not self._closed:
            room = self._rooms[place] = _Room()
            room.task = asyncio.get_running_loop().create_task(
                self._follow_for_ever(place, room), name="tollgate-watch"
            )
        if room is not None:
            room.followed.add(call, told.set)
        try:
            yield told
        finally:
            if room is not None and room.followed.remove(call):
                asyncio.get_running_loop().call_later(FOLLOW_IDLE, self._leave, place, room)

    def _leave(self, place: tuple[str, str], room: "_Room") -> None:
        """Ends a stream that nobody has needed for a while."""
        if self._rooms.get(place) is not room or not room.followed.is_idle(FOLLOW_IDLE):
            return
        del self._rooms[place]
        if room.task is not None:
            room.task.cancel()

    async def _follow_for_ever(self, place: tuple[str, str], room: "_Room") -> None:
        tenant_id, trunk_id = place
        while not self._closed:
            try:
                async for directive in self.watch_calls(tenant_id=tenant_id, trunk_id=trunk_id):
                    room.followed.hand(directive)
            except Exception as error:
                _core.log.warning("the directives of %s are not watched: %s", tenant_id, error)
                await asyncio.sleep(FOLLOW_RETRY)

    # Its life.

    def start(self) -> None:
        """Begins to send what the journal holds, in the background; any call does that too."""
        if self._journal is not None and self._resender is None and not self._closed:
            self._resender = asyncio.get_running_loop().create_task(
                self._resend_for_ever(self._journal), name="tollgate-journal"
            )

    async def flush(self, timeout: float = 10.0) -> bool:
        """Sends what the journal holds, now; whether all of it was answered in that time."""
        journal = self._journal
        if journal is None:
            return True
        end = time.monotonic() + timeout
        await asyncio.to_thread(journal.adopt)
        while True:
            await self._resend(journal, min(end - time.monotonic(), self._settings.timeout))
            if not len(journal):
                return True
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Ends it. What the journal holds stays there, for the next client."""
        self._closed = True
        if self._resender is not None:
            self._resender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._resender
        rooms = [room.task for room in self._rooms.values() if room.task is not None]
        self._rooms.clear()
        for task in rooms:
            task.cancel()
        await asyncio.gather(*rooms, *self._closing, return_exceptions=True)
        for channel in [*self._retired.values(), *(c for c, _ in self._channels.values())]:
            await channel.close()
        self._retired.clear()
        self._channels.clear()
        self._stubs.clear()
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)

    async def __aenter__(self) -> "AsyncTollgate":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # How it is done.

    async def _end(
        self,
        method: requests.Method[Any, Any],
        request: EndRequest,
        timeout: float | None,
    ) -> Settlement:
        keeping = asyncio.ensure_future(asyncio.to_thread(self._keep, method.name, request))
        try:
            entry = await asyncio.shield(keeping)
        except asyncio.CancelledError:
            # The thread goes on: what it keeps is sent in the background.
            keeping.add_done_callback(self._leave_to_background)
            raise
        try:
            # What is kept need not wait for a sidecar that is known to be away.
            message = await self._call(method, request, timeout, trial=entry is None)
        except NoDecisionError as error:
            await asyncio.to_thread(self._ended, entry, error)
            if entry is None or error.code in _core.REFUSED_FOR_GOOD:
                raise
            return answers.PENDING
        except BaseException:
            if entry is not None and self._journal is not None:
                self._journal.give_back(entry)
            raise
        settlement = answers.settlement(message)
        self._ended(entry, settlement)
        return settlement

    def _leave_to_background(self, keeping: "asyncio.Future[Entry | None]") -> None:
        if not keeping.cancelled() and keeping.exception() is None:
            entry = keeping.result()
            if entry is not None and self._journal is not None:
                self._journal.give_back(entry)

    async def _call(
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
        return await self._carry_out(exchange, method, request)

    async def _carry_out(
        self,
        exchange: Exchange,
        method: requests.Method[requests.Request, requests.Response],
        request: requests.Request,
    ) -> requests.Response:
        flights: dict[asyncio.Task[requests.Response], tuple[int, int]] = {}
        breaker = self._settings.breaker
        try:
            while True:
                now = time.monotonic()
                todo = exchange.step(now)
                if isinstance(todo, GiveUp):
                    for _, index in flights.values():
                        breaker.failed(index, now)
                    raise _core.error(method.name, exchange, todo)
                if isinstance(todo, Start):
                    # Serialised later, in a task: each attempt has a message of its own.
                    request = requests.attempt(request, todo.attempt)
                    stub = self._stub(todo.endpoint, method)
                    flight = asyncio.ensure_future(
                        _send(stub, request, todo.timeout, self._settings.sent())
                    )
                    flights[flight] = (todo.attempt, todo.endpoint)
                    continue
                pause = max(0.0, todo.until - now)
                if not flights:
                    await asyncio.sleep(pause)
                    continue
                done, _ = await asyncio.wait(
                    flights, timeout=pause, return_when=asyncio.FIRST_COMPLETED
                )
                for flight in done:
                    attempt, index = flights.pop(flight)
                    seen = flight.exception()
                    now = time.monotonic()
                    if seen is None:
                        breaker.answered(index)
                        return flight.result()
                    if not isinstance(seen, grpc.aio.AioRpcError):
                        raise seen
                    if _core.answered_by_server(seen.code()):
                        breaker.answered(index)
                    else:
                        breaker.failed(index, now)
                    metadata = [(key, value) for key, value in seen.trailing_metadata() or ()]
                    exchange.failed(
                        attempt, _core.failure(seen.code(), seen.details(), metadata), now
                    )
        finally:
            for flight in flights:
                flight.cancel()
            if flights:
                await asyncio.gather(*flights, return_exceptions=True)

    def _open(
        self, where: _core.Endpoint, credentials: grpc.ChannelCredentials | None
    ) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(where.target, options=where.options)
        return grpc.aio.secure_channel(where.target, credentials, options=where.options)

    def _close_retired(self, channel: grpc.aio.Channel) -> None:
        closing = asyncio.ensure_future(channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _resend_for_ever(self, journal: Journal) -> None:
        """Takes over what dead clients left, and sends what waits, until the client is closed."""
        pause = _core.RESEND_FIRST
        adopt_at = 0.0
        while not self._closed:
            try:
                if time.monotonic() >= adopt_at:
                    await asyncio.to_thread(journal.adopt)
                    adopt_at = time.monotonic() + _core.ADOPT_EVERY
                answered = await self._resend(journal, self._settings.timeout)
            except Exception:
                _core.log.exception("the journal could not be sent; tried again")
                answered = False
            if answered or not len(journal):
                pause = _core.RESEND_FIRST
            else:
                pause = min(pause * 2, _core.RESEND_LONGEST)
            await asyncio.sleep(pause * (0.5 + self._settings.rng() / 2))

    async def _resend(self, journal: Journal, timeout: float) -> bool:
        """Sends some of what waits, until one is not answered; whether all of them were."""
        left = await asyncio.to_thread(journal.take)
        try:
            while left:
                if self._closed or not await self._resend_one(left[0], timeout):
                    return False
                left.pop(0)
        finally:
            for entry in left:
                journal.give_back(entry)
        return True

    async def _resend_one(self, entry: Entry, timeout: float) -> bool:
        settle = entry.kind == requests.SETTLE.name
        method: requests.Method[Any, Any] = requests.SETTLE if settle else requests.RELEASE
        try:
            exchange = self._exchange(method.name, max(timeout, 0.05), trial=True)
            message = await self._carry_out(exchange, method, entry.request)
        except NoDecisionError as error:
            await asyncio.to_thread(self._ended, entry, error)
            # One that the server does not like must not hold up those behind it.
            return isinstance(error, RejectedError)
        self._ended(entry, answers.settlement(message))
        return True


class _Room:
    """The followed calls of one tenant and trunk, and the task that reads their stream."""

    def __init__(self) -> None:
        self.followed = Followed()
        self.task: asyncio.Task[None] | None = None


async def _send(
    stub: Any, request: Any, timeout: float, metadata: Sequence[tuple[str, str]]
) -> Any:
    try:
        return await stub(request, timeout=timeout, metadata=metadata)
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.CANCELLED, nothing, nothing, CHANNEL_CLOSED
        ) from None


def _is_cancelled() -> bool:
    """Whether who runs here was cancelled. gRPC raises the same where it closed a channel under a
    request: one that was renewed twice, or that of a client that is closed."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
