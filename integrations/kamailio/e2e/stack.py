"""The processes of a run: Redis, Tollgate, Kamailio and SIPp, on free ports of loopback.

Only what was started here is ever stopped, by its own process object.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
INTEGRATION = HERE.parent
REPOSITORY = INTEGRATION.parents[1]
REALM = "kamailio-e2e"
PATIENCE = 90.0
"""Longest wait, in seconds, for what a process should do; the machine may be busy."""

DECK = """\
prefix,destination,rate_per_minute,connection_fee,initial_increment,increment,currency,\
effective_from,effective_to,direction
1,United States,0.60,0,1,1,USD,2020-01-01,,outbound
44,United Kingdom,0.60,0,1,1,USD,2020-01-01,,outbound
234,Nigeria,6.00,0,1,1,USD,2020-01-01,,outbound
*,anywhere,0.60,0,1,1,USD,2020-01-01,,toll_free_inbound
"""

GRANT = 20
"""Seconds of a first grant and of each extension: refreshed at 5 s, 10 s, ..."""

GRACE = 2
RINGING = 6


class Failed(Exception):
    """A promise was not kept."""


def until(what, condition, timeout=PATIENCE, every=0.05):
    """Waits for what another process does; what it said when it was true."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= end:
            raise Failed(f"not within {timeout:.0f} s: {what}")
        time.sleep(every)


_handed_out = set()


def free_port():
    """A port of loopback that is free for TCP and UDP, and not handed out before."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            tcp.bind(("127.0.0.1", 0))
            port = tcp.getsockname()[1]
            if port in _handed_out:
                continue
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                _handed_out.add(port)
                return port


_started = set()
_media = itertools.count(10_000 + os.getpid() % 4_000 * 4, 4)


def media_port():
    """A port that is free with the three after it, all of which SIPp takes though no media flows; below those that the
    kernel hands out."""
    for port in _media:
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
        try:
            for offset, udp in enumerate(sockets):
                udp.bind(("127.0.0.1", port + offset))
            return port
        except OSError:
            continue
        finally:
            for udp in sockets:
                udp.close()


class Process:
    """A child, with its log in a file. The log begins anew with each start."""

    def __init__(self, name, arguments, directory, environment=None):
        self.name = name
        self.arguments = [str(a) for a in arguments]
        self.log = directory / f"{name}.log"
        self._directory = directory
        self._environment = {**os.environ, **(environment or {})}
        self.process = None

    def start(self):
        """Starts it."""
        _started.add(self)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
            )
        return self

    @property
    def running(self):
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def wait(self, timeout=PATIENCE):
        """Waits for its end; its exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not end: {self.log}") from None

    def stop(self, how=signal.SIGTERM, timeout=20.0):
        """Ends it, at the latest after `timeout` by force."""
        if not self.running:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def stop_all_on_sigterm():
    """When a time limit ends the run, nothing that it started stays behind."""

    def stop(number, frame):
        del frame
        running = [p for p in list(_started) if p.running]
        for process in running:
            process.process.terminate()
        end = time.monotonic() + 3
        while any(p.running for p in running) and time.monotonic() < end:
            time.sleep(0.05)
        for process in running:
            if process.running:
                process.process.kill()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def children_of(pid):
    """The processes that this one started, by the kernel's word."""
    with contextlib.suppress(OSError):
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class Guard:
    """Certificates of an authority of its own, and the callers that Tollgate knows: Kamailio and an administrator."""

    def __init__(self, directory, tenants):
        self._directory = directory
        self._tenants = tenants
        self._openssl("ca")
        for name in ("server", "client"):
            self._openssl(name, "subjectAltName=IP:127.0.0.1,DNS:e2e.test")
        (directory / "root.token").write_text("root\n")
        self.admit("first")
        names = ("identities.toml", "server.crt", "server.key", "ca.crt")
        flags = ("--identities-file", "--tls-cert", "--tls-key", "--tls-client-ca")
        self.settings = [part for flag, name in zip(flags, names, strict=True) for part in (flag, directory / name)]
        self.settings += ["--reload-interval", "100ms"]

    def _openssl(self, name, alternative=None):
        made = ["openssl", "req", "-x509", "-days", "1", "-subj", f"/CN={name}", "-nodes", "-newkey", "ec"]
        made += ["-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", f"{name}.key", "-out", f"{name}.crt"]
        if alternative:
            made += ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", alternative]
            made += ["-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(made, cwd=self._directory, check=True, capture_output=True)

    def admit(self, token):
        """Kamailio has this token from now on, and no other is anybody's."""
        text = ""
        for name, role, tenants, shown in (("kamailio", "sbc", self._tenants, token), ("root", "admin", ["*"], "root")):
            digest = hashlib.sha256(shown.encode()).hexdigest()
            text += f'[[callers]]\nname = "{name}"\nrole = "{role}"\ntenants = {json.dumps(list(tenants))}\n'
            text += f'tokens = [{{ sha256 = "{digest}" }}]\n'
        for name, content in (("sbc.token", token + "\n"), ("identities.toml", text)):
            part = self._directory / f"{name}.part"
            part.write_text(content)
            part.replace(self._directory / name)

    def environment(self, token):
        """What a client is told."""
        files = {"TLS_CA": "ca.crt", "TLS_CERT": "client.crt", "TLS_KEY": "client.key", "TOKEN_FILE": token}
        return {f"TOLLGATE_CLIENT_{name}": str(self._directory / file) for name, file in files.items()}


class Stack:
    """Redis, Tollgate and Kamailio. `tenants`: the YAML of the organisations, a list below `tenants:`. `guarded`: the
    tenants of Kamailio, known by certificate and token over TLS; left out, Tollgate asks nobody who they are."""

    def __init__(
        self,
        name,
        tenants,
        numbers=(),
        *,
        defines=(),
        tollgate=(),
        workers=2,
        askers=6,
        agent=True,
        guarded=(),
        deadline=None,
        sidecars=1,
    ):
        # Short: the path of a socket has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix=f"tg-{name}-", dir="/tmp"))
        self.name = name
        self._tenants = tenants
        self._agent = agent
        self.redis_port, self.port, self.admin, self.http, self.sip = (free_port() for _ in range(5))
        self.binary = Path(os.environ.get("TOLLGATE_BINARY") or REPOSITORY / "target/debug/tollgate")
        if not self.binary.is_file():
            raise Failed(f"{self.binary} is missing: cargo build, or set TOLLGATE_BINARY")
        (self.directory / "redis").mkdir()
        guard = Guard(self.directory, guarded) if guarded else None
        self.guard = guard
        self.redis = Process(
            "redis",
            ["redis-server", "--bind", "127.0.0.1", "--port", self.redis_port, "--dir", self.directory / "redis"]
            + ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"],
            self.directory,
        )
        settings = ["--shutdown-grace", "2s", *tollgate, *(guard.settings if guard else [])]
        self.tollgate = self._sidecar("tollgate", (self.port, self.admin, self.http), settings)
        ports = [tuple(free_port() for _ in range(3)) for _ in range(1, sidecars)]
        self.others = [self._sidecar(f"tollgate-{nth}", three, settings) for nth, three in enumerate(ports, 2)]
        endpoints = [f"127.0.0.1:{port}" for port in (self.port, *(calls for calls, _, _ in ports))]
        client = REPOSITORY / "clients/python/src"
        packages = [p for p in os.sys.path if p.endswith("site-packages")]
        # The configuration as it is shipped, but for the site's own numbers.
        for name in ("kamailio.cfg", "tollgate.cfg", "policy.cfg"):
            shutil.copy(INTEGRATION / name, self.directory)
        numbers_cfg = self.directory / "numbers.cfg"
        rows = "".join(f'    $sht(numbers=>{number}) = "{row}";\n' for number, row in numbers)
        numbers_cfg.write_text(f"event_route[htable:mod-init] {{\n{rows}    return;\n}}\n")
        self.kamailio = Process(
            "kamailio",
            ["kamailio", "-f", self.directory / "kamailio.cfg", "-DD", "-E", "-m", "256", "-M", "16"]
            + ["-Y", self.directory, "-w", self.directory]
            + ["-A", f"LISTEN=udp:127.0.0.1:{self.sip}", "-A", f'CONTROL="unix:{self.directory}/control"']
            + ["-A", f'TOLLGATE_MODULE="{INTEGRATION}/tollgate_kamailio.py"']
            + ["-A", f"WORKERS={workers}", "-A", f"ASKERS={askers}"]
            + [part for define in defines for part in ("-A", define)],
            self.directory,
            {
                "TOLLGATE_ENDPOINTS": ",".join(endpoints),
                "TOLLGATE_REALM": REALM,
                "TOLLGATE_JOURNAL": str(self.directory / "journal"),
                "TOLLGATE_PYTHONPATH": ":".join([str(client), *packages]),
                "PYTHONDONTWRITEBYTECODE": "1",
                **(guard.environment("sbc.token") if guard else {}),
                **({"TOLLGATE_DEADLINE": str(deadline)} if deadline else {}),
            },
        )

    def _sidecar(self, name, ports, settings):
        calls, administration, http = (f"127.0.0.1:{port}" for port in ports)
        listeners = ["--listen", calls, "--admin-listen", administration, "--http-listen", http]
        ledger = f"redis://127.0.0.1:{self.redis_port}"
        return Process(name, [self.binary, "serve", "--ledger", ledger, *listeners, *settings], self.directory)

    def __enter__(self):
        try:
            self.redis.start()
            until("redis answers", lambda: self.redis_cli("ping").startswith("PONG"))
            for sidecar in (self.tollgate, *self.others):
                sidecar.start()
            self.kamailio.start()
            self.ready()
            deck = self.directory / "deck.csv"
            deck.write_text(DECK)
            self.cli("rates", "activate", "--deck", "default", deck)
            organisation = self.directory / "organisation.yaml"
            organisation.write_text("tenants:\n" + self._tenants)
            self.cli("apply", "-f", organisation)
            until("kamailio answers", self._sip_answers)
            if self._agent:
                until("the agent runs", lambda: "the agent runs" in self.kamailio.log.read_text(errors="replace"))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind, *_):
        for process in (self.kamailio, self.tollgate, *self.others, self.redis):
            process.stop()
        if kind is None and not os.environ.get("TOLLGATE_E2E_KEEP"):
            shutil.rmtree(self.directory, ignore_errors=True)

    def redis_cli(self, *arguments):
        """Asks Redis."""
        command = ["redis-cli", "-p", str(self.redis_port), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def ready(self):
        """Waits until Tollgate decides calls."""

        def asked():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.http), 5) as http:
                http.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return b" 200 " in http.recv(64)
            return False

        until("tollgate is ready", asked)

    def _sip_answers(self):
        if not self.kamailio.running:
            raise Failed(f"kamailio does not start: {self.kamailio.log.read_text(errors='replace')[-2000:]}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            udp.settimeout(0.3)
            here = udp.getsockname()[1]
            udp.sendto(
                f"OPTIONS sip:127.0.0.1:{self.sip} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{here};"
                f"branch=z9hG4bK{time.monotonic_ns()}\r\nFrom: <sip:e2e@localhost>;tag=1\r\n"
                f"To: <sip:e2e@localhost>\r\nCall-ID: {time.monotonic_ns()}\r\nCSeq: 1 OPTIONS\r\n"
                "Max-Forwards: 5\r\nContent-Length: 0\r\n\r\n".encode(),
                ("127.0.0.1", self.sip),
            )
            with contextlib.suppress(OSError):
                return udp.recv(4096).startswith(b"SIP/2.0 200")
        return False

    def cli(self, *arguments, check=True):
        """Runs a client command of Tollgate; its JSON."""
        run = subprocess.run(
            [self.binary, "--output", "json", *map(str, arguments)],
            env={
                **os.environ,
                "TOLLGATE_ENDPOINT": f"{'https' if self.guard else 'http'}://127.0.0.1:{self.port}",
                "TOLLGATE_ADMIN_ENDPOINT": f"{'https' if self.guard else 'http'}://127.0.0.1:{self.admin}",
                "TOLLGATE_TIMEOUT": "30s",
                **(self.guard.environment("root.token") if self.guard else {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if check and run.returncode != 0:
            raise Failed(f"tollgate {' '.join(map(str, arguments))}: {run.stdout} {run.stderr}")
        try:
            return json.loads(run.stdout)
        except ValueError:
            return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]

    def apply(self, organisation):
        """Applies the YAML of an organisation, what is absent from it stays as it is."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=self.directory) as file:
            file.write("tenants:\n" + organisation)
            file.flush()
            self.cli("apply", "-f", file.name)

    def credits(self, tenant):
        """What a tenant's wallet holds and has spent, as text."""
        found = self.cli("balance", "--tenant", tenant)["credits"]
        return {name: found[name]["amount"] for name in ("spent", "held", "available", "owed")}

    def decisions(self, tenant):
        """Every decision on a tenant's calls, the newest first."""
        found = self.cli("decisions", "--tenant", tenant, "--limit", "1000")
        return found["decisions"] if isinstance(found, dict) else found

    def open_calls(self, tenant):
        """The running calls of a tenant."""
        found = self.cli("calls", "--tenant", tenant)
        return found.get("calls", []) if isinstance(found, dict) else found

    def audit(self, tenant=None):
        """Proves the invariants; fails if one is broken."""
        self.cli("audit", *(["--tenant", tenant] if tenant else []))
        return "clean"
