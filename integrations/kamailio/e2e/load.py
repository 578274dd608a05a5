"""How many calls a second Kamailio sets up with Tollgate in front, and what that adds to the post-dial delay.

`python load.py [CALLS_A_SECOND ...]`. Calls ring for nothing, talk for a second, and hang up. A rate is kept when each
of its calls was set up and ended, at most one in a hundred needed a retransmission, and 85 % of the rate was reached,
SIPp's start and end counted in. Afterwards every call that SIPp made must be settled, and the audit clean. Exit code 1
if not.
"""

import os
import statistics
import sys
import time
from decimal import Decimal
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "clients/python/src")]

import sip
from scenarios import tenant
from stack import Failed, Stack, stop_all_on_sigterm, until

RATES = [25, 50, 100, 150, 200, 300, 400, 600, 800]
SECONDS = 10
DELAY_RATE, DELAY_CALLS = 20, 600
SETTINGS = ["--default-grant", "60s", "--ringing-timeout", "30s", "--max-requests-in-flight", "4096"]
NAME = "load"
CALLED = "+442079460958"


def play(stack, rate, calls, traced=False):
    """Makes so many calls at that rate; the caller, and how long it took."""
    answers = sip.Sipp(stack, "load-uas", sip.answerer(ring=0), calls=calls, traced=False, extra=["-l", "10000"])
    answers.start()
    time.sleep(1)
    keys = [("from", f"alice@{NAME}"), ("dialled", CALLED), ("answerer", f"127.0.0.1:{answers.port}")]
    to, more = f"127.0.0.1:{stack.sip}", ["-l", "10000", "-recv_timeout", "20000"]
    caller = sip.Sipp(
        stack, "load-uac", sip.caller(1), calls=calls, to=to, keys=keys, rate=rate, traced=traced, extra=more
    )
    started = time.monotonic()
    caller.start()
    try:
        caller.wait(calls / rate * 3 + 60)
        took = time.monotonic() - started
        until("SIPp's counters", caller.statistics.exists)
        return caller, took
    finally:
        caller.stop(timeout=3)
        answers.stop(timeout=3)


def steps(stack, rates):
    """Raises the rate until it is not kept; the highest that was, and how many calls were made."""
    best, made = 0, 0
    for rate in rates:
        calls = rate * SECONDS
        caller, took = play(stack, rate, calls)
        good, failed = int(caller.counted("SuccessfulCall(C)")), int(caller.counted("FailedCall(C)"))
        again = int(caller.counted("Retransmissions(C)"))
        reached = calls / max(took - 1, 0.1)
        made += good
        print(f"  {rate:4} calls/s: {good} of {calls} set up and ended, {failed} failed, {again} retransmissions, "
              f"{reached:.0f} calls/s", flush=True)  # fmt: skip
        if failed or reached < 0.85 * rate or again > calls / 100:
            break
        best = rate
    return best, made


def delays(stack):
    """Seconds from INVITE to 180, of each call."""
    caller, _ = play(stack, DELAY_RATE, DELAY_CALLS, traced=True)
    sent, found = {}, {}
    for message in caller.messages():
        call = message.header("Call-ID")
        if message.sent and message.first.startswith("INVITE"):
            sent.setdefault(call, message.at)
        if message.status == 180:
            found.setdefault(call, message.at - sent[call])
    return sorted(found.values()), int(caller.counted("SuccessfulCall(C)"))


def tell(name, values):
    """Median and p99, in milliseconds."""
    median, p99 = statistics.median(values) * 1000, values[int(len(values) * 0.99)] * 1000
    print(f"  {name:17} median {median:6.2f} ms   p99 {p99:6.2f} ms   ({len(values)} calls at {DELAY_RATE}/s)")
    return median, p99


def main():
    """The command line."""
    stop_all_on_sigterm()
    rates = [int(r) for r in sys.argv[1:]] or RATES
    text = tenant(NAME, credit="1000000")
    print(f"Kamailio alone ({os.cpu_count()} cores, load {os.getloadavg()[0]:.1f})", flush=True)
    with Stack("plain", text, defines=["WITHOUT_TOLLGATE"], tollgate=SETTINGS, workers=4, agent=False) as stack:
        plain, _ = delays(stack)
        alone, _ = steps(stack, rates)
    print(f"Kamailio with Tollgate (load {os.getloadavg()[0]:.1f})", flush=True)
    with Stack("load", text, tollgate=SETTINGS, workers=4, askers=8) as stack:
        asked, first = delays(stack)
        best, made = steps(stack, rates)
        made += first
        until("every hold is given back", lambda: stack.credits(NAME)["held"] == "0", 180)
        records = stack.cli("usage", "--tenant", NAME)
        records = [r["record"] for r in (records if isinstance(records, list) else [records])]
        settled = sum(1 for r in records if r["decision"] == "DECISION_ALLOWED")
        spent = Decimal(stack.credits(NAME)["spent"]) * 100
        seconds = sum(int(r["duration"].removesuffix("s")) for r in records)
        audit = stack.audit()
        print(
            f"  {made} calls ended by SIPp, {settled} settled, {seconds} s used, {spent:.0f} s charged, audit {audit}"
        )
    print("post-dial delay, INVITE to 180, in SIPp's trace")
    before, after = tell("without Tollgate", plain), tell("with Tollgate", asked)
    print(f"  added             median {after[0] - before[0]:6.2f} ms   p99 {after[1] - before[1]:6.2f} ms")
    print(f"kept: {alone} calls/s alone, {best} calls/s with Tollgate")
    if settled < made or seconds != spent:
        raise Failed(f"{made - settled} calls are lost, or {seconds} s and {spent} s differ")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"FAILED: {error}")
