"""Processes that fork, and processes that die."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Asked
from tests.servers import Fake
from tollgate import CallFields, Tollgate

SOURCE = Path(__file__).resolve().parent.parent / "src"

SYNC = """
endpoint, journal, tenant, call_id = sys.argv[1:]
from tollgate import Tollgate
client = Tollgate(endpoint, timeout=30, attempt_timeout=30, journal=journal)
client.settle(tenant_id=tenant, call_id=call_id, used_seconds=45)
"""

ASYNC = """
endpoint, journal, tenant, call_id = sys.argv[1:]
import asyncio
from tollgate import AsyncTollgate
async def main():
    client = AsyncTollgate(endpoint, timeout=30, attempt_timeout=30, journal=journal)
    await client.settle(tenant_id=tenant, call_id=call_id, used_seconds=45)
asyncio.run(main())
"""

FORKS = """
import os, sys
from tollgate import CallType, Tollgate, UnavailableError
endpoint, journal, tenant, used_before = sys.argv[1:]
client = Tollgate(endpoint, journal=journal)
def call(name):
    leg = dict(tenant_id=tenant, call_id=name)
    answer = client.authorize(
        **leg, payer_id="alice", call_type=CallType.USER_OUTBOUND, called_number="+442079460958"
    )
    assert answer.allowed, answer
    assert client.settle(**leg, used_seconds=1).result == "SETTLED"
if used_before == "yes":
    call("before")
def child(number):
    status = 1
    try:
        call(f"child-{number}")
        client.close()
        status = 0
    except UnavailableError as error:
        print(error, flush=True)
        status = 3
    finally:
        os._exit(status)
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        child(number)
    children.append(pid)
statuses = {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children}
call("after")
client.close()
print(statuses)
"""


def run(code: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", "import sys\n" + code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("code", [SYNC, ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize("carried_out", [True, False])
def test_a_settle_survives_kill_9_between_its_sending_and_its_answer(
    server: Asked,
    leg: CallFields,
    journal: Path,
    fakes: Callable[..., Fake],
    code: str,
    carried_out: bool,
) -> None:
    with Tollgate(server.endpoint) as client:
        assert client.authorize(**leg).allowed
    fake = fakes(server.endpoint)

    def never_answer(_method: object, _request: object, forward: object, context: object) -> object:
        assert callable(forward)
        if carried_out:
            forward()
        with fake.arrived:
            fake.requests.append(("HELD", None))
            fake.arrived.notify_all()
        fake.cancelled.wait(20)
        return forward()

    fake.behave = never_answer
    process = run(code, fake.endpoint, str(journal), server.tenant, leg["call_id"])
    fake.wait_for(2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert server.credits["spent"] == ("0.45" if carried_out else "0")

    with Tollgate(server.endpoint, journal=journal) as successor:
        assert successor.flush()
    fake.cancelled.set()
    assert server.credits["spent"] == "0.45"
    assert server.credits["held"] == "0"
    assert list(journal.glob("*.journal")) == []


def test_a_client_that_was_made_before_a_fork_serves_every_child(
    server: Asked, journal: Path
) -> None:
    process = run(FORKS, server.endpoint, str(journal), server.tenant, "no")
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "{0}\n")
    assert server.credits["spent"] == "0.04"


def test_a_client_that_was_used_before_a_fork_says_so_instead_of_hanging(
    server: Asked, journal: Path
) -> None:
    process = run(
        FORKS, server.endpoint, str(journal), server.tenant, "yes", GRPC_ENABLE_FORK_SUPPORT="0"
    )
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert output.count("fork first, or start with GRPC_ENABLE_FORK_SUPPORT=1") == 3
    assert output.endswith("{3}\n")


def test_with_grpcs_fork_support_it_may_be_used_before(server: Asked, journal: Path) -> None:
    process = run(
        FORKS, server.endpoint, str(journal), server.tenant, "yes", GRPC_ENABLE_FORK_SUPPORT="1"
    )
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (0, "{0}\n")
    assert server.credits["spent"] == "0.05"
