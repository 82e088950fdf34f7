"""The chain's file: torn tails are cut, damage is named, and no failing call loses what was there."""

from __future__ import annotations

import errno
import itertools
import random
from pathlib import Path

import pytest

from pydec.consensus import ledger_file
from pydec.consensus.ledger_file import LedgerFile
from pydec.errors import LedgerError
from tests.consensus.lossy_disk import Crash, LossyDisk

CHAIN = bytes([7]) * 32
PATH = Path("/ledger/blocks")
PAYLOADS = [bytes([97 + i]) * n for i, n in enumerate((40, 0, 700, 1500, 3))]
HEADER_BYTES = 68
RECORD_BYTES = 20


def filled(path: Path, first: int = 5) -> bytes:
    path.unlink(missing_ok=True)
    with LedgerFile(path, CHAIN) as file:
        for height, payload in enumerate(PAYLOADS, first):
            file.append(height, payload)
    return path.read_bytes()


def contents(file: LedgerFile) -> list[bytes]:
    return [payload for _, payload in file.records()]


def refusal(file: LedgerFile, height: int, payload: bytes) -> str:
    """Why the record was not appended; empty if it was."""
    try:
        file.append(height, payload)
    except LedgerError as error:
        return str(error)
    return ""


def test_records_come_back_by_height(tmp_path):
    filled(tmp_path / "blocks")
    with LedgerFile(tmp_path / "blocks", CHAIN, write=False) as file:
        assert (file.first, file.head, file.torn_bytes) == (5, 9, 0)
        assert list(file.records(7)) == [(7, PAYLOADS[2]), (8, PAYLOADS[3]), (9, PAYLOADS[4])]
        assert file.read(6) == b""
        for height in (4, 10):
            with pytest.raises(KeyError):
                file.read(height)
        with pytest.raises(LedgerError, match="was opened for reading"):
            file.append(10, b"")


def test_an_empty_ledger(tmp_path):
    with LedgerFile(tmp_path / "blocks", CHAIN) as file:
        assert (file.first, file.head, contents(file)) == (None, None, [])
        with pytest.raises(KeyError):
            file.read(0)
    with LedgerFile(tmp_path / "blocks", CHAIN) as file:
        assert file.head is None


def test_a_reader_follows_a_writer(tmp_path):
    path = tmp_path / "blocks"
    with LedgerFile(path, CHAIN) as writer, LedgerFile(path, CHAIN, write=False) as reader:
        for height in range(3):
            writer.append(height, b"x" * height)
            assert reader.refresh() == 1
            assert reader.read(height) == b"x" * height
        assert reader.refresh() == 0


def test_a_file_cut_at_any_byte_keeps_every_whole_record(tmp_path):
    data = filled(tmp_path / "blocks")
    sizes = (RECORD_BYTES + len(payload) for payload in PAYLOADS)
    ends = list(itertools.accumulate(sizes, initial=HEADER_BYTES))
    for length in range(len(data)):
        disk = LossyDisk()
        disk.put(PATH, data[:length])
        if length < HEADER_BYTES:
            with pytest.raises(LedgerError, match="damaged at offset 0"):
                LedgerFile(PATH, CHAIN, disk=disk)
            continue
        whole = sum(end <= length for end in ends) - 1
        with LedgerFile(PATH, CHAIN, write=False, disk=disk) as file:
            assert contents(file) == PAYLOADS[:whole]
            assert file.torn_bytes == length - ends[whole]
        with LedgerFile(PATH, CHAIN, disk=disk) as file:
            file.append(5 + whole, b"next")
        with LedgerFile(PATH, CHAIN, disk=disk) as file:
            assert contents(file) == [*PAYLOADS[:whole], b"next"]
            assert file.torn_bytes == 0


def test_damage_in_the_middle_is_refused_with_file_and_offset(tmp_path):
    path, rng = tmp_path / "blocks", random.Random(3)
    data = filled(path)
    last = len(data) - RECORD_BYTES - len(PAYLOADS[-1])
    for _ in range(200):
        at = rng.randrange(HEADER_BYTES, last)
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        for write in (False, True):
            with pytest.raises(LedgerError, match=r"blocks is damaged at offset \d+: .*keep this one"):
                LedgerFile(path, CHAIN, write=write)
        assert path.read_bytes() == changed


def test_damage_after_opening_is_seen_on_reading(tmp_path):
    path = tmp_path / "blocks"
    data = bytearray(filled(path))
    with LedgerFile(path, CHAIN) as file:
        data[HEADER_BYTES + RECORD_BYTES] ^= 1
        path.write_bytes(data)
        with pytest.raises(LedgerError, match="damaged at offset 68: the record of height 5 fails its CRC"):
            file.read(5)


def test_a_gap_in_the_heights_is_damage(tmp_path):
    path = tmp_path / "blocks"
    data = filled(path)
    second = HEADER_BYTES + RECORD_BYTES + len(PAYLOADS[0])
    path.write_bytes(data[:second] + data[second + RECORD_BYTES + len(PAYLOADS[1]) :])
    with pytest.raises(LedgerError, match=f"damaged at offset {second}: height 7 follows height 5"):
        LedgerFile(path, CHAIN)


def test_more_than_one_append_can_leave_is_damage(tmp_path, monkeypatch):
    path = tmp_path / "blocks"
    monkeypatch.setattr(ledger_file, "MAX_RECORD_BYTES", 2000)
    data = filled(path)
    path.write_bytes(data + bytes(2021))
    with pytest.raises(LedgerError, match="one append cannot leave that much"):
        LedgerFile(path, CHAIN)
    path.write_bytes(data + bytes(2020))  # a length that reached the disk before its data
    with LedgerFile(path, CHAIN) as file:
        assert contents(file) == PAYLOADS
        assert file.torn_bytes == 2020
    with LedgerFile(path, CHAIN) as file, pytest.raises(ValueError, match="at most 2000 bytes, got 2001"):
        file.append(10, bytes(2001))


def test_a_record_inside_a_transaction_is_not_taken_for_one(tmp_path):
    path = tmp_path / "blocks"
    inner = filled(tmp_path / "other")[HEADER_BYTES:]
    with LedgerFile(path, CHAIN) as file:
        file.append(0, inner)
    data = path.read_bytes()
    path.write_bytes(data[:-1])  # torn
    with LedgerFile(path, CHAIN) as file:
        assert file.head is None


def test_long_files_are_scanned_in_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_file, "_SCAN_BYTES", 64)
    monkeypatch.setattr(ledger_file, "MAX_RECORD_BYTES", 1500)
    filled(tmp_path / "blocks")
    with LedgerFile(tmp_path / "blocks", CHAIN) as file:
        assert contents(file) == PAYLOADS


def test_a_crash_at_every_call_loses_nothing_that_was_appended():
    for fail_at in itertools.count():
        for seed in range(8):
            disk = LossyDisk(seed, fail_at)
            disk.tear_bytes = (512, 7)[seed % 2]
            done = []
            try:
                with LedgerFile(PATH, CHAIN, disk=disk) as file:
                    for height, payload in enumerate(PAYLOADS):
                        file.append(height, payload)
                        done.append(payload)
            except Crash:
                pass
            disk.crash()
            with LedgerFile(PATH, CHAIN, disk=disk) as file:
                found = contents(file)
                assert found in (done, PAYLOADS[: len(done) + 1]), (fail_at, seed)
                file.append(len(found), b"after")
            with LedgerFile(PATH, CHAIN, disk=disk) as file:
                assert contents(file) == [*found, b"after"]
        if len(done) == len(PAYLOADS):
            return


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failing_call_keeps_the_records_before(error):
    for fail_at in itertools.count(5):  # the calls before make the file
        disk = LossyDisk(fail_at, fail_at, error)
        done, failed = [], False
        with LedgerFile(PATH, CHAIN, disk=disk) as file:
            for height, payload in enumerate(PAYLOADS):
                message = refusal(file, height, payload)
                if message:
                    failed = True
                    assert "blocks cannot be written" in message
                    assert ("disk is full" in message) == (error == errno.ENOSPC)
                    assert contents(file) == done
                    message = refusal(file, height, payload)  # after a failed write, not after a failed sync
                    if message:
                        assert "takes no more records" in message
                        break
                done.append(payload)
        with LedgerFile(PATH, CHAIN, disk=disk) as file:
            assert contents(file)[: len(done)] == done
        if not failed:
            return


def test_mistakes_are_named(tmp_path):
    path = tmp_path / "blocks"
    filled(path)
    with pytest.raises(LedgerError, match=r"of chain 0707.*, not of 0808"):
        LedgerFile(path, bytes([8]) * 32)
    with LedgerFile(path, CHAIN) as file, pytest.raises(ValueError, match="ends at height 9, so height 11"):
        file.append(11, b"")
    with pytest.raises(LedgerError, match="No such file"):
        LedgerFile(tmp_path / "none", CHAIN, write=False)
    with pytest.raises(ValueError, match="got 3"):
        LedgerFile(path, b"abc")
