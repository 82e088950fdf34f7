"""The view of training: the same on every node, seeded by a decided block, in force from its round on."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from nacl import bindings

from pydec.consensus.epochs import Epochs, members, view_of
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.state import snapshot
from pydec.consensus.transactions import Beacon, Join, Leave, Transfer
from pydec.crypto.signing import SigningKey, verify
from pydec.errors import LedgerError
from tests.consensus.world import World, account, genesis, key


def world_of_ranks() -> World:
    accounts = [replace(account(name, balance=9), address=f"rank:{n}") for n, name in enumerate("abcd")]
    return World(genesis(*accounts, rules=Rules(margin_rounds=10)))


def head(world: World) -> bytes:
    return world.header().parent_hash


def test_the_view_of_the_genesis():
    world = world_of_ranks()
    view = view_of(world.state, head(world))
    assert (view.epoch, sorted(view.members), view.start_round) == (0, [0, 1, 2, 3], 0)
    order = sorted("abcd", key=lambda name: key(name).public)
    assert view.members == tuple("abcd".index(name) for name in order)


def test_every_later_state_of_an_epoch_gives_the_same_view():
    world = world_of_ranks()
    seeds = set()
    for epoch in range(3):
        first = view_of(world.state, head(world))
        assert first.epoch == epoch
        for _ in range(3):
            world.add()
            assert view_of(world.state, head(world)) == first
            copy = snapshot.decode(snapshot.encode(world.state), world.chain_id)
            assert view_of(copy, bytes(32)) == first
        seeds.add(first.seed)
        world.run("dcb"[epoch], Leave())
    assert len(seeds) == 3


def test_trainers_without_stake_are_members_and_observers_are_not():
    world = world_of_ranks()
    world.run("a", Transfer(key("e").public, 1))
    world.run("e", Join(int(Role.TRAINER), 0, "rank:4"))
    world.run("f", Join(int(Role.OBSERVER), 0, "rank:5"))
    assert {world.names[account.node_id] for account in members(world.state)} == set("abcde")
    assert sorted(view_of(world.state, head(world)).members) == [0, 1, 2, 3, 4]


def test_a_change_takes_effect_at_its_round():
    world = world_of_ranks()
    epochs = Epochs(world.state, head(world))
    for name in "abc":
        world.run(name, Beacon(100))
        assert epochs.committed(world.state, head(world)) is None
    world.run("d", Leave())
    view = epochs.committed(world.state, head(world))
    assert view is not None
    assert (view.epoch, view.start_round, len(view.members)) == (1, 110, 3)
    assert epochs.committed(world.state, head(world)) is None
    assert [epochs.at(round).epoch for round in (0, 109, 110, 111)] == [0, 0, 1, 1]


def test_a_signer_has_many_signatures_of_one_text():
    """Why a member's signature over the epoch is no fair draw: it signs until it likes the seed."""
    secret, text = hashlib.sha256(b"a seed").digest(), b"chain and epoch"
    signer = SigningKey(secret)
    digest = bytearray(hashlib.sha512(secret).digest()[:32])
    digest[0] &= 248
    digest[31] = digest[31] & 63 | 64
    scalar = bindings.crypto_core_ed25519_scalar_reduce(bytes(digest) + bytes(32))
    found = {signer.sign(text)}
    for number in range(5):
        nonce = bindings.crypto_core_ed25519_scalar_reduce(hashlib.sha512(b"%d" % number).digest())
        point = bindings.crypto_scalarmult_ed25519_base_noclamp(nonce)
        challenge = hashlib.sha512(point + signer.public + text).digest()
        product = bindings.crypto_core_ed25519_scalar_mul(
            bindings.crypto_core_ed25519_scalar_reduce(challenge), scalar
        )
        found.add(point + bindings.crypto_core_ed25519_scalar_add(nonce, product))
    for signature in found:
        verify(signer.public, text, signature)
    assert len(found) == 6


def test_bad_addresses_are_named():
    with pytest.raises(LedgerError, match=r"has the address 'at:.'; in an MPI job it must be rank:N"):
        view_of(World().state, bytes(32))
    accounts = [replace(account(name), address="rank:1") for name in "ab"]
    with pytest.raises(LedgerError, match=r"two members of epoch 0 have one rank: \[1, 1\]"):
        view_of(World(genesis(*accounts)).state, bytes(32))
