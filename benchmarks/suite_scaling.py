"""From 4 to 100,000 peers: cost of a round, rounds to agreement, losses and churn, methods, committees."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from pydec.consensus.committee import log_unsafe_ever, seats_for
from pydec.simulate.committee import CommitteeWorld, epochs
from pydec.simulate.network import link
from pydec.simulate.plan import Job, plan
from pydec.simulate.plan_mixing import mixing, rounds_of
from pydec.topology import Topology, make
from pydec.topology.schedule import SparseRound

from . import plan_checks
from .harness import Options, Row

SIZES = (4, 16, 64, 256, 1024, 4096, 16_384, 100_000)
GRAPHS = ("one-peer-exponential", "base-k", "random-matching", "exponential", "torus", "ring")
NEAR = 1e-3
"""Share of the distance to the mean at which peers count as agreed."""
_COLUMNS = 16
_LOST = (0.0, 0.01, 0.1, 0.3)
_CHURN = (0.0, 0.001, 0.01, 0.1)
_STALE = 100  # rounds that a newcomer's model is old
_COMMON = 0.1  # of a disturbance: the same for all peers in every round
_CODEC_GBPS = 200.0  # stated, not measured: encoding on an accelerator, a few per cent of its memory's rate
_MOST_ROUNDS = {"ring": 1024, "torus": 1024}  # peers up to which slow graphs are followed


def rows(options: Options) -> Iterator[Row]:
    """All parts, or those with ``only`` in their names."""
    parts = {"cost": cost, "rounds": agreement, "losses": losses, "churn": churn, "methods": methods,
             "committee": committees, "predicted": plan_checks.rows}  # fmt: skip
    for name, part in parts.items():
        if options.only in name:
            yield from part(options)


def cost(options: Options) -> Iterator[Row]:
    """Messages of one rank in a round, and what mixing costs here a peer and round."""
    for name in ("one-peer-exponential", "exponential"):
        for n in _sizes(options):
            graph = make(name, size=n)
            rounds = rounds_of(graph)
            known = [next(rounds) for _ in range(min(graph.period, 4))]
            x = np.random.default_rng(0).standard_normal((n, _COLUMNS))
            taken = []
            for number in range(3 * len(known)):
                began = time.perf_counter()
                x = known[number % len(known)].apply(x)
                taken.append(time.perf_counter() - began)
            facts = {"peers": n, "us_a_peer": round(1e6 * min(taken) / n, 3), "columns": _COLUMNS}
            value = graph.messages_per_round
            yield Row("scaling", f"messages a rank and round, {name}", facts, value, "messages")


def agreement(options: Options) -> Iterator[Row]:
    """Rounds until a disturbance is a thousandth, and the distance that steady disturbances settle at."""
    for name in GRAPHS:
        for n in _sizes(options):
            if n > _MOST_ROUNDS.get(name, n):
                continue
            found = mixing(make(name, size=n), 10_000 if n <= 1024 else 1500)
            rounds = found.rounds_to(NEAR)
            certain = found.settled or bool(found.spectrum)
            facts = {"peers": n, "distance": round(math.sqrt(found.gain), 3), "settled": certain}
            value = float(len(found.left)) if rounds is None else float(rounds)
            facts |= {} if rounds is not None else {"more_than": True}
            yield Row("scaling", f"rounds to {NEAR:g}, {name}", facts, value, "rounds")


def losses(options: Options) -> Iterator[Row]:
    """Rounds to agreement where packets are lost and their weight goes back to the receiver's own model."""
    n = 64 if options.quick else 1024
    for name in ("one-peer-exponential", "random-matching", "exponential"):
        for lost in _LOST:
            rounds, moved = _with_losses(make(name, size=n), lost)
            facts = {"peers": n, "lost": lost, "mean_moved": round(moved, 4)}
            yield Row("scaling", f"rounds to {NEAR:g} with losses, {name}", facts, float(rounds), "rounds")


def churn(options: Options) -> Iterator[Row]:
    """Distance to the mean where peers are replaced by newcomers with the mean of 100 rounds ago.

    In the unit of one round's disturbance. A tenth of it is common to all, which is what training comes to: a
    newcomer is behind by 10, and ``progress`` is what of it is left to the mean of all.
    """
    n, rounds = (64, 400) if options.quick else (1024, 1000)
    for share in _CHURN:
        value, progress = _with_churn(make("one-peer-exponential", size=n), share, rounds)
        facts = {"peers": n, "replaced_a_round": share, "stale_rounds": _STALE, "progress": progress}
        yield Row("scaling", "distance under churn, one-peer-exponential", facts, value, "updates")


def methods(options: Options) -> Iterator[Row]:
    """What ``pydec plan`` takes on links of several rates, and steps beside all-reduce's, at 1,000 peers."""
    for params in (10**8, 10**9, 7 * 10**9):
        for rate in ("10mbit,50ms", "100mbit,20ms", "1gbit,5ms", "10gbit,1ms", "100gbit,20us"):
            job = Job(params, 1000, link(rate), 2.0, codec_gbps=_CODEC_GBPS)
            answer = plan(job)
            costs = answer.costs
            facts: dict[str, Any] = {
                "parameters": params, "link": rate, "method": costs.method.words,
                "over_alone": round(costs.step_s / job.step_s - 1, 3),
                "over_sparse_allreduce": round(answer.sparse_allreduce_s / costs.step_s, 2),
            }  # fmt: skip
            yield Row(
                "scaling", "step, 1,000 peers, 2 s alone", facts, costs.step_s, "s", "all-reduce",
                answer.allreduce_s, answer.speedup,
            )  # fmt: skip


def committees(options: Options) -> Iterator[Row]:
    """Seats that 1,000 epochs need to be safe but for 1e-9, and how views reach peers beyond a committee."""
    for total in (1000, 10_000, 100_000):
        for faulty in (0.05, 0.1, 0.15, 0.2, 0.25):
            seats = seats_for(total, int(faulty * total), math.log(1e-9), 1000)
            facts = {"peers": total, "faulty": faulty, "epochs": 1000}
            if seats is None:
                odds = log_unsafe_ever(total, int(faulty * total), 1024, 1000) / math.log(10)
                facts |= {"not_enough": True, "log10_unsafe": round(odds, 1)}
            yield Row("scaling", "seats for 1e-9", facts, float(seats or 1024), "seats")
    for peers, seats in ((50, 10),) if options.quick else ((100, 16), (300, 31), (1000, 64)):
        world = CommitteeWorld([1] * peers, seats, make("one-peer-exponential", size=peers))
        last = epochs(world, 2)[-1]
        facts = {
            "peers": peers, "seats": seats, "deciding_rounds": last.deciding_rounds,
            "member_bytes": round(last.member_bytes), "peer_bytes": round(last.peer_bytes),
            "light_client_bytes": last.light_bytes,
        }  # fmt: skip
        yield Row("scaling", "a view reaches everybody", facts, float(last.spreading_rounds), "rounds")


def _sizes(options: Options) -> tuple[int, ...]:
    return SIZES[:3] if options.quick else SIZES


def _with_losses(graph: Topology, lost: float) -> tuple[int, float]:
    """Rounds until the distance is ``NEAR``, and how far the mean went, over its deviation at the start."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((graph.size, _COLUMNS))
    start, whole = x.mean(axis=0), float(np.sum((x - x.mean(axis=0)) ** 2))
    for number, one in enumerate(rounds_of(graph), start=1):
        x = _lossy(one, x, draw.random(one.ranks.size) < lost)
        if np.sum((x - x.mean(axis=0)) ** 2) <= NEAR**2 * whole:
            moved = np.sqrt(np.mean((x.mean(axis=0) - start) ** 2) * graph.size)
            return number, float(moved)
    raise AssertionError("a schedule has no end")


def _lossy(one: SparseRound, x: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """A round in which each hearer of a lost packet takes its own vector for it."""
    hearers = np.repeat(np.arange(len(x)), np.diff(one.starts))
    sources = np.where(gone, hearers, one.ranks)
    out = one.own[:, None] * x
    np.add.at(out, hearers, one.values[:, None] * x[sources])
    return out


def _with_churn(graph: Topology, share: float, rounds: int) -> tuple[float, float]:
    draw = np.random.default_rng(0)
    x = np.zeros((graph.size, _COLUMNS))
    means, found = [], []
    for number, one in zip(range(rounds), rounds_of(graph), strict=False):
        means.append(x.mean(axis=0))
        x = one.apply(x) + draw.standard_normal(x.shape) + _COMMON
        new = draw.random(graph.size) < share
        x[new] = means[max(0, number - _STALE)]
        if number >= rounds // 4:
            found.append(np.mean((x - x.mean(axis=0)) ** 2))
    half = rounds // 2
    progress = float(np.mean(means[-1] - means[half])) / (_COMMON * (rounds - 1 - half))
    return math.sqrt(float(np.mean(found))), round(progress, 3)
