"""The legs of clients/python/examples/dial_out.py as real SIP calls."""

import asyncio
import contextlib
import re
import runpy
import time
import uuid
from typing import ClassVar

from stack import REPOSITORY

EXAMPLE = runpy.run_path(str(REPOSITORY / "clients/python/examples/dial_out.py"))


def leg_class(sbc, answerer):
    """What the conference makes its calls with: by way of `sbc`, to `answerer`, both (host, port)."""

    class SipLeg(EXAMPLE["Leg"]):
        """One INVITE, and what becomes of it."""

        talks: ClassVar[list] = []
        """Seconds from 200 OK to BYE of the legs that were answered."""
        picked_up: ClassVar[list] = []
        """The numbers of those legs."""

        def __init__(self, *args, **more):
            self._stop = asyncio.Event()
            super().__init__(*args, **more)

        async def hang_up(self, cause):
            """Sends the BYE of a leg that was answered."""
            if not self.answered.is_set():
                await super().hang_up(cause)
                return
            self._stop.set()
            await self._play

        async def _be_called(self, ring, talk):
            del ring
            loop = asyncio.get_running_loop()
            replies = asyncio.Queue()

            class Wire(asyncio.DatagramProtocol):
                def datagram_received(self, data, addr):
                    del addr
                    if data.startswith(b"SIP/2.0"):
                        replies.put_nowait(data.decode(errors="replace"))

            transport, _ = await loop.create_datagram_endpoint(Wire, local_addr=("127.0.0.1", 0))
            try:
                await self._call(transport, replies, talk)
            except TimeoutError:
                self._end(102)
            finally:
                transport.close()

        async def _call(self, transport, replies, talk):
            here = "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
            name, tag = uuid.uuid4().hex, uuid.uuid4().hex[:8]
            target = f"sip:{self.number.replace(' ', '')}@{answerer[0]}:{answerer[1]}"

            def send(method, cseq, to=f"<{target}>", uri=target, routes=()):
                lines = [
                    f"{method} {uri} SIP/2.0",
                    f"Via: SIP/2.0/UDP {here};branch=z9hG4bK{name}{method}",
                    f"From: <sip:bridge@localhost>;tag={tag}",
                    f"To: {to}",
                    f"Call-ID: {name}",
                    f"CSeq: {cseq} {method}",
                    f"Contact: <sip:bridge@{here}>",
                    "Max-Forwards: 70",
                    *(f"Route: {route}" for route in routes),
                    "Tollgate-Asked: yes",
                    "Content-Length: 0",
                ]
                transport.sendto("\r\n".join([*lines, "", ""]).encode(), sbc)

            async def final(method, again):
                for pause in (0.5, 1, 2, 4, 4, 4, 4):
                    again()
                    try:
                        async with asyncio.timeout(pause):
                            while True:
                                reply = await replies.get()
                                if f" {method}\r\n" in reply and not reply.startswith("SIP/2.0 1"):
                                    return reply
                    except TimeoutError:
                        continue
                raise TimeoutError

            reply = await final("INVITE", lambda: send("INVITE", 1))
            to = re.search(r"^To: (.*?)\r$", reply, re.MULTILINE).group(1)
            if not reply.startswith("SIP/2.0 200"):
                send("ACK", 1, to)
                self._end(17)
                return
            answered = time.monotonic()
            uri = re.search(r"^Contact: <(.*?)>", reply, re.MULTILINE).group(1)
            routes = re.findall(r"^Record-Route: (.*?)\r$", reply, re.MULTILINE)[::-1]
            send("ACK", 1, to, uri, routes)
            self.answered.set()
            self.picked_up.append(self.number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(talk):
                    await self._stop.wait()
            self.talks.append(time.monotonic() - answered)
            # The other side has answered before the wire knows; the leg is over when it hangs up.
            self._end(16)
            await final("BYE", lambda: send("BYE", 2, to, uri, routes))

    return SipLeg
