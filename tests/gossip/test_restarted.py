"""A rank that comes back in mid-run with another algorithm, compressor, model or round, in the same epoch.

Its neighbours raise an error that names it and what differs, or follow the rule that the algorithm states;
nobody waits for ever, and no model is averaged with what it must not be.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster, LocalTransport
from pydec.errors import PeerError, PeerTimeout, ProtocolError
from pydec.gossip.asynchronous import Asynchronous, _opened
from pydec.gossip.exchange import Exchange, Late
from pydec.gossip.packets import WINDOW, algorithm_id, name_of

Vector = NDArray[np.float32]
SIZE, N, ROUNDS, RESTART = 3, 100, 12, 5
Outcome = tuple[int, Exception | None, Vector]


def mixers_of(name: str, x: Vector, code: str) -> list[Any]:
    algorithm = gossip.make(name)
    mixers = list(algorithm.rule(x, compress.make(code), 2).mixers)
    for mixer in mixers:
        mixer.algorithm = name_of(algorithm)
    return mixers


def start(rank: int, n: int = N) -> Vector:
    return np.random.default_rng(rank).standard_normal(n).astype(np.float32)


def rounds(
    late: Late, algorithm: str = "dpsgd", code: str = "none", n: int = N, shift: int = 0
) -> list[Outcome]:
    """What each rank saw first, in the order of time, when rank 1 comes back with these settings."""
    seen: list[Outcome] = []

    def program(transport: LocalTransport) -> None:
        rank, graph = transport.rank, topology.make("complete", size=SIZE)
        x = start(rank)
        exchange = Exchange(transport, graph, mixers_of("dpsgd", x, "none"), late=late)
        before = x.copy()
        try:
            for t in range(ROUNDS):
                if rank == 1 and t == RESTART:
                    exchange.close()
                    x = start(rank, n)
                    exchange = Exchange(transport, graph, mixers_of(algorithm, x, code), late=late)
                before = x.copy()
                exchange.run(t + (shift if rank == 1 and t >= RESTART else 0))
            exchange.close()
        except Exception as error:
            np.testing.assert_array_equal(x, before)  # the round left the model alone
            seen.append((rank, error, x))
            raise
        seen.append((rank, None, x))

    try:
        LocalCluster(SIZE, seed=1, delay_s=(0.0, 0.01), deadline_s=5.0).run(program)
    except PeerError:
        assert seen[0][1] is not None
    return seen


SWITCHED: list[tuple[dict[str, Any], str]] = [
    ({"algorithm": "choco"}, r"sent a packet of (choco, expected dpsgd|dpsgd, expected choco)"),
    ({"algorithm": "gradient-tracking"}, r"sent a packet of (gradient-tracking|dpsgd), expected"),
    (
        {"code": "int8"},
        r"whose compressor's wire id is \d+, expected \d+|too long: .*another model, compressor",
    ),
    ({"n": N - 10}, r"whose count is \d+, expected \d+|too long: .*has it another model"),
    ({"n": N + 10}, r"whose count is \d+, expected \d+|too long: .*has it another model"),
]


@pytest.mark.parametrize("late", ["raise", "drop"])
@pytest.mark.parametrize(("change", "words"), SWITCHED)
def test_another_algorithm_compressor_or_model_is_named(change: Any, words: str, late: Late) -> None:
    rank, error, _ = rounds(late, **change)[0]
    assert isinstance(error, ProtocolError)
    assert 1 in (rank, error.peer)
    assert re.search(words, str(error)), error


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (-RESTART, "sent no packet of round"),  # from the beginning
        (100, "sent no packet of round"),
        (512, r"whose round is \d+, expected \d+"),  # as far as tags tell rounds apart
    ],
)
def test_a_round_far_behind_or_ahead_is_named(shift: int, words: str) -> None:
    rank, error, _ = rounds("raise", shift=shift)[0]
    assert isinstance(error, (ProtocolError, PeerTimeout))
    assert 1 in (rank, error.peer)
    assert re.search(words, str(error)), error


@pytest.mark.parametrize("shift", [-RESTART, 100])
def test_where_late_neighbours_are_dropped_the_others_keep_their_mean(shift: int) -> None:
    seen = {rank: (error, x) for rank, error, x in rounds("drop", shift=shift)}
    assert [seen[rank][0] for rank in range(SIZE)] == [None] * SIZE
    mean = np.mean([start(rank) for rank in range(SIZE)], axis=0)  # reached before, in one round
    for rank in (0, 2):
        np.testing.assert_allclose(seen[rank][1], mean, atol=1e-5)
    # It heard nobody, or what had been sent to it in rounds that it came to later: it moves to the mean.
    left = (seen[1][1] - mean) @ (start(1) - mean) / np.sum((start(1) - mean) ** 2)
    assert 0.0 <= left <= 1.0 + 1e-6
    np.testing.assert_allclose(seen[1][1], mean + left * (start(1) - mean), atol=1e-5)


def steps(
    name: str, again: str, code: str = "none", n: int = N, number: int = 0
) -> tuple[list[Outcome], list[Any]]:
    """As ``rounds``, with asynchronous exchanges; rank 1 begins to count at ``number``."""
    seen: list[Outcome] = []
    made: list[Any] = []

    def connect(transport: LocalTransport, spec: str, x: Vector, packer: str) -> Asynchronous:
        graph, algorithm = topology.make("ring", size=SIZE), gossip.make(spec)
        return algorithm.connect(transport, graph, mixers_of(spec, x, packer), epoch=0, seed=0)

    def program(transport: LocalTransport) -> None:
        rank, x = transport.rank, start(transport.rank)
        exchange = connect(transport, name, x, "none")
        try:
            for step in range(60):
                if rank == 1 and step == RESTART:
                    exchange.close()
                    _opened[transport] = itertools.count(exchange._tag)  # as in a new process
                    x = start(rank, n)
                    exchange = connect(transport, again, x, code)
                    for counter in {"version", "_sequence"} & set(vars(exchange)):
                        setattr(exchange, counter, number)
                    made.append(exchange)
                exchange.begin(step)
                transport.sleep([1.0, 0.7, 1.3][rank])
                exchange.finish()
            exchange.flush()
        except Exception as error:
            seen.append((rank, error, x))
            raise
        seen.append((rank, None, x))

    try:
        LocalCluster(SIZE, seed=1, delay_s=(0.0, 0.1), deadline_s=30.0).run(program)
    except PeerError:
        assert seen[0][1] is not None
    return seen, made


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("adsgd", {"again": "ad-psgd"}, r"sent a (PAIR|LATEST) packet .*expected (PAIR|LATEST)"),
        ("ad-psgd", {"again": "adsgd"}, r"sent a (PAIR|LATEST) packet .*expected (PAIR|LATEST)"),
        *(
            (name, {"again": name, **change}, words)
            for name in ("adsgd", "ad-psgd")
            for change, words in (*SWITCHED[2:], ({"number": WINDOW + 100}, f"more than {WINDOW} ahead"))
        ),
        ("ad-psgd", {"again": "ad-psgd"}, "was it restarted"),
    ],
)
def test_asynchronous_neighbours_name_what_differs(name: str, change: Any, words: str) -> None:
    (rank, error, _), *_ = steps(name, **change)[0]
    assert isinstance(error, (ProtocolError, PeerTimeout))
    assert 1 in (rank, error.peer)
    assert re.search(words, str(error)), error


def test_latest_copies_follow_a_rank_that_counts_anew() -> None:
    seen, _ = steps("adsgd", "adsgd")
    assert [error for _, error, _ in seen] == [None] * SIZE
    models = np.stack([x for _, _, x in seen])
    np.testing.assert_allclose(models, np.broadcast_to(models.mean(0), models.shape), atol=1e-3)


def test_names_of_algorithms_are_told_apart_in_16_bits() -> None:
    numbers = {algorithm_id(name) for name in gossip.algorithms}
    assert len(numbers) == len(gossip.algorithms)
    assert all(0 < number < 1 << 16 for number in numbers)
    assert all(name_of(gossip.make(name)) == name for name in gossip.algorithms)
