"""The agent: reports answers, extends and settles, beside the processes that carry SIP.

It hears of calls by packets on a socket, one JSON object each, and knows nothing of Kamailio but a `Switch`.
A settle is in the journal, on disk, before it is sent; what Tollgate does not take is sent until it does.
"""

import asyncio
import base64
import json
import logging
import os
import struct
import time
from dataclasses import dataclass

from tollgate import AsyncTollgate, Call, NoDecisionError, TollgateError
from tollgate.answers import answer as read_answer
from tollgate.v1 import call_authorization_service_pb2 as service

log = logging.getLogger("tollgate.kamailio")

EXTEND_TIMEOUT = 4.0
"""Longest wait for an extension and for a report of an answer, repetitions included; in seconds."""

EMERGENCY_RETRY = 2.0
"""Between two attempts to tell of an emergency call that went through; in seconds."""

EMERGENCY_KEEP = 3600.0
"""How long such attempts go on; in seconds."""


LOOK_AGAIN = (1.0, 5.0, 10.0, 30.0)
"""Pauses between two looks for a call whose dialog has ended without its name; in seconds."""


@dataclass(frozen=True)
class Settings:
    """Of this Kamailio, from the environment."""

    realm: str
    endpoints: list[str]
    timeout: float
    hedge_after: float
    journal: str
    emergency_numbers: list[str]

    @classmethod
    def from_environment(cls):
        """TOLLGATE_ENDPOINTS and so on; see README.md."""
        get = os.environ.get
        return cls(
            realm=get("TOLLGATE_REALM", "kamailio"),
            endpoints=get("TOLLGATE_ENDPOINTS", "127.0.0.1:7601").split(","),
            timeout=float(get("TOLLGATE_DEADLINE", "0.8")),
            hedge_after=float(get("TOLLGATE_HEDGE_AFTER", "0.1")),
            journal=get("TOLLGATE_JOURNAL", "/var/lib/kamailio/tollgate"),
            emergency_numbers=[n for n in get("TOLLGATE_EMERGENCY_NUMBERS", "").split(",") if n],
        )


class Status:
    """What the agent tells the workers, in memory that all processes share."""

    def __init__(self, shared):
        self._shared = shared

    @property
    def journal_full(self):
        """Whether no ordinary call should be started: its settle might be lost."""
        return struct.unpack_from("<I", self._shared)[0] == 1

    @journal_full.setter
    def journal_full(self, full):
        struct.pack_into("<I", self._shared, 0, int(full))


class Leg:
    """A call leg that Tollgate was asked about."""

    def __init__(self, call, asked):
        self.call = call
        self.asked = asked
        """Completes when Tollgate has answered; of an emergency call that may be after its end."""
        self.dialog = None
        self.answered_at = None
        self.timer = None


class Agent:
    """All running legs of this Kamailio."""

    def __init__(self, client, switch, status):
        self._client = client
        self._switch = switch
        self._status = status
        self._legs = {}
        self._tasks = set()
        self._loop = asyncio.get_running_loop()

    def heard(self, packet):
        """A packet of a worker."""
        try:
            told = json.loads(packet)
            getattr(self, "_on_" + told.pop("what"))(**told)
        except Exception:
            log.exception("a packet could not be used: %r", packet[:300])

    def _on_authorized(self, fields, answer):
        message = service.AuthorizeCallResponse.FromString(base64.b64decode(answer))
        call = Call(fields["tenant_id"], fields["call_id"], read_answer(message), reports_answer=True)
        self._legs[fields["call_id"]] = Leg(call, None)

    def _on_emergency(self, fields):
        leg = Leg(None, None)
        leg.asked = self._begin(self._tell_emergency(leg, fields))
        self._legs[fields["call_id"]] = leg

    def _on_release(self, fields):
        # No answer came: what may be held is given back, and the name is used up.
        self._begin(self._end(fields["tenant_id"], fields["call_id"], 0.0, 41, ""))

    def _on_answered(self, fields, at, dialog):
        leg = self._legs.get(fields["call_id"])
        if leg is None or leg.call is None:
            return
        leg.dialog = dialog
        leg.answered_at = at
        leg.call.answered(at)
        self._begin(self._report_answer(leg.call))
        self._arm(leg)

    def _on_ended(self, fields, at, answered, cause):
        used = max(0.001, at - answered) if answered is not None else 0.0
        self._finish(fields, used, at, cause)

    def _on_failed(self, fields, cause):
        self._finish(fields, 0.0, time.monotonic(), cause)

    def _on_vanished(self, at):
        self._look(at, LOOK_AGAIN)

    def _look(self, at, pauses):
        """Settles the calls whose dialog is gone without a word; it may take a while to go."""
        answered = [leg for leg in self._legs.values() if leg.dialog and leg.answered_at <= at]
        gone = [leg for leg in answered if not self._move_timeout(leg)]
        for leg in gone:
            fields = {"tenant_id": leg.call.tenant_id, "call_id": leg.call.call_id}
            self._finish(fields, max(0.001, at - leg.answered_at), at, 102)
        if pauses and not gone:
            self._loop.call_later(pauses[0], self._look, at, pauses[1:])

    def _move_timeout(self, leg):
        left = leg.call.hard_stop_at - leg.call.now()
        return self._switch.set_timeout(leg.dialog, max(1, round(left)))

    def _finish(self, fields, used, at, cause):
        leg = self._legs.pop(fields["call_id"], None)
        if leg is None:
            # The agent was started anew, or it was told before: the same settle again changes nothing.
            self._begin(self._end(fields["tenant_id"], fields["call_id"], used, cause, ""))
            return
        if leg.timer is not None:
            leg.timer.cancel()
        token = ""
        if leg.call is not None:
            leg.call.ended(at)
            token = leg.call.token
        self._begin(self._end(fields["tenant_id"], fields["call_id"], used, cause, token, leg.asked))

    # What is done about it.

    def _arm(self, leg):
        at = leg.call.extend_at
        if at is not None:
            leg.timer = self._loop.call_at(at, lambda: self._begin(self._extend(leg)))

    async def _extend(self, leg):
        call = leg.call
        try:
            answer = await self._client.extend(
                tenant_id=call.tenant_id,
                call_id=call.call_id,
                used_seconds=call.used_seconds,
                sequence=call.next_sequence(),
                token=call.token,
                timeout=EXTEND_TIMEOUT,
            )
        except NoDecisionError as error:
            log.warning("%s runs on to its hard stop: %s", call.call_id, error)
            call.not_extended()
        else:
            if call.call_id not in self._legs:
                return  # it ended meanwhile
            if not call.extended(answer):
                log.warning("%s is ended: %s", call.call_id, answer.decision)
                self._switch.set_timeout(leg.dialog, 1)
                return
            if not self._move_timeout(leg):
                self._look(call.now(), LOOK_AGAIN)
                return
            log.info("%s may run to %s s", call.call_id, call.grant.hard_stop)
        if call.call_id in self._legs:
            self._arm(leg)

    async def _report_answer(self, call):
        try:
            await self._client.report_answer(tenant_id=call.tenant_id, call_id=call.call_id, timeout=EXTEND_TIMEOUT)
        except TollgateError as error:
            # The first extension, or the settle, proves the answer as well.
            log.warning("the answer of %s is not reported: %s", call.call_id, error)

    async def _tell_emergency(self, leg, fields):
        until = time.monotonic() + EMERGENCY_KEEP
        while True:
            answer = await self._client.authorize(**fields, emergency=True)
            if not answer.local or time.monotonic() >= until:
                return
            log.error("an emergency call went through and is not recorded yet: %s", fields["call_id"])
            await asyncio.sleep(EMERGENCY_RETRY)

    async def _end(self, tenant_id, call_id, used, cause, token, asked=None):
        if asked is not None:
            await asyncio.wait([asked])
        leg = {"tenant_id": tenant_id, "call_id": call_id, "q850_cause": cause}
        try:
            if used == 0:
                settled = await self._client.release(**leg)
            else:
                settled = await self._client.settle(**leg, used_seconds=used, token=token)
            log.info("%s %s after %.3f s", call_id, settled.result, used)
        except TollgateError as error:
            log.error("%s used %.3f s and was not settled: %s", call_id, used, error)
        journal = self._client.journal
        self._status.journal_full = journal is not None and journal.full

    def _begin(self, work):
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task):
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("failed: %r", task.exception(), exc_info=task.exception())


class _Log(logging.Handler):
    def __init__(self, switch):
        super().__init__()
        self._switch = switch

    def emit(self, record):
        self._switch.log(record.levelno, "tollgate: " + self.format(record).replace("\n", " | "))


def run(settings, packets, status, switch):
    """Runs the agent in this process, for ever."""
    root = logging.getLogger("tollgate")
    root.handlers[:] = [_Log(switch)]
    root.setLevel(logging.INFO)
    asyncio.run(_serve(settings, packets, status, switch))


async def _serve(settings, packets, status, switch):
    packets.setblocking(False)
    async with AsyncTollgate(
        settings.endpoints,
        timeout=max(2.0, settings.timeout),
        hedge_after=settings.hedge_after,
        journal=settings.journal,
        emergency_numbers=settings.emergency_numbers,
    ) as client:
        client.start()
        agent = Agent(client, switch, status)

        def ready():
            for _ in range(64):  # then the others have their turn
                try:
                    packet = packets.recv(65536)
                except BlockingIOError:
                    return
                agent.heard(packet)

        asyncio.get_running_loop().add_reader(packets, ready)
        log.info("the agent runs in process %d", os.getpid())
        await asyncio.Event().wait()
