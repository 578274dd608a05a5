"""A conference that calls people: each is a leg of its own, the organiser pays for all.

    tollgate demo &                               # or: tollgate serve, and a deck named default
    tollgate apply -f examples/dial_out.yaml
    python examples/dial_out.py +12065550142 '+44 20 7946 0958' +12065550143

The media is played by `Leg`, which rings, answers and talks as told; a bridge has its own. What an operator
ends, or a block, is hung up at once: `run_call` follows the directives.
"""

import argparse
import asyncio
import os
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from tollgate import (
    Answer,
    AsyncTollgate,
    Call,
    CallType,
    Cause,
    Ended,
    NoDecisionError,
    call_id,
    run_call,
)


class Leg:
    """A call to one person, as a bridge would make it; here it is only played."""

    def __init__(self, number: str, *, ring: float, talk: float | None) -> None:
        self.number = number
        self.answered = asyncio.Event()
        self._over: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._play = asyncio.create_task(self._be_called(ring, talk))

    async def _be_called(self, ring: float, talk: float | None) -> None:
        await asyncio.sleep(ring)
        if talk is None:
            self._end(17)  # user busy
            return
        self.answered.set()
        await asyncio.sleep(talk)
        self._end(16)  # normal clearing

    def _end(self, q850_cause: int | None) -> None:
        if not self._over.done():
            self._over.set_result(q850_cause)

    async def over(self) -> int | None:
        """Waits until the leg is over; its Q.850 cause."""
        return await asyncio.shield(self._over)

    async def hang_up(self, _cause: Cause) -> None:
        """Ends the leg from our side."""
        self._play.cancel()
        self._end(16)


@dataclass(frozen=True)
class Invited:
    """What became of an invitation."""

    number: str
    answer: Answer | None
    ended: Ended | None
    why: str = ""

    def __str__(self) -> str:
        if self.answer is None:
            return f"{self.number:<22} no decision: {self.why}"
        if self.ended is None:
            refusal = f"{self.answer.sip_status} {self.answer.reason_header}"
            return f"{self.number:<22} {self.answer.decision}: {refusal}"
        settled = self.ended.settlement
        paid = f"{settled.charged}" if settled and settled.charged else "pending"
        return (
            f"{self.number:<22} {self.answer.decision}: {self.ended.cause}, "
            f"{self.ended.used_seconds:.1f} s, {paid}"
        )


class Conference:
    """Invites people on the organiser's account. `leg`: what makes a call."""

    def __init__(
        self, tollgate: AsyncTollgate, tenant_id: str, organiser: str, leg: type[Leg] = Leg
    ) -> None:
        self._tollgate = tollgate
        self._tenant_id = tenant_id
        self._organiser = organiser
        self._leg = leg
        self.conference_id = uuid.uuid4().hex

    async def invite(
        self, position: int, number: str, *, ring: float = 0.2, talk: float | None = 1.0
    ) -> Invited:
        """Asks, calls, follows and settles one leg."""
        # Named before it is sent: a repetition, by whatever sidecar answered, is the same leg.
        name = call_id("bridge", self.conference_id, "", position)
        try:
            answer = await self._tollgate.authorize(
                tenant_id=self._tenant_id,
                call_id=name,
                payer_id=self._organiser,
                call_type=CallType.CONFERENCE_DIAL_OUT,
                called_number=number,
                conference_id=self.conference_id,
                reports_answer=True,
            )
        except NoDecisionError as error:
            return Invited(number, None, None, str(error))
        if not answer.allowed:
            return Invited(number, answer, None)
        call = Call(self._tenant_id, name, answer, reports_answer=True)
        leg = self._leg(number, ring=ring, talk=talk)
        ended = await run_call(
            self._tollgate,
            call,
            answered=leg.answered.wait(),
            ended=leg.over(),
            hang_up=leg.hang_up,
        )
        return Invited(number, answer, ended)

    async def invite_all(
        self, numbers: Sequence[str], *, talk: float = 1.0, busy: float = 0.0
    ) -> list[Invited]:
        """Invites everybody at once; `busy` is the share of people whose line is."""
        invitations = (
            self.invite(position, number, talk=None if random.random() < busy else talk)
            for position, number in enumerate(numbers, 1)
        )
        return await asyncio.gather(*invitations)


async def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Calls people into a conference.")
    parser.add_argument("numbers", nargs="+", help="who is invited")
    parser.add_argument("--endpoint", action="append", help="a sidecar; several for hedging")
    parser.add_argument("--tenant", default="dialout")
    parser.add_argument("--organiser", default="olivia")
    parser.add_argument("--talk", type=float, default=2.0, help="seconds")
    parser.add_argument("--busy", type=float, default=0.0, help="share of lines that are busy")
    parser.add_argument(
        "--journal", default=".dial-out-journal", help="directory of unsent settles"
    )
    # For a server with identities; the variables are those of the tollgate program.
    for name in ("token-file", "tls-ca", "tls-cert", "tls-key"):
        known = os.environ.get("TOLLGATE_CLIENT_" + name.upper().replace("-", "_"))
        parser.add_argument(f"--{name}", default=known, help="file shown to the sidecars")
    args = parser.parse_args()
    endpoints = args.endpoint or ["127.0.0.1:7601"]
    async with AsyncTollgate(
        endpoints,
        journal=args.journal,
        token_file=args.token_file,
        tls_ca=args.tls_ca,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
    ) as tollgate:
        conference = Conference(tollgate, args.tenant, args.organiser)
        for invited in await conference.invite_all(args.numbers, talk=args.talk, busy=args.busy):
            print(invited)


if __name__ == "__main__":
    asyncio.run(main())
