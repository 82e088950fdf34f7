"""A data set's keys on the ledger: granted, taken back, granted anew; and what a revocation cannot undo."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydec.consensus.grants import grant, keyring, regrants
from pydec.consensus.roles import Role
from pydec.consensus.transactions import MOST_GRANT_BYTES, Dataset, Grant, Revoke, sign
from pydec.crypto.keyring import Lock
from pydec.crypto.vault import BadChunk, DatasetKey
from pydec.errors import AccessDenied, FrameError, TransactionError
from tests.consensus.world import BOTH, World, account, genesis, key

ROOT, NEWER = bytes([5]) * 32, bytes([6]) * 32
OLD = DatasetKey(bytes([7]) * 32, bytes(range(32)))
LOCK = Lock.of([OLD])
OWNER, B, C = key("a"), key("b"), key("c")


@pytest.fixture
def world():
    """A data set of one sealed chunk that its owner, b and c may read."""
    world = World()
    world.run("a", Dataset(ROOT, "patients", 3, 0, 1))
    for reader in (OWNER, B, C):
        world.run("a", grant(OLD, ROOT, reader.public))
    return world


def test_readers_open_what_they_were_granted(world):
    sealed = OLD.encrypt_chunk(0, b"sensitive")
    for reader in (OWNER, B, C):
        assert keyring(world.state, reader, ROOT, LOCK).decrypt_chunk(0, sealed) == b"sensitive"
    with pytest.raises(AccessDenied, match="needs its owner's grant"):
        keyring(world.state, key("d"), ROOT, LOCK)
    with pytest.raises(AccessDenied, match="needs the role"):
        keyring(world.state, key("z"), ROOT, LOCK)


def test_a_grant_is_small_and_shows_no_key(world):
    body = grant(OLD, ROOT, B.public)
    assert len(body.wrapped) == 80 <= MOST_GRANT_BYTES
    data = sign(OWNER, world.chain_id, 9, body)
    assert OLD.reveal() not in data
    assert len(data) < 300


def test_a_revoked_reader_cannot_open_the_new_generation(world):
    world.run("a", Revoke(C.public, dataset=ROOT))
    new = OLD.successor()
    for body in regrants(world.state, new, ROOT):
        world.run("a", body)
    assert regrants(world.state, new, ROOT) == []
    # What is added now is a data set of its own, which goes on under the newest key.
    world.run("a", Dataset(NEWER, "patients", 3, 0, 1, ROOT))
    assert world.state.datasets[NEWER].generation == 1
    for part in (OLD, new):
        for reader in (OWNER, B):
            world.run("a", grant(part, NEWER, reader.public))
    both, sealed = Lock.of([OLD, new]), new.encrypt_chunk(1, b"new and sensitive")
    for reader in (OWNER, B):
        assert keyring(world.state, reader, NEWER, both).decrypt_chunk(1, sealed) == b"new and sensitive"
    for root, lock in ((ROOT, LOCK), (NEWER, both)):
        with pytest.raises(AccessDenied, match=f"{C.public.hex()[:16]} may not read the data set"):
            keyring(world.state, C, root, lock)
    # What it kept opens what it could read before, and nothing else: nobody can take that back.
    assert OLD.decrypt_chunk(0, OLD.encrypt_chunk(0, b"sensitive")) == b"sensitive"
    with pytest.raises(BadChunk, match="generation 1"):
        OLD.decrypt_chunk(1, sealed)
    # Nor can it open what is wrapped for the others, though the ledger shows it to everybody.
    stolen = [access for access in world.state.datasets[NEWER].readers if access.generation == 1]
    record = replace(world.state.datasets[NEWER], readers=tuple(replace(a, grantee=C.public) for a in stolen))
    state = replace(world.state, datasets={**world.state.datasets, NEWER: record})
    with pytest.raises(FrameError, match="does not open"):
        keyring(state, C, NEWER, both)


def test_a_new_reader_needs_the_keys_of_all_generations(world):
    world.run("a", Revoke(C.public, dataset=ROOT))
    new = OLD.successor()
    both = Lock.of([OLD, new])
    world.run("a", grant(new, ROOT, key("d").public))
    with pytest.raises(AccessDenied, match="generation 0"):
        keyring(world.state, key("d"), ROOT, both)
    world.run("a", grant(OLD, ROOT, key("d").public))
    assert list(keyring(world.state, key("d"), ROOT, both)) == [0, 1]


def test_an_owner_that_lost_everything_but_its_identity_gets_its_keys_back(world):
    assert keyring(world.state, OWNER, ROOT, LOCK)[0].reveal() == OLD.reveal()
    world = World()
    world.run("a", Dataset(ROOT, "patients", 3, 0, 1))
    with pytest.raises(AccessDenied, match="grant of a key"):
        keyring(world.state, OWNER, ROOT, LOCK)


def test_only_the_owner_grants_and_revokes():
    both = BOTH | Role.DATA_OWNER
    world = World(genesis(account("a", both), account("b", both), account("c"), account("d")))
    world.run("a", Dataset(ROOT, "patients", 3, 0, 1))
    for body in (grant(OLD, ROOT, C.public), Revoke(C.public, dataset=ROOT)):
        with pytest.raises(TransactionError, match="needs to be its owner"):
            world.state.execute(world.header(), [world.tx("b", body)])


def test_a_key_of_another_generation_or_data_set_is_refused(world):
    with pytest.raises(ValueError, match="at generation 0, got a key of 1"):
        regrants(world.state, OLD.successor(), ROOT)
    wrong = DatasetKey(bytes([9]) * 32, OLD.dataset)
    world.run("a", grant(wrong, ROOT, key("d").public))
    with pytest.raises(FrameError, match="not the one that its chunks are sealed with"):
        keyring(world.state, key("d"), ROOT, LOCK)


def test_a_damaged_grant_is_named():
    world = World()
    world.run("a", Dataset(ROOT, "patients", 3, 0, 1))
    world.run("a", Grant(B.public, dataset=ROOT, wrapped=b"nothing"))
    with pytest.raises(FrameError, match="has 7"):
        keyring(world.state, B, ROOT, LOCK)
