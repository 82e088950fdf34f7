"""Robust averages of 8 and 16 vectors on one thread beside torch, NumPy, ByzFL, byzpy and krum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pydec import kernels

from .harness import Options, Row, copy_actions, copy_gbps, interleaved, threads
from .libraries import library, part

F = 3
"""Vectors that may be anything; every rule here allows 3 of 9 or more, median and trimmed mean of 7."""
Matrix = np.ndarray
Answer = Callable[[], object]
LIBRARIES = ("byzfl", "byzpy", "krum")


@dataclass(frozen=True)
class Contest:
    """One rule on one set of vectors.

    Args:
        name: of the rule.
        passes: how often every input is read and an output written, in vectors, at the least.
        contenders: "ours" and the peers that are there, by name.
        check: raises AssertionError unless what a contender returned is right.
    """

    name: str
    passes: int
    contenders: dict[str, Answer]
    check: Callable[[str, object], None]


def _array(answer: object) -> Matrix:
    """What a contender returned, as an array: a tensor, an array, or a list of them."""
    if isinstance(answer, torch.Tensor):
        return answer.numpy()
    if isinstance(answer, Sequence):
        return np.stack([_array(item) for item in answer])
    return np.asarray(answer)


def _close_to(expected: Matrix) -> Callable[[str, object], None]:
    def check(peer: str, answer: object) -> None:
        np.testing.assert_allclose(_array(answer), expected, atol=1e-5, err_msg=peer)

    return check


def _median(x: list[Matrix], stacked: Matrix) -> Contest:
    tensor, tensors, out = torch.from_numpy(stacked), [torch.from_numpy(v) for v in x], np.zeros_like(x[0])
    low, high = (len(x) - 1) // 2, len(x) // 2
    contenders: dict[str, Answer] = {
        "ours": lambda: kernels.median(x, out),
        "torch.quantile": lambda: torch.quantile(tensor, 0.5, dim=0),
        "torch.sort": lambda: torch.sort(tensor, dim=0).values[low : high + 1].mean(0),
        "numpy.median": lambda: np.median(stacked, axis=0),
    }
    if _has("byzfl"):
        theirs = part("byzfl.aggregators.aggregators").Median()
        contenders |= {"byzfl torch": lambda: theirs(tensors), "byzfl numpy": lambda: theirs(x)}
    if _has("byzpy"):
        other = part("byzpy.aggregators.coordinate_wise.median").CoordinateWiseMedian()
        contenders["byzpy"] = lambda: other.aggregate(tensors)
    if _has("krum"):
        third = part("krum.primitives.aggregators.median").Median
        contenders["krum"] = lambda: third.aggregate(tensors, n=len(x), f=F)
    ordered = np.sort(stacked, axis=0)
    middle, lower = _close_to((ordered[low] + ordered[high]) / 2), _close_to(ordered[low])

    def check(peer: str, answer: object) -> None:
        (lower if peer in ("byzpy", "krum") else middle)(peer, answer)  # theirs is the lower middle

    return Contest("median", len(x) + 1, contenders, check)


def _trimmed_mean(x: list[Matrix], stacked: Matrix) -> Contest:
    tensor, tensors, out = torch.from_numpy(stacked), [torch.from_numpy(v) for v in x], np.zeros_like(x[0])
    stop = len(x) - F
    contenders: dict[str, Answer] = {
        "ours": lambda: kernels.trimmed_mean(x, F, out),
        "torch.sort": lambda: torch.sort(tensor, dim=0).values[F:stop].mean(0),
        "numpy.sort": lambda: np.sort(stacked, axis=0)[F:stop].mean(axis=0),
    }
    if _has("byzfl"):
        theirs = part("byzfl.aggregators.aggregators").TrMean(f=F)
        contenders |= {"byzfl torch": lambda: theirs(tensors), "byzfl numpy": lambda: theirs(x)}
    if _has("byzpy"):
        other = part("byzpy.aggregators.coordinate_wise.trimmed_mean").CoordinateWiseTrimmedMean(f=F)
        contenders["byzpy"] = lambda: other.aggregate(tensors)
    if _has("krum"):
        third = part("krum.primitives.aggregators.trimmed_mean").TrimmedMean
        contenders["krum"] = lambda: third.aggregate(tensors, n=len(x), f=F)
    expected = np.sort(stacked, axis=0)[F:stop].mean(axis=0)
    return Contest("trimmed mean", len(x) + 1, contenders, _close_to(expected))


def _scores(distances: Matrix) -> Matrix:
    """Krum's: the sum of the squared distances to the n - F - 2 nearest others."""
    n = len(distances)
    return np.asarray(np.sort(distances, axis=1)[:, 1 : n - F - 1].sum(axis=1))


def _distances(x: list[Matrix]) -> Matrix:
    return kernels.squared_distances(kernels.gram(x, x[0]))


def _krum(x: list[Matrix], stacked: Matrix) -> Contest:
    tensors, out = [torch.from_numpy(v) for v in x], np.zeros_like(x[0])

    def ours() -> Matrix:
        np.copyto(out, x[int(np.argmin(_scores(_distances(x))))])
        return out

    contenders: dict[str, Answer] = {"ours": ours}
    if _has("byzfl"):
        theirs = part("byzfl.aggregators.aggregators").Krum(f=F)
        contenders |= {"byzfl torch": lambda: theirs(tensors), "byzfl numpy": lambda: theirs(x)}
    if _has("byzpy"):
        other = part("byzpy.aggregators.geometric_wise.krum").Krum(f=F)
        contenders["byzpy"] = lambda: other.aggregate(tensors)
    if _has("krum"):
        third = part("krum.primitives.aggregators.krum").Krum
        contenders["krum"] = lambda: third.aggregate(tensors, n=len(x), f=F)
    rows = stacked.astype(np.float64)
    scores = _scores(np.array([((rows - row) ** 2).sum(axis=1) for row in rows]))

    def check(peer: str, answer: object) -> None:
        """An input, the best but for rounding and for whether n - F - 1 others count, as ByzFL has it."""
        chosen = [k for k, v in enumerate(x) if np.array_equal(v, _array(answer))]
        assert chosen, f"{peer} returned none of the vectors"
        assert scores[chosen[0]] <= scores.min() * 1.01, f"{peer} chose vector {chosen[0]}"

    return Contest("Krum", len(x) + 2, contenders, check)


def _nearest(distances: Matrix) -> list[list[int]]:
    """For every vector the n - F nearest ones, itself included."""
    return [sorted(np.argsort(row, kind="stable")[: len(row) - F].tolist()) for row in distances]


def _nnm(x: list[Matrix], stacked: Matrix) -> Contest:
    tensors, out = [torch.from_numpy(v) for v in x], np.zeros_like(stacked)
    n, kept = len(x), len(x) - F
    weights, step = [1 / kept] * kept, 1 << 14  # a piece of all vectors stays in the second-level cache

    def ours() -> Matrix:
        groups = _nearest(_distances(x))
        for start in range(0, x[0].size, step):
            pieces = [v[start : start + step] for v in x]
            for row, group in zip(out, groups, strict=True):
                kernels.mix([pieces[j] for j in group], weights, row[start : start + step])
        return out

    contenders: dict[str, Answer] = {"ours": ours}
    if _has("byzfl"):
        theirs = part("byzfl.aggregators.preaggregators").NNM(f=F)
        contenders |= {"byzfl torch": lambda: theirs(tensors), "byzfl numpy": lambda: theirs(x)}
    if _has("byzpy"):
        other = part("byzpy.pre_aggregators.nnm").NearestNeighborMixing(f=F)
        contenders["byzpy"] = lambda: other.pre_aggregate(tensors)
    rows = stacked.astype(np.float64)
    groups = _nearest(np.array([((rows - row) ** 2).sum(axis=1) for row in rows]))
    return Contest(
        "NNM", 3 * n, contenders, _close_to(np.stack([rows[group].mean(axis=0) for group in groups]))
    )


RULES = (_median, _trimmed_mean, _krum, _nnm)


def _has(name: str) -> bool:
    return not isinstance(library(name), str)


def rows(options: Options) -> Iterator[Row]:
    """One row for each rule, count of vectors and peer; peers that want one array get it stacked before."""
    n = 1 << 14 if options.quick else 1 << 20
    rounds = options.rounds or (3 if options.quick else 5)
    for absent in (name for name in LIBRARIES if not _has(name)):
        yield Row("robust", "all rules", {}, 0.0, "ms", f"{absent}: {library(absent)}")
    with threads(1):
        for count in (9, 16):
            rng = np.random.default_rng(count)
            # Unequal sizes, so that which vectors lie closest does not hang on rounding.
            x = [rng.standard_normal(n, dtype=np.float32) * np.float32(1 + 0.05 * k) for k in range(count)]
            for make in RULES:
                yield from _measured(make(x, np.stack(x)), n, count, rounds)


def _measured(contest: Contest, n: int, count: int, rounds: int) -> Iterator[Row]:
    for peer, action in contest.contenders.items():
        contest.check(peer, action())
    timings = interleaved({**contest.contenders, **copy_actions(n)}, rounds, warmup=1)
    ours_s = timings["ours"].median_s
    floor = 4e-9 * n * contest.passes / ours_s / copy_gbps(timings, n)
    name, params = f"{contest.name} of {count}", {"n": n, "m": count, "f": F, "threads": 1, "rounds": rounds}
    for peer in list(contest.contenders)[1:]:
        peer_s = timings[peer].median_s
        yield Row("robust", name, params, ours_s * 1e3, "ms", peer, peer_s * 1e3, peer_s / ours_s, floor)
