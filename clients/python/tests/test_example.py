"""The dial-out service of examples/ does what it says."""

import asyncio
import runpy
from pathlib import Path
from typing import Any

from tests.servers import Server
from tollgate import AsyncTollgate, Cause

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def asked(found: Any) -> list[Any]:
    calls = found.get("calls", []) if isinstance(found, dict) else found
    return list(calls)


async def test_everybody_is_a_leg_and_the_organiser_pays(
    shared_server: Server, journal: Path
) -> None:
    example = runpy.run_path(str(EXAMPLES / "dial_out.py"))
    shared_server.tollgate("apply", "-f", str(EXAMPLES / "dial_out.yaml"))
    async with AsyncTollgate(shared_server.endpoint, journal=journal) as tollgate:
        conference = example["Conference"](tollgate, "dialout", "olivia")
        numbers = [f"+44207946{last:04}" for last in range(900, 910)]
        numbers += [f"+234803123{last:04}" for last in range(900, 910)]
        invited = await conference.invite_all([*numbers, "not a number"], talk=0.5)
        *talked, invalid = invited
        assert {leg.ended.cause for leg in talked} == {Cause.PARTIES}
        assert {leg.ended.settlement.result for leg in talked} == {"SETTLED"}
        assert (invalid.answer.decision, invalid.ended) == ("NUMBER_INVALID", None)
        assert "NUMBER_INVALID: 404" in str(invalid)
        busy = await conference.invite(99, "+442079460999", talk=None)
        assert busy.ended.settlement.result == "RELEASED"
        # An operator ends the meeting: each leg is hung up.
        another = example["Conference"](tollgate, "dialout", "olivia")
        running = asyncio.create_task(another.invite_all(numbers[:3], talk=3600))
        opened = ["calls", "--tenant", "dialout"]
        while len(asked(await asyncio.to_thread(shared_server.tollgate, *opened))) < 3:
            assert not running.done()
        by = ["--reason", "test", "--operator", "olga"]
        end = ["calls", "end", "--tenant", "dialout", "--all", *by]
        await asyncio.to_thread(shared_server.tollgate, *end)
        assert {leg.ended.cause for leg in await running} == {Cause.DIRECTED}
    # The conference minutes pay for London. Half a second to Lagos is charged as one: 0.01 USD.
    assert shared_server.credits("dialout") == {"spent": "0.1", "held": "0"}
