"""Proof that a rank sent its neighbours different things under one claim; the body of a transaction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Equivocation:
    """Two claims that ``node`` signed about one packet of gossip; see ``crypto.claims``.

    Args:
        node: whose identity key signed both.
        run_id: of the run in which it was.
        epoch, round, number: which packet.
        first, second: the digests, in increasing order, so that a pair has one encoding.
        first_signature, second_signature: of the claims.
    """

    node: bytes
    run_id: bytes
    epoch: int
    round: int
    number: int
    first: bytes
    first_signature: bytes
    second: bytes
    second_signature: bytes
