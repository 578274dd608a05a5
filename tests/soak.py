"""The program on a real Redis (AOF everysec), with its journal, at a stated rate for a stated time: does anything grow?

`python tests/soak.py MINUTES RATE`, RATE in requests a second: new calls, extensions and settles, one of each a call,
in an open loop. Once a minute it prints what both processes hold: resident memory, open files, bytes of the journal and
of Redis' append-only file, and what Redis itself says its records cost. What ended calls and records cost in Redis
grows with the calls, by design: `ended_retention` is a minute here, and records are kept for 31 days at least. So that
part is told apart, by MEMORY USAGE of the tenants' keys, and what is beyond it must not grow.

Exit code 1 where, from a quarter of the time on, memory grew by more than SHARE beyond that; where a request failed,
was refused or was not charged; where the balances do not say what the answers did; where files stay open; or where
the audit is not clean. TOLLGATE_BINARY is the program, else target/release/tollgate. Standard library only.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BINARY = Path(os.environ.get("TOLLGATE_BINARY") or Path(__file__).resolve().parents[1] / "target/release/tollgate")
TENANTS = 10
SHARE = 10
"""Memory may grow by so many hundredths, and by SLACK, from a quarter of the time on."""

SLACK = 8 << 20
"""What an allocator may take more at any moment, in bytes."""

FILES = 16
"""So many files more may be open: connections of the sweeper and of administration come and go."""

KEPT = "1m"
"""`ended_retention`: after it a call is forgotten, so that calls do not add up."""

JOURNAL = 256
"""Most MiB of the sidecar's journal."""

MIB = 1 << 20


class Failed(Exception):
    """It cannot go on."""


def until(what, condition, timeout=60):
    """Waits for what another process does."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"not within {timeout} s: {what}")
        time.sleep(0.05)


class Soak:
    """Redis, Tollgate and the load, on unix sockets in a directory of their own."""

    def __init__(self, directory):
        self.directory = directory
        self.started = []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
        self.environment = {
            **environment,
            "TOLLGATE_ENDPOINT": f"unix:{directory}/calls",
            "TOLLGATE_ADMIN_ENDPOINT": f"unix:{directory}/admin",
            "TOLLGATE_TIMEOUT": "10m",
        }

    def start(self, name, *arguments, out=None):
        """Starts a process of its own, whose standard error is in a file of that name."""
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=out or log,
                stderr=log,
                cwd=self.directory,
                env=self.environment,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def begin(self):
        """Starts both and waits until calls are decided."""
        (self.directory / "redis").mkdir()
        self.redis = self.start(
            "redis", "redis-server", "--port", 0, "--unixsocket", self.directory / "socket", "--save", "",
            "--dir", self.directory / "redis", "--appendonly", "yes", "--appendfsync", "everysec",
        )  # fmt: skip
        until("redis answers", lambda: self.ask("PING") == "PONG")
        self.tollgate = self.start(
            "tollgate", BINARY, "serve", "--ledger", f"redis+unix://{self.directory}/socket",
            "--listen", f"unix:{self.directory}/calls", "--admin-listen", f"unix:{self.directory}/admin",
            "--http-listen", f"unix:{self.directory}/http", "--journal", self.directory / "journal",
            "--journal-size", f"{JOURNAL}MiB", "--ended-retention", KEPT, "--sweep-batch", 10_000,
        )  # fmt: skip
        until("tollgate answers", lambda: self.run("audit").returncode == 0)

    def end(self):
        """Stops whatever still runs."""
        for process in reversed(self.started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def ask(self, *words):
        """Asks Redis."""
        command = ["redis-cli", "-s", str(self.directory / "socket"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def run(self, *arguments):
        """Runs a client command of Tollgate."""
        command = [str(BINARY), "--output", "json", *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def sample(self):
        """What both hold, in bytes; None once one has ended."""
        if self.tollgate.poll() is not None or self.redis.poll() is not None:
            raise Failed(f"a process has ended: see {self.directory}")
        about = dict(line.split(":", 1) for line in self.ask("INFO", "memory").splitlines() if ":" in line)
        keys = [key for key in self.ask("KEYS", "tg:{loadtest-*").splitlines() if key]
        entries = sum(int(self.ask("XLEN", key)) for key in keys if key.endswith(":journal"))
        kept = [int(self.ask("MEMORY", "USAGE", key, "SAMPLES", 0) or 0) for key in keys]
        return {
            "sidecar": resident(self.tollgate.pid),
            "files": len(os.listdir(f"/proc/{self.tollgate.pid}/fd")),
            "journal": size(self.directory / "journal"),
            "redis": resident(self.redis.pid),
            "used": int(about["used_memory"]),
            "kept": sum(kept),
            "entries": entries,
            "appended": size(self.directory / "redis"),
        }


def resident(pid):
    """Bytes of memory that a process has."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def size(folder):
    """Bytes of the files in it; some may go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def row(at, found):
    """A sample as a line."""
    mib = [f"{found[name] / MIB:10.1f}" for name in ("sidecar", "journal", "redis", "used", "kept", "appended")]
    beyond = (found["used"] - found["kept"]) / MIB
    print(f"{at:>7} {mib[0]} {found['files']:6} {mib[1]} {mib[2]} {mib[3]} {mib[4]} {beyond:10.1f} "
          f"{found['entries']:10} {mib[5]}", flush=True)  # fmt: skip


def judge(report, first, last, spent):
    """What is wrong."""
    wrong = []
    for rpc, outcomes in report["whole_run"]["outcomes"].items():
        wrong += [f"{rpc}: {what} {times} times" for what, times in outcomes.items() if what != "ok"]
    # What was not answered, or only accepted, is charged too.
    if not wrong and spent != report["whole_run"]["charged_seconds"]:
        wrong.append(f"the balances say {spent} s, the answers {report['whole_run']['charged_seconds']} s")
    figures = {
        "memory of the sidecar": lambda found: found["sidecar"],
        "memory of Redis beyond what it keeps": lambda found: found["used"] - found["kept"],
    }
    for what, of in figures.items():
        before, after = of(first), of(last)
        if after > before * (100 + SHARE) // 100 + SLACK:
            wrong.append(f"{what} grew from {before / MIB:.1f} MiB to {after / MIB:.1f} MiB")
    if last["files"] > first["files"] + FILES:
        wrong.append(f"{last['files']} open files, before {first['files']}")
    return wrong


def soak(soak, minutes, rate):
    """The whole run; what is wrong."""
    soak.begin()
    out = (soak.directory / "report.json").open("wb")
    began = time.monotonic()
    load = soak.start(
        "load", BINARY, "loadtest", "--setup", "--tenants", TENANTS, "--mix", "1:1:1", "--rate", rate, "--rounds",
        minutes, "--duration", "1m", "--warm-up", "10s", "--timeout", "10s", "--output", "json", out=out,
    )  # fmt: skip
    print("minute    sidecar  files    journal  redis RSS  redis used     kept     beyond    records  AOF (MiB)")
    samples = []
    for minute in range(1, minutes + 1):
        while load.poll() is None and time.monotonic() < began + 60 * minute:
            time.sleep(0.2)
        samples.append(soak.sample())
        row(minute, samples[-1])
    if load.wait(120) != 0:
        raise Failed((soak.directory / "load.log").read_text())
    out.close()
    report = json.loads((soak.directory / "report.json").read_text())
    at = {share: samples[max(1, minutes * share // 100) - 1] for share in (10, 25, 50, 100)}
    print(f"\n{report['pace']}, mix {report['mix']}, for {minutes} min on {os.cpu_count()} cores")
    for share in (10, 50, 100):
        row(f"{share} %", at[share])
    grown = at[100]["entries"] - at[25]["entries"]
    if grown:
        each = (at[100]["kept"] - at[25]["kept"]) // grown
        print(f"Redis keeps {each} bytes for each record, about three a call")
    print("µs, medians of the minutes:", ", ".join(
        f"{rpc} p50 {of['nanos']['p50'] / 1000:.0f} p99 {of['nanos']['p99'] / 1000:.0f} p99.9 "
        f"{of['nanos']['p99.9'] / 1000:.0f}" for rpc, of in [*report["rpcs"].items(), ("all", report["all"])]
    ))  # fmt: skip
    print("whole run:", json.dumps(report["whole_run"]))
    spent, audited = 0, time.monotonic()
    wrong = []
    for number in range(1, TENANTS + 1):
        tenant = f"loadtest-{number}"
        audit = soak.run("audit", "--tenant", tenant)
        if audit.returncode != 0:
            wrong.append(f"audit of {tenant}: {audit.stdout} {audit.stderr}")
        pools = json.loads(soak.run("balance", "--tenant", tenant).stdout)["pools"]
        spent += sum(int(pool["spent"].removesuffix("s")) for pool in pools if "spent" in pool)
    print(f"audit of {at[100]['entries']} records within {time.monotonic() - audited:.0f} s: "
          f"{'NOT CLEAN' if wrong else 'clean'}; charged by the balances: {spent} s")  # fmt: skip
    return wrong + judge(report, at[25], at[100], spent)


def main():
    """The command line."""
    minutes, rate = (int(word) for word in sys.argv[1:3])
    # Short: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="tg-soak-", dir="/tmp") as directory:
        run = Soak(Path(directory))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            wrong = soak(run, minutes, rate)
        finally:
            run.end()
    for what in wrong:
        print(f"FAILED: {what}")
    print("FAILED" if wrong else "nothing grew, nothing failed, nothing is lost")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        sys.exit(f"FAILED: {error}")
