"""The safety record survives a crash at every call, and tells a torn write from damage."""

from __future__ import annotations

import errno
import itertools
import random
from pathlib import Path

import pytest

from pydec.consensus.safety_file import SafetyFile, Standing
from pydec.errors import LedgerError
from tests.consensus.lossy_disk import SECTOR_BYTES, Crash, LossyDisk

KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32
PATH = Path("/ledger/safety")
RECORDS = [bytes([65 + i]) * n for i, n in enumerate((10, 700, 3000, 0, 70_000, 40, 492, 493))]


def persist_all(disk: LossyDisk) -> list[bytes]:
    """Open and persist until something fails; what had been persisted."""
    done: list[bytes] = []
    try:
        with SafetyFile(PATH, KEY, disk) as file:
            for record in RECORDS:
                file.persist(record)
                done.append(record)
    except (Crash, LedgerError):
        pass
    return done


def refusal(file: SafetyFile, record: bytes) -> str:
    """Why the record was not persisted; empty if it was."""
    try:
        file.persist(record)
    except LedgerError as error:
        return str(error)
    return ""


def test_records_come_back_through_a_real_file(tmp_path):
    path = tmp_path / "safety"
    with SafetyFile(path, KEY) as file:
        assert (file.standing, file.record) == (Standing.FRESH, None)
    for record in RECORDS:
        with SafetyFile(path, KEY) as file:
            file.persist(record)
        with SafetyFile(path, KEY) as file:
            assert (file.standing, file.record) == (Standing.SOUND, record)
    with pytest.raises(LedgerError, match=r"of key 0101.*, not of 0202"):
        SafetyFile(path, OTHER)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_crash_at_every_call_keeps_the_newest_record():
    for fail_at in itertools.count():
        for seed in range(12):
            disk = LossyDisk(seed, fail_at)
            done = persist_all(disk)
            disk.crash()
            with SafetyFile(PATH, KEY, disk) as file:
                allowed = [done[-1] if done else None, *RECORDS[len(done) : len(done) + 1]]
                assert file.standing is not Standing.DAMAGED
                assert file.record in allowed, (fail_at, seed)
                assert (file.standing is Standing.FRESH) == (file.record is None)
                file.persist(b"after")
                file.persist(b"again")
            with SafetyFile(PATH, KEY, disk) as file:
                assert (file.standing, file.record) == (Standing.SOUND, b"again")
        if len(done) == len(RECORDS):
            return


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failing_call_keeps_the_record_before_and_says_so(error):
    for fail_at in itertools.count(5):  # the calls before make the file
        disk = LossyDisk(fail_at, fail_at, error)
        disk.tear_bytes = 1 << 30
        done, file = [], SafetyFile(PATH, KEY, disk)
        for record in RECORDS:
            message = refusal(file, record)
            if message:
                assert "safety cannot be" in message
                assert ("disk is full" in message) == (error == errno.ENOSPC)
                assert file.record == (done[-1] if done else None)
                message = refusal(file, record)  # after a failed write, not after a failed sync
                if message:
                    assert "restart on a sound disk" in message
                    break
            done.append(record)
        disk.fail_at = -1
        with SafetyFile(PATH, KEY, disk) as again:
            assert again.record in (done[-1] if done else None, *RECORDS[len(done) : len(done) + 1])
        if disk.calls <= fail_at:
            return


def two_records(tmp_path: Path) -> Path:
    path = tmp_path / "safety"
    with SafetyFile(path, KEY) as file:
        file.persist(b"older" * 200)
        file.persist(b"newer" * 300)
    return path


def test_any_flipped_bit_in_a_used_sector_is_damage(tmp_path):
    path = two_records(tmp_path)
    data = path.read_bytes()
    rng = random.Random(1)
    used = [at for at in range(0, len(data), SECTOR_BYTES) if any(data[at : at + SECTOR_BYTES])]
    assert len(used) == 1 + 3 + 4
    for sector, _ in itertools.product(used[1:], range(20)):
        changed = bytearray(data)
        changed[sector + rng.randrange(SECTOR_BYTES)] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with SafetyFile(path, KEY) as file:
            assert file.standing is Standing.DAMAGED
    changed = bytearray(data)
    changed[20] ^= 1
    path.write_bytes(changed)
    with pytest.raises(LedgerError, match="its first sector is damaged"):
        SafetyFile(path, KEY)


def test_a_file_cut_anywhere_is_never_sound(tmp_path):
    path = two_records(tmp_path)
    data = path.read_bytes()
    for length in [*range(60), *range(60, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        try:
            with SafetyFile(path, KEY) as file:
                assert file.standing is Standing.DAMAGED
        except LedgerError:
            assert length < 60


def test_a_zeroed_slot_is_damage(tmp_path):
    path = two_records(tmp_path)
    with SafetyFile(path, KEY) as file:
        file.persist(b"third")
    data = path.read_bytes()
    half = (len(data) - SECTOR_BYTES) // 2
    for start in (SECTOR_BYTES, SECTOR_BYTES + half):
        path.write_bytes(data[:start] + bytes(half) + data[start + half :])
        with SafetyFile(path, KEY) as file:
            assert file.standing is Standing.DAMAGED


def test_a_file_in_place_of_a_lost_one_is_damaged_until_its_first_record(tmp_path):
    path = tmp_path / "safety"
    for lost in (True, False):  # the second start finds the file of the first
        with SafetyFile(path, KEY, lost=lost) as file:
            assert (file.standing, file.record) == (Standing.DAMAGED, None)
    with SafetyFile(path, KEY) as file:
        file.persist(b"after")
    with SafetyFile(path, KEY) as file:
        assert (file.standing, file.record) == (Standing.SOUND, b"after")


def test_a_damaged_file_is_replaced_by_the_next_record(tmp_path):
    path = two_records(tmp_path)
    data = bytearray(path.read_bytes())
    data[SECTOR_BYTES + 30] ^= 1
    path.write_bytes(data)
    with SafetyFile(path, KEY) as file:
        assert (file.standing, file.record) == (Standing.DAMAGED, b"newer" * 300)
        file.persist(b"after")
        assert file.standing is Standing.SOUND
    with SafetyFile(path, KEY) as file:
        assert (file.standing, file.record) == (Standing.SOUND, b"after")


def test_sectors_of_two_records_are_never_joined(tmp_path):
    path = two_records(tmp_path)
    before = path.read_bytes()
    with SafetyFile(path, KEY) as file:
        file.persist(b"third" * 250)
    after = path.read_bytes()
    sectors = [slice(at, at + SECTOR_BYTES) for at in range(0, len(after), SECTOR_BYTES)]
    written = [sector for sector in sectors if after[sector] != before[sector]]
    assert len(written) == 3
    for chosen in itertools.product((False, True), repeat=3):  # as a crash leaves them
        mixed = bytearray(before)
        for sector, arrived in zip(written, chosen, strict=True):
            if arrived:
                mixed[sector] = after[sector]
        path.write_bytes(mixed)
        with SafetyFile(path, KEY) as file:
            assert file.standing is Standing.SOUND
            assert file.record == (b"third" * 250 if all(chosen) else b"newer" * 300)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="got 3"):
        SafetyFile(tmp_path / "s", b"key")
    with pytest.raises(LedgerError, match=r"none/s cannot be opened: No such file"):
        SafetyFile(tmp_path / "none" / "s", KEY)
