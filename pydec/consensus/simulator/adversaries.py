"""Nodes that lie, with their own keys only. Each is a function of what its unmodified replica wants to send.

Random mutation follows Winter et al., "Randomized Testing of Byzantine Fault Tolerant Algorithms" (ByzzFuzz),
OOPSLA 2023: small changes of real messages, signed again. The targeted ones attack one rule each, because
random ones miss what only one message in thousands can break (specification, section 8).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from pydec.consensus.block import Block
from pydec.consensus.certificate import QuorumCertificate, TimeoutCertificate
from pydec.consensus.messages import (
    BlockBody,
    Decision,
    GetBlock,
    Head,
    Message,
    NewRound,
    Proposal,
    SyncRequest,
    Timeout,
    Vote,
    decode,
    encode,
)
from pydec.consensus.place import Held
from pydec.consensus.signed import Kind, Signer, signed_bytes, timeout_body
from pydec.consensus.simulator.network import Cut
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import CHAIN_ID, Outgoing, Place, World, as_is
from pydec.errors import FrameError


def resign(signer: Signer, message: Proposal | Vote | Timeout) -> Message:
    """The message with a valid signature over what it says now."""
    if isinstance(message, Proposal):
        kind, body = Kind.PROPOSAL, Block.decode(message.block).header.hash()
    elif isinstance(message, Vote):
        kind, body = message.kind, message.block_hash
    else:
        kind, body = Kind.TIMEOUT, timeout_body(message.high_round)
    signed = signed_bytes(kind, CHAIN_ID, message.epoch, message.height, message.round, body)
    return replace(message, signature=signer.sign(signed))


def other_block(place: Place, encoded: bytes, number: int) -> bytes | None:
    """A different valid block in the place of one that this node made, None if it cannot be made here."""
    assert place.replica is not None
    here, header = place.replica.height.place, Block.decode(encoded).header
    if header.height != here.height or header.epoch != here.table.epoch:
        return None
    if here.leader(header.origin_round) != header.origin_proposer:
        return None
    return here.make(header.origin_round, (note(number),)).encoded


class Mutator:
    """Changes, drops, repeats and replays what its node sends, each target on its own.

    Args:
        world: for its draws and keys.
        rate: probability that a message is touched.
    """

    def __init__(self, world: World, rate: float = 0.3) -> None:
        self._world, self._draw, self._rate = world, world.draw, rate
        self._old: list[bytes] = []
        self._hashes: list[bytes] = [bytes(32)]

    def __call__(self, place: Place, target: int, data: bytes) -> Iterable[bytes]:
        """What is sent instead."""
        draw = self._draw
        if len(self._old) < 200:
            self._old.append(data)
        else:
            self._old[draw.randrange(200)] = data
        if draw.random() >= self._rate:
            return (data,)
        what = draw.randrange(6)
        if what == 0:
            return ()
        if what == 1:
            return (data, draw.choice(self._old))
        if what == 2:
            at = draw.randrange(len(data))
            return (data[:at] + bytes((data[at] ^ 1 << draw.randrange(8),)) + data[at + 1 :],)
        message = decode(data, CHAIN_ID)
        try:
            changed = self._change(place, message)
        except (ValueError, FrameError):
            return (data,)
        return (encode(changed, CHAIN_ID),) if what < 5 else (data, encode(changed, CHAIN_ID))

    def _change(self, place: Place, message: Message) -> Message:
        draw, signer = self._draw, self._world.keys.of(place.node_id)
        if isinstance(message, Vote):
            self._hashes = [message.block_hash, *self._hashes][:8]
            choice = draw.randrange(5)
            if choice == 0:
                message = replace(message, round=max(0, message.round + draw.choice((-1, 1))))
            elif choice == 1:
                message = replace(message, block_hash=draw.choice(self._hashes))
            elif choice == 2:
                message = replace(message, kind=Kind.PREPARE if message.kind is Kind.COMMIT else Kind.COMMIT)
            elif choice == 3:
                message = replace(message, height=max(1, message.height + draw.choice((-1, 1))))
            else:
                message = replace(message, epoch=message.epoch + 1)
            return resign(signer, message)
        if isinstance(message, Timeout):
            choice = draw.randrange(4)
            if choice == 0:
                message = replace(message, high_round=-1, prepared=None)
            elif choice == 1:
                message = replace(message, round=max(0, message.round + draw.choice((-1, 1))))
            elif choice == 2:
                message = replace(message, high_round=draw.randrange(-1, message.round + 1))
            else:
                message = replace(message, timeout=None)
            return resign(signer, message)
        if isinstance(message, Proposal):
            choice = draw.randrange(4)
            if choice == 0:
                message = replace(message, round=max(0, message.round + draw.choice((-1, 1))))
            elif choice == 1:
                message = replace(message, timeout=None, prepared=None)
            else:
                block = other_block(place, message.block, draw.randrange(1 << 40))
                message = message if block is None else replace(message, block=block)
                if choice == 3:
                    message = replace(message, prepared=None)
            return resign(signer, message)
        return message


def only(kinds: tuple[type, ...], change: Callable[[Place, int, Message], Iterable[Message]]) -> Outgoing:
    """An adversary that treats some types of messages, and sends the others as they are."""

    def outgoing(place: Place, target: int, data: bytes) -> Iterable[bytes]:
        if place.replica is None:
            return (data,)
        message = decode(data, CHAIN_ID)
        if not isinstance(message, kinds):
            return (data,)
        return [encode(changed, CHAIN_ID) for changed in change(place, target, message)]

    return outgoing


def equivocates(world: World, victims: Callable[[int], bool]) -> Outgoing:
    """Proposes one block to most and another one to its victims, and votes for both (rule 13)."""
    others: dict[bytes, bytes] = {}

    def change(place: Place, target: int, message: Message) -> Iterable[Message]:
        signer = world.keys.of(place.node_id)
        if not victims(target):
            return (message,)
        if isinstance(message, Proposal):
            mine = Block.decode(message.block).header.hash()
            if mine not in others:
                block = other_block(place, message.block, world.draw.randrange(1 << 40))
                if block is None:
                    return (message,)
                others[mine] = block
            return (resign(signer, replace(message, block=others[mine])),)
        assert isinstance(message, Vote)
        if message.block_hash not in others:
            return (message,)
        other = Block.decode(others[message.block_hash]).header.hash()
        return (message, resign(signer, replace(message, block_hash=other)))

    return only((Proposal, Vote), change)


def ignores_the_lock(world: World) -> Outgoing:
    """Leads with a new block although the timeout certificate names a prepared one (rule 3); votes for it."""
    chosen: dict[tuple[int, int], tuple[Held, bool]] = {}

    def change(place: Place, target: int, message: Message) -> Iterable[Message]:
        assert isinstance(message, Proposal | Vote)
        assert place.replica is not None
        signer, slot = world.keys.of(place.node_id), (message.height, message.round)
        if isinstance(message, Vote):
            if slot not in chosen:
                return (message,)
            message = replace(message, block_hash=chosen[slot][0].hash)
            return [resign(signer, replace(message, kind=kind)) for kind in (Kind.PREPARE, Kind.COMMIT)]
        if message.round == 0:
            return (message,)
        if slot not in chosen:
            transactions = (note(world.draw.randrange(1 << 40)),)
            made = place.replica.height.place.make(message.round, transactions)
            chosen[slot] = made, world.draw.random() < 0.5
        held, shows = chosen[slot]
        message = replace(message, block=held.encoded, prepared=message.prepared if shows else None)
        return (resign(signer, message),)

    return only((Proposal, Vote), change)


def lies_about_the_lock(world: World) -> Outgoing:
    """Says in every TIMEOUT that nothing was prepared."""

    def change(place: Place, target: int, message: Message) -> Iterable[Message]:
        assert isinstance(message, Timeout)
        return (resign(world.keys.of(place.node_id), replace(message, high_round=-1, prepared=None)),)

    return only((Timeout,), change)


def withholds_commits(world: World, but_to: int) -> Outgoing:
    """Sends its COMMITs to one place only, and no DECISION to anybody."""

    def change(place: Place, target: int, message: Message) -> Iterable[Message]:
        if isinstance(message, Vote) and (message.kind is Kind.PREPARE or target == but_to):
            return (message,)
        return ()

    return only((Vote, Decision), change)


def withholds_bodies(world: World, but_to: Callable[[int], bool]) -> Outgoing:
    """Sends its proposals to some only, and answers no GET_BLOCK."""

    def change(place: Place, target: int, message: Message) -> Iterable[Message]:
        return (message,) if isinstance(message, Proposal) and but_to(target) else ()

    return only((Proposal, BlockBody), change)


def stale_certificates(world: World) -> Outgoing:
    """Leads and gives up with certificates of earlier rounds and heights instead of the right ones."""
    seen: list[Proposal | Timeout] = []

    def change(place: Place, target: int, message: Message) -> Iterable[Message]:
        assert isinstance(message, Proposal | Timeout)
        if message.timeout is not None and len(seen) < 100:
            seen.append(message)
        if not seen:
            return (message,)
        old = world.draw.choice(seen)
        if world.draw.random() < 0.5:
            message = replace(message, timeout=old.timeout)
        else:
            message = replace(message, prepared=old.prepared)
        return (message,)

    return only((Proposal, Timeout), change)


def silent_leader(world: World) -> Outgoing:
    """Votes, but never proposes."""
    return only((Proposal,), lambda place, target, message: ())


def dead(place: Place, target: int, data: bytes) -> Iterable[bytes]:
    """Sends nothing at all."""
    return ()


def floods(world: World) -> Outgoing:
    """Sends votes and certificates of far rounds and heights, requests and false heads with each message."""

    def outgoing(place: Place, target: int, data: bytes) -> Iterable[bytes]:
        draw, signer = world.draw, world.keys.of(place.node_id)
        replica = place.replica
        if replica is None or (index := replica.state.table.index(place.node_id)) is None:
            return (data,)
        height, epoch = replica.state.height + 1, replica.state.table.epoch
        far = height + draw.choice((0, 1, 2, 1 << 40))
        round = draw.choice((0, 1, 7, 8, 9, 1000, (1 << 31) - 1))
        name = draw.randbytes(32)
        nothing = bytes(64)
        empty = NewRound(far, TimeoutCertificate(epoch, far, round, ()), None)
        return (
            data,
            encode(resign(signer, Vote(Kind.PREPARE, epoch, far, round, name, index, nothing)), CHAIN_ID),
            encode(resign(signer, Timeout(epoch, far, round, -1, index, nothing, None, None)), CHAIN_ID),
            encode(empty, CHAIN_ID),
            encode(Head(epoch, far, name), CHAIN_ID),
            encode(SyncRequest(draw.randrange(height + 1)), CHAIN_ID),
            encode(GetBlock(height, name), CHAIN_ID),
            draw.randbytes(draw.randrange(60)),
        )

    return outgoing


def forges_certificates(world: World) -> Outgoing:
    """With each vote also a decision of its own block, with a certificate that nobody signed."""

    def change(place: Place, target: int, message: Message) -> Iterable[Message]:
        assert place.replica is not None
        here = place.replica.height.place
        index = here.table.index(place.node_id)
        if index is None:
            return (message,)
        block = here.make(0, (note(world.draw.randrange(1 << 40)),))
        votes = {signer: world.draw.randbytes(64) for signer in range(len(here.table))}
        forged = QuorumCertificate.of(Kind.COMMIT, here.table, here.height, 0, block.hash, votes)
        return (message, Decision(here.height, forged, block.encoded))

    return only((Vote,), change)


def forges_blocks(world: World) -> Outgoing:
    """Proposes blocks that promise another state than they lead to, or stand on another parent."""
    forged: dict[bytes, bytes] = {}

    def change(place: Place, target: int, message: Message) -> Iterable[Message]:
        assert isinstance(message, Proposal)
        if message.block not in forged:
            block, wrong = Block.decode(message.block), world.draw.randbytes(32)
            headers = (
                replace(block.header, state_root=wrong),
                replace(block.header, next_validators_hash=wrong),
                replace(block.header, parent_hash=wrong),
                replace(block.header, tx_root=wrong),
            )
            forged[message.block] = replace(block, header=world.draw.choice(headers)).encode()
        return (resign(world.keys.of(place.node_id), replace(message, block=forged[message.block])),)

    return only((Proposal,), change)


TARGETED: dict[str, Callable[[World], Outgoing]] = {
    "equivocates to half": lambda world: equivocates(world, lambda target: target % 2 == 0),
    "equivocates to one": lambda world: equivocates(world, lambda target: target == 1),
    "ignores the lock": ignores_the_lock,
    "lies about the lock": lies_about_the_lock,
    "withholds commits": lambda world: withholds_commits(world, but_to=world.draw.randrange(4)),
    "withholds bodies": lambda world: withholds_bodies(world, lambda target: target % 2 == 1),
    "stale certificates": stale_certificates,
    "silent leader": silent_leader,
    "forges certificates": forges_certificates,
    "forges blocks": forges_blocks,
    "dead": lambda world: dead,
    "floods": floods,
    "honest until it is alone": lambda world: as_is,
}


def twin_partitions(draw: random.Random, size: int, period_s: float) -> Cut:
    """Another division into up to three sides every period: Twins' partitions, by time, not by round."""
    divisions = [[draw.randrange(draw.choice((1, 2, 2, 3))) for _ in range(size)] for _ in range(16)]

    def cut(source: int, target: int, now: float) -> bool:
        sides = divisions[int(now / period_s) % len(divisions)]
        return sides[source] != sides[target]

    return cut
