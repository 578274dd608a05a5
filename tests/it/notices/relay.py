"""An SMTP server on loopback that keeps what it takes.

Arguments: a directory, into which each mail is written as NUMBER.eml, with its envelope's recipients as
X-RcptTo lines on top; and a port, 0 for a free one. Prints the port, then serves until it is killed.
Recipients that begin with "gone" are refused for good, those that begin with "late" twice and then taken.
"""

import asyncio
import pathlib
import sys

from aiosmtpd.smtp import SMTP


class Keep:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.number = len(list(self.directory.glob("*.eml")))
        self.refused = {}

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone"):
            return "550 5.1.1 no such user"
        if address.startswith("late") and self.refused.get(address, 0) < 2:
            self.refused[address] = self.refused.get(address, 0) + 1
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.number += 1
        head = "".join(f"X-RcptTo: {to}\n" for to in envelope.rcpt_tos).encode()
        part = self.directory / f"{self.number:04}.part"
        part.write_bytes(head + envelope.original_content)
        # Whole when it is seen.
        part.rename(part.with_suffix(".eml"))
        return "250 OK"


async def main():
    handler = Keep(sys.argv[1])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, hostname="relay"), "127.0.0.1", int(sys.argv[2]))
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
