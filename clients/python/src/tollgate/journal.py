"""Settles and releases that were not answered yet, on disk: a crash of the client loses none.

A directory belongs to the clients of one machine; each process has a file of its own there, locked
for as long as it lives. The files of dead processes are taken over by the living. An entry is on the
disk (fsync) before it is sent, and is marked done when it is answered; a mark that is lost leads to a
repetition with the same key, which changes nothing.

A file is lines of `CRC-32 JSON`. What a crash left unfinished at the end is ignored: nobody was told
that it was kept. Anything else that does not fit its checksum is reported and the file kept.
"""

import base64
import contextlib
import fcntl
import json
import logging
import os
import secrets
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from tollgate import _requests as requests
from tollgate.errors import JournalError, JournalFullError
from tollgate.v1 import call_authorization_service_pb2 as service

log = logging.getLogger("tollgate.journal")

DEFAULT_CAPACITY = 10_000
"""Entries that may wait before no ordinary call is authorized any more."""

DEFAULT_MAX_AGE = 23 * 3600.0
"""Seconds after which an entry is set aside: the server remembers an ended call for 24 h."""

REFUSED = "refused.jsonl"
MAX_REFUSED_BYTES = 16 * 1024 * 1024
_HEADER = {"tollgate_journal": 1}
_COMPACT_BYTES = 1024 * 1024
_IDLE_BYTES = 64 * 1024

EndRequest = service.SettleCallRequest | service.ReleaseCallRequest
_KINDS: dict[str, type[EndRequest]] = {
    requests.SETTLE.name: service.SettleCallRequest,
    requests.RELEASE.name: service.ReleaseCallRequest,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A settle or a release that waits for its answer."""

    number: int
    kind: str
    """SettleCall or ReleaseCall."""
    at: float
    """When it was kept, seconds since 1970 by this machine's clock."""
    data: bytes

    @property
    def request(self) -> EndRequest:
        """The message to send."""
        return _KINDS[self.kind].FromString(self.data)


@dataclass(frozen=True, slots=True)
class Refused:
    """What the server would not take, or what nobody took in time: for a person to look at."""

    kind: str
    tenant_id: str
    call_id: str
    used_seconds: float
    code: str
    detail: str
    at: float


class _File:
    """An open and locked file, and what waits in it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = 0
        self.written = 0
        self.synced = 0


def _line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _add(entry: Entry) -> bytes:
    data = base64.b64encode(entry.data).decode()
    return _line({"add": entry.number, "kind": entry.kind, "at": entry.at, "data": data})


def _read(octets: bytes) -> tuple[list[Entry], int]:
    """What waits in a file, and how many lines of it are damaged."""
    waiting: dict[int, Entry] = {}
    damaged = 0
    *lines, unfinished = octets.split(b"\n")
    del unfinished  # empty, or never acknowledged
    for line in lines:
        try:
            checksum, body = line.split(b" ", 1)
            if int(checksum, 16) != zlib.crc32(body):
                raise ValueError("checksum")
            record = json.loads(body)
            if "add" in record:
                data = base64.b64decode(record["data"], validate=True)
                entry = Entry(int(record["add"]), record["kind"], float(record["at"]), data)
                _ = entry.request
                waiting[entry.number] = entry
            elif "done" in record:
                waiting.pop(int(record["done"]), None)
            elif record != _HEADER:
                raise ValueError("a version that is not known")
        except (ValueError, KeyError, TypeError, DecodeError):
            damaged += 1
    return list(waiting.values()), damaged


class Journal:
    """The journal of one client. Safe to use from threads; in a forked child it begins a new file.

    `capacity`: entries that may wait before `full` is true. Entries of calls that run already are
    taken up to twice that. `on_refused` is told what is set aside; it runs in the thread that sends.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        capacity: int = DEFAULT_CAPACITY,
        max_age: float = DEFAULT_MAX_AGE,
        on_refused: Callable[[Refused], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if capacity < 1:
            raise ValueError("capacity: expected at least 1")
        self._directory = Path(directory)
        self._capacity = capacity
        self._max_age = max_age
        self._on_refused = on_refused
        self._clock = clock
        self._forget()
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise JournalError(f"{self._directory}: {error}") from error
        _journals.add(self)

    def _forget(self) -> None:
        """The state of a process that has done nothing yet."""
        self._lock = threading.RLock()
        self._sync_lock = threading.Lock()
        self._file: _File | None = None
        self._waiting: dict[int, Entry] = {}
        self._taken: set[int] = set()
        self._next = 1

    def _after_fork(self) -> None:
        # The lock of the file is the parent's, and lives until the last copy of its descriptor is
        # closed: ours would keep others from taking the file over when the parent dies.
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file.descriptor)
        self._forget()

    # What callers ask.

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self._directory

    def __len__(self) -> int:
        """How many entries of this process wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether no ordinary call should be started."""
        return len(self._waiting) >= self._capacity

    def refused(self) -> list[Refused]:
        """What was set aside by all clients of the directory, the oldest first."""
        try:
            octets = (self._directory / REFUSED).read_bytes()
        except FileNotFoundError:
            return []
        found = []
        for line in octets.split(b"\n"):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                record = json.loads(line)
                found.append(Refused(**{k: record[k] for k in Refused.__dataclass_fields__}))
        return found

    # What the clients do.

    def add(self, kind: str, request: EndRequest) -> Entry:
        """Keeps a request; it is on the disk when this returns, and taken by the caller.

        Raises JournalFullError at twice the capacity, and JournalError if it cannot be written.
        """
        with self._lock:
            if len(self._waiting) >= 2 * self._capacity:
                raise JournalFullError(f"{len(self._waiting)} settles wait to be sent")
            file = self._own()
            entry = Entry(self._next, kind, self._clock(), request.SerializeToString())
            mark = self._write(file, _add(entry))
            self._next += 1
            self._waiting[entry.number] = entry
            self._taken.add(entry.number)
        try:
            self._sync(file, mark)
        except JournalError:
            with self._lock:
                self._waiting.pop(entry.number, None)
                self._taken.discard(entry.number)
            raise
        return entry

    def done(self, entry: Entry) -> None:
        """The server has answered it. Not waited for on the disk: a repetition does no harm."""
        with self._lock:
            self._taken.discard(entry.number)
            if self._waiting.pop(entry.number, None) is None or self._file is None:
                return
            try:
                self._write(self._file, _line({"done": entry.number}))
                self._compact(self._file)
            except JournalError as error:
                log.warning("an answered %s will be sent once more: %s", entry.kind, error)

    def give_back(self, entry: Entry) -> None:
        """It was not answered: it waits for `take`, behind those that were not tried since."""
        with self._lock:
            self._taken.discard(entry.number)
            if self._waiting.pop(entry.number, None) is not None:
                self._waiting[entry.number] = entry

    def take(self, limit: int = 64) -> list[Entry]:
        """Entries to be sent now; what is too old is set aside instead."""
        with self._lock:
            free = [e for number, e in self._waiting.items() if number not in self._taken]
            now = self._clock()
            old = [e for e in free if now - e.at > self._max_age]
            found = [e for e in free if now - e.at <= self._max_age][:limit]
            self._taken.update(e.number for e in found)
        for entry in old:
            self.set_aside(
                entry, "EXPIRED", "nobody answered in time; the call is forgotten by now"
            )
        return found

    def set_aside(self, entry: Entry, code: str, detail: str) -> None:
        """The server will never take it: kept for a person, and reported."""
        request = entry.request
        seconds = 0.0
        if isinstance(request, service.SettleCallRequest):
            used = request.used_duration
            seconds = used.seconds + used.nanos / 1e9
        refused = Refused(
            entry.kind, request.tenant_id, request.call_id, seconds, code, detail, entry.at
        )
        log.error("%s of %s was refused: %s %s", entry.kind, request.call_id, code, detail)
        try:
            self._keep_aside(refused, entry)
        except OSError as error:
            log.error("what was refused cannot be kept, and stays in the journal: %s", error)
            self.give_back(entry)
            return
        self.done(entry)
        if self._on_refused is not None:
            try:
                self._on_refused(refused)
            except Exception:
                log.exception("on_refused failed")

    def adopt(self) -> int:
        """Takes over what dead clients left in the directory; returns how many entries."""
        count = 0
        for path in sorted(self._directory.glob("*.journal")):
            with self._lock:
                if self._file is not None and path == self._file.path:
                    continue
                try:
                    count += self._adopt(path)
                except (OSError, JournalError, JournalFullError) as error:
                    log.warning("%s cannot be taken over yet: %s", path, error)
        return count

    def close(self) -> None:
        """Lets go of the file; what waits in it is taken over by the next client."""
        with self._lock:
            file, self._file = self._file, None
            if file is None:
                return
            with self._sync_lock:
                if not self._waiting:
                    file.path.unlink(missing_ok=True)
                os.close(file.descriptor)
            self._waiting.clear()
            self._taken.clear()

    # How it is kept.

    def _own(self) -> _File:
        if self._file is None:
            self._file = self._create(())
        return self._file

    def _create(self, entries: Iterable[Entry]) -> _File:
        try:
            while True:
                path = self._directory / f"{os.getpid()}-{secrets.token_hex(6)}.journal"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                if _lock(path, descriptor):
                    break
                os.close(descriptor)
            file = _File(path, descriptor)
            mark = self._write(file, b"".join([_line(_HEADER), *map(_add, entries)]))
            self._sync(file, mark)
            _sync_directory(self._directory)
        except OSError as error:
            raise JournalError(f"{self._directory}: {error}") from error
        return file

    def _write(self, file: _File, octets: bytes) -> int:
        """Appends; returns the mark that `_sync` must reach."""
        try:
            written = 0
            while written < len(octets):
                written += os.write(file.descriptor, octets[written:])
        except OSError as error:
            # Half a line would spoil the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(file.descriptor, file.size)
            raise JournalError(f"{file.path}: {error}") from error
        file.size += len(octets)
        file.written += 1
        return file.written

    def _sync(self, file: _File, mark: int) -> None:
        """Waits until the disk has it. Threads that wait together share one fsync."""
        with self._sync_lock:
            if file.synced >= mark:
                return
            reached = file.written
            try:
                os.fsync(file.descriptor)
            except OSError as error:
                raise JournalError(f"{file.path}: {error}") from error
            file.synced = reached

    def _compact(self, file: _File) -> None:
        if not self._waiting:
            if file.size > _IDLE_BYTES:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.descriptor, 0)
                    file.size = 0
                    self._write(file, _line(_HEADER))
            return
        alive = sum(len(entry.data) * 4 // 3 + 100 for entry in self._waiting.values())
        if file.size < _COMPACT_BYTES or file.size < 4 * alive:
            return
        fresh = self._create(self._waiting.values())
        with self._sync_lock:
            self._file = fresh
            # A thread may still wait to sync the old file: what it wrote is in the new one.
            file.synced = file.written
            file.path.unlink(missing_ok=True)
            os.close(file.descriptor)

    def _adopt(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return 0
        try:
            if not _lock(path, descriptor):
                return 0
            octets = path.read_bytes()
            left, damaged = _read(octets)
            if len(self._waiting) + len(left) > 2 * self._capacity:
                raise JournalFullError("no room")
            if left:
                file = self._own()
                adopted = [
                    Entry(self._next + index, entry.kind, entry.at, entry.data)
                    for index, entry in enumerate(left)
                ]
                mark = self._write(file, b"".join(map(_add, adopted)))
                self._sync(file, mark)
                self._next += len(adopted)
                self._waiting.update((entry.number, entry) for entry in adopted)
            if damaged:
                kept = path.with_suffix(".damaged")
                log.error("%d lines of %s are damaged; kept as %s", damaged, path, kept)
                path.rename(kept)
            else:
                path.unlink()
            return len(left)
        finally:
            os.close(descriptor)

    def _keep_aside(self, refused: Refused, entry: Entry) -> None:
        path = self._directory / REFUSED
        record = {k: getattr(refused, k) for k in Refused.__dataclass_fields__}
        record["request"] = base64.b64encode(entry.data).decode()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if os.fstat(descriptor).st_size > MAX_REFUSED_BYTES:
                log.error("%s is full; only this line tells of %s", path, record)
                return
            os.write(descriptor, json.dumps(record).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(path: Path, descriptor: int) -> bool:
    """Locks a file, unless another process has it, or has removed it meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_journals: "weakref.WeakSet[Journal]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for journal in list(_journals):
        journal._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
