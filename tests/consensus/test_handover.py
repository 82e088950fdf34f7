from __future__ import annotations

from collections.abc import Iterator

import pytest

from pydec.consensus import handover, offers
from pydec.consensus.catchup import ANSWERS
from pydec.consensus.effects import Committed
from pydec.consensus.handover import Handover, Shelf
from pydec.consensus.light import decode_step
from pydec.consensus.offers import Ask, AskPieces, AskProof, Offer, Piece, Proof, Step
from pydec.consensus.transactions import Beacon, Stake

from .world import World


class Giver:
    """A node with a chain in which every second block begins an epoch, and its answers."""

    def __init__(self, heights: int) -> None:
        self.world = World()
        self.steps: dict[int, bytes] = {}
        records: dict[int, bytes] = {}
        self.handover = Handover(self.world.chain_id, Shelf(), self.steps.get, records.get)
        for number in range(1, heights + 1):
            self.world.run("abcd"[number % 4], Beacon(number) if number % 2 else Stake(0, 1))
            block, commit = self.world.blocks[-1]
            records[number] = self.world.record(number)
            step = self.handover.committed(Committed(block, commit, self.world.state))
            if step is not None:
                self.steps[step[0]] = step[1]

    def says(self, message: Ask | AskProof | AskPieces, now_s: float = 0.0) -> Iterator[offers.Message]:
        for sent in self.handover.answer(now_s, b"node", message):
            assert sent.node == b"node"
            yield offers.decode(sent.data, self.world.chain_id)


@pytest.fixture
def giver(monkeypatch) -> Giver:
    monkeypatch.setattr(handover, "SPACING", 4)
    monkeypatch.setattr("pydec.consensus.state.streams.PIECE_BYTES", 256)
    return Giver(14)


def test_steps_come_in_windows_and_then_an_offer(giver, monkeypatch):
    monkeypatch.setattr(handover, "STEPS", 4)
    first = list(giver.says(Ask(1)))
    assert [decode_step(m.data).table.epoch for m in first if isinstance(m, Step)] == [1, 2, 3, 4]
    assert len(first) == 4
    *steps, offer = giver.says(Ask(5))
    assert [decode_step(m.data).table.epoch for m in steps if isinstance(m, Step)] == [5, 6]
    assert isinstance(offer, Offer)
    assert (offer.height, offer.manifest.root()) == (12, offer.proof.header.state_root)
    assert [type(m) for m in giver.says(Ask(1 << 63))] == [Offer]
    del giver.steps[3]
    assert len(list(giver.says(Ask(1)))) == 2


def test_pieces_are_of_the_heights_that_all_keep(giver):
    (offer,) = giver.says(Ask(7))
    digests = offer.manifest.pieces
    found = [m for first in range(0, len(digests), 4) for m in giver.says(AskPieces(12, first))]
    assert all(isinstance(m, Piece) for m in found)
    assert [m.number for m in found] == list(range(len(digests)))
    assert list(giver.says(AskPieces(12, 1 << 31))) == []
    assert [m.height for m in giver.says(AskPieces(8, 0))] == [8] * 4
    assert list(giver.says(AskPieces(4, 0))) == [offer]  # that one is gone


def test_any_stored_height_is_proved(giver):
    (proof,) = giver.says(AskProof(5))
    assert isinstance(proof, Proof)
    assert (proof.header, proof.commit) == (giver.world.blocks[4][0].header, giver.world.blocks[4][1])
    assert list(giver.says(AskProof(15))) == []


def test_answers_are_rationed(giver):
    assert sum(len(list(giver.says(AskProof(1)))) for _ in range(2 * ANSWERS)) == ANSWERS
    assert len(list(giver.says(AskProof(1), now_s=10.0))) == 1


def test_a_young_chain_offers_nothing(monkeypatch):
    monkeypatch.setattr(handover, "SPACING", 4)
    giver = Giver(3)
    assert list(giver.says(Ask(1))) == list(giver.says(AskPieces(0, 0))) == []
