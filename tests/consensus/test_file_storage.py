"""A node's directory: what a restart finds, and when it must not vote."""

from __future__ import annotations

import pytest

from pydec.consensus.file_storage import FileStorage, create, read_blocks, read_genesis
from pydec.consensus.rules import Rules
from pydec.consensus.storage import Restored, Storage
from pydec.errors import LedgerError
from tests.consensus.world import World, genesis, key

KEY = key("a").public


def test_a_restart_finds_everything(tmp_path):
    world, path = World(), tmp_path / "ledger"
    create(path, world.genesis)
    create(path, world.genesis)
    world.add()
    storage: Storage
    with FileStorage(path, KEY) as storage:
        assert (storage.load(), storage.head, storage.record(1)) == (Restored(None, True), 0, None)
        storage.persist(b"votes of height 1")
        storage.append(1, world.record(1))
        with pytest.raises(LedgerError, match="is held by process"):
            FileStorage(path, KEY)
        with read_blocks(path, world.genesis) as blocks:
            assert blocks.head == 1
    with FileStorage(path, KEY) as again:
        assert again.load() == Restored(b"votes of height 1", True)
        assert (again.head, again.record(1), again.incarnation) == (1, world.record(1), 2)
    assert read_genesis(path) == world.genesis


def test_starts_before_the_first_vote_are_sound(tmp_path):
    path = tmp_path / "ledger"
    create(path, genesis())
    for start in (1, 2, 3):
        with FileStorage(path, KEY) as storage:
            assert (storage.load(), storage.incarnation) == (Restored(None, True), start)


@pytest.mark.parametrize("blocks", [True, False])
def test_a_lost_safety_record_is_not_sound_until_a_new_one(tmp_path, blocks):
    path, world = tmp_path / "ledger", World()
    create(path, world.genesis)
    world.add()
    with FileStorage(path, KEY) as storage:
        storage.persist(b"votes")
        if blocks:
            storage.append(1, world.record(1))
    (path / f"{KEY.hex()[:16]}.safety").unlink()
    for _ in range(2):
        with FileStorage(path, KEY) as storage:
            assert storage.load() == Restored(None, False)
    with FileStorage(path, KEY) as storage:
        storage.persist(b"after")
    with FileStorage(path, KEY) as storage:
        assert storage.load() == Restored(b"after", True)


def test_a_damaged_safety_record_is_not_sound(tmp_path):
    path = tmp_path / "ledger"
    create(path, genesis())
    with FileStorage(path, KEY) as storage:
        storage.persist(b"one")
        storage.persist(b"two")
    safety = path / f"{KEY.hex()[:16]}.safety"
    data = bytearray(safety.read_bytes())
    data[data.index(b"two")] ^= 1
    safety.write_bytes(data)
    with FileStorage(path, KEY) as storage:
        assert storage.load() == Restored(b"one", False)


def test_mistakes_are_named(tmp_path):
    path = tmp_path / "ledger"
    create(path, genesis())
    with pytest.raises(LedgerError, match=r"is the ledger of chain .* \(test\), not of"):
        create(path, genesis(rules=Rules(min_stake=2)))
    with pytest.raises(LedgerError, match=r"genesis cannot be read: No such file"):
        read_genesis(tmp_path)
    with pytest.raises(LedgerError, match="blocks cannot be opened: No such file"):
        read_blocks(path, genesis())
    with FileStorage(path, KEY) as storage, pytest.raises(ValueError, match="so height 2 cannot follow"):
        storage.append(2, b"")
    (path / "genesis").write_bytes((path / "genesis").read_bytes()[:-1])
    with pytest.raises(LedgerError, match="genesis is damaged: a genesis ends after"):
        read_genesis(path)
