"""Tallies: one verified vote of each author and round, and a certificate when they are a quorum."""

from __future__ import annotations

from pydec.consensus.certificate import QuorumCertificate, TimeoutCertificate
from pydec.consensus.signed import Kind
from pydec.consensus.validators import ValidatorTable


class VoteTally:
    """The PREPAREs or the COMMITs of one height.

    Args:
        kind: which.
        table: who votes.
        height: of the votes.
    """

    def __init__(self, kind: Kind, table: ValidatorTable, height: int) -> None:
        self._kind, self._table, self._height = kind, table, height
        self._votes: dict[int, dict[int, bytes]] = {}
        self._by_hash: dict[tuple[int, bytes], dict[int, bytes]] = {}
        self._weights: dict[tuple[int, bytes], int] = {}
        self._done: set[int] = set()

    def __len__(self) -> int:
        return sum(map(len, self._votes.values()))

    def voted(self, round: int, index: int) -> bytes | None:
        """The hash that the author voted for in the round, None if it has not."""
        return self._votes.get(round, {}).get(index)

    def done(self, round: int) -> bool:
        """Whether the round has a quorum, so that no more votes are needed."""
        return round in self._done

    def add(self, round: int, index: int, block_hash: bytes, signature: bytes) -> QuorumCertificate | None:
        """Count an author's first vote of a round; the certificate, if this vote completes a quorum."""
        self._votes.setdefault(round, {})[index] = block_hash
        slot = (round, block_hash)
        votes = self._by_hash.setdefault(slot, {})
        votes[index] = signature
        self._weights[slot] = self._weights.get(slot, 0) + self._table[index].stake
        if round in self._done or not self._table.quorum(self._weights[slot]):
            return None
        self._done.add(round)
        return QuorumCertificate.of(self._kind, self._table, self._height, round, block_hash, votes)

    def forget(self, below: int) -> None:
        """Drop the rounds below."""
        for round in [round for round in self._votes if round < below]:
            for block_hash in set(self._votes.pop(round).values()):
                del self._by_hash[round, block_hash], self._weights[round, block_hash]
            self._done.discard(round)


class TimeoutTally:
    """The TIMEOUTs of one height."""

    def __init__(self, table: ValidatorTable, height: int) -> None:
        self._table, self._height = table, height
        self._votes: dict[int, dict[int, tuple[int, bytes]]] = {}
        self._weights: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._votes.values()))

    def said(self, round: int, index: int) -> int | None:
        """The high round of the author's TIMEOUT of the round, None if there is none."""
        vote = self._votes.get(round, {}).get(index)
        return None if vote is None else vote[0]

    def weight(self, round: int) -> int:
        """The stake that has given the round up."""
        return self._weights.get(round, 0)

    def add(self, round: int, index: int, high_round: int, signature: bytes) -> TimeoutCertificate | None:
        """Count an author's first TIMEOUT of a round; the certificate, if there is a quorum now."""
        votes = self._votes.setdefault(round, {})
        votes[index] = (high_round, signature)
        self._weights[round] = self._weights.get(round, 0) + self._table[index].stake
        if not self._table.quorum(self._weights[round]):
            return None
        entries = tuple((index, *votes[index]) for index in sorted(votes))
        return TimeoutCertificate(self._table.epoch, self._height, round, entries)

    def forget(self, below: int) -> None:
        """Drop the rounds below."""
        for round in [round for round in self._votes if round < below]:
            del self._votes[round], self._weights[round]
