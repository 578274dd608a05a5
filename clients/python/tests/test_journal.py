"""What is kept is kept, whatever dies."""

import errno
import os
from pathlib import Path

import pytest

from tollgate import JournalError, JournalFullError, Refused
from tollgate.journal import Entry, Journal
from tollgate.v1 import call_authorization_service_pb2 as service


def settle(name: str) -> service.SettleCallRequest:
    request = service.SettleCallRequest(tenant_id="contoso", call_id=name)
    request.used_duration.seconds = 61
    return request


def names(entries: list[Entry]) -> list[str]:
    return sorted(entry.request.call_id for entry in entries)


def files(directory: Path, suffix: str = ".journal") -> list[Path]:
    return sorted(directory.glob(f"*{suffix}"))


def test_what_was_not_answered_is_taken_over_by_the_next_client(journal: Path) -> None:
    first = Journal(journal)
    answered = first.add("SettleCall", settle("a"))
    first.add("SettleCall", settle("b"))
    first.done(answered)
    first.close()
    second = Journal(journal)
    assert second.adopt() == 1
    assert names(second.take()) == ["b"]
    assert len(files(journal)) == 1


def test_a_living_clients_journal_is_left_alone(journal: Path) -> None:
    first, second = Journal(journal), Journal(journal)
    first.add("SettleCall", settle("a"))
    assert second.adopt() == 0
    assert len(first) == 1


def test_what_is_being_sent_is_not_sent_by_another(journal: Path) -> None:
    kept = Journal(journal)
    entry = kept.add("SettleCall", settle("a"))
    assert kept.take() == []
    kept.give_back(entry)
    assert kept.take() == [entry]
    assert kept.take() == []


def test_a_line_that_a_crash_left_unfinished_is_ignored(journal: Path) -> None:
    first = Journal(journal)
    first.add("SettleCall", settle("a"))
    first.close()
    (path,) = files(journal)
    with path.open("ab") as file:
        file.write(b'0badf00d {"add":2,"ki')
    second = Journal(journal)
    assert second.adopt() == 1
    assert files(journal, ".damaged") == []


def test_a_damaged_line_is_reported_and_the_file_kept(journal: Path) -> None:
    first = Journal(journal)
    for name in ("a", "b", "c"):
        first.add("SettleCall", settle(name))
    first.close()
    (path,) = files(journal)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"at":', b'"aT":')
    path.write_bytes(b"".join(lines))
    second = Journal(journal)
    assert second.adopt() == 2
    assert names(second.take()) == ["a", "c"]
    assert len(files(journal, ".damaged")) == 1


def test_it_is_on_the_disk_before_it_is_sent(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    kept = Journal(journal)
    kept.add("SettleCall", settle("a"))
    (path,) = files(journal)
    assert synced[-1] == path.stat().st_size


def test_a_full_disk_is_an_error_and_spoils_nothing(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Journal(journal)
    kept.add("SettleCall", settle("a"))
    real = os.write

    def half(fd: int, octets: bytes) -> int:
        if len(octets) > 30:
            return real(fd, octets[:30])
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(JournalError):
            kept.add("SettleCall", settle("b"))
    kept.add("SettleCall", settle("c"))
    kept.close()
    assert names(_adopted(journal)) == ["a", "c"]
    assert files(journal, ".damaged") == []


def _adopted(directory: Path) -> list[Entry]:
    journal = Journal(directory)
    journal.adopt()
    return journal.take()


def test_it_is_bounded_with_room_for_calls_that_run_already(journal: Path) -> None:
    kept = Journal(journal, capacity=2)
    kept.add("SettleCall", settle("a"))
    assert not kept.full
    kept.add("SettleCall", settle("b"))
    assert kept.full
    kept.add("SettleCall", settle("c"))
    kept.add("SettleCall", settle("d"))
    with pytest.raises(JournalFullError):
        kept.add("SettleCall", settle("e"))


def test_what_is_refused_is_kept_aside_and_reported(journal: Path) -> None:
    told: list[Refused] = []
    kept = Journal(journal, on_refused=told.append, clock=lambda: 1000.0)
    kept.set_aside(kept.add("SettleCall", settle("a")), "INVALID_ARGUMENT", "no")
    expected = Refused("SettleCall", "contoso", "a", 61.0, "INVALID_ARGUMENT", "no", 1000.0)
    assert told == kept.refused() == [expected]
    assert len(kept) == 0
    kept.close()
    assert _adopted(journal) == []


def test_what_is_older_than_the_servers_memory_is_set_aside(journal: Path) -> None:
    now = [0.0]
    kept = Journal(journal, max_age=100, clock=lambda: now[0])
    kept.give_back(kept.add("SettleCall", settle("old")))
    now[0] = 60.0
    kept.give_back(kept.add("SettleCall", settle("new")))
    now[0] = 101.0
    assert names(kept.take()) == ["new"]
    assert [refused.code for refused in kept.refused()] == ["EXPIRED"]


def test_a_file_does_not_grow_with_what_is_done(journal: Path) -> None:
    kept = Journal(journal)
    kept.give_back(kept.add("SettleCall", settle("stays")))
    big = settle("x" * 100)
    big.token = "t" * 4000
    for _ in range(300):
        kept.done(kept.add("SettleCall", big))
    (path,) = files(journal)
    assert path.stat().st_size < 1_100_000
    kept.close()
    assert names(_adopted(journal)) == ["stays"]


def test_a_forked_child_has_a_file_of_its_own_and_the_parent_keeps_its_entries(
    journal: Path,
) -> None:
    kept = Journal(journal)
    kept.add("SettleCall", settle("parent"))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert len(kept) == 0
            kept.add("SettleCall", settle("child"))
            assert kept.adopt() == 0
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(files(journal)) == 2
    assert kept.adopt() == 1
    assert names(list(kept._waiting.values())) == ["child", "parent"]


def test_a_child_does_not_keep_a_dead_parents_journal_locked(journal: Path) -> None:
    """The child lives on while its parent, which has entries, is gone."""
    ready, lives = os.pipe(), os.pipe()
    parent = os.fork()
    if parent == 0:
        kept = Journal(journal)
        kept.add("SettleCall", settle("parent"))
        if os.fork() == 0:
            os.close(lives[1])
            os.write(ready[1], b".")
            os.read(lives[0], 1)
        os._exit(0)
    os.waitpid(parent, 0)
    os.read(ready[0], 1)
    try:
        assert names(_adopted(journal)) == ["parent"]
    finally:
        for descriptor in (*ready, *lives):
            os.close(descriptor)
