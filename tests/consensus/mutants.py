"""Replicas with one bug each. The oracles must catch every one: a suite that cannot fail proves nothing."""

from __future__ import annotations

import dataclasses

from pydec.consensus import hearing, signed
from pydec.consensus.certificate import Verifier
from pydec.consensus.effects import Persist, Refused
from pydec.consensus.height import Height
from pydec.consensus.place import Held, Place
from pydec.consensus.replica import Replica
from pydec.consensus.signed import Kind
from pydec.consensus.validators import ValidatorTable


class ForgetsTheLock(Height):
    """Gives rounds up as if it knew of no prepared block."""

    def give_up(self):
        self.record.high = None
        super().give_up()


class VotesAfterTimeout(Height):
    """Prepares and commits in rounds that it has given up."""

    def may_sign(self, newest):
        return self.signer is not None and newest < self.round and not self.decided


class NeverContains(dict):
    """A memory that nothing is found in."""

    def __contains__(self, key):
        return False


class PreparesTwice(Height):
    """Prepares every proposal of the round, not only the first one."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.proposals = NeverContains()

    def accept(self, proposal, block_hash):
        self.record.prepared = -1
        super().accept(proposal, block_hash)

    def count(self, kind, round, index, block_hash, signature):
        if index != self.index or self.prepares.voted(round, index) is None or kind is Kind.COMMIT:
            super().count(kind, round, index, block_hash, signature)


class TimesOutTwice(Height):
    """Signs a new TIMEOUT of the round whenever the timer runs out, with what it knows by then."""

    def give_up(self):
        self.record.timed_out = -1
        super().give_up()


class KeepsARoundsOldProposal(Height):
    """Leads every round with its own first block again, as a new one."""

    def _what_to_propose(self):
        if self.round == 0 or self.record.ended is None:
            return super()._what_to_propose()
        return self.place.make(self.round, self.place.select(self.round, self._select))


class CommitsTooEarly(Height):
    """Takes a prepare certificate for a commit certificate: a block is decided when a quorum prepared it."""

    def learn(self, certificate):
        super().learn(certificate)
        held = self.blocks.get(certificate.block_hash)
        if held is not None and not self.decided:
            self.decided = (held, certificate)


class NeverTimesOut(Height):
    """Waits for a leader for ever."""

    def expire(self):
        pass

    def _join(self):
        pass


def with_height(cls):
    return type(cls.__name__, (Replica,), {"height_type": cls, "__doc__": cls.__doc__})


class PersistsNothing(Replica):
    """Sends votes that its disk does not know."""

    def _settle(self):
        return [effect for effect in super()._settle() if not isinstance(effect, Persist)]


class PersistsLast(Replica):
    """Sends first and writes afterwards."""

    def _settle(self):
        effects = super()._settle()
        late = [effect for effect in effects if isinstance(effect, Persist)]
        return [effect for effect in effects if not isinstance(effect, Persist)] + late


class BelievesSignatures(Replica):
    """Verifies nothing."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.verifier = Verifier(lambda key, message, signature: None)


class BelievesBlocks(Replica):
    """Takes any block that can be executed, without looking at what its header promises."""

    def _open(self, record):
        height = super()._open(record)
        fields = {field.name: getattr(height.place, field.name) for field in dataclasses.fields(Place)}
        height.place = Credulous(**fields)
        return height


class Credulous(Place):
    def validate(self, block_hash, block, encoded):
        return Held(block_hash, block, encoded, self.state.execute(block.header, block.transactions))


HEIGHTS = {
    "forgets the lock": ForgetsTheLock,
    "votes after timeout": VotesAfterTimeout,
    "prepares twice": PreparesTwice,
    "times out twice": TimesOutTwice,
    "ignores the justification as leader": KeepsARoundsOldProposal,
    "commits at a prepare quorum": CommitsTooEarly,
    "never times out": NeverTimesOut,
}
REPLICAS = {name: with_height(cls) for name, cls in HEIGHTS.items()} | {
    "persists nothing": PersistsNothing,
    "persists last": PersistsLast,
    "believes signatures": BelievesSignatures,
    "believes blocks": BelievesBlocks,
}


# ---------------------------------------------------------------- bugs outside of the replica's own classes


def skip_justification(patch):
    """Accepts any block in a later round: the certificates are read, and not compared with the block."""

    def proposal(height, sender, message):
        place = height.place
        if message.round < height.round or message.round in height.proposals:
            return
        hearing.justified(height, message)
        leader = place.leader(message.round)
        if place.table[leader].node_id != sender:
            raise Refused("not the leader")
        block_hash, block = place.parse(message.block)
        hearing._check(height, leader, Kind.PROPOSAL, message.round, block_hash, message.signature)
        held = height.blocks.get(block_hash) or place.validate(block_hash, block, message.block)
        height.hold(held)
        height.accept(message, block_hash)

    patch.setattr(hearing, "proposal", proposal)


def wrong_quorum(patch):
    """Half of the stake is a quorum, here and in certificates."""
    patch.setattr(ValidatorTable, "quorum", lambda self, weight: 2 * weight >= self.total)


def epoch_not_signed(patch):
    """A vote of one epoch is as good in another."""
    right = signed.signed_bytes

    def signed_bytes(kind, chain_id, epoch, height, round, body):
        return right(kind, chain_id, 0, height, round, body)

    for module in ("signed", "certificate", "height", "simulator.adversaries"):
        patch.setattr(f"pydec.consensus.{module}.signed_bytes", signed_bytes)
