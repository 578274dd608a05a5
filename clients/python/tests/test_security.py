"""A server that wants to know who asks, and what both clients show it."""

import asyncio
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.servers import DECK, ORGANISATION, binary, until
from tollgate import AsyncTollgate, CallFields, RejectedError, Tollgate

IDENTITIES = """
[[callers]]
name = "{name}"
role = "{role}"
tenants = ["*"]
tokens = [{{ sha256 = "{sha256}" }}]
"""


def named(leg: CallFields, call_id: str, called_number: str = "") -> CallFields:
    """The same call by another name."""
    other = leg.copy()
    other["call_id"] = call_id
    other["called_number"] = called_number or leg["called_number"]
    return other


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Guarded:
    """`tollgate serve` with TLS, on loopback, for callers of a file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certify("ca")
        self.certify("server", "DNS:localhost")
        self.admit("sbc-token")
        arguments = [
            "--identities-file",
            self.path("identities.toml"),
            "--reload-interval",
            "100ms",
        ]
        arguments += ["--tls-cert", self.path("server.crt"), "--tls-key", self.path("server.key")]
        for listener in ("--listen", "--admin-listen", "--http-listen"):
            arguments += [listener, "127.0.0.1:0"]
        self._log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [binary(), "serve", "--log-format", "json", *arguments], stderr=self._log
        )
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        until(lambda: '"serving"' in self.log(), 20)
        line = next(line for line in self.log().splitlines() if '"serving"' in line)
        self.calls, self.administration = (
            line.split(f'"{name}":"127.0.0.1:')[1].split('"')[0]
            for name in ("calls", "administration")
        )
        (self.directory / "root").write_text("root-token\n")
        (self.directory / "organisation.yaml").write_text(ORGANISATION)
        environment = {
            **os.environ,
            "TOLLGATE_ADMIN_ENDPOINT": f"https://localhost:{self.administration}",
            "TOLLGATE_CLIENT_TLS_CA": self.path("ca.crt"),
            "TOLLGATE_CLIENT_TOKEN_FILE": self.path("root"),
        }
        (self.directory / "deck.csv").write_text(DECK)
        for command, file in (
            (("rates", "activate"), "deck.csv"),
            (("apply", "-f"), "organisation.yaml"),
        ):
            run: list[str | Path] = [binary(), *command, self.path(file)]
            subprocess.run(run, env=environment, check=True, capture_output=True)

    def certify(self, name: str, alternative: str | None = None) -> None:
        """A certificate of the authority, or that of the authority itself."""
        made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        made += ["-keyout", self.path(f"{name}.key"), "-out", self.path(f"{name}.crt")]
        if alternative is not None:
            made += ["-CA", self.path("ca.crt"), "-CAkey", self.path("ca.key")]
            made += ["-addext", f"subjectAltName={alternative}"]
            made += ["-addext", "basicConstraints=critical,CA:FALSE"]
        openssl("req", "-x509", "-days", "1", "-subj", f"/CN={name}", *made)

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def admit(self, token: str) -> None:
        """Writes who may ask: an SBC with this token."""
        callers = [("sbc", "sbc", token), ("root", "admin", "root-token")]
        texts = (
            IDENTITIES.format(name=name, role=role, sha256=hashlib.sha256(t.encode()).hexdigest())
            for name, role, t in callers
        )
        (self.directory / "identities.toml").write_text("".join(texts))

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials((self.directory / "ca.crt").read_bytes())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    server = Guarded(tmp_path)
    yield server
    server.close()


def test_a_token_is_shown_over_tls_and_read_again_when_it_is_renewed(
    guarded: Guarded, leg: CallFields, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("sbc-token\n")
    # A busy machine is slow, not away.
    how: dict[str, Any] = {"credentials": guarded.credentials, "token_file": token, "timeout": 20.0}
    endpoint = f"https://localhost:{guarded.calls}"
    with Tollgate(endpoint, **how) as client:
        assert client.authorize(**leg).decision
        guarded.admit("renewed-token")
        until(lambda: "read again" in guarded.log(), 20)
        with pytest.raises(RejectedError) as refused:
            client.authorize(**named(leg, "b"))
        assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
        time.sleep(0.01)  # another time of change, also where a file system counts coarsely
        token.write_text("renewed-token\n")
        assert client.authorize(**named(leg, "c")).decision
        token.unlink()
        assert client.authorize(**named(leg, "d")).decision

    async def asynchronous() -> None:
        token.write_text("renewed-token\n")
        async with AsyncTollgate(endpoint, **how) as client:
            assert (await client.authorize(**named(leg, "e"))).decision

    asyncio.run(asynchronous())
    with Tollgate(endpoint, **{**how, "token_file": None}) as client:
        with pytest.raises(RejectedError):
            client.authorize(**named(leg, "f"))
        assert client.authorize(**named(leg, "g", "911")).allowed
