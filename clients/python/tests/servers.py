"""The real server as a process, and one that misbehaves on demand."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tollgate import _requests as requests
from tollgate.v1 import account_service_pb2
from tollgate.v1 import account_service_pb2_grpc as accounts

REPOSITORY = Path(__file__).resolve().parents[3]
TENANTS = 200
"""How many organisations a server has: each test has one of its own."""

TENANT = """
  - id: contoso-{number}
    currency: USD
    rate_deck: default
    credits:
      - {{ key: po-1, amount: "500", purchased_at: 2026-01-10T00:00:00Z }}
    users:
      - {{ id: alice, usage_location: US, licences: [MCOEV, MCOPSTNPP, MCOPSTN_PAYG_1, MCOMEETADD] }}
      - {{ id: bob, usage_location: US, licences: [] }}
"""
ORGANISATION = "tenants:" + "".join(TENANT.format(number=n) for n in range(1, TENANTS + 1))
DECK = (
    "prefix,destination,rate_per_minute,connection_fee,initial_increment,increment,currency,"
    "effective_from,effective_to,direction\n"
    "1,United States,0.60,0,1,1,USD,2020-01-01,,outbound\n"
    "44,United Kingdom,0.60,0,1,1,USD,2020-01-01,,outbound\n"
    "234,Nigeria,0.60,0,1,1,USD,2020-01-01,,outbound\n"
)


def binary() -> Path:
    """The program under test: TOLLGATE_BINARY, or what cargo built last."""
    named = os.environ.get("TOLLGATE_BINARY")
    found = Path(named) if named else REPOSITORY / "target" / "debug" / "tollgate"
    assert found.is_file(), f"{found} is missing: cargo build, or set TOLLGATE_BINARY"
    return found


class Server:
    """`tollgate serve --ledger memory` on unix sockets."""

    def __init__(self) -> None:
        # Short: the path of a socket has at most 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="tg-", dir="/tmp"))
        self.endpoint = f"unix:{self.directory}/calls"
        self._admin = f"unix:{self.directory}/admin"
        arguments = ["--ledger", "memory", "--listen", self.endpoint, "--admin-listen", self._admin]
        arguments += ["--http-listen", f"unix:{self.directory}/http"]
        with (self.directory / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [binary(), "serve", *arguments], stdout=log, stderr=subprocess.STDOUT
            )
        # A first attempt that fails would be repeated only after a second.
        until(lambda: all((self.directory / name).exists() for name in ("calls", "admin")), 20)
        local = [("grpc.default_authority", "localhost")]
        self._channel = grpc.insecure_channel(self._admin, options=local)
        grpc.channel_ready_future(self._channel).result(timeout=20)
        self._accounts = accounts.AccountServiceStub(self._channel)  # type: ignore[no-untyped-call]
        deck = self.directory / "deck.csv"
        deck.write_text(DECK)
        self.tollgate("rates", "activate", "--deck", "default", str(deck))
        organisation = self.directory / "organisation.yaml"
        organisation.write_text(ORGANISATION)
        self.tollgate("apply", "-f", str(organisation))

    def tollgate(self, *arguments: str) -> Any:
        """Runs a client command; its JSON."""
        environment = {
            **os.environ,
            "TOLLGATE_ENDPOINT": self.endpoint,
            "TOLLGATE_ADMIN_ENDPOINT": self._admin,
        }
        run = subprocess.run(
            [binary(), "--output", "json", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, f"{arguments}: {run.stdout} {run.stderr}"
        lines = run.stdout.strip()
        try:
            return json.loads(lines)
        except json.JSONDecodeError:
            return [json.loads(line) for line in lines.splitlines()]

    def credits(self, tenant_id: str) -> dict[str, str]:
        """The credits of a tenant: spent, held."""
        request = account_service_pb2.GetBalanceRequest(tenant_id=tenant_id)
        found = self._accounts.GetBalance(request, timeout=10).credits
        return {"spent": found.spent.amount, "held": found.held.amount}

    def audit(self) -> None:
        """Proves the invariants; fails if one is broken."""
        self.tollgate("audit")

    def stop(self) -> None:
        """Stops its process; the kernel still accepts connections."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def go_on(self) -> None:
        """Goes on after `stop`."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it and removes what it left."""
        self._channel.close()
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Fake:
    """A sidecar that passes requests to a real one, or misbehaves as `behave` says.

    `behave(method, request, forward, context)` returns the answer, or aborts; of a stream it may return
    an iterator.
    """

    def __init__(self, behind: str | None = None) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.cancelled = threading.Event()
        self.arrived = threading.Condition()
        self.behave: Callable[[Any, Any, Callable[[], Any], grpc.ServicerContext], Any] = (
            lambda _method, _request, forward, _context: forward()
        )
        self._channel = None
        if behind is not None:
            self._channel = grpc.insecure_channel(
                behind, options=[("grpc.default_authority", "localhost")]
            )
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._handler(method),
                request_deserializer=method.request.FromString,
                response_serializer=method.response.SerializeToString,
            )
            for method in requests.METHODS
        }
        handlers["WatchCalls"] = grpc.unary_stream_rpc_method_handler(
            self._stream_handler(requests.WATCH_CALLS),
            request_deserializer=requests.WATCH_CALLS.request.FromString,
            response_serializer=requests.WATCH_CALLS.response.SerializeToString,
        )
        generic = grpc.method_handlers_generic_handler(requests.SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"127.0.0.1:{port}"
        self._server.start()

    def _handler(self, method: Any) -> Callable[[Any, grpc.ServicerContext], Any]:
        def forward(request: Any) -> Any:
            assert self._channel is not None
            call = self._channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            return call(request, timeout=5)

        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            with self.arrived:
                self.requests.append((method.name, request))
                self.arrived.notify_all()
            return self.behave(method, request, lambda: forward(request), context)

        return handle

    def _stream_handler(self, method: Any) -> Callable[[Any, grpc.ServicerContext], Any]:
        handle = self._handler(method)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            told = handle(request, context)
            yield from told if isinstance(told, Iterator) else [told]

        return stream

    def wait_for(self, count: int, timeout: float = 10) -> None:
        """Waits until so many requests have arrived."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.requests) >= count, timeout)

    def close(self) -> None:
        """Ends it at once."""
        self._server.stop(None).wait(5)
        if self._channel is not None:
            self._channel.close()


def abort_with(code: grpc.StatusCode, **metadata: Any) -> Callable[..., Any]:
    """A behaviour: every request ends with that code."""

    def behave(_method: Any, _request: Any, _forward: Any, context: grpc.ServicerContext) -> Any:
        context.set_trailing_metadata(
            tuple((key.replace("_", "-"), value) for key, value in metadata.items())
        )
        context.abort(code, "as told")

    return behave


@contextmanager
def dead_port() -> Iterator[str]:
    """An address that nobody listens on, and nobody takes meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def silent_port() -> Iterator[str]:
    """An address that accepts connections and never says a word."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(64)
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Waits for what another process or thread does."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        select.select([], [], [], 0.01)
