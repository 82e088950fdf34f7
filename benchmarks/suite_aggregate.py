"""Every rule of ``pydec.aggregate`` on 16 vectors of 1 Mi float32, beside ByzFL, byzpy, krum and torch.

One thread. Ours leave out vectors that are not finite or too large first; none of the others does. Where a
peer's definition is the same its answer must be ours; where it differs (see docs/robust.md) the row says so.
The floor of rules that work coordinate by coordinate is a pass over the same vectors: torch's mean of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pydec import aggregate

from .harness import Options, Row, copy_actions, copy_gbps, interleaved, threads
from .libraries import library, part

F = 3
"""Vectors that may be anything; 16 allow it to every rule, Bulyan's 4 f + 3 among them."""
COUNT = 16
RADIUS = 500.0
"""Of centred clipping: about half the length of a vector."""
LIBRARIES = ("byzfl", "byzpy", "krum")
COORDINATES = ("median", "trimmed-mean", "mean-around-median")
FLOOR = "a pass over the vectors, torch's mean"
Answer = Callable[[], Any]


@dataclass(frozen=True)
class Peer:
    """Another library's rule.

    Args:
        name: as rows show it.
        run: gives its answer.
        same: whether its definition is ours.
    """

    name: str
    run: Answer
    same: bool = True


@dataclass(frozen=True)
class Contest:
    """One of our rules and those that it stands beside.

    Args:
        spec: ours, without f.
        passes: how often vectors are read or written at the least, in vectors.
        peers: those that are there.
        floor: a pass that reads as much as the rule must, for rules that work coordinate by coordinate.
    """

    spec: str
    passes: int
    peers: list[Peer] = field(default_factory=list)
    floor: Answer | None = None


def _array(answer: Any) -> np.ndarray:
    return answer.numpy() if isinstance(answer, torch.Tensor) else np.asarray(answer)


def _has(name: str) -> bool:
    return not isinstance(library(name), str)


def contests(x: list[np.ndarray]) -> list[Contest]:
    """Every rule on these vectors."""
    tensors, n = [torch.from_numpy(v) for v in x], len(x)
    stacked = torch.from_numpy(np.stack(x))
    one, geometric = n + 1, 2 * n + 1
    found = {
        spec: Contest(spec, passes, floor=(lambda: stacked.mean(0)) if spec in COORDINATES else None)
        for spec, passes in {
            "mean": one,
            "median": one,
            "trimmed-mean": one,
            "mean-around-median": one,
            "krum": n + 2,
            "multi-krum": geometric,
            "bulyan": geometric,
            "mda": geometric,
            "geometric-median": geometric,
            f"centred-clipping:radius={RADIUS:g}": geometric,
            "caf": geometric,
            "nnm+trimmed-mean": geometric,
            "bucketing+trimmed-mean": one,
            "arc+trimmed-mean": geometric,
        }.items()
    }

    def add(spec: str, name: str, run: Answer, *, same: bool = True) -> None:
        found[spec].peers.append(Peer(name, run, same))

    add("mean", "torch", lambda: stacked.mean(0))
    add("median", "torch.sort", lambda: torch.sort(stacked, dim=0).values[n // 2 - 1 : n // 2 + 1].mean(0))
    add("trimmed-mean", "torch.sort", lambda: torch.sort(stacked, dim=0).values[F : n - F].mean(0))
    if _has("byzfl"):
        _add_byzfl(add, x, tensors)
    if _has("byzpy"):
        _add_byzpy(add, tensors)
    if _has("krum"):
        _add_krum(add, tensors)
    return list(found.values())


def _add_byzfl(add: Callable[..., None], x: list[np.ndarray], tensors: list[torch.Tensor]) -> None:
    rules, steps = part("byzfl.aggregators.aggregators"), part("byzfl.aggregators.preaggregators")

    def both(
        spec: str, make: Callable[[], Callable[[Any], Any]], *, same: bool = True, numpy: bool = True
    ) -> None:
        rule = make()
        add(spec, "byzfl torch", lambda: rule(tensors), same=same)
        if numpy:
            other = make()
            add(spec, "byzfl numpy", lambda: other(x), same=same)

    both("mean", rules.Average)
    both("median", rules.Median)
    both("trimmed-mean", lambda: rules.TrMean(f=F))
    both("mean-around-median", lambda: rules.Meamed(f=F))
    both("krum", lambda: rules.Krum(f=F), same=False)
    both("multi-krum", lambda: rules.MultiKrum(f=F), same=False)
    both("mda", lambda: rules.MDA(f=F))
    both("geometric-median", rules.GeometricMedian, same=False)
    both(f"centred-clipping:radius={RADIUS:g}", lambda: rules.CenteredClipping(L=3, tau=RADIUS), same=False)
    both("caf", lambda: rules.CAF(f=F), same=False, numpy=False)
    for spec, step in (("nnm", steps.NNM(f=F)), ("bucketing", steps.Bucketing(s=2)), ("arc", steps.ARC(f=F))):
        rule = rules.TrMean(f=F)
        add(
            f"{spec}+trimmed-mean",
            "byzfl torch",
            lambda step=step, rule=rule: rule(step(tensors)),
            same=spec != "bucketing",
        )


def _add_byzpy(add: Callable[..., None], tensors: list[torch.Tensor]) -> None:
    flat, whole, norms = (f"byzpy.aggregators.{kind}_wise." for kind in ("coordinate", "geometric", "norm"))
    before = "byzpy.pre_aggregators."
    trimmed = part(flat + "trimmed_mean").CoordinateWiseTrimmedMean(f=F)
    rules = {
        "median": (part(flat + "median").CoordinateWiseMedian(), False),
        "trimmed-mean": (trimmed, True),
        "mean-around-median": (part(flat + "mean_of_medians").MeanOfMedians(f=F), False),
        "krum": (part(whole + "krum").Krum(f=F), False),
        "multi-krum": (part(whole + "krum").MultiKrum(f=F, q=COUNT - F - 2), False),
        "mda": (part(whole + "minimum_diameter_average").MinimumDiameterAveraging(f=F), True),
        "geometric-median": (part(whole + "geometric_median").GeometricMedian(), True),
        f"centred-clipping:radius={RADIUS:g}": (
            part(norms + "center_clipping").CenteredClipping(c_tau=RADIUS, M=3),
            False,
        ),
        "caf": (part(norms + "caf").CAF(f=F), False),
    }
    for spec, (rule, same) in rules.items():
        add(spec, "byzpy", lambda rule=rule: rule.aggregate(tensors), same=same)
    steps = {
        "nnm": part(before + "nnm").NearestNeighborMixing(f=F),
        "arc": part(before + "arc").ARC(f=F),
    }
    for spec, step in steps.items():
        add(f"{spec}+trimmed-mean", "byzpy", lambda step=step: trimmed.aggregate(step.pre_aggregate(tensors)))


def _add_krum(add: Callable[..., None], tensors: list[torch.Tensor]) -> None:
    rules = "krum.primitives.aggregators."
    named = {
        "median": ("median", "Median", False),
        "trimmed-mean": ("trimmed_mean", "TrimmedMean", True),
        "krum": ("krum", "Krum", True),
        "multi-krum": ("multi_krum", "MultiKrum", False),
        "bulyan": ("bulyan", "Bulyan", False),
        "geometric-median": ("geometric_median", "GeometricMedian", False),
    }
    for spec, (module, name, same) in named.items():
        try:
            rule = getattr(part(rules + module), name)
        except (ImportError, AttributeError):
            continue  # not in every version
        add(spec, "krum", lambda rule=rule: rule.aggregate(tensors, n=len(tensors), f=F), same=same)


def rows(options: Options) -> Iterator[Row]:
    """One row for each rule and peer; a rule without peers has one, too."""
    n = 1 << 14 if options.quick else 1 << 20
    rounds = options.rounds or (2 if options.quick else 5)
    for absent in (name for name in LIBRARIES if not _has(name)):
        yield Row("aggregate", "all rules", {}, 0.0, "ms", f"{absent}: {library(absent)}")
    draw = np.random.default_rng(COUNT)
    # Unequal sizes, so that which vectors lie closest does not hang on rounding.
    x = [draw.standard_normal(n, dtype=np.float32) * np.float32(1 + 0.05 * k) for k in range(COUNT)]
    with threads(1):
        for contest in contests(x):
            if not options.only or options.only in contest.spec:
                yield from _measured(contest, x, rounds)


def _measured(contest: Contest, x: Sequence[np.ndarray], rounds: int) -> Iterator[Row]:
    n, out = len(x[0]), np.zeros_like(x[0])
    plain = contest.spec == "mean"
    rule = aggregate.make(contest.spec, f=None if plain else F)
    expected = np.array(rule(x, out=out))
    spread = max(np.linalg.norm(v - expected) for v in x)
    for peer in contest.peers:
        answer = _array(peer.run()).reshape(-1)
        if peer.same:
            np.testing.assert_allclose(answer, expected, atol=2e-3, err_msg=f"{contest.spec}, {peer.name}")
        assert np.linalg.norm(answer - expected) <= 2 * spread, (contest.spec, peer.name)
    actions: dict[str, Answer] = {"ours": lambda: rule(x, out=out)}
    actions |= {peer.name: peer.run for peer in contest.peers}
    if contest.floor is not None:
        actions[FLOOR] = contest.floor
    timings = interleaved({**actions, **copy_actions(n)}, rounds, warmup=1)
    ours_s = timings["ours"].median_s
    floor = 4e-9 * n * contest.passes / ours_s / copy_gbps(timings, n)
    params = {"n": n, "vectors": len(x), "f": 0 if plain else F, "threads": 1, "rounds": rounds}
    if not contest.peers:
        yield Row("aggregate", contest.spec, params, ours_s * 1e3, "ms", floor_fraction=floor)
    if contest.floor is not None:
        pass_s = timings[FLOOR].median_s
        yield Row(
            "aggregate", contest.spec, params, ours_s * 1e3, "ms", FLOOR, pass_s * 1e3, pass_s / ours_s, floor
        )
    for peer in contest.peers:
        peer_s = timings[peer.name].median_s
        name = peer.name if peer.same else f"{peer.name}, defined otherwise"
        yield Row(
            "aggregate", contest.spec, params, ours_s * 1e3, "ms", name, peer_s * 1e3, peer_s / ours_s, floor
        )
