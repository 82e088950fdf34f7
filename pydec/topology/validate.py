"""The laws that every topology must keep, checked."""

from __future__ import annotations

import math

from pydec.topology.base import Topology

_TOLERANCE = 1e-12
_RANDOM_ROUNDS = 16  # a schedule that never repeats is checked on its first rounds


def validate(topology: Topology) -> None:
    """Check that every matrix of a schedule can be used for gossip.

    Weights are finite and not negative, listed neighbours have positive weights and are other
    ranks in increasing order, rows and columns sum to 1 within 1e-12, ``listeners`` is the
    transpose of ``neighbors``, and degree and messages are what the topology says. Costs
    O(period * size * degree); a schedule with period 0 is checked on its first 16 rounds.

    Raises:
        ValueError: naming the topology, the round, the rank and the number that is wrong.
    """
    n = topology.size
    rounds = topology.period or _RANDOM_ROUNDS
    if n < 1 or topology.period < 0:
        raise ValueError(f"{topology.name}: size must be >= 1 and period >= 0, got {n} and {topology.period}")
    messages = degree = 0
    for round in range(rounds):
        where = f"{topology.name} of {n} ranks, round {round}"
        columns: list[list[float]] = [[] for _ in range(n)]
        hearers: list[list[int]] = [[] for _ in range(n)]
        for rank in range(n):
            own, heard = topology.row(rank, round)
            _check_row(f"{where}, rank {rank}", n, rank, own, heard)
            columns[rank].append(own)
            for other, weight in heard.items():
                columns[other].append(weight)
                hearers[other].append(rank)
            if topology.neighbors(rank, round) != list(heard):
                raise ValueError(f"{where}, rank {rank}: neighbors() and row() name different ranks")
            messages += len(heard)
            degree = max(degree, len(heard))
        for rank in range(n):
            total = math.fsum(columns[rank])
            if abs(total - 1.0) > _TOLERANCE:
                raise ValueError(
                    f"{where}, rank {rank}: its column sums to {total!r}, so the mean would drift"
                )
            if topology.listeners(rank, round) != hearers[rank]:
                raise ValueError(f"{where}, rank {rank}: listeners() does not name the ranks that hear it")
    if degree != topology.degree:
        raise ValueError(
            f"{topology.name} of {n} ranks: degree says {topology.degree}, the rows say {degree}"
        )
    if not math.isclose(messages / (n * rounds), topology.messages_per_round, rel_tol=1e-12):
        raise ValueError(
            f"{topology.name} of {n} ranks: messages_per_round says {topology.messages_per_round}, "
            f"the rows say {messages / (n * rounds)}"
        )


def _check_row(where: str, n: int, rank: int, own: float, heard: dict[int, float]) -> None:
    if list(heard) != sorted(heard) or rank in heard or any(not 0 <= other < n for other in heard):
        raise ValueError(f"{where}: neighbours must be other ranks in increasing order, got {list(heard)}")
    weights = [own, *heard.values()]
    if not all(math.isfinite(weight) for weight in weights) or own < 0 or any(w <= 0 for w in heard.values()):
        raise ValueError(f"{where}: weights must be finite and positive (its own may be 0), got {weights}")
    total = math.fsum(weights)
    if abs(total - 1.0) > _TOLERANCE:
        raise ValueError(f"{where}: its row sums to {total!r}, not to 1")
