from __future__ import annotations

import pytest

from pydec.consensus.storage import MemoryStorage, Restored


def test_a_crash_loses_what_was_not_synced_and_nothing_else():
    disk = MemoryStorage(lazy=True)
    disk.persist(b"one")
    disk.append(1, b"block 1")
    disk.sync()
    disk.persist(b"two")
    disk.append(2, b"block 2")
    assert (disk.load(), disk.head, disk.record(2)) == (Restored(b"two"), 2, b"block 2")
    disk.crash()
    assert (disk.load(), disk.head, disk.record(2), disk.record(1)) == (Restored(b"one"), 1, None, b"block 1")


def test_every_call_syncs_by_default():
    disk = MemoryStorage()
    disk.persist(b"one")
    disk.append(1, b"block 1")
    disk.crash()
    assert (disk.load().record, disk.head) == (b"one", 1)


def test_heights_follow_one_another():
    with pytest.raises(ValueError, match="ends at height 0"):
        MemoryStorage().append(2, b"")
    assert MemoryStorage().record(1) is None
    assert MemoryStorage().load() == Restored(None, True)
