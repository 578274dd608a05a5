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
from tollgate import AsyncTollgate, Call, CallFields, RejectedError, Tollgate

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
    """`tollgate serve` with TLS, on loopback, for callers of a file; `mutual`: with certificates
    of their own."""

    def __init__(self, directory: Path, *, mutual: bool = False) -> None:
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
        if mutual:
            self.certify("client", "DNS:sbc.test")
            arguments += ["--tls-client-ca", self.path("ca.crt")]
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
        if (self.directory / "client.key").exists():
            environment["TOLLGATE_CLIENT_TLS_CERT"] = self.path("client.crt")
            environment["TOLLGATE_CLIENT_TLS_KEY"] = self.path("client.key")
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

    def admit_certificate(self, name: str, tenant: str) -> None:
        """Writes who may ask: an SBC of one tenant with this certificate."""
        text = f'[[callers]]\nname = "sbc"\nrole = "sbc"\ntenants = ["{tenant}"]\n'
        root = IDENTITIES.format(
            name="root", role="admin", sha256=hashlib.sha256(b"root-token").hexdigest()
        )
        (self.directory / "identities.toml").write_text(
            f'{text}certificates = ["DNS:{name}"]\n{root}'
        )

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


def test_a_certificate_is_shown_on_every_call_and_stream_and_read_again_when_it_is_renewed(
    tmp_path: Path, leg: CallFields
) -> None:
    guarded = Guarded(tmp_path, mutual=True)
    try:
        endpoint = f"https://localhost:{guarded.calls}"
        guarded.admit_certificate("sbc.test", leg["tenant_id"])
        until(lambda: "read again" in guarded.log(), 20)
        files: dict[str, Any] = {
            "tls_ca": guarded.path("ca.crt"),
            "tls_cert": guarded.path("client.crt"),
            "tls_key": guarded.path("client.key"),
            "timeout": 20.0,
        }
        other_tenant = named(leg, "other")
        other_tenant["tenant_id"] = "contoso-200"
        with Tollgate(endpoint, **files) as client:
            answer = client.authorize(**leg)
            assert answer.allowed
            call = Call(leg["tenant_id"], leg["call_id"], answer)
            with pytest.raises(RejectedError) as refused:
                client.authorize(**other_tenant)
            assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
            with client.follow_call(call) as told:
                end_all(guarded, leg["tenant_id"])
                assert told.wait(20)
            assert call.end_now is not None
            # Another name in the certificate, and in the file of callers.
            before = client._channels[0][0]
            guarded.certify("client", "DNS:renewed.test")
            guarded.admit_certificate("renewed.test", leg["tenant_id"])
            until(lambda: guarded.log().count("read again") >= 2, 20)
            assert client.authorize(**named(leg, "renewed")).decision
            assert client._channels[0][0] is not before
            # The stream of before ended with the name that is admitted no more: another tells the same.
            os.utime(guarded.path("client.crt"), (1, 1))
            call = Call(leg["tenant_id"], "twice", client.authorize(**named(leg, "twice")))
            with client.follow_call(call) as told:
                end_all(guarded, leg["tenant_id"])
                assert told.wait(20)
            assert call.end_now is not None

        async def asynchronous() -> None:
            async with AsyncTollgate(endpoint, **files) as client:
                for times, name in enumerate(["first", "once", "twice"]):
                    name = f"asynchronous-{name}"
                    os.utime(guarded.path("client.crt"), (times, times))
                    answer = await client.authorize(**named(leg, name))
                    if times == 1:
                        continue  # what was opened before stays, until the next renewal
                    call = Call(leg["tenant_id"], name, answer)
                    with client.follow_call(call) as told:
                        await asyncio.to_thread(end_all, guarded, leg["tenant_id"])
                        await asyncio.wait_for(told.wait(), 20)
                    assert call.end_now is not None

        asyncio.run(asynchronous())
    finally:
        guarded.close()


def end_all(guarded: Guarded, tenant: str) -> None:
    """An operator ends the calls of a tenant."""
    environment = {
        **os.environ,
        "TOLLGATE_ADMIN_ENDPOINT": f"https://localhost:{guarded.administration}",
        "TOLLGATE_CLIENT_TLS_CA": guarded.path("ca.crt"),
        "TOLLGATE_CLIENT_TLS_CERT": guarded.path("client.crt"),
        "TOLLGATE_CLIENT_TLS_KEY": guarded.path("client.key"),
        "TOLLGATE_CLIENT_TOKEN_FILE": guarded.path("root"),
    }
    command: list[str | Path] = [binary(), "calls", "end", "--tenant", tenant, "--all"]
    command += ["--reason", "test", "--operator", "olga"]
    subprocess.run(command, env=environment, check=True, capture_output=True)


def test_what_is_wrong_with_files_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for files, why in (
        ({"tls_ca": tmp_path / "missing"}, "cannot be read"),
        ({"tls_cert": tmp_path / "file"}, "both or neither"),
        (
            {"tls_ca": tmp_path / "file", "credentials": grpc.local_channel_credentials()},
            "expected them or",
        ),
    ):
        with pytest.raises(ValueError, match=why):
            Tollgate("localhost:1", **files)
    with Tollgate(["localhost:1", "unix:/a", "http://a:1"], tls_ca=tmp_path / "file") as client:
        secure = [endpoint.secure for endpoint in client._settings.endpoints]
    assert secure == [True, False, False]
