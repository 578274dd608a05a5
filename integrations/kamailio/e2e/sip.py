"""SIPp's scenarios, and what its traces say."""

import datetime
import re
import time
import uuid

from stack import PATIENCE, Failed, Process, free_port, media_port, until

SDP = """\
Content-Type: application/sdp
Content-Length: [len]

v=0
o=u 53655765 2353687637 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 0
a=rtpmap:0 PCMU/8000
"""

FROM = "From: <sip:[from]>;tag={tag}"
VIA = "Via: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}"


def _send(text, retrans=True):
    body = "\n".join(text.strip("\n").split("\n"))
    attribute = ' retrans="500"' if retrans else ""
    return f"<send{attribute}><![CDATA[\n{body}\n\n]]></send>\n"


def invite(branch="[branch]", tag="[pid]T[call_number]", dialled="[dialled]", extra="", retrans=True):
    """An INVITE to the answerer's address, by way of Kamailio."""
    lines = [
        f"INVITE sip:{dialled}@[answerer] SIP/2.0",
        VIA.format(branch=branch),
        FROM.format(tag=tag),
        f"To: <sip:{dialled}@[answerer]>",
        "Call-ID: [call_id]",
        "CSeq: 1 INVITE",
        "Contact: <sip:caller@[local_ip]:[local_port]>",
        "Max-Forwards: 70",
        *([extra] if extra else []),
        SDP,
    ]
    return _send("\n".join(lines), retrans)


def _in_dialog(method, cseq, tag="[pid]T[call_number]"):
    lines = [
        f"{method} [next_url] SIP/2.0",
        VIA.format(branch="[branch]"),
        FROM.format(tag=tag),
        "[last_To:]",
        "Call-ID: [call_id]",
        f"CSeq: {cseq} {method}",
        "[routes]",
        "Max-Forwards: 70",
        "Content-Length: 0",
    ]
    return _send("\n".join(lines), method != "ACK")


def _ack_refusal(branch="[branch-1]", tag="[pid]T[call_number]", dialled="[dialled]"):
    lines = [
        f"ACK sip:{dialled}@[answerer] SIP/2.0",
        "[last_Via:]",
        FROM.format(tag=tag),
        "[last_To:]",
        "Call-ID: [call_id]",
        "CSeq: 1 ACK",
        "Max-Forwards: 70",
        "Content-Length: 0",
    ]
    return _send("\n".join(lines), False)


def _reply(status, tag=True, sdp=False, retrans=False, route=True):
    lines = [
        f"SIP/2.0 {status}",
        "[last_Via:]",
        "[last_From:]",
        "[last_To:];tag=[pid]U[call_number]" if tag else "[last_To:]",
        "[last_Call-ID:]",
        "[last_CSeq:]",
        *(["[last_Record-Route:]"] if route else []),
        "Contact: <sip:[local_ip]:[local_port];transport=[transport]>",
        SDP if sdp else "Content-Length: 0",
    ]
    return _send("\n".join(lines), retrans)


RINGS = '<recv response="100" optional="true"/>\n<recv response="180" optional="true"/>\n'
ANSWERED = RINGS + '<recv response="183" optional="true"/>\n<recv response="200" rrs="true" rtd="true"/>\n'


def _pause(seconds):
    return f'<pause milliseconds="{int(seconds * 1000)}"/>\n'


def caller(talk, **how):
    """Calls, talks so many seconds, hangs up."""
    bye = _in_dialog("BYE", 2) + '<recv response="200"/>\n'
    return invite(**how) + ANSWERED + _in_dialog("ACK", 1) + _pause(talk) + bye


def caller_is_cut(**how):
    """Calls, and talks until the other side hangs up."""
    # Kamailio 5.6 forgets the other leg when this reply overtakes its second BYE, which takes a network without delay.
    end = '<recv request="BYE"/>\n' + _pause(0.3) + _reply("200 OK", tag=False, route=False)
    return invite(**how) + ANSWERED + _in_dialog("ACK", 1) + end


def caller_vanishes(talk):
    """Calls, talks so many seconds, and is never heard of again."""
    return invite() + ANSWERED + _in_dialog("ACK", 1) + _pause(talk)


def caller_refused(status, **how):
    """Calls and is refused."""
    return invite(**how) + RINGS + f'<recv response="{status}"/>\n' + _ack_refusal()


def caller_sends_twice(talk):
    """The INVITE is on the wire twice (three times when slow), though nothing was lost."""
    fixed = {"branch": "z9hG4bK-twice-[pid]", "retrans": False}
    bye = _in_dialog("BYE", 2) + '<recv response="200"/>\n'
    twice = invite(**fixed) + invite(**fixed) + _pause(0.02) + invite(**fixed)
    return twice + ANSWERED + _in_dialog("ACK", 1) + _pause(talk) + bye


def caller_cancels(after):
    """Calls and hangs up while it rings."""
    lines = [
        "CANCEL sip:[dialled]@[answerer] SIP/2.0",
        "[last_Via:]",
        FROM.format(tag="[pid]T[call_number]"),
        "To: <sip:[dialled]@[answerer]>",
        "Call-ID: [call_id]",
        "CSeq: 1 CANCEL",
        "Max-Forwards: 70",
        "Content-Length: 0",
    ]
    rings = '<recv response="100" optional="true"/>\n<recv response="180"/>\n'
    end = '<recv response="200"/>\n<recv response="487"/>\n' + _ack_refusal()
    return invite() + rings + _pause(after) + _send("\n".join(lines)) + end


def caller_cancels_at_once(after):
    """Calls and hangs up before it rings."""
    early = caller_cancels(after).replace('<recv response="180"/>\n', "", 1)
    # The INVITE may be refused before the CANCEL is answered.
    early = early.replace('<recv response="200"/>', '<recv response="200" optional="true"/>', 1)
    return early.replace('<recv response="100" optional="true"/>', '<recv response="100"/>', 1)


def caller_again(talk, pause, other):
    """Talks; when Kamailio has forgotten the transaction, sends the very same INVITE again, and then one of the same
    name that dials another number."""
    same = {"branch": "z9hG4bK-again-[pid]", "tag": "again-[pid]"}
    bye = _in_dialog("BYE", 2, same["tag"]) + '<recv response="200"/>\n'
    text = invite(**same) + ANSWERED + _in_dialog("ACK", 1, same["tag"]) + _pause(talk) + bye + _pause(pause)
    text += invite(**same) + RINGS + '<recv response="487"/>\n' + _ack_refusal(tag=same["tag"]) + _pause(pause)
    text += invite(dialled=other, **same) + RINGS + '<recv response="403"/>\n'
    return text + _ack_refusal(tag=same["tag"], dialled=other)


def answerer(ring=0.2):
    """Rings, answers, and waits for the end from either side."""
    start = '<recv request="INVITE" rrs="true"/>\n' + _reply("180 Ringing") + _pause(ring)
    talk = _reply("200 OK", sdp=True, retrans=True) + '<recv request="ACK" rtd="true"/>\n'
    return start + talk + '<recv request="BYE"/>\n' + _reply("200 OK", tag=False) + '<timewait milliseconds="500"/>\n'


def answerer_busy():
    """Rings and is busy."""
    busy = _reply("486 Busy Here", retrans=True, route=False)
    return '<recv request="INVITE"/>\n' + _reply("180 Ringing") + _pause(0.2) + busy + '<recv request="ACK"/>\n'


def answerer_rings():
    """Rings until it is cancelled."""
    end = _reply("487 Request Terminated", retrans=True, route=False).replace("[last_CSeq:]", "CSeq: 1 INVITE")
    cancel = '<recv request="CANCEL"/>\n' + _reply("200 OK", tag=False, route=False)
    return '<recv request="INVITE"/>\n' + _reply("180 Ringing") + cancel + end + '<recv request="ACK"/>\n'


def scenario(name, steps):
    """SIPp's file of it."""
    return f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<scenario name="{name}">\n{steps}</scenario>\n'


class Message:
    """One message of a trace."""

    def __init__(self, at, sent, text):
        self.at, self.sent, self.text = at, sent, text
        self.first = text.split("\n", 1)[0].strip()
        found = re.search(r"^CSeq:\s*\d+\s+(\w+)", text, re.MULTILINE)
        self.method = found.group(1) if found else ""
        found = re.search(r"^SIP/2\.0 (\d{3}) ?(.*)", self.first)
        self.status = int(found.group(1)) if found else 0
        self.phrase = found.group(2).strip() if found else ""

    def header(self, name):
        """The value of a header; empty if it is not there."""
        found = re.search(rf"^{name}\s*:\s*(.*?)\s*$", self.text, re.MULTILINE | re.IGNORECASE)
        return found.group(1) if found else ""


_MARK = re.compile(r"^-{20,} (\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d\.\d+)", re.MULTILINE)


def messages(path):
    """The messages of a SIPp trace, in order; times in seconds."""
    text = path.read_text(errors="replace").replace("\r\n", "\n") if path.exists() else ""
    marks = list(_MARK.finditer(text))
    found = []
    for mark, after in zip(marks, [*marks[1:], None], strict=False):
        body = text[mark.end() : after.start() if after else len(text)]
        head, _, message = body.strip("\n").partition("\n\n")
        at = datetime.datetime.fromisoformat(f"{mark.group(1)} {mark.group(2)[:15]}").timestamp()
        if message.strip():
            found.append(Message(at, " sent " in head, message))
    return found


class Sipp(Process):
    """A SIPp that plays one scenario."""

    def __init__(self, stack, name, steps, *, calls=1, to=None, keys=(), rate=None, traced=True, extra=()):
        self.port = free_port()
        unique = f"{name}-{uuid.uuid4().hex[:6]}"
        file = stack.directory / f"{unique}.xml"
        file.write_text(scenario(name, steps))
        self.trace = stack.directory / f"{unique}.trace"
        arguments = ["sipp", *([to] if to else []), "-sf", file, "-i", "127.0.0.1", "-p", self.port]
        arguments += ["-cp", free_port(), "-mp", media_port(), "-m", calls, "-nostdin", "-aa"]
        if traced:
            arguments += ["-trace_msg", "-message_file", self.trace, "-message_overwrite", "true"]
        self.statistics = stack.directory / f"{unique}.csv"
        arguments += ["-trace_stat", "-stf", self.statistics, "-fd", "1"]
        arguments += ["-trace_err", "-error_file", stack.directory / f"{unique}.err"]
        # 180 may overtake 200, and a BYE the end of a pause.
        arguments += ["-default_behaviors", "all,-abortunexp", "-timeout", "120s", "-timeout_error"]
        arguments += ["-r", rate or calls, *extra]
        for key, value in keys:
            arguments += ["-key", key, value]
        super().__init__(unique, arguments, stack.directory)
        self.errors = stack.directory / f"{unique}.err"

    def counted(self, name):
        """The last value of one of SIPp's counters, such as FailedCall(C)."""
        header, *lines = self.statistics.read_text(errors="replace").strip().split("\n")
        return lines[-1].split(";")[header.split(";").index(name)]

    def messages(self):
        """What was on the wire."""
        return messages(self.trace)

    def final(self):
        """The first final response to an INVITE that it received."""
        for message in self.messages():
            if not message.sent and message.method == "INVITE" and message.status >= 200:
                return message
        raise Failed(f"{self.name} received no final response: {self.trace}")

    def wait_final(self):
        """Waits for it."""

        def there():
            if self.process.poll() not in (None, 0) and not self.messages():
                raise Failed(f"{self.name} did not start: {self.errors.read_text(errors='replace')[-300:]}")
            try:
                return self.final()
            except Failed:
                return None

        return until(f"{self.name} is answered", there)

    def talked(self):
        """Seconds from the 200 OK to the BYE, as this party saw them; by call, in the order of their answers."""
        starts, ends = {}, {}
        for message in self.messages():
            call = message.header("Call-ID")
            if message.method == "INVITE" and message.status == 200 and not message.sent:
                starts.setdefault(call, message.at)
            if message.first.startswith("BYE "):
                ends.setdefault(call, message.at)
        return [ends[call] - at for call, at in starts.items() if call in ends]


class Call:
    """A caller and, unless it is refused before, an answerer."""

    def __init__(self, stack, name, user, dialled, steps, answers=None, *, calls=1, answerer_at=None, keys=()):
        self.stack = stack
        self.answerer = None
        where = answerer_at or "127.0.0.1:9"
        if answers is not None:
            self.answerer = Sipp(stack, f"{name}-uas", answers, calls=calls).start()
            where = f"127.0.0.1:{self.answerer.port}"
            time.sleep(0.3)  # SIPp says nothing when it has bound its port; a lost INVITE is sent again
        keys = [("from", user), ("dialled", dialled), ("answerer", where), *keys]
        self.caller = Sipp(stack, f"{name}-uac", steps, calls=calls, to=f"127.0.0.1:{stack.sip}", keys=keys)
        self.caller.start()

    def wait(self, timeout=PATIENCE):
        """Waits for the caller's end; fails if the scenario did not go as written."""
        code = self.caller.wait(timeout)
        if code != 0:
            errors = self.caller.errors.read_text(errors="replace")[-600:] if self.caller.errors.exists() else ""
            raise Failed(f"{self.caller.name} ended with {code}: {self._seen()} {errors}")
        return self

    def _seen(self):
        return [m.first for m in self.caller.messages()]

    def stop(self):
        """Ends what still runs of it."""
        for one in (self.caller, self.answerer):
            if one is not None:
                one.stop(timeout=3)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
