"""A state's root is over the digests of pieces, so that each piece proves itself."""

from __future__ import annotations

import hashlib
from itertools import chain

import pytest

from pydec.consensus.handover import Certified
from pydec.consensus.state import snapshot, streams
from pydec.consensus.transactions import Beacon, Config, Dataset, Stake
from pydec.crypto.hashing import sha256
from tests.consensus.world import World


def test_an_empty_part_is_one_empty_piece_and_others_are_cut():
    assert streams.pieces(b"") == [b""]
    part = bytes(range(256)) * (2 * streams.PIECE_BYTES // 256) + b"end"
    pieces = streams.pieces(part)
    assert [len(piece) for piece in pieces] == [streams.PIECE_BYTES] * 2 + [3]
    assert b"".join(pieces) == part
    assert streams.digest(part) == sha256(b"".join(map(sha256, pieces)))


def test_the_parts_are_the_snapshot_and_have_the_root():
    world = World()
    for transaction in (Beacon(1), Config((("topology", "ring"),)), Dataset(b"d" * 32, "digits", 2, 0, 1)):
        world.run("a", transaction)
    world.run("b", Stake(0, 1))
    parts = streams.parts(world.state)
    assert len(parts) == streams.PARTS
    assert b"".join(parts) == snapshot.encode(world.state)
    assert streams.root(list(map(streams.digest, parts))) == world.state.root()
    # what is taken over from the parent is what a state without one computes
    assert snapshot.decode(b"".join(parts), world.chain_id).root() == world.state.root()


def test_one_wrong_piece_is_known_as_it_comes(monkeypatch):
    """Counter-example: by one hash over the whole, who of two that sent pieces lied is not to be told."""
    monkeypatch.setattr(streams, "PIECE_BYTES", 64)
    world = World()
    world.add()
    certified = Certified(world.blocks[0][0].header, world.blocks[0][1], world.state)
    right, digests = certified.pieces, certified.offer.manifest.pieces
    assert len(right) == len(digests) > 8
    outcomes = set()
    for wrong in range(len(right)):
        sent = [piece if n != wrong else piece + b"!" for n, piece in enumerate(right)]
        assert [n for n, piece in enumerate(sent) if sha256(piece) != digests[n]] == [wrong]
        outcomes.add(hashlib.sha256(b"".join(sent)).digest() == hashlib.sha256(b"".join(right)).digest())
    assert outcomes == {False}  # all that one hash says, whoever it was
    assert list(chain.from_iterable(certified.offer.manifest.parts)) == list(digests)
    with pytest.raises(IndexError):
        digests[len(right)]
