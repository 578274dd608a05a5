"""Plays every scenario with the real Kamailio, SIPp, Tollgate and Redis: `python run.py [WORD ...]`.

Each WORD selects the scenarios whose name has it. TOLLGATE_E2E_KEEP=1 keeps the directories of logs and traces.
Exit code 1 if anything is not as it must be.
"""

import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "clients/python/src")]
# The bridge's client runs in a thread while others fork SIPp: gRPC's threads need not survive that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import scenarios
from stack import GRACE, GRANT, RINGING, Failed, Stack, stop_all_on_sigterm

AT_A_TIME = 12
"""Scenarios at a time on one stack; most of them wait."""

GRANTS = {"gone": 300}
"""Seconds of a grant, by stack, where it is not the usual."""
GUARDED = {"guarded": ["guarded"]}
"""Tenants of the stacks whose Tollgate asks who calls."""
SIDECARS = {"pair": 2}
"""Sidecars of the stacks that have several."""
DEADLINE = 2.0
"""Longest wait for a decision, in seconds: all stacks share one machine, which is slow then, not away."""
DEFINES = ["TOLLGATE_KEEPALIVE_LIMIT=1"]

COLUMNS = ("scenario", "SIP outcome", "talked", "charged", "audit")


def play(stack, scenario, rows, failures):
    """Plays one scenario; what came of it goes to the lists."""
    try:
        found = scenario.play(stack)
        found = found if isinstance(found, list) else [(scenario.name, found)]
        rows += [(name, row.outcome, row.talked, row.charged, row.audit) for name, row in found]
    except Exception as error:
        failures.append(scenario.name)
        rows.append((scenario.name, f"FAILED: {str(error)[:90]}", "", "", ""))
        if not isinstance(error, Failed):
            traceback.print_exc()
        print(f"FAILED: {scenario.name}: {error}\n  logs: {stack.directory}", file=sys.stderr)


def play_stack(name, chosen, rows, failures):
    """All scenarios of one stack, then the audit of everything."""
    mine = []
    try:
        tenants, numbers = scenarios.tenants_of(name), scenarios.numbers_of(name)
        grant = GRANTS.get(name, GRANT)
        settings = ["--default-grant", f"{grant}s", "--max-grant", f"{grant + 40}s", "--grace", f"{GRACE}s"]
        settings += ["--ringing-timeout", f"{RINGING}s", "--emergency-country", "US"]
        more = {"guarded": GUARDED.get(name, ()), "sidecars": SIDECARS.get(name, 1), "deadline": DEADLINE}
        with Stack(name, tenants, numbers, defines=DEFINES, tollgate=settings, **more) as stack:
            # The long ones first.
            order = sorted(chosen, key=lambda s: s.name.startswith("denied"))
            with ThreadPoolExecutor(AT_A_TIME) as pool:
                list(pool.map(lambda s: play(stack, s, rows, mine), order))
            stack.audit()
            if mine:
                raise Failed("its scenarios failed; its logs are kept")
    except Exception as error:
        failures += mine or [name]
        print(f"FAILED: stack {name}: {error}", file=sys.stderr)
        if not isinstance(error, Failed):
            traceback.print_exc()


def table(rows):
    """The rows as text."""
    widths = [max(len(str(r[i])) for r in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [COLUMNS, *rows]]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def main():
    """The command line."""
    stop_all_on_sigterm()
    words = [w.lower() for w in sys.argv[1:]]
    chosen = [s for s in scenarios.ALL if not words or any(w in s.name.lower() for w in words)]
    started = time.monotonic()
    rows, failures = [], []
    threads = []
    for name in dict.fromkeys(s.stack for s in chosen):
        mine = [s for s in chosen if s.stack == name]
        threads.append(threading.Thread(target=play_stack, args=(name, mine, rows, failures)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    order = {s.name: i for i, s in enumerate(scenarios.ALL)}
    print(table(sorted(rows, key=lambda r: order.get(r[0], len(order)))))
    print(f"\n{len(rows)} rows, {len(failures)} failed, {time.monotonic() - started:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
