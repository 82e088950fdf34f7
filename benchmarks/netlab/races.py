"""The races: each contender trains the same model on the same data, one after another on the same hosts."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..harness import Options, Row
from . import racers
from .config import Race
from .lab import Lab, Link, bits_per_s, missing

PROGRAM = "import sys; from pydec.cli import bench; bench.load('netlab.race').main(*sys.argv[1:])"
_EACH_S = 1500.0  # training time of one contender
_OVERHEAD_S = 600.0  # starting, evaluating, stopping
_FAST_BITS_PER_S = 500e6


@dataclass(frozen=True)
class Contest:
    """One model and target, and who races for it.

    Args:
        name: what the rows are called.
        race: what all have in common.
        contenders: method and options of each, by the name that the rows show; ours start with "pydec".
        target: score to be reached: an accuracy, or bits per byte where ``lower``.
        lower: whether a lower score is better.
        fast: whether it is for links of 500 Mbit/s and more; slower ones would take hours.
    """

    name: str
    race: Race
    contenders: Mapping[str, tuple[str, dict[str, Any]]]
    target: float
    lower: bool = False
    fast: bool = False


PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDP": ("ddp", {}),
    "DDP, fp16": ("ddp-fp16", {}),
    "DDP, PowerSGD rank 2": ("ddp-powersgd", {"rank": 2}),
    "post-local SGD, period 8": ("post-local-sgd", {"period": 8}),
    "decent-dp, one-peer-exp": ("decent-dp", {"topology": "one-peer-exp"}),
    "hivemind, fp16, period 8": ("hivemind", {"period": 8}),
}


def ours(**options: Any) -> tuple[str, dict[str, Any]]:
    """A contender of pydec's."""
    return "pydec", {"topology": "one-peer-exponential", **options}


OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "pydec, int8, sent during the gradient": ours(
        algorithm="dpsgd:order=cta", compressor="int8", background=True
    ),
    "pydec, int8, 8 local steps": ours(
        algorithm="dpsgd:order=cta", compressor="int8", local_steps=8, background=True
    ),
}
FASHION = Contest(
    "time to 90 % accuracy, CNN of 0.4 M",
    Race("", task="fashion-mnist", steps=2340, evaluate_every=117, limit_s=_EACH_S),
    {**PEERS, **OURS},
    target=0.90,
)
WIDE = Contest(
    "time to 90 % accuracy, CNN of 10 M",
    Race("", task="fashion-mnist:dense=3172", steps=1170, evaluate_every=117, limit_s=_EACH_S),
    {**PEERS, **OURS},
    target=0.90,
    fast=True,
)
LANGUAGE = Contest(
    "time to 3.75 bits per byte, transformer of 5 M",
    Race(
        "",
        task="stdlib-lm:width=456,layers=2,heads=4,context=64",
        steps=240,
        evaluate_every=20,
        batch_size=2,
        limit_s=_EACH_S,
    ),
    {**PEERS, **OURS},
    target=3.75,
    lower=True,
)
CONTESTS = (FASHION, WIDE, LANGUAGE)


def rows(options: Options) -> Iterator[Row]:
    """Race over hosts with links of the chosen rate; says why not where hosts cannot be made.

    Raises:
        RuntimeError: no network namespaces can be made here, or a contender failed.
    """
    require_hosts()
    with Lab([Link(options.net)] * options.hosts) as lab:
        for contest in CONTESTS:
            if options.only in contest.name and contest.fast == (bits_per_s(options.net) >= _FAST_BITS_PER_S):
                yield from _raced(lab, contest, options)


def require_hosts() -> None:
    """Raise RuntimeError where no hosts can be made."""
    if (reason := missing()) is not None:
        raise RuntimeError(reason)


def _raced(lab: Lab, contest: Contest, options: Options) -> Iterator[Row]:
    race = contest.race
    if options.quick:
        race = replace(race, steps=6, evaluate_every=3)
    found: dict[str, dict[str, Any]] = {}
    for name, (method, extra) in contest.contenders.items():
        if (reason := racers.unavailable(method)) is not None:
            print(f"{contest.name}: {name} left out: {reason}", file=sys.stderr)
            continue
        found[name] = _one(lab, replace(race, method=method, options=extra))
    unit = "s"
    params = {
        "task": race.task,
        "net": options.net,
        "hosts": options.hosts,
        "steps": race.steps,
        "seed": race.seed,
    }
    for name, result in found.items():
        yield _curve(name, result["curve"], contest, params)
    reached = {name: _time_to(result["curve"], contest) for name, result in found.items()}
    if None in reached.values():
        curves = {name: points_of(result["curve"], contest) for name, result in found.items()}
        yield from at_common_mark(curves, contest, params)
    for name, result in found.items():
        last = result["curve"][-1]
        facts = {
            **params,
            "parameters": result["parameters"],
            "final": round(_score(last, contest), 4),
            "step_ms": round(1e3 * last["time_s"] / last["step"], 1),
            "bytes_per_rank_and_step": round(last["bytes_sent"] / last["step"]),
        }
        if not name.startswith("pydec"):
            continue
        for peer in (peer for peer in found if not peer.startswith("pydec")):
            mine, theirs = reached[name], reached[peer]
            end = found[peer]["curve"][-1]
            peer_facts = {
                "peer_final": round(_score(end, contest), 4),
                "peer_step_ms": round(1e3 * end["time_s"] / end["step"], 1),
                "peer_bytes": round(end["bytes_sent"] / end["step"]),
            }
            if mine is None:  # nothing to compare: the row says how long was tried in vain
                yield Row(
                    "train",
                    f"{contest.name}: not reached by {name}",
                    {**facts, **peer_facts},
                    last["time_s"],
                    unit,
                    peer,
                    theirs,
                )
                continue
            ratio = None if theirs is None else theirs / mine
            label = peer if theirs is not None else f"{peer}: not reached in {end['time_s']:.0f} s"
            yield Row(
                "train", f"{contest.name}: {name}", {**facts, **peer_facts}, mine, unit, label, theirs, ratio
            )


def points_of(curve: Sequence[Mapping[str, float]], contest: Contest) -> list[list[float]]:
    """Seconds of training and score, point by point."""
    return [[round(point["time_s"], 2), round(_score(point, contest), 4)] for point in curve]


def at_common_mark(
    curves: Mapping[str, Sequence[Sequence[float]]], contest: Contest, params: Mapping[str, Any]
) -> Iterator[Row]:
    """Where not all reached the target: the time of each of ours to the best score that all have reached.

    Args:
        curves: ``points_of`` each contender, by name.
        contest: theirs.
        params: what the rows say of the race.
    """
    best = max if contest.lower else min
    mark = best((min if contest.lower else max)(score for _, score in points) for points in curves.values())
    times = {name: _crossing(points, mark, lower=contest.lower) for name, points in curves.items()}
    model = contest.name.partition(", ")[2]
    for name in (name for name in curves if name.startswith("pydec")):
        for peer in (peer for peer in curves if not peer.startswith("pydec")):
            mine, theirs = times[name], times[peer]
            assert mine is not None
            assert theirs is not None
            what = f"time to the score that all reached, {model}: {name}"
            yield Row("train", what, {**params, "mark": mark}, mine, "s", peer, theirs, theirs / mine)


def _curve(name: str, curve: Sequence[Mapping[str, float]], contest: Contest, params: dict[str, Any]) -> Row:
    """What a plot needs of one contender: seconds of training and score, point by point."""
    points = points_of(curve, contest)
    facts = {**params, "contest": contest.name, "contender": name, "target": contest.target, "curve": points}
    unit = "bits per byte" if contest.lower else "accuracy"
    return Row("train", f"score at the end of {contest.name}: {name}", facts, points[-1][1], unit)


def _one(lab: Lab, race: Race) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config, result = Path(folder) / "config.json", Path(folder) / "result.json"
        config.write_text(json.dumps(asdict(race)))
        lab.run(
            [sys.executable, "-c", PROGRAM, str(config), str(result)], timeout_s=race.limit_s + _OVERHEAD_S
        )
        found: dict[str, Any] = json.loads(result.read_text())
    return found


def _score(point: Mapping[str, float], contest: Contest) -> float:
    return point["bits_per_byte"] if contest.lower else point["accuracy"]


def _time_to(curve: Sequence[Mapping[str, float]], contest: Contest) -> float | None:
    """Training time at which the target was first met, between two evaluations by interpolation."""
    points = [(point["time_s"], _score(point, contest)) for point in curve]
    return _crossing(points, contest.target, lower=contest.lower)


def _crossing(points: Sequence[Sequence[float]], mark: float, *, lower: bool) -> float | None:
    before: Sequence[float] | None = None
    for time_s, score in points:
        if score <= mark if lower else score >= mark:
            if before is None or score == before[1]:
                return time_s
            share = (mark - before[1]) / (score - before[1])
            return before[0] + share * (time_s - before[0])
        before = time_s, score
    return None
