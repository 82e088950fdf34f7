"""The laws that every topology must keep, checked."""

from __future__ import annotations

import math

import numpy as np

from pydec.topology.base import Topology
from pydec.topology.draw import random_words
from pydec.topology.graph import reached
from pydec.topology.schedule import SparseRound

_TOLERANCE = 1e-12
_RANDOM_ROUNDS = 16  # a schedule that never repeats is checked on its first rounds
_CONNECT_ROUNDS = 256  # and must have joined everyone by then
_PROBES = 4


def validate(topology: Topology) -> None:
    """Check that every matrix of a schedule can be used for gossip, and that what it says of itself is true.

    Weights are finite and not negative, listed neighbours have positive weights and are other
    ranks in increasing order, columns sum to 1 within 1e-12 and, if the topology says that it is doubly
    stochastic, rows; ``listeners`` is the transpose of ``neighbors``; degree, messages and symmetry are what
    the topology says; every rank's word reaches every other within a period; and after
    ``finite_time`` rounds random vectors have become their mean. Costs O(period * size * degree); a
    schedule with period 0 is checked on its first 16 rounds, its degree as a limit and its
    messages as an expectation.

    Raises:
        ValueError: naming the topology, the round, the rank and the number that is wrong.
    """
    n = topology.size
    who = f"{topology.name} of {n} ranks"
    rounds = topology.period or _RANDOM_ROUNDS
    if n < 1 or topology.period < 0:
        raise ValueError(f"{topology.name}: size must be >= 1 and period >= 0, got {n} and {topology.period}")
    matrices = [_check_round(topology, f"{who}, round {round}", round) for round in range(rounds)]
    _check_counts(topology, who, matrices)
    symmetric = all(matrix.is_symmetric for matrix in matrices)
    if topology.is_symmetric and not symmetric:
        raise ValueError(f"{who}: is_symmetric says True, but a matrix differs from its transpose")
    if topology.period and symmetric and not topology.is_symmetric:
        raise ValueError(f"{who}: is_symmetric says False, but every matrix equals its transpose")
    _check_connected(topology, who, matrices)
    if topology.finite_time is not None:
        _check_exact(topology, who, topology.finite_time)


def _check_round(topology: Topology, where: str, round: int) -> SparseRound:
    n = topology.size
    columns: list[list[float]] = [[] for _ in range(n)]
    hearers: list[list[int]] = [[] for _ in range(n)]
    own, rows = [0.0] * n, [dict[int, float]() for _ in range(n)]
    for rank in range(n):
        own[rank], rows[rank] = topology.row(rank, round)
        _check_row(f"{where}, rank {rank}", n, rank, own[rank], rows[rank])
        total = math.fsum([own[rank], *rows[rank].values()])
        if topology.is_doubly_stochastic and abs(total - 1.0) > _TOLERANCE:
            raise ValueError(f"{where}, rank {rank}: its row sums to {total!r}, not to 1")
        columns[rank].append(own[rank])
        for other, weight in rows[rank].items():
            columns[other].append(weight)
            hearers[other].append(rank)
        if topology.neighbors(rank, round) != list(rows[rank]):
            raise ValueError(f"{where}, rank {rank}: neighbors() and row() name different ranks")
    for rank in range(n):
        total = math.fsum(columns[rank])
        if abs(total - 1.0) > _TOLERANCE:
            raise ValueError(f"{where}, rank {rank}: its column sums to {total!r}, so the mean would drift")
        if topology.listeners(rank, round) != hearers[rank]:
            raise ValueError(f"{where}, rank {rank}: listeners() does not name the ranks that hear it")
    return SparseRound.from_rows(own, rows)


def _check_row(where: str, n: int, rank: int, own: float, heard: dict[int, float]) -> None:
    if list(heard) != sorted(heard) or rank in heard or any(not 0 <= other < n for other in heard):
        raise ValueError(f"{where}: neighbours must be other ranks in increasing order, got {list(heard)}")
    weights = [own, *heard.values()]
    if not all(math.isfinite(weight) for weight in weights) or own < 0 or any(w <= 0 for w in heard.values()):
        raise ValueError(f"{where}: weights must be finite and positive (its own may be 0), got {weights}")


def _check_counts(topology: Topology, who: str, matrices: list[SparseRound]) -> None:
    degree = max(matrix.degree for matrix in matrices)
    if degree > topology.degree or (topology.period and degree != topology.degree):
        raise ValueError(f"{who}: degree says {topology.degree}, the rows say {degree}")
    messages = sum(matrix.ranks.size for matrix in matrices) / (topology.size * len(matrices))
    # A mean of independent rounds within [0, degree] strays this far once in 10^9 (Hoeffding).
    stray = 0.0 if topology.period else degree * math.sqrt(math.log(2e9) / (2 * len(matrices)))
    if not math.isclose(messages, topology.messages_per_round, rel_tol=1e-12, abs_tol=stray):
        raise ValueError(
            f"{who}: messages_per_round says {topology.messages_per_round}, the rows say {messages}"
        )


def _check_connected(topology: Topology, who: str, matrices: list[SparseRound]) -> None:
    n = topology.size
    sends = np.concatenate([matrix.ranks for matrix in matrices]).astype(np.int64)
    hears = np.concatenate([np.repeat(np.arange(n), np.diff(matrix.starts)) for matrix in matrices])
    rounds = len(matrices)
    while not (reached(n, sends, hears).all() and reached(n, hears, sends).all()):
        if topology.period or rounds == _CONNECT_ROUNDS:
            missing = int(np.argmin(reached(n, sends, hears) & reached(n, hears, sends)))
            raise ValueError(
                f"{who}: in {rounds} rounds nothing gets from rank 0 to rank {missing} or back, "
                "so they never agree"
            )
        more = [(other, rank) for rank in range(n) for other in topology.neighbors(rank, rounds)]
        sends = np.append(sends, [pair[0] for pair in more])
        hears = np.append(hears, [pair[1] for pair in more])
        rounds += 1


def _check_exact(topology: Topology, who: str, finite_time: int) -> None:
    n = topology.size
    words = random_words(0x70726F62, n * _PROBES) >> np.uint64(11)
    x = words.astype(np.float64).reshape(n, _PROBES) * 2.0**-53
    mean = x.mean(axis=0)
    for round in range(finite_time):
        rows = [topology.row(rank, round) for rank in range(n)]
        x = SparseRound.from_rows([own for own, _ in rows], [heard for _, heard in rows]).apply(x)
    off = float(np.abs(x - mean).max())
    if off > _TOLERANCE:
        raise ValueError(
            f"{who}: finite_time says that {finite_time} rounds average exactly, but a rank is {off:.3g} off"
        )
