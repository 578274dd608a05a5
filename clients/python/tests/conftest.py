"""What the tests share."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import TENANTS, Fake, Server
from tollgate import CallFields, CallType

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """One server for all tests, audited when they are done."""
    server = Server()
    yield server
    server.audit()
    server.close()


@pytest.fixture
def tenant() -> str:
    """An organisation for this test alone."""
    number = next(_numbers)
    assert number <= TENANTS, "raise TENANTS"
    return f"contoso-{number}"


@dataclass(frozen=True)
class Asked:
    """The server, for the test of one tenant."""

    server: Server
    tenant: str

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    @property
    def credits(self) -> dict[str, str]:
        return self.server.credits(self.tenant)


@pytest.fixture
def server(shared_server: Server, tenant: str) -> Iterator[Asked]:
    """The server, which goes on at the end."""
    yield Asked(shared_server, tenant)
    shared_server.go_on()


@pytest.fixture
def fakes() -> Iterator[Callable[[str | None], Fake]]:
    """Makes misbehaving sidecars."""
    made: list[Fake] = []

    def make(behind: str | None = None) -> Fake:
        made.append(Fake(behind))
        return made[-1]

    yield make
    for fake in made:
        fake.close()


@pytest.fixture
def leg(tenant: str) -> CallFields:
    """A call of 0.01 USD a second."""
    return CallFields(
        tenant_id=tenant,
        call_id="realm|abc@sbc|tag|1",
        payer_id="alice",
        call_type=CallType.USER_OUTBOUND,
        called_number="+442079460958",
    )


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A directory for journals."""
    return tmp_path / "journal"
