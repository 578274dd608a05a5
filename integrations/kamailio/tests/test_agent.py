"""The agent without Kamailio and Tollgate: `python -m unittest discover -s integrations/kamailio/tests`."""

import asyncio
import base64
import json
import sys
import tempfile
import time
import unittest
import unittest.mock
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "integrations/kamailio"), str(ROOT / "clients/python/src")]

import tollgate_agent as agents
from tollgate import Directive, EndedCalls, Money, RejectedError, UnavailableError
from tollgate.answers import answer as read_answer
from tollgate.v1 import call_authorization_service_pb2 as service
from tollgate.v1 import call_pb2

FIELDS = {"tenant_id": "contoso", "call_id": "c1"}
DIALOG = [7, 9]


def granted(seconds, final=False):
    """An answer that allows so many seconds."""
    message = service.AuthorizeCallResponse(decision=call_pb2.DECISION_ALLOWED, allowed=True)
    message.grant.granted_duration.seconds = seconds
    message.grant.refresh_after.seconds = seconds // 2
    message.grant.ringing_timeout.seconds = 60
    message.grant.final_grant = final
    return message


def refused():
    """An answer that does not."""
    return service.ExtendCallResponse(decision=call_pb2.DECISION_FRAUD_SUSPECTED, allowed=False)


def directive(kind, call_id="c1"):
    """What Tollgate says of a call."""
    return Directive(kind, "OPERATOR", call_id, f"{kind}.{call_id}", "alice", "realm", "test", call_pb2.Directive())


class Client:
    """Stands for AsyncTollgate: what it was asked, and what it answers."""

    journal = None

    def __init__(self):
        self.asked = []
        self.used = {}
        self.extensions = asyncio.Queue()
        self.directives = asyncio.Queue()
        self.refusals = []

    async def extend(self, **fields):
        self.asked.append(("extend", fields["call_id"]))
        return read_answer(await self.extensions.get())

    async def report_answer(self, **fields):
        self.asked.append(("answer", fields["call_id"]))

    async def settle(self, **fields):
        self.asked.append(("settle", fields["call_id"]))
        self.used[fields["call_id"]] = fields.get("used_seconds")
        raise UnavailableError("away")

    release = settle

    async def watch_calls(self, **fields):
        self.asked.append(("watch", fields["tenant_id"]))
        while True:
            yield await self.directives.get()

    async def end_calls(self, **fields):
        self.asked.append(("end", fields["tenant_id"], fields["trunk_id"], fields["started_before"]))
        if self.refusals:
            raise self.refusals.pop(0)
        return EndedCalls(2, 0, 12, Money(12, "USD"), ("a", "b"))


class Switch:
    """Stands for Kamailio."""

    def __init__(self):
        self.timeouts = []
        self.cancelled = []
        self.dialogs = True

    def cancel(self, sip, reason):
        self.cancelled.append((sip, reason))
        return True

    def set_timeout(self, dialog, seconds):
        self.timeouts.append((dialog, seconds))
        return self.dialogs


class TestAgent(unittest.IsolatedAsyncioTestCase):
    """Each packet, directive and answer, one at a time."""

    async def asyncSetUp(self):
        self.client, self.switch = Client(), Switch()
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.tenants = agents.Tenants(self.directory.name)
        status = agents.Status(bytearray(16))
        self.agent = agents.Agent(self.client, self.switch, status, self.tenants, "realm")

    async def asyncTearDown(self):
        for task in list(self.agent._tasks):
            task.cancel()

    def hear(self, what, **told):
        self.agent.heard(json.dumps({"what": what, **told}).encode())

    def authorized(self, seconds=20, final=False, fields=FIELDS, sip=("abc", "1")):
        answer = base64.b64encode(granted(seconds, final).SerializeToString()).decode()
        self.hear("authorized", fields=fields, answer=answer, sip=sip)

    def answered(self):
        self.hear("answered", fields=FIELDS, at=time.monotonic(), dialog=DIALOG)

    async def settled_down(self):
        for _ in range(20):
            await asyncio.sleep(0)

    async def test_end_now_hangs_up_both_legs_once(self):
        self.authorized()
        self.answered()
        await self.client.directives.put(directive("END_NOW"))
        await self.settled_down()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 1)])
        self.assertIn(("watch", "contoso"), self.client.asked)

    async def test_end_now_of_a_call_that_rings_cancels_it_until_it_is_over(self):
        again, agents.RING_AGAIN = agents.RING_AGAIN, 0
        self.addCleanup(setattr, agents, "RING_AGAIN", again)
        self.authorized()
        self.agent.directed(directive("END_NOW"))
        await self.settled_down()
        self.assertEqual(set(map(str, self.switch.cancelled)), {"(['abc', '1'], 'OPERATOR')"})
        self.hear("failed", fields=FIELDS, cause=21)
        seen = len(self.switch.cancelled)
        self.assertGreater(seen, 1)
        await self.settled_down()
        self.assertEqual((len(self.switch.cancelled), self.switch.timeouts), (seen, []))

    async def test_of_two_legs_that_ring_with_one_call_id_none_is_cancelled_for_the_other(self):
        self.authorized()
        self.authorized(fields={"tenant_id": "contoso", "call_id": "c2"})
        with self.assertLogs("tollgate.kamailio", "WARNING"):
            self.agent.directed(directive("END_NOW"))
        self.assertEqual(self.switch.cancelled, [])
        self.answered()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 1)])

    async def test_end_now_of_a_call_that_was_answered_meanwhile_is_carried_out_then(self):
        self.authorized()
        self.agent.directed(directive("END_NOW"))
        self.agent.directed(directive("REFRESH"))
        self.assertEqual(self.switch.timeouts, [])
        self.answered()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 1)])

    async def test_an_extension_that_is_answered_after_end_now_moves_nothing(self):
        self.authorized(final=True)
        self.answered()
        self.agent.directed(directive("REFRESH"))
        await self.settled_down()
        self.agent.directed(directive("END_NOW"))
        await self.client.extensions.put(granted(60))
        await self.settled_down()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 1)])

    async def test_refresh_extends_at_once_and_lengthens_the_dialogs_timeout(self):
        self.authorized(20)
        self.answered()
        self.agent.directed(directive("REFRESH"))
        await self.client.extensions.put(granted(60))
        await self.settled_down()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 60)])

    async def test_refresh_during_an_extension_asks_once_more(self):
        self.authorized(20)
        self.answered()
        for _ in range(3):
            self.agent.directed(directive("REFRESH"))
        await self.settled_down()
        self.assertEqual(self.client.asked.count(("extend", "c1")), 1)
        await self.client.extensions.put(granted(20, final=True))
        await self.settled_down()
        self.assertEqual(self.client.asked.count(("extend", "c1")), 2)
        await self.client.extensions.put(granted(60))
        await self.settled_down()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 20), (DIALOG, 60)])

    async def test_a_refused_extension_hangs_up(self):
        self.authorized(20)
        self.answered()
        self.agent.directed(directive("REFRESH"))
        await self.client.extensions.put(refused())
        await self.settled_down()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 1)])

    async def test_warnings_unknown_calls_and_emergency_calls_are_left_alone(self):
        self.authorized()
        self.answered()
        self.agent.directed(directive("WARN"))
        self.agent.directed(directive("END_NOW", "another"))
        self.agent._legs["911"] = agents.Leg(None, None)
        self.agent.directed(directive("END_NOW", "911"))
        await self.settled_down()
        self.assertEqual(self.switch.timeouts, [])

    async def test_a_call_whose_dialog_is_gone_is_settled(self):
        self.authorized()
        self.answered()
        self.switch.dialogs = False
        self.agent.directed(directive("END_NOW"))
        await self.settled_down()
        self.assertIn(("settle", "c1"), self.client.asked)

    async def test_a_call_that_is_hung_up_without_a_word_is_settled(self):
        self.authorized()
        self.answered()
        with unittest.mock.patch.object(agents, "HUNG_UP", -0.99):
            self.agent.directed(directive("END_NOW"))
        self.switch.dialogs = False
        await asyncio.sleep(0.1)
        self.assertIn(("settle", "c1"), self.client.asked)

    async def test_a_call_that_is_hung_up_without_a_word_is_charged_to_when_it_was_hung_up(self):
        self.authorized()
        self.answered()
        leg = self.agent._legs["c1"]
        with unittest.mock.patch.object(agents, "HUNG_UP", -0.99):
            self.agent.directed(directive("END_NOW"))
        self.switch.dialogs = False
        # It is looked for much later.
        leg.call.now = lambda: time.monotonic() + 10
        await asyncio.sleep(0.1)
        self.assertIn(("settle", "c1"), self.client.asked)
        self.assertLess(self.client.used["c1"], 4)

    async def test_a_call_that_ended_at_its_hard_stop_without_a_word_is_settled(self):
        self.switch.dialogs = False
        self.authorized(20, final=True)
        self.answered()
        leg = self.agent._legs["c1"]
        leg.call._last_word = True
        self.assertIsNone(leg.call.extend_at)
        with unittest.mock.patch.object(agents, "HUNG_UP", -19.99):
            self.agent._arm(leg)
        await asyncio.sleep(0.1)
        self.assertIn(("settle", "c1"), self.client.asked)

    async def test_a_look_at_a_call_that_is_hung_up_gives_it_no_more_time(self):
        self.authorized()
        self.answered()
        self.agent.directed(directive("END_NOW"))
        self.hear("vanished", at=time.monotonic(), sip_call_id="another")
        await self.settled_down()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 1), (DIALOG, 1)])

    async def test_an_end_without_its_name_is_known_by_the_call_id_where_one_leg_has_it(self):
        self.authorized()
        self.answered()
        self.hear("vanished", at=time.monotonic(), sip_call_id="another")
        await self.settled_down()
        self.assertNotIn(("settle", "c1"), self.client.asked)
        self.hear("vanished", at=time.monotonic(), sip_call_id="abc")
        await self.settled_down()
        self.assertIn(("settle", "c1"), self.client.asked)

    async def test_a_tenant_without_calls_is_watched_no_more(self):
        self.authorized()
        self.agent._leave("contoso")
        self.assertIn("contoso", self.agent._watches)
        self.hear("failed", fields=FIELDS, cause=16)
        self.agent._leave("contoso")
        self.assertNotIn("contoso", self.agent._watches)
        self.authorized()
        self.assertIn("contoso", self.agent._watches)

    async def test_a_stream_that_fails_in_another_way_is_tried_again(self):
        again, agents.WATCH_AGAIN = agents.WATCH_AGAIN, 0
        self.addCleanup(setattr, agents, "WATCH_AGAIN", again)
        with self.assertLogs("tollgate.kamailio", "ERROR"):
            await self.client.directives.put(None)  # no directive at all
            self.authorized()
            self.answered()
            await self.settled_down()
        await self.client.directives.put(directive("END_NOW"))
        await self.settled_down()
        self.assertEqual(self.switch.timeouts, [(DIALOG, 1)])

    async def test_calls_of_before_a_start_are_ended_until_that_is_answered(self):
        self.authorized()
        known = agents.Tenants(self.directory.name)
        known.add("fabrikam")
        self.assertEqual(list(agents.Tenants(self.directory.name)), ["contoso", "fabrikam"])
        self.agent._tenants = agents.Tenants(self.directory.name)
        self.client.refusals = [UnavailableError("away"), RejectedError("unknown")]
        started, retry = datetime.now(UTC), agents.END_RETRY
        agents.END_RETRY = 0
        self.addCleanup(setattr, agents, "END_RETRY", retry)
        await self.agent.end_calls_before(started)
        asked = [a for a in self.client.asked if a[0] == "end"]
        self.assertEqual([a[1] for a in asked], ["contoso", "fabrikam", "contoso"])
        self.assertTrue(all(a[2:] == ("realm", started) for a in asked))

    async def test_a_file_of_tenants_that_cannot_be_read_or_written_stops_no_call(self):
        path = Path(self.directory.name) / "tenants.json"
        path.write_text("{")
        with self.assertLogs("tollgate.kamailio", "ERROR"):
            broken = agents.Tenants(self.directory.name)
        self.assertEqual(list(broken), [])
        with self.assertLogs("tollgate.kamailio", "ERROR"):
            agents.Tenants(Path(self.directory.name) / "missing").add("contoso")

    async def test_a_packet_that_cannot_be_used_is_only_logged(self):
        for packet in (b"", b"{", b'{"what": "nothing"}', b'{"what": "answered"}'):
            with self.assertLogs("tollgate.kamailio", "ERROR"):
                self.agent.heard(packet)

    async def test_an_answer_that_proves_nothing_settles_at_least_a_moment(self):
        self.authorized()
        self.answered()
        self.hear("ended", fields=FIELDS, at=time.monotonic(), answered=time.monotonic(), cause=16)
        await self.settled_down()
        self.assertIn(("settle", "c1"), self.client.asked)


if __name__ == "__main__":
    unittest.main()
