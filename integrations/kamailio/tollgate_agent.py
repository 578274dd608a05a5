"""The agent: reports answers, extends and settles, beside the processes that carry SIP.

It hears of calls by packets on a socket, one JSON object each, and knows nothing of Kamailio but a `Switch`.
A settle is in the journal, on disk, before it is sent; what Tollgate does not take is sent until it does.
Of each tenant with running calls it watches the directives, and carries them out. When Kamailio was started
anew, the calls of before are ended.
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
import struct
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tollgate import AsyncTollgate, Call, NoDecisionError, RejectedError, TollgateError
from tollgate.answers import answer as read_answer
from tollgate.v1 import call_authorization_service_pb2 as service

log = logging.getLogger("tollgate.kamailio")

EXTEND_TIMEOUT = 4.0
"""Longest wait for an extension and for a report of an answer, repetitions included; in seconds."""

EMERGENCY_RETRY = 2.0
"""Between two attempts to tell of an emergency call that went through; in seconds."""

EMERGENCY_KEEP = 3600.0
"""How long such attempts go on; in seconds."""

WATCH_IDLE = 60.0
"""How long the directives of a tenant without calls are still watched, in seconds."""

WATCH_AGAIN = 0.5
"""Before directives are asked for again, the first time, in seconds; each time twice as long."""

WATCH_RETRY = 30.0
"""The longest of these pauses, in seconds."""

END_RETRY = 5.0
"""Between two attempts to end the calls of before a restart, in seconds."""

END_TIMEOUT = 20.0
"""Longest wait until the calls of one tenant are ended, in seconds."""

TRUST = {
    "token_file": "TOLLGATE_CLIENT_TOKEN_FILE",
    "tls_ca": "TOLLGATE_CLIENT_TLS_CA",
    "tls_cert": "TOLLGATE_CLIENT_TLS_CERT",
    "tls_key": "TOLLGATE_CLIENT_TLS_KEY",
}
"""Files with what a server with identities wants to see; the variables are those of the program's commands."""

RING_AGAIN = 1.0
"""Between two attempts to end a call that rings, in seconds."""

HUNG_UP = 40.0
"""How long after its hard stop, or its hanging up, a call is looked for of whose end Kamailio has not told: longer than
it repeats a BYE that nobody answers, in seconds."""

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
    trust: dict = field(default_factory=dict)
    """What is shown to the sidecars and trusted in them: arguments of the client library."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When Kamailio was started: calls of before are gone."""

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
            trust={name: get(where) for name, where in TRUST.items() if get(where)},
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

    def __init__(self, call, asked, sip=None):
        self.call = call
        self.sip = sip
        """Call-ID and CSeq of its INVITE."""
        self.asked = asked
        """Completes when Tollgate has answered; of an emergency call that may be after its end."""
        self.dialog = None
        self.answered_at = None
        self.timer = None
        self.extending = False
        self.again = False
        """Funds arrived while an extension was on its way."""
        self.ending = False
        """Kamailio was told to hang up."""
        self.over_at = None
        """When it has hung up since then, at the latest."""
        self.directed = None
        """A directive that came before the answer."""


class Tenants:
    """Whose calls this Kamailio has had, kept on disk for the next start. One that cannot be written is no reason to
    refuse a call: its calls expire."""

    def __init__(self, directory):
        self._file = Path(directory) / "tenants.json"
        self._known = set()
        try:
            self._known = set(json.loads(self._file.read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.error("the calls of before a restart are left to expire: %s: %s", self._file, error)

    def __iter__(self):
        return iter(sorted(self._known))

    def add(self, tenant_id):
        """Keeps one, before its first call is answered."""
        if tenant_id in self._known:
            return
        self._known.add(tenant_id)
        part = self._file.with_suffix(".part")
        try:
            part.write_text(json.dumps(sorted(self._known)))
            part.replace(self._file)
        except OSError as error:
            log.error("calls of %s would not be ended by a restart: %s", tenant_id, error)


class Agent:
    """All running legs of this Kamailio."""

    def __init__(self, client, switch, status, tenants=(), realm=""):
        self._client = client
        self._switch = switch
        self._status = status
        self._tenants = tenants
        self._realm = realm
        self._legs = {}
        self._watches = {}
        self._tasks = set()
        self._loop = asyncio.get_running_loop()

    def heard(self, packet):
        """A packet of a worker."""
        try:
            told = json.loads(packet)
            getattr(self, "_on_" + told.pop("what"))(**told)
        except Exception:
            log.exception("a packet could not be used: %r", packet[:300])

    def _on_authorized(self, fields, answer, sip=None):
        message = service.AuthorizeCallResponse.FromString(base64.b64decode(answer))
        call = Call(fields["tenant_id"], fields["call_id"], read_answer(message), reports_answer=True)
        self._legs[fields["call_id"]] = Leg(call, None, sip)
        self._watch(call.tenant_id)

    def _on_emergency(self, fields):
        leg = Leg(None, None)
        leg.asked = self.begin(self._tell_emergency(leg, fields))
        self._legs[fields["call_id"]] = leg

    def _on_release(self, fields):
        # No answer came: what may be held is given back, and the name is used up.
        self.begin(self._end(fields["tenant_id"], fields["call_id"], 0.0, 41, ""))

    def _on_answered(self, fields, at, dialog):
        leg = self._legs.get(fields["call_id"])
        if leg is None or leg.call is None:
            return
        leg.dialog = dialog
        leg.answered_at = at
        leg.call.answered(at)
        self.begin(self._report_answer(leg.call))
        self._arm(leg)
        if leg.directed is not None:
            self._carry_out(leg, leg.directed)

    def _on_ended(self, fields, at, answered, cause):
        used = max(0.001, at - answered) if answered is not None else 0.0
        self._finish(fields, used, at, cause)

    def _on_failed(self, fields, cause):
        self._finish(fields, 0.0, time.monotonic(), cause)

    def _on_vanished(self, at, sip_call_id=""):
        answered = [leg for leg in self._legs.values() if leg.dialog and leg.answered_at <= at]
        named = [leg for leg in answered if leg.sip and sip_call_id and leg.sip[0] == sip_call_id]
        if len(named) == 1:
            # No need to look: what is left of a dialog may take long to go, and longer when it is asked.
            call = named[0].call
            fields = {"tenant_id": call.tenant_id, "call_id": call.call_id}
            self._finish(fields, max(0.001, at - named[0].answered_at), at, 102)
            return
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

    def _look_after(self, leg):
        """Kamailio tells no end where its own BYE is answered before it has noted that it sends one."""
        if self._legs.get(leg.call.call_id) is leg:
            ends = (leg.call.now(), leg.call.hard_stop_at, leg.over_at)
            self._look(min(end for end in ends if end is not None), LOOK_AGAIN)

    def _move_timeout(self, leg):
        left = 1 if leg.ending else leg.call.hard_stop_at - leg.call.now()
        return self._switch.set_timeout(leg.dialog, max(1, round(left)))

    def _finish(self, fields, used, at, cause):
        leg = self._legs.pop(fields["call_id"], None)
        if leg is None:
            # The agent was started anew, or it was told before: the same settle again changes nothing.
            self.begin(self._end(fields["tenant_id"], fields["call_id"], used, cause, ""))
            return
        if leg.timer is not None:
            leg.timer.cancel()
        token = ""
        if leg.call is not None:
            leg.call.ended(at)
            token = leg.call.token
        self.begin(self._end(fields["tenant_id"], fields["call_id"], used, cause, token, leg.asked))

    # What is done about it.

    def _arm(self, leg):
        if leg.timer is not None:
            leg.timer.cancel()
        at, stop = leg.call.extend_at, leg.call.hard_stop_at
        if at is not None:
            leg.timer = self._loop.call_at(at, lambda: self.begin(self._extend(leg)))
        elif stop is not None:
            leg.timer = self._loop.call_at(stop + HUNG_UP, self._look_after, leg)

    async def _extend(self, leg):
        if leg.extending:
            leg.again = True
            return
        leg.extending = leg.again = True
        try:
            while leg.again and not leg.ending and leg.call.call_id in self._legs:
                leg.again = False
                await self._extend_once(leg)
        finally:
            leg.extending = False

    async def _extend_once(self, leg):
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
            if call.call_id not in self._legs or leg.ending:
                return  # it ended meanwhile
            if not call.extended(answer):
                log.warning("%s is ended: %s", call.call_id, answer.decision)
                self._hang_up(leg)
                return
            if not self._move_timeout(leg):
                self._look(call.now(), LOOK_AGAIN)
                return
            log.info("%s may run to %s s", call.call_id, call.grant.hard_stop)
        if call.call_id in self._legs:
            self._arm(leg)

    # Directives.

    def _watch(self, tenant_id):
        if tenant_id in self._watches:
            return
        if isinstance(self._tenants, Tenants):
            self._tenants.add(tenant_id)
        self._watches[tenant_id] = self.begin(self._follow(tenant_id))
        self._loop.call_later(WATCH_IDLE, self._leave, tenant_id)

    def _leave(self, tenant_id):
        """Without running calls there is nothing to be told of; the next call begins anew."""
        if any(leg.call is not None and leg.call.tenant_id == tenant_id for leg in self._legs.values()):
            self._loop.call_later(WATCH_IDLE, self._leave, tenant_id)
            return
        self._watches.pop(tenant_id).cancel()

    async def _follow(self, tenant_id):
        pause = WATCH_AGAIN
        while True:
            begun = self._loop.time()
            try:
                async for directive in self._client.watch_calls(tenant_id=tenant_id, trunk_id=self._realm):
                    self.directed(directive)
                return  # the client is closed
            except RejectedError as error:
                log.error("the directives of %s are not watched: %s", tenant_id, error)
            except Exception:
                log.exception("the directives of %s are watched again later", tenant_id)
            # A stream ends with the token that it showed: the renewed one is there soon.
            if self._loop.time() - begun > pause:
                pause = WATCH_AGAIN
            await asyncio.sleep(pause)
            pause = min(2 * pause, WATCH_RETRY)

    def directed(self, directive):
        """Carries out what Tollgate says of a call; of one that is unknown here, or over, nothing."""
        leg = self._legs.get(directive.call_id)
        if leg is None or leg.call is None:
            return  # an emergency call runs on
        log.log(
            logging.WARNING if directive.type == "END_NOW" else logging.INFO,
            "%s %s (%s): %s",
            directive.call_id,
            directive.type,
            directive.reason,
            directive.detail,
        )
        if leg.dialog is None:
            if leg.directed is None or leg.directed.type != "END_NOW":
                leg.directed = directive
                if directive.type == "END_NOW":
                    self._stop_ringing(leg)
            return
        self._carry_out(leg, directive)

    def _stop_ringing(self, leg):
        """Until it is over, or answered: that is carried out then. Kamailio finds an INVITE by its Call-ID and CSeq,
        which the legs of a hairpinned or forwarded call share: of those none is taken for another."""
        if leg.dialog is not None or self._legs.get(leg.call.call_id) is not leg:
            return
        alike = [other for other in self._legs.values() if other.sip == leg.sip]
        if leg.sip is None or len(alike) > 1:
            log.warning("%s is ended when it is answered: other legs have its Call-ID", leg.call.call_id)
            return
        self._switch.cancel(leg.sip, leg.directed.reason)
        self._loop.call_later(RING_AGAIN, self._stop_ringing, leg)

    def _carry_out(self, leg, directive):
        leg.directed = None
        if directive.type == "END_NOW":
            self._hang_up(leg)
        elif directive.type == "REFRESH":
            self.begin(self._extend(leg))

    def _hang_up(self, leg):
        """Kamailio sends its BYE to both legs when the dialog's timeout is over."""
        leg.ending = True
        # Its timers count whole seconds: one asked for takes up to two.
        leg.over_at = leg.call.now() + 2
        if leg.timer is not None:
            leg.timer.cancel()
        if not self._switch.set_timeout(leg.dialog, 1):
            self._look(leg.call.now(), LOOK_AGAIN)
            return
        leg.timer = self._loop.call_later(1 + HUNG_UP, self._look_after, leg)

    async def end_calls_before(self, started):
        """Ends what ran when Kamailio was started; until it is answered."""
        left = list(self._tenants)
        while left:
            waiting = []
            for tenant_id in left:
                try:
                    ended = await self._client.end_calls(
                        tenant_id=tenant_id, trunk_id=self._realm, started_before=started, timeout=END_TIMEOUT
                    )
                    if ended.ended:
                        log.warning("%d calls of %s, of before the start, are ended", ended.ended, tenant_id)
                except RejectedError as error:
                    log.error("calls of %s, of before the start, are left to expire: %s", tenant_id, error)
                except TollgateError as error:
                    log.warning("calls of %s, of before the start, are ended later: %s", tenant_id, error)
                    waiting.append(tenant_id)
            left = waiting
            if left:
                await asyncio.sleep(END_RETRY)

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

    def begin(self, work):
        """Runs it beside all else; what fails is logged."""
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
        **settings.trust,
    ) as client:
        client.start()
        with contextlib.suppress(OSError):
            Path(settings.journal).mkdir(parents=True, exist_ok=True)
        tenants = Tenants(settings.journal)
        agent = Agent(client, switch, status, tenants, settings.realm)
        agent.begin(agent.end_calls_before(settings.started))

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
