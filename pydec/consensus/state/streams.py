"""A state as bytes in seven parts, and each part's digest, which ``state_root`` is made of.

A part's digest is over the digests of its pieces of ``PIECE_BYTES``, not over the part as a whole: so whoever
knows a root can check the list of all digests, and then every piece alone as it comes, from anybody, and say
whose piece is wrong. With one hash over a part a liar is only found out when the last piece is there, and not
who it was among those that sent one. The depth is fixed (root, part, piece), so no node passes for another.

Source: the two-level hash list of Merkle, "A Digital Signature Based on a Conventional Encryption Function",
CRYPTO 1987, with one level for each kind of thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydec.codec import wire
from pydec.consensus.state.parts import DATASET, PAST_TABLE, RUN, SUPPLY, TABLE, WORK
from pydec.crypto.hashing import sha256

if TYPE_CHECKING:
    from pydec.consensus.state.chain import ChainState

PIECE_BYTES = 1 << 18
PARTS = 7
PRIORITY_BYTES = 9
_TAG = b"pydec.state.v2"


def pieces(part: bytes) -> list[bytes]:
    """A part cut up, each piece but the last of ``PIECE_BYTES``; an empty part is one empty piece."""
    return [part[at : at + PIECE_BYTES] for at in range(0, len(part), PIECE_BYTES)] or [b""]


def digest(part: bytes) -> bytes:
    """What stands for a part in the root, 32 bytes."""
    return sha256(*map(sha256, pieces(part)))


def root(digests: Sequence[bytes]) -> bytes:
    """``state_root``: SHA-256 over the digests of the parts in their order, 32 bytes."""
    return sha256(_TAG, *digests)


def head(state: ChainState) -> bytes:
    """What every block changes."""
    priorities = [value.to_bytes(PRIORITY_BYTES, "big", signed=True) for value in state.priorities]
    presence = [p.node_id + wire.u64(p.signed) + bytes((p.seen,)) for p in state.presence]
    return b"".join(
        (
            state.chain_id, wire.u64(state.height), wire.u16(state.leader),
            wire.u32(len(priorities)), *priorities,
            wire.u32(len(state.recent)), *state.recent,
            wire.u32(len(presence)), *presence,
            wire.u64(state.effect_round), wire.u64(state.changed), state.origin,
        )
    )  # fmt: skip


def table(state: ChainState) -> bytes:
    """The validators."""
    return TABLE.encode(state.table)


def rules(state: ChainState) -> bytes:
    """The rules."""
    return state.rules.encode()


def run(state: ChainState) -> bytes:
    """The run, the puzzle's price and the supply."""
    return RUN.encode(state.run) + WORK.encode(state.work) + SUPPLY.encode(state.supply)


def accounts(state: ChainState) -> bytes:
    """All accounts by node id."""
    return wire.u32(len(state.accounts)) + b"".join(
        [state.accounts[node_id].encoded for node_id in sorted(state.accounts)]
    )


def datasets(state: ChainState) -> bytes:
    """All data sets by root."""
    return wire.u32(len(state.datasets)) + b"".join(
        [DATASET.encode(state.datasets[name]) for name in sorted(state.datasets)]
    )


def tables(state: ChainState) -> bytes:
    """The tables of past epochs."""
    return wire.u32(len(state.tables)) + b"".join([PAST_TABLE.encode(past) for past in state.tables])


def parts(state: ChainState) -> tuple[bytes, ...]:
    """All parts in order; one after the other they are the snapshot."""
    makers = (head, table, rules, run, accounts, datasets, tables)
    return tuple(make(state) for make in makers)
