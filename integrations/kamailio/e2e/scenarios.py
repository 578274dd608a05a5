"""What is played, and what must come of it.

Each scenario has an organisation of its own, so that many run at a time on one stack. Calls cost 0.01 a second
unless said otherwise, so that money is seconds.
"""

import asyncio
import contextlib
import math
import os
import re
import signal
import time
from dataclasses import dataclass, field
from decimal import Decimal

import bridge
import sip
from stack import GRACE, GRANT, REALM, RINGING, Failed, Process, children_of, free_port, until
from tollgate import AsyncTollgate

LONDON = "+442079460958"
LAGOS = "+2348031234567"
SLACK = 0.45
"""Seconds that SIPp and Kamailio may see differently: pauses end in the middle of a second."""

LOOKED_FOR = 100.0
"""When the agent has looked for a call whose end it was not told, at the latest: HUNG_UP and LOOK_AGAIN; in seconds."""

ALICE = "{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1, MCOMEETADD] }"


@dataclass
class Row:
    """A line of the table."""

    outcome: str
    talked: str = "-"
    charged: str = "-"
    audit: str = ""


@dataclass
class Scenario:
    """Something that is played on a stack."""

    name: str
    play: object
    tenants: str = ""
    numbers: list = field(default_factory=list)
    stack: str = "main"


ALL: list[Scenario] = []


def tenant(name, *, credit="500", users=(ALICE,), extra="", key="po-1"):
    """The YAML of an organisation."""
    bought = f'{{ key: {key}, amount: "{credit}", purchased_at: 2026-01-10T00:00:00Z }}' if credit else ""
    lines = [f"  - id: {name}", "    currency: USD", "    rate_deck: default", f"    credits: [{bought}]"]
    lines += [f"    {line}" for line in extra.strip().split("\n") if line]
    lines += ["    users:", *(f"      - {user}" for user in users)] if users else []
    return "\n".join(lines) + "\n"


def scenario(name, tenants="", numbers=(), stack="main"):
    """Marks a function as a scenario."""

    def mark(play):
        ALL.append(Scenario(name, play, tenants, list(numbers), stack))
        return play

    return mark


def check(condition, text):
    """A promise."""
    if not condition:
        raise Failed(text)


def settled(stack, name, talked, *, outcome, rate="0.01", also=0):
    """Waits until nothing is held, and compares what was charged with the seconds that SIPp talked.

    Now and then Kamailio tells no end after its own BYE: the hold expires with what was proven, and the agent settles
    the rest when it looks for such calls.
    """
    until(f"{name} holds nothing", lambda: stack.credits(name)["held"] == "0" and not stack.open_calls(name))
    least = sum(max(1, math.floor(t - SLACK)) for t in talked) + also
    most = sum(max(1, math.floor(t + SLACK)) for t in talked) + also
    if Decimal(stack.credits(name)["spent"]) / Decimal(rate) < least:
        outcome += ", settled when looked for"
        until(
            f"{least} s charged",
            lambda: Decimal(stack.credits(name)["spent"]) / Decimal(rate) >= least,
            LOOKED_FOR,
            0.5,
        )
    money = stack.credits(name)
    charged = Decimal(money["spent"]) / Decimal(rate)
    check(least <= charged <= most, f"charged {charged} s, SIPp talked {talked}")
    check(money["owed"] == "0", f"a shortfall of {money['owed']}")
    text = f"{sum(talked):.2f} s" if talked else "-"
    if len(talked) > 1:
        text += f" in {len(talked)}"
    return Row(outcome, text, f"{charged.normalize():f} s, {money['spent']} USD", stack.audit(name))


def refused(call, status, cause, phrase=None):
    """The refusal as it was on the wire."""
    final = call.wait_final()
    check(final.status == status, f"expected {status}, got {final.first}")
    reason = final.header("Reason")
    found = re.match(r"Q\.850;cause=(\d+)", reason)
    check((int(found.group(1)) if found else None) == cause, f"expected cause {cause}, got {reason!r}")
    check(phrase is None or final.phrase == phrase, f"expected {phrase}, got {final.first}")
    check("retry-after" not in final.text.lower(), "a refusal has a Retry-After")
    return f"{final.status} {final.phrase}" + (f", cause {cause}" if cause else ", no Reason")


def decided(stack, name, count=1):
    """The decisions on a tenant's calls, newest first, without prefix."""
    found = [d["decision"].removeprefix("DECISION_") for d in stack.decisions(name)]
    check(len(found) == count, f"expected {count} decisions, got {found}")
    return found


# Calls that are allowed.


@scenario("allowed, settled to the second", tenant("talks"))
def talks(stack, name="talks"):
    """INVITE, 180, 200, BYE."""
    with sip.Call(stack, "talks", "alice@talks", LONDON, sip.caller(3.5), sip.answerer()) as call:
        call.caller.wait_final()
        # Long before the first extension: the answer was reported.
        until("the answer is known", lambda: [c["usedDuration"] for c in stack.open_calls(name)] == ["1s"], 3)
        call.wait()
        check(decided(stack, name) == ["ALLOWED"], "not allowed")
        return settled(stack, name, call.caller.talked(), outcome="200, reported, BYE")


@scenario("caller cancels while ringing", tenant("cancels"))
def cancels(stack, name="cancels"):
    """The hold is given back."""
    with sip.Call(stack, name, "alice@cancels", LONDON, sip.caller_cancels(1.0), sip.answerer_rings()) as call:
        call.wait()
        check(decided(stack, name) == ["ALLOWED"], "not allowed")
        return settled(stack, name, [], outcome="180, CANCEL, 487")


@scenario("callee busy", tenant("busy"))
def busy(stack, name="busy"):
    """The hold is given back."""
    with sip.Call(stack, name, "alice@busy", LONDON, sip.caller_refused(486), sip.answerer_busy()) as call:
        call.wait()
        check(decided(stack, name) == ["ALLOWED"], "not allowed")
        return settled(stack, name, [], outcome="180, 486 Busy Here")


@scenario("no answer", tenant("rings"))
def rings(stack, name="rings"):
    """Given up when the grant's ringing timeout ends."""
    with sip.Call(stack, name, "alice@rings", LONDON, sip.caller_refused(408), sip.answerer_rings()) as call:
        call.wait()
        rang = call.caller.messages()
        check(rang[-2].at - rang[0].at < RINGING + 3, "it rang for too long")
        return settled(stack, name, [], outcome=f"180, 408 after {rang[-2].at - rang[0].at:.1f} s")


@scenario("cut at the hard stop", tenant("cut", credit="0.08"))
def cut(stack, name="cut"):
    """Credits for 8 s: Kamailio hangs up both legs."""
    with sip.Call(stack, name, "alice@cut", LONDON, sip.caller_is_cut(), sip.answerer()) as call:
        call.wait()
        check(call.answerer.wait() == 0, "the called party was not hung up")
        (talked,) = call.caller.talked()
        check(6 <= talked <= 11, f"cut after {talked} s")
        until("held again", lambda: stack.credits(name)["held"] == "0" and not stack.open_calls(name))

        def charged():
            return int(Decimal(stack.credits(name)["spent"]) * 100)

        outcome = "200, BYE by Kamailio to both"
        if charged() not in (7, 8):
            # Now and then Kamailio tells no end after its own BYE: the hold expires with what was proven, and the agent
            # settles the rest when it looks for such calls.
            outcome += ", settled when looked for"
            until(f"charged, not {charged()} s", lambda: charged() in (7, 8), LOOKED_FOR)
        row = Row(outcome, f"{talked:.2f} s", f"{charged()} s, {stack.credits(name)['spent']} USD")
        row.audit = stack.audit(name)
        return row


@scenario("extended twice", tenant("extends"))
def extends(stack, name="extends"):
    """The grant of 20 s is refreshed at 5 s and at 10 s."""
    with sip.Call(stack, name, "alice@extends", LONDON, sip.caller(12.5), sip.answerer()) as call:
        call.wait()
        row = settled(stack, name, call.caller.talked(), outcome="200, BYE")
        key = call.caller.messages()[0].header("Call-ID")
        times = re.findall(rf"{re.escape(key)}\S* may run to (\d+) s", stack.kamailio.log.read_text(errors="replace"))
        check(len(times) == 2, f"extended to {times}")
        row.outcome += f", extended to {' and '.join(times)} s"
        return row


@scenario("runs beyond its first grant", tenant("longer"))
def longer(stack, name="longer"):
    """The dialog's timeout moves with the grant."""
    talk = GRANT + 3.5
    with sip.Call(stack, name, "alice@longer", LONDON, sip.caller(talk), sip.answerer()) as call:
        call.wait()
        check(call.caller.talked()[0] > GRANT + 3, "it was cut")
        return settled(stack, name, call.caller.talked(), outcome="200, BYE")


# Directives.


def ended_now(stack, call, name, reason):
    """Both legs are hung up because Tollgate said so."""
    call.wait()
    check(call.answerer.wait() == 0, "the called party was not hung up")
    check(call.caller.talked()[0] < GRANT - 5, "it ran on")
    key = re.escape(call.caller.messages()[0].header("Call-ID"))
    said = stack.kamailio.log.read_text(errors="replace")
    check(re.search(rf"{key}\S* END_NOW \({reason}\)", said), "it was not END_NOW")
    return settled(stack, name, call.caller.talked(), outcome=f"200, END_NOW ({reason}), BYE to both")


BY = ["--reason", "test", "--operator", "e2e"]


@scenario("END_NOW: the payer is blocked", tenant("blocked"))
def blocked(stack, name="blocked"):
    """An operator blocks alice."""
    with sip.Call(stack, name, "alice@blocked", LONDON, sip.caller_is_cut(), sip.answerer()) as call:
        call.caller.wait_final()
        stack.cli("users", "block", "alice", "--tenant", name, *BY)
        return ended_now(stack, call, name, "PAYER_BLOCKED")


@scenario("END_NOW: the tenant is suspended", tenant("suspends"))
def suspends(stack, name="suspends"):
    """A document suspends the tenant."""
    with sip.Call(stack, name, "alice@suspends", LONDON, sip.caller_is_cut(), sip.answerer()) as call:
        call.caller.wait_final()
        stack.apply(tenant(name, extra="state: suspended"))
        return ended_now(stack, call, name, "TENANT_SUSPENDED")


@scenario("END_NOW: tollgate calls end", tenant("operator"))
def operator(stack, name="operator"):
    """The ledger has ended the call before its switch hears of it; the settle is charged the difference."""
    with sip.Call(stack, name, "alice@operator", LONDON, sip.caller_is_cut(), sip.answerer()) as call:
        call.caller.wait_final()
        (held,) = stack.open_calls(name)
        ended = stack.cli("calls", "end", "--tenant", name, "--call-id", held["callId"], *BY)
        check(ended["endedCalls"] == 1, f"{ended}")
        return ended_now(stack, call, name, "OPERATOR")


@scenario("END_NOW: the spend velocity", tenant("fast", extra='spend_velocity: { amount: "0.10", per: 1h }'))
def fast(stack, name="fast"):
    """The first call is cut short by it, the second is refused, which ends the first."""
    with sip.Call(stack, name, f"alice@{name}", LONDON, sip.caller_is_cut(), sip.answerer()) as call:
        call.caller.wait_final()
        with sip.Call(stack, f"{name}-2", f"alice@{name}", LONDON, sip.caller_refused(603)) as second:
            outcome = refused(second.caller, 603, 21)
            second.wait()
        row = ended_now(stack, call, name, "FRAUD_SUSPECTED")
        check(decided(stack, name, 2)[0] == "FRAUD_SUSPECTED", "refused for another reason")
        row.outcome += f"; {outcome}"
        return row


def _ended_while_ringing(name, reason, status, cause, act):
    def play(stack):
        with sip.Call(stack, name, f"alice@{name}", LONDON, sip.caller_refused(status), sip.answerer_rings()) as call:
            until("it rings", lambda: any(m.status == 180 for m in call.caller.messages()))
            act(stack, name)
            started = time.time()
            outcome = refused(call.caller, status, cause)
            took = call.caller.final().at - started
            check(took < RINGING - 2, f"it rang for another {took:.1f} s")
            call.wait()
            check(call.answerer.wait() == 0, "the called party still rings")
            check(any(m.first.startswith("CANCEL") for m in call.answerer.messages()), "no CANCEL")
            return settled(stack, name, [], outcome=f"180, END_NOW ({reason}), CANCEL; {outcome}")

    ALL.append(Scenario(f"END_NOW while it rings: {reason}", play, tenant(name)))


def _end_by_operator(stack, name):
    stack.cli("calls", "end", "--tenant", name, "--payer", "alice", *BY)


_ended_while_ringing("ring-operator", "OPERATOR", 480, 31, _end_by_operator)
_ended_while_ringing(
    "ring-blocked",
    "PAYER_BLOCKED",
    603,
    21,
    lambda stack, name: stack.cli("users", "block", "alice", "--tenant", name, *BY),
)
_ended_while_ringing(
    "ring-suspended",
    "TENANT_SUSPENDED",
    403,
    21,
    lambda stack, name: stack.apply(tenant(name, extra="state: suspended")),
)


@scenario("REFRESH: a top-up during a final grant", tenant("topup", credit="0.08"))
def top_up(stack, name="topup"):
    """Credits for 8 s; more come while the call runs."""
    with sip.Call(stack, name, "alice@topup", LONDON, sip.caller(12.5), sip.answerer()) as call:
        call.caller.wait_final()
        until("the grant is final", lambda: any(c["finalGrant"] for c in stack.open_calls(name)))
        stack.apply(tenant(name, credit="5", key="po-2"))
        call.wait()
        (talked,) = call.caller.talked()
        check(talked > 11, f"cut after {talked} s")
        return settled(stack, name, [talked], outcome="200, REFRESH, extended, BYE")


@scenario("a party is gone without BYE", tenant("gone"), stack="gone")
def gone(stack, name="gone"):
    """In-dialog OPTIONS find out; what was used until then is charged.

    Kamailio ends the dialog ten seconds after them, and an extension meanwhile would undo that until the next
    ones: the grants of this stack are long.
    """
    with sip.Call(stack, name, "alice@gone", LONDON, sip.caller_vanishes(3.5), sip.answerer()) as call:
        call.wait()
        check(call.answerer.wait() == 0, "the called party was not hung up")
        seen = call.answerer.messages()
        start = next(m.at for m in seen if m.sent and m.status == 200 and m.method == "INVITE")
        end = next(m.at for m in seen if m.first.startswith("BYE "))
        check(end - start < 90, f"found out after {end - start:.0f} s")
        return settled(stack, name, [end - start], outcome="200, found out by OPTIONS")


@scenario("retransmitted INVITE", tenant("twice"))
def twice(stack, name="twice"):
    """The INVITE is on the wire three times: one hold, one call."""
    with sip.Call(stack, name, "alice@twice", LONDON, sip.caller_sends_twice(5.5), sip.answerer()) as call:
        call.caller.wait_final()
        check(len(stack.open_calls(name)) == 1, "not one hold")
        held = Decimal(stack.credits(name)["held"])
        check(held <= Decimal(GRANT) / 100, f"held {held}")
        call.wait()
        sent = [m for m in call.caller.messages() if m.first.startswith("INVITE")]
        check(len(sent) == 3, f"{len(sent)} INVITEs")
        check(decided(stack, name) == ["ALLOWED"], "not one decision")
        return settled(stack, name, call.caller.talked(), outcome="3 INVITE, 1 hold, 200, BYE")


@scenario("the same leg again, then with another number", tenant("again"))
def again(stack, name="again"):
    """A name that was used up, and a name for something else."""
    steps = sip.caller_again(2.5, 8, LAGOS)
    with sip.Call(stack, name, "alice@again", LONDON, steps, sip.answerer()) as call:
        call.wait()
        finals = [m for m in call.caller.messages() if not m.sent and m.method == "INVITE" and m.status > 299]
        check([m.status for m in finals] == [487, 403], f"{[m.first for m in finals]}")
        check([m.header("Reason")[:14] for m in finals] == ["", "Q.850;cause=21"], "other causes")
        return settled(stack, name, call.caller.talked(), outcome="200, BYE; 487, no Reason; 403, cause 21")


@scenario(
    "toll-free inbound",
    tenant("tollfree", users=(), extra='service_numbers: [{ id: support, e164: "+18005550111", kind: toll_free }]'),
    [("+18005550111", "tollfree support TOLL_FREE_INBOUND")],
)
def toll_free(stack, name="tollfree"):
    """The owner of the number pays."""
    caller = "+12065550142@carrier.example"
    with sip.Call(stack, name, caller, "+18005550111", sip.caller(3.5), sip.answerer()) as call:
        call.wait()
        check(stack.decisions(name)[0]["callType"] == "CALL_TYPE_TOLL_FREE_INBOUND", "not inbound")
        return settled(stack, name, call.caller.talked(), outcome="200, BYE")


# Legs that share a Call-ID.


class Pbx:
    """A second Kamailio, which sends calls back to the first."""

    def __init__(self, stack, name):
        self.port = free_port()
        control = stack.directory / f"{name}-control"
        self.process = Process(
            f"{name}-pbx",
            ["kamailio", "-f", sip.__file__.replace("sip.py", "pbx.cfg"), "-DD", "-E", "-m", "32", "-M", "4"]
            + ["-Y", stack.directory, "-A", f"LISTEN=udp:127.0.0.1:{self.port}"]
            + ["-A", f'CONTROL="unix:{control}"', "-A", f'SBC="sip:127.0.0.1:{stack.sip}"'],
            stack.directory,
        )
        self._control = control

    def __enter__(self):
        self.process.start()
        until("the PBX is there", self._control.exists)
        return self

    def __exit__(self, *_):
        self.process.stop()


def _two_legs(stack, name, dialled, back_to, served):
    answers = sip.Sipp(stack, f"{name}-uas", sip.answerer()).start()
    try:
        with Pbx(stack, name) as pbx:
            where = f"127.0.0.1:{pbx.port}"
            extra = f"X-Target: 127.0.0.1:{answers.port}\nX-Number: {back_to}"
            extra += f"\nX-Served: {served}" if served else ""
            steps = sip.caller(6.5, extra=extra)
            with sip.Call(stack, name, f"alice@{name}", dialled, steps, answerer_at=where) as call:
                call.caller.wait_final()
                until("two holds", lambda: len(stack.open_calls(name)) == 2, 6)
                call.wait()
                legs = stack.decisions(name)
                check(len({leg["sipCallId"] for leg in legs}) == 1, "two Call-IDs")
                check(len({leg["callId"] for leg in legs}) == 2, "not two legs")
                return call, {leg["payerId"]: leg for leg in legs}
    finally:
        answers.stop(timeout=3)


BOB = '{ id: bob, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1, MCOMEETADD], numbers: ["%s"] }'


@scenario(
    "forwarded leg: the user who forwards pays",
    tenant("forwards", users=(ALICE, BOB % "+14255550101")),
    [("+14255550101", "forwards bob USER_INBOUND")],
)
def forwards(stack, name="forwards"):
    """alice calls bob, whose PBX forwards to London: a free leg and one that bob pays for, of one Call-ID."""
    call, legs = _two_legs(stack, name, "+14255550101", LONDON, f"bob@{name}")
    check(set(legs) == {"bob"}, f"payers {set(legs)}")
    kinds = sorted(d["callType"] + " " + d["origin"] for d in stack.decisions(name))
    expected = ["CALL_TYPE_USER_INBOUND CALL_ORIGIN_DIRECT", "CALL_TYPE_USER_OUTBOUND CALL_ORIGIN_FORWARD"]
    check(kinds == expected, f"{kinds}")
    return settled(stack, name, call.caller.talked(), outcome="200, BYE; 2 legs, 1 Call-ID")


@scenario(
    "hairpinned leg: out and back in",
    tenant("hairpin", users=(ALICE, BOB % "+14255550102")),
    [("+14255550102", "hairpin bob USER_INBOUND")],
)
def hairpin(stack, name="hairpin"):
    """alice calls London, and the carrier brings the call back to bob: one paid leg out, one free leg in."""
    call, legs = _two_legs(stack, name, LONDON, "+14255550102", None)
    check(set(legs) == {"alice", "bob"}, f"payers {set(legs)}")
    check(legs["alice"]["decision"] == "DECISION_ALLOWED", "the leg out is not paid")
    check(legs["bob"]["decision"] == "DECISION_ALLOWED_FREE", "the leg in is not free")
    return settled(stack, name, call.caller.talked(), outcome="200, BYE; 2 legs, 1 Call-ID")


# Conferences.

OLIVIA = "{ id: olivia, usage_location: US, licences: [MCOMEETADD, MCOPSTNPP] }"


@scenario("conference dial-out, 20 legs by Kamailio", tenant("meeting", users=(OLIVIA,)))
def meeting(stack, name="meeting"):
    """Each leg is asked about by Kamailio; the organiser pays for all."""
    steps = sip.caller(3.5, extra="Conference-ID: meeting-1")
    with sip.Call(stack, name, f"olivia@{name}", LAGOS, steps, sip.answerer(), calls=20) as call:
        call.wait()
        legs = stack.decisions(name)
        check(len(legs) == 20 and {d["conferenceId"] for d in legs} == {"meeting-1"}, "not 20 legs of a conference")
        return settled(stack, name, call.caller.talked(), outcome="20 x 200, BYE", rate="0.1")


@contextlib.contextmanager
def example_legs(stack, name, calls):
    """Who answers so many calls, and the class of the legs by which the client library's example makes them."""
    answers = sip.Sipp(stack, f"{name}-uas", sip.answerer(), calls=calls).start()
    try:
        time.sleep(0.3)
        yield answers, bridge.leg_class(("127.0.0.1", stack.sip), ("127.0.0.1", answers.port))
    finally:
        answers.stop(timeout=3)


@scenario("conference dial-out, 20 legs by the client library's example", tenant("bridge", users=(OLIVIA,)))
def conference(stack, name="bridge"):
    """clients/python/examples/dial_out.py asks by itself; its legs are real calls by way of Kamailio."""
    with example_legs(stack, name, 20) as (answers, leg):

        async def invite():
            journal = stack.directory / "bridge-journal"
            async with AsyncTollgate(f"127.0.0.1:{stack.port}", journal=journal, timeout=10) as client:
                meeting = bridge.EXAMPLE["Conference"](client, name, "olivia", leg)
                invited = await meeting.invite_all([LAGOS] * 20, talk=3.5)
                await asyncio.to_thread(answers.wait)
                return invited

        invited = asyncio.run(invite())
    check(len(leg.talks) == 20, f"{len(leg.talks)} legs were answered: {[str(i) for i in invited]}")
    check(all(i.ended.settlement.result == "SETTLED" for i in invited), f"{[str(i) for i in invited]}")
    return settled(stack, name, leg.talks, outcome="20 x 200, BYE", rate="0.1")


@scenario("conference dial-out: END_NOW hangs up the example's legs", tenant("adjourn", users=(OLIVIA,)))
def adjourned(stack, name="adjourn"):
    """An operator ends the organiser's calls: `run_call` of the client library watches, and hangs up."""
    with example_legs(stack, name, 3) as (answers, leg):

        async def invite():
            async with AsyncTollgate(f"127.0.0.1:{stack.port}", timeout=10) as client:
                meeting = bridge.EXAMPLE["Conference"](client, name, "olivia", leg)
                invited = asyncio.create_task(meeting.invite_all([LAGOS] * 3, talk=GRANT - 5))
                await asyncio.to_thread(until, "all have answered", lambda: len(leg.picked_up) == 3)
                await asyncio.to_thread(stack.cli, "calls", "end", "--tenant", name, "--payer", "olivia", *BY)
                return await invited

        invited = asyncio.run(invite())
        check(answers.wait() == 0, "somebody was not hung up")
    check({str(i.ended.cause) for i in invited} == {"DIRECTED"}, f"{[str(i) for i in invited]}")
    return settled(stack, name, leg.talks, outcome="3 x 200, END_NOW (OPERATOR), BYE", rate="0.1")


# Refusals.


def refusal(decision, status, cause, tenant_text, *, label="", user="alice", dialled=LONDON, prepare=None, numbers=()):
    """A call that is refused, with that on the wire and that decision in the records; nothing is held."""
    name = re.search(r"id: (\S+)", tenant_text).group(1)
    inbound = bool(numbers)

    def play(stack):
        if prepare is not None:
            prepare(stack, name)
        from_ = "+12065550142@carrier.example" if inbound else f"{user}@{name}"
        with sip.Call(stack, name, from_, dialled, sip.caller_refused(status)) as call:
            outcome = refused(call.caller, status, cause)
            call.wait()
        found = decided(stack, name)
        check(found == [decision], f"expected {decision}, got {found}")
        return settled(stack, name, [], outcome=outcome)

    ALL.append(Scenario(f"denied: {decision}{label}", play, tenant_text, list(numbers)))


def users(*rest, licences="[MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1, MCOMEETADD]"):
    """One user, alice, with something to her name."""
    return ("{ " + ", ".join(["id: alice", "usage_location: US", f"licences: {licences}", *rest]) + " }",)


def _empty_pool(stack, name):
    pools = stack.cli("balance", "--tenant", name)["pools"]
    pool = next(p for p in pools if p["counter"].endswith("DOMESTIC"))
    minutes = int(pool["available"].removesuffix("s")) // 60
    arguments = ["--tenant", name, "--key", "k1", "--bucket", pool["poolId"], f"--minutes=-{minutes}"]
    stack.cli("adjust", "balance", *arguments, "--reason", "test", "--operator", "e2e")


refusal("NUMBER_INVALID", 484, 28, tenant("d-short"), label=" (too short)", dialled="+4420")
refusal("NUMBER_INVALID", 404, 1, tenant("d-text"), label=" (no number)", dialled="reception")
refusal("PAYER_UNKNOWN", 403, 21, tenant("d-unknown"), user="nobody")
refusal("TENANT_SUSPENDED", 403, 21, tenant("d-suspended", extra="state: suspended"))
refusal("FRAUD_SUSPECTED", 603, 21, tenant("d-blocked", users=users("state: blocked")))
refusal("POLICY_DENIED", 403, 21, tenant("d-policy", users=users("outbound_policy: { user: domestic }")))
refusal("DESTINATION_BLOCKED", 403, 21, tenant("d-prefix", extra='blocked_prefixes: ["+44"]'))
refusal("NOT_ENTITLED", 403, 21, tenant("d-entitled", users=users(licences="[]")))
refusal(
    "POOL_EXHAUSTED",
    403,
    21,
    tenant("d-pool", credit="", users=users(licences="[MCOEV, MCOPSTN5]")),
    dialled="+12065550142",
    prepare=_empty_pool,
)
refusal("CREDITS_NOT_LICENSED", 403, 21, tenant("d-licence", users=users(licences="[MCOEV, MCOPSTN1]")))
refusal("DESTINATION_UNRATED", 403, 21, tenant("d-unrated"), dialled="+33142685300")
refusal("PRICE_ABOVE_LIMIT", 403, 21, tenant("d-price", extra='limits: { max_rate_per_minute: "0.10" }'))
refusal("SPEND_LIMIT_REACHED", 403, 21, tenant("d-spend", users=users('spend_limit: "0.005"')))
refusal("INSUFFICIENT_CREDITS", 402, 21, tenant("d-credits", credit="0.001"))
refusal(
    "INSUFFICIENT_CREDITS",
    480,
    18,
    tenant(
        "d-trunk",
        credit="0.001",
        extra=f"trunks: [{{ id: {REALM}, responses: {{ INSUFFICIENT_CREDITS: "
        "{ sip_status: 480, q850_cause: 18 } } }]",
    ),
    label=" (the trunk's own response)",
)
refusal(
    "TOLL_FREE_UNFUNDED",
    480,
    31,
    tenant(
        "d-tollfree",
        credit="",
        users=(),
        extra='service_numbers: [{ id: help, e164: "+18005550112", kind: toll_free }]',
    ),
    dialled="+18005550112",
    numbers=[("+18005550112", "d-tollfree help TOLL_FREE_INBOUND")],
)


def _second_is_refused(name, decision, status, cause, tenant_text):
    def play(stack):
        with sip.Call(stack, name, f"alice@{name}", LONDON, sip.caller(6.5), sip.answerer()) as first:
            first.caller.wait_final()
            with sip.Call(stack, f"{name}-2", f"alice@{name}", LONDON, sip.caller_refused(status)) as second:
                outcome = refused(second.caller, status, cause)
                second.wait()
            first.wait()
            check(decided(stack, name, 2)[0] == decision, "refused for another reason")
            return settled(stack, name, first.caller.talked(), outcome=f"200, BYE; {outcome}")

    return play


for of, status, cause, text in (
    ("user", 486, 17, tenant("d-calls", users=users("limits: { concurrent_calls: 1 }"))),
    ("tenant", 480, 31, tenant("d-tcalls", extra="limits: { concurrent_calls: 1 }")),
):
    tenant_name = re.search(r"id: (\S+)", text).group(1)
    play_it = _second_is_refused(tenant_name, "CONCURRENCY_LIMIT", status, cause, text)
    ALL.append(Scenario(f"denied: CONCURRENCY_LIMIT (the {of}'s)", play_it, text))


@scenario("denied: RATE_LIMITED", tenant("d-rate", extra="limits: { calls_per_second: 1 }"))
def rate_limited(stack, name="d-rate"):
    """Ten calls at once, one a second is allowed: some ring, the others are refused."""
    steps = sip.caller_refused(480)
    with sip.Call(stack, name, f"alice@{name}", LONDON, steps, sip.answerer_busy(), calls=10) as call:
        until("ten answers", lambda: len(_finals(call.caller)) >= 10)
        finals = _finals(call.caller)
        limited = [m for m in finals if m.status == 480]
        check(limited and {m.status for m in finals} <= {480, 486}, f"{[m.first for m in finals]}")
        check(all(m.header("Reason").startswith("Q.850;cause=31") for m in limited), "another cause")
        # A refusal of this kind is not kept: who asks again with the same key, unheard, is decided on anew.
        found = stack.decisions(name)
        check(len({d["callId"] for d in found}) == 10, f"expected 10 calls, got {found}")
        check("DECISION_RATE_LIMITED" in {d["decision"] for d in found}, "not recorded")
        outcome = f"{len(limited)} x 480 Temporarily Unavailable, cause 31"
        return settled(stack, name, [], outcome=outcome)


def _finals(sipp):
    seen = {}
    for message in sipp.messages():
        if not message.sent and message.method == "INVITE" and message.status >= 300:
            seen.setdefault(message.header("Call-ID"), message)
    return list(seen.values())


# Things that fail, each on a stack of its own.


def _outage(stack, what, process):
    """A call runs across the outage, one ends in it; meanwhile ordinary calls are refused, and 911 is not."""
    away, long, short = f"{what}-away", f"{what}-long", f"{what}-short"
    with (
        sip.Call(stack, long, f"alice@{long}", LONDON, sip.caller(17.5), sip.answerer()) as through,
        sip.Call(stack, short, f"alice@{short}", LONDON, sip.caller(6.5), sip.answerer()) as within,
    ):
        through.caller.wait_final()
        within.caller.wait_final()
        process.stop()
        with sip.Call(stack, away, f"alice@{away}", LONDON, sip.caller_refused(503)) as call:
            no_ledger = refused(call.caller, 503, 41)
            call.wait()
        dead = sip.Call(stack, f"{away}-911", f"nobody@{away}", "911", sip.caller(2.5), sip.answerer())
        with dead as emergency:
            emergency.wait()
            pdd = _post_dial_delay(emergency.caller)
            check(pdd < 2, f"911 rang after {pdd:.1f} s")
        within.wait()
        time.sleep(1)
        process.start()
        stack.ready()
        through.wait()
        rows = [
            (f"{what} restarted in mid-call", settled(stack, long, through.caller.talked(), outcome="200, BYE")),
            (f"BYE while {what} is away", settled(stack, short, within.caller.talked(), outcome="200, BYE")),
        ]
        until("911 is recorded", lambda: "ALLOWED_EMERGENCY" in _all(stack, away))
        rows.append((f"refused while {what} is away", settled(stack, away, [], outcome=no_ledger)))
        talked = f"{emergency.caller.talked()[0]:.2f} s"
        row = Row(f"200 (180 after {pdd * 1000:.0f} ms), BYE; recorded after", talked, "0 s, 0 USD")
        row.audit = stack.audit()
        rows.append((f"911 of nobody, {what} away", row))
        check(stack.credits(away)["spent"] == "0", "911 was charged")
        return rows


def _hangs(stack, name):
    """Tollgate stands still: no decision, and what it holds when it goes on is given back."""
    rows = []
    stack.tollgate.process.send_signal(signal.SIGSTOP)
    try:
        with sip.Call(stack, f"{name}-refused", f"alice@{name}", LONDON, sip.caller_refused(503)) as call:
            outcome = refused(call.caller, 503, 41)
            call.wait()
            seen = call.caller.messages()
            waited = next(m.at for m in seen if m.status == 503) - seen[0].at
            check(waited < 5, f"the caller waited for {waited:.1f} s")
    finally:
        stack.tollgate.process.send_signal(signal.SIGCONT)
    stack.ready()
    rows.append(("Tollgate hangs", settled(stack, name, [], outcome=f"{outcome}, after {waited:.1f} s")))
    time.sleep(1.5)  # the workers leave it out for a second
    steps = sip.caller_cancels_at_once(0.1)
    stack.tollgate.process.send_signal(signal.SIGSTOP)
    try:
        with sip.Call(stack, f"{name}-cancels", f"alice@{name}", LONDON, steps) as call:
            until("CANCEL is sent", lambda: any(m.first.startswith("CANCEL") for m in call.caller.messages()))
            stack.tollgate.process.send_signal(signal.SIGCONT)
            call.wait()
    finally:
        stack.tollgate.process.send_signal(signal.SIGCONT)
    rows.append(("cancelled while Tollgate is asked", settled(stack, name, [], outcome="CANCEL, 487")))
    return rows


def _stream_lost(stack, name):
    """Tollgate is restarted under a running call; the directive comes by a stream that was opened again."""
    with sip.Call(stack, name, f"alice@{name}", LONDON, sip.caller_is_cut(), sip.answerer()) as call:
        call.caller.wait_final()
        stack.tollgate.stop()
        stack.tollgate.start()
        stack.ready()
        (held,) = stack.open_calls(name)
        stack.cli("calls", "end", "--tenant", name, "--call-id", held["callId"], *BY)
        row = ended_now(stack, call, name, "OPERATOR")
        row.outcome = "200, stream opened again, END_NOW, BYE to both"
        return [("the stream of directives is lost", row)]


def _all(stack, name):
    return [d["decision"].removeprefix("DECISION_") for d in stack.decisions(name)]


def _post_dial_delay(sipp):
    seen = sipp.messages()
    sent = next(m.at for m in seen if m.sent and m.first.startswith("INVITE"))
    return next(m.at for m in seen if m.status == 180) - sent


def _outage_tenants(what):
    """Nobody of `away` has anything."""
    poor = tenant(f"{what}-away", credit="", users=(ALICE,))
    return tenant(f"{what}-long") + tenant(f"{what}-short") + poor


@scenario("Tollgate is restarted", _outage_tenants("Tollgate") + tenant("hangs") + tenant("stream"), stack="tollgate")
def tollgate_restarted(stack):
    """Settles wait in the journal; extensions are asked again."""
    rows = _hangs(stack, "hangs") + _outage(stack, "Tollgate", stack.tollgate)
    return rows + _stream_lost(stack, "stream")


@scenario("one of two sidecars hangs, then is gone", tenant("hedged") + tenant("sole"), stack="pair")
def pair(stack):
    """The other one answers, by the same key; what is settled there is settled."""
    rows = []

    def settles(call, name):
        """By the sidecar that is left."""
        call.wait()
        key = re.escape(call.caller.messages()[0].header("Call-ID"))
        until(
            f"{name} is settled",
            lambda: re.search(rf"{key}\S* SETTLED after", stack.kamailio.log.read_text(errors="replace")),
        )

    stack.tollgate.process.send_signal(signal.SIGSTOP)
    try:
        with sip.Call(stack, "hedged", "alice@hedged", LONDON, sip.caller(3.5), sip.answerer()) as call:
            settles(call, "hedged")
            pdd = _post_dial_delay(call.caller)
    finally:
        stack.tollgate.process.send_signal(signal.SIGCONT)
    stack.ready()
    check(decided(stack, "hedged") == ["ALLOWED"], "not one decision")
    outcome = f"200 (180 after {pdd * 1000:.0f} ms), BYE"
    rows.append(("one of two sidecars hangs", settled(stack, "hedged", call.caller.talked(), outcome=outcome)))
    with sip.Call(stack, "sole", "alice@sole", LONDON, sip.caller(8.5), sip.answerer()) as call:
        call.caller.wait_final()
        stack.tollgate.stop(signal.SIGKILL)
        settles(call, "sole")
    stack.tollgate.start()
    stack.ready()
    rows.append(("one of two is gone in mid-call", settled(stack, "sole", call.caller.talked(), outcome="200, BYE")))
    return rows


@scenario("Redis is restarted", _outage_tenants("Redis"), stack="redis")
def redis_restarted(stack):
    """Tollgate answers LEDGER_UNAVAILABLE, and 911 from what it knows."""
    rows = _outage(stack, "Redis", stack.redis)
    said = re.findall(r"LEDGER_UNAVAILABLE", stack.kamailio.log.read_text(errors="replace"))
    check(said, "the refusal was not LEDGER_UNAVAILABLE")
    # At last with nothing at all.
    stack.redis.stop()
    stack.tollgate.stop()
    call = sip.Call(stack, "nothing-911", "nobody@nowhere.example", "911", sip.caller(1.5), sip.answerer())
    with call:
        call.wait()
        pdd = _post_dial_delay(call.caller)
        rows.append(("911 with everything empty, stopped and dead", Row(f"200 (180 after {pdd * 1000:.0f} ms), BYE")))
        rows[-1][1].talked = f"{call.caller.talked()[0]:.2f} s"
        rows[-1][1].charged = "0 s, 0 USD"
    stack.redis.start()
    stack.tollgate.start()
    stack.ready()
    rows[-1][1].audit = stack.audit()
    return rows


def _kill(process):
    """Without a word, its children too: some end by themselves when others are gone."""
    for pid in [*children_of(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@scenario("the BYE is lost with Kamailio: the last proven usage is charged", tenant("lost"), stack="lost")
def lost(stack, name="lost"):
    """Kamailio and the caller are killed after the first extension; the hold expires."""
    with sip.Call(stack, name, f"alice@{name}", LONDON, sip.caller_vanishes(7.5), sip.answerer()) as call:
        call.wait()
        talked = time.time() - next(m.at for m in call.caller.messages() if m.status == 200)
        _kill(stack.kamailio.process)
        (held,) = stack.open_calls(name)
        proven = int(held["usedDuration"].removesuffix("s"))
        until("the hold expires", lambda: not stack.open_calls(name), GRANT + GRACE + 60)
        money = stack.credits(name)
        check(Decimal(money["spent"]) * 100 == proven and money["held"] == "0", f"{money}, proven {proven} s")
        check(5 <= proven <= talked, f"proven {proven} s of {talked:.1f} s")
        row = Row("200, no BYE; hold expired", f"{talked:.2f} s", f"{proven} s, {money['spent']} USD")
        row.audit = stack.audit(name)
        stack.kamailio.start()
        until("kamailio is back", stack._sip_answers)
        return row


@scenario("Kamailio is restarted: EndCalls", tenant("restart"), stack="restart")
def restarted(stack, name="restart"):
    """Kamailio is killed after the first extension and started again: the call is ended long before it expires."""
    with sip.Call(stack, name, f"alice@{name}", LONDON, sip.caller_vanishes(7.5), sip.answerer()) as call:
        call.wait()
        talked = time.time() - next(m.at for m in call.caller.messages() if m.status == 200)
        _kill(stack.kamailio.process)
        (held,) = stack.open_calls(name)
        proven = int(held["usedDuration"].removesuffix("s"))
        stack.kamailio.start()
        until("the call is ended", lambda: not stack.open_calls(name))
        ended = stack.cli("calls", "show", "--tenant", name, "--call-id", held["callId"])["call"]
        check(ended["endedAt"] < held["expiresAt"], f"it expired at {ended['endedAt']}")
        check("of before the start, are ended" in stack.kamailio.log.read_text(errors="replace"), "not by EndCalls")
        money = stack.credits(name)
        check(Decimal(money["spent"]) * 100 == proven and money["held"] == "0", f"{money}, proven {proven} s")
        row = Row("200, no BYE; EndCalls at the start", f"{talked:.2f} s", f"{proven} s, {money['spent']} USD")
        row.audit = stack.audit(name)
        return row


@scenario("a Tollgate with identities, over TLS", tenant("guarded") + tenant("others"), stack="guarded")
def guarded(stack, name="guarded"):
    """Kamailio shows a certificate and a token, which is renewed while a call runs; other tenants are not its own."""
    with sip.Call(stack, name, f"alice@{name}", LONDON, sip.caller_is_cut(), sip.answerer()) as call:
        call.caller.wait_final()
        stack.guard.admit("second")
        log = stack.tollgate.log
        until("the callers are read again", lambda: "the identities are read again" in log.read_text(errors="replace"))
        (held,) = stack.open_calls(name)
        stack.cli("calls", "end", "--tenant", name, "--call-id", held["callId"], *BY)
        row = ended_now(stack, call, name, "OPERATOR")
        key = re.escape(call.caller.messages()[0].header("Call-ID"))
        taken = rf"{key}\S* (ALREADY_)?SETTLED after"
        until("the settle is taken", lambda: re.search(taken, stack.kamailio.log.read_text(errors="replace")))
    row.outcome = "200, token renewed, END_NOW, BYE to both"
    with sip.Call(stack, "others", "alice@others", LONDON, sip.caller_refused(503)) as call:
        outcome = refused(call.caller, 503, 41)
        call.wait()
    other = settled(stack, "others", [], outcome=outcome)
    check("PERMISSION_DENIED" in stack.kamailio.log.read_text(errors="replace"), "refused for another reason")
    with sip.Call(stack, "others-911", "alice@others", "911", sip.caller(1.5), sip.answerer()) as call:
        call.wait()
        talked = f"{call.caller.talked()[0]:.2f} s"
    emergency = Row("200, BYE", talked, "0 s, 0 USD", stack.audit())
    return [
        ("a Tollgate with identities, over TLS", row),
        ("a tenant that is not this Kamailio's", other),
        ("911 of such a tenant", emergency),
    ]


# Another client.


class JsonSbc:
    """A Kamailio that asks by HTTP alone; stands where a stack's own Kamailio does."""

    def __init__(self, stack, name):
        self.sip = free_port()
        self._stack = stack
        self._control = stack.directory / f"{name}-control"
        where = f'TOLLGATE="http://127.0.0.1:{stack.port}"'
        self.process = Process(
            f"{name}-sbc",
            ["kamailio", "-f", sip.__file__.replace("sip.py", "json.cfg"), "-DD", "-E", "-m", "32", "-M", "8"]
            + ["-Y", stack.directory, "-A", f"LISTEN=udp:127.0.0.1:{self.sip}"]
            + ["-A", f'CONTROL="unix:{self._control}"', "-A", where],
            stack.directory,
        )

    def __getattr__(self, name):
        return getattr(self._stack, name)

    def __enter__(self):
        self.process.start()
        until("the SBC is there", self._control.exists)
        return self

    def __exit__(self, *_):
        self.process.stop()


@scenario("by Kamailio's own HTTP client, in JSON", tenant("json") + tenant("json-poor", credit="0.001"))
def by_json(stack, name="json"):
    """authorize on INVITE, settle on BYE, a refusal: no Python, no gRPC."""
    with JsonSbc(stack, name) as sbc:
        with sip.Call(sbc, name, f"alice@{name}", LONDON, sip.caller(3.5), sip.answerer()) as call:
            call.wait()
            check(decided(stack, name) == ["ALLOWED"], "not allowed")
            row = settled(stack, name, call.caller.talked(), outcome="200, BYE; authorize and settle by HTTP")
        poor = "json-poor"
        with sip.Call(sbc, poor, f"alice@{poor}", LONDON, sip.caller_refused(402)) as call:
            outcome = refused(call.caller, 402, 21)
            call.wait()
        refusal_row = settled(stack, poor, [], outcome=outcome)
    return [("by Kamailio's own HTTP client, in JSON", row), ("the same, refused", refusal_row)]


def tenants_of(stack):
    """The organisations of all scenarios of a stack."""
    return "".join(s.tenants for s in ALL if s.stack == stack)


def numbers_of(stack):
    """The numbers of ours that they have."""
    return [n for s in ALL if s.stack == stack for n in s.numbers]
