"""What kamailio.cfg calls by `python_exec`: Tollgate in front of calls.

Kamailio loads this file once and then forks. Three kinds of its processes use it:

- async workers run `authorize`, which waits for Tollgate, within a deadline;
- workers that receive SIP, and timers, run `answered`, `ended`, `failed`, `give_up` and `emergency`, which
  wait for nobody: each sends one packet to the agent;
- one process of a timer of its own runs `agent`, for ever: see tollgate_agent.py.

Nothing of gRPC is opened before the fork. app_python3 holds Python's lock between two calls of a function, so
that a worker's threads stand still meanwhile: what needs threads or a journal is the agent's.
"""

import base64
import json
import mmap
import os
import re
import socket
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [p for p in os.environ.get("TOLLGATE_PYTHONPATH", "").split(":") if p] + [str(HERE)]

import KSR
import tollgate_agent as agents
from tollgate import NoDecisionError, Tollgate, call_id

FIELDS = {
    "tenant_id": "$avp(tg_tenant)",
    "payer_id": "$avp(tg_payer)",
    "call_type": "$avp(tg_type)",
    "called_number": "$avp(tg_called)",
    "calling_number": "$avp(tg_calling)",
    "original_called_number": "$avp(tg_original_called)",
    "origin": "$avp(tg_origin)",
    "on_behalf_of": "$avp(tg_on_behalf_of)",
    "conference_id": "$avp(tg_conference)",
    "sip_call_id": "$ci",
}
"""Fields of AuthorizeCall, and where the configuration says them."""

SEND_PATIENCE = 0.5
"""Longest wait, in seconds, for room on the way to the agent; it is full only when the agent stands still."""

PROC_RPC = -2
"""Kamailio's rank of async workers, and of those of its control sockets."""

WARM_UP = "kamailio-starts"
"""Whom nobody knows: asked about by a quote, which holds and records nothing."""

CAUSES = {
    400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 408: 102, 410: 22, 413: 127, 415: 79,
    420: 127, 480: 18, 481: 41, 482: 25, 483: 25, 484: 28, 485: 1, 486: 17, 487: 16, 488: 31, 500: 41,
    501: 79, 502: 38, 503: 41, 504: 102, 600: 17, 603: 21, 604: 1, 606: 31,
}  # fmt: skip
"""Q.850 cause of a SIP final response (RFC 3398, section 8.2.6.1); 487 follows the caller's own hanging up."""

RINGING_ENDS = {
    "PAYER_BLOCKED": (29, 603),
    "FRAUD_SUSPECTED": (29, 603),
    "TENANT_SUSPENDED": (30, 403),
    "OPERATOR": (31, 480),
}
"""Flag in tollgate.cfg, and the status that the called party is told too, by the reason of a directive."""

CAUSE = re.compile(r"Q\.850\s*;.*?cause\s*=\s*(\d{1,3})", re.IGNORECASE)


def mod_init():
    """Called by Kamailio before it forks."""
    return Handler()


class Handler:
    """The functions that kamailio.cfg calls. All of them return 1: what went wrong is in $avp(tg_verdict)."""

    def __init__(self):
        self.settings = agents.Settings.from_environment()
        # Made before the fork, so that all processes have them.
        self.to_agent, self.from_workers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for size in (4 << 20, 1 << 20):
            try:
                self.to_agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
                break
            except OSError:
                continue
        self.to_agent.settimeout(SEND_PATIENCE)
        self.status = agents.Status(mmap.mmap(-1, mmap.PAGESIZE))
        self._client = None

    def child_init(self, rank):
        """Called by Kamailio in each process; async workers are of that rank."""
        if rank == PROC_RPC:
            # The first question of a process opens its connection, which takes a while: not a caller's.
            try:
                self._ask().quote(tenant_id=WARM_UP, call_id=WARM_UP, payer_id=WARM_UP, called_number="",
                                  call_type="USER_OUTBOUND")  # fmt: skip
            except Exception as error:
                KSR.info(f"tollgate: not asked yet: {error}\n")
        return 0

    # Async workers.

    def authorize(self, msg):
        """Asks, and says the answer in $avp(tg_verdict): "allow", "deny", or nothing."""
        put, fields = KSR.pv.sets, _fields(self.settings.realm)
        name = fields["call_id"]
        put("$avp(tg_call)", name)
        try:
            if self.status.journal_full:
                KSR.err(f"tollgate: {name} is refused: too many settles wait to be sent\n")
                return 1
            # What may be held without an answer is given back by the agent, which has the journal.
            answer = self._ask().authorize(**fields, reports_answer=True, give_up=False)
        except NoDecisionError as error:
            KSR.err(f"tollgate: no decision on {name}: {error}\n")
            if error.maybe_executed:
                self._tell("release", fields)
            return 1
        except ValueError as error:
            KSR.err(f"tollgate: {name}: {error}\n")
            return 1
        if not answer.allowed:
            KSR.info(f"tollgate: {name} {answer.decision}: {answer.denial.detail}\n")
            KSR.pv.seti("$avp(tg_status)", answer.sip_status)
            put("$avp(tg_phrase)", answer.sip_phrase)
            if answer.reason_header:
                put("$avp(tg_reason)", answer.reason_header)
            put("$avp(tg_verdict)", "deny")
            if answer.decision == "LEDGER_UNAVAILABLE":
                self._tell("release", fields)
            return 1
        message = base64.b64encode(answer.message.SerializeToString()).decode()
        self._tell("authorized", fields, answer=message, sip=[fields.get("sip_call_id", ""), str(KSR.pv.get("$cs"))])
        if answer.grant is not None:
            # Kamailio's clock has whole seconds; 0 would mean its default.
            KSR.pv.seti("$avp(tg_hard_stop)", max(1, answer.grant.hard_stop))
            # Given up a second before the hold expires.
            KSR.pv.seti("$avp(tg_ring)", max(1, answer.grant.ringing_timeout - 1) * 1000)
        put("$avp(tg_verdict)", "allow")
        return 1

    def _ask(self):
        # One for each process: gRPC does not survive a fork.
        if self._client is None:
            known = self.settings
            self._client = Tollgate(
                known.endpoints,
                timeout=known.timeout,
                hedge_after=known.hedge_after,
                emergency_numbers=known.emergency_numbers,
                **known.trust,
            )
        return self._client

    # Workers and timers.

    def emergency(self, msg):
        """The call goes through: the agent asks, so that it is recorded."""
        fields = _fields(self.settings.realm)
        KSR.pv.sets("$avp(tg_call)", fields["call_id"])
        self._tell("emergency", fields)
        return 1

    def give_up(self, msg):
        """An allowed call could not be sent on."""
        get = KSR.pv.get
        self._tell("failed", {"tenant_id": get("$avp(tg_tenant)"), "call_id": get("$avp(tg_call)")}, cause=41)
        return 1

    def answered(self, msg):
        """200 OK."""
        get, now = KSR.pv.get, time.monotonic()
        KSR.pv.sets("$dlg_var(tg_answered)", f"{now:.3f}")
        dialog = [int(get("$dlg(h_entry)")), int(get("$dlg(h_id)"))]
        self._tell("answered", _leg(), at=now, dialog=dialog)
        return 1

    def ended(self, msg):
        """BYE, the hard stop, or a party that is gone."""
        leg, at = _leg(), KSR.pv.get("$dlg_var(tg_answered)")
        if not leg["call_id"]:
            # Kamailio's own BYE was answered before this event was run, and the dialog is forgotten: the agent
            # looks which of its calls that was.
            self._send("vanished", {"at": time.monotonic(), "sip_call_id": str(KSR.pv.get("$ci") or "")})
            return 1
        self._tell("ended", leg, at=time.monotonic(), answered=float(at) if at else None, cause=_cause(16))
        return 1

    def failed(self, msg):
        """Cancelled, refused by the called party, or not answered in time."""
        code = KSR.pv.get("$T_reply_code")
        self._tell("failed", _leg(), cause=_cause(CAUSES.get(int(code or 0), 31)))
        return 1

    def _tell(self, what, fields, **more):
        if not fields.get("call_id"):
            return  # a dialog that Tollgate was not asked about
        self._send(what, {"fields": fields, **more})

    def _send(self, what, told):
        try:
            self.to_agent.send(json.dumps({"what": what, **told}).encode())
        except OSError as error:
            KSR.err(f"tollgate: {what} {told} is left to the hold's expiry: {error}\n")

    # The agent's process.

    def agent(self, msg):
        """Runs the agent; comes back only by an error, and is called again a second later."""
        try:
            agents.run(self.settings, self.from_workers, self.status, Switch())
        except Exception as error:
            KSR.err(f"tollgate: the agent failed and is started again: {error!r}\n")
        return 1


class Switch:
    """What the agent wants of Kamailio."""

    def set_timeout(self, dialog, seconds):
        """Ends the call so many seconds from now; whether there is such a dialog."""
        return KSR.dialog.dlg_set_timeout_id(seconds, *dialog) >= 0

    def cancel(self, sip, reason):
        """Ends a call that rings, by Call-ID and CSeq of its INVITE; tollgate.cfg answers the caller by the flag."""
        flag, status = RINGING_ENDS.get(reason, RINGING_ENDS["OPERATOR"])
        return KSR.tmx.t_cancel_callid_reason(*sip, flag, status) > 0

    def log(self, level, text):
        """Writes to Kamailio's log."""
        (KSR.err if level >= 40 else KSR.warn if level >= 30 else KSR.info)(text + "\n")


def _fields(realm):
    """The fields of AuthorizeCall, with the leg named before it is sent."""
    get = KSR.pv.get
    fields = {name: str(value) for name, where in FIELDS.items() if (value := get(where)) not in (None, "")}
    # A hairpinned or forwarded leg has the Call-ID and the tag of the first; its topmost Via is its own, and
    # that of a retransmission is the same.
    branch = get("$sel(via[1].branch)") or get("$T_branch_idx") or 1
    name = call_id(realm, get("$ci") or "none", get("$ft") or "", str(branch))
    for required in ("tenant_id", "payer_id", "called_number"):
        fields.setdefault(required, "")
    return {"call_type": "USER_OUTBOUND", **fields, "trunk_id": realm, "call_id": name}


def _leg():
    get = KSR.pv.get
    return {"tenant_id": get("$dlg_var(tg_tenant)") or "", "call_id": get("$dlg_var(tg_call)")}


def _cause(otherwise):
    """The Q.850 cause that the message's Reason header names."""
    found = CAUSE.search(KSR.pv.get("$hdr(Reason)") or "")
    return int(found.group(1)) if found and int(found.group(1)) < 128 else otherwise
