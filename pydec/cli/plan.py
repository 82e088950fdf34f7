"""What would a run of that size cost, and how should its peers gossip?

    pydec plan --params 7e9 --peers 1000 --link 1gbit,20ms --step 2s

answers on one screen: bytes and time of a step beside all-reduce's, whether gossip hides behind computing,
how far apart models stay, memory, the ledger's traffic, and which method and compressor to take; those that
are given are kept. --explain adds the formula of each line. Encoding is timed on this machine, unless
--codec-gbps states another one's rate; docs/scaling.md compares such answers with measured runs.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from typing import TYPE_CHECKING, Any

from pydec.cli.values import count, positive

if TYPE_CHECKING:
    from pydec.simulate.plan import Answer

_DURATION = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)(us|ms|s|m|h)?", re.ASCII)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add = parser.add_argument
    add("--params", type=number, required=True, metavar="N", help="of the model, such as 7e9")
    add("--peers", type=number, required=True, metavar="N", help="2 to 100,000")
    add(
        "--link",
        required=True,
        metavar="RATE[,LATENCY]",
        help="of every peer: 1gbit, 20mbit/100mbit,30ms (up/down)",
    )
    add("--step", type=seconds, required=True, metavar="TIME", help="one step of training alone: 2s, 150ms")
    add("--topology", default="one-peer-exponential", metavar="NAME", help="default one-peer-exponential")
    add("--algorithm", metavar="NAME", help="default: the plan chooses")
    add("--compressor", metavar="NAME", help="default: the plan chooses")
    add("--local-steps", type=count, metavar="H", help="between rounds of gossip; default: the plan chooses")
    add(
        "--data", choices=["iid", "differ"], default="iid", help="whether peers' data are of one distribution"
    )
    add("--optimizer-vectors", type=float, default=2.0, metavar="N", help="model-sized; default 2, Adam's")
    add(
        "--codec-gbps",
        type=positive,
        metavar="R",
        help="float32 encoded a second, 1e9 bytes; default: measured",
    )
    add(
        "--seats",
        type=count,
        metavar="K",
        help="of a committee; default: all up to 256 peers, then as many as 1e-9 needs",
    )
    add("--faulty", type=float, default=0.1, metavar="SHARE", help="of the stake, by liars; default 0.1")
    add("--epochs", type=count, default=1000, metavar="N", help="committees over the run; default 1000")
    add("--block-every", type=seconds, default=10.0, metavar="TIME", help="between blocks; default 10s")
    add("--seed", type=int, default=0, help="of a random topology (default 0)")
    add("--explain", action="store_true", help="add the formula of each line")
    add("--json", action="store_true", help="print the answer as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Plan and print.

    Raises:
        ConfigError: a number, name or combination that cannot be.
    """
    from pydec.simulate.network import link
    from pydec.simulate.plan import FORMULAS, Job, plan

    names = ("params", "peers", "topology", "algorithm", "compressor", "local_steps", "data",
             "optimizer_vectors", "codec_gbps", "seats", "faulty", "epochs", "seed")  # fmt: skip
    given = {name: getattr(args, name) for name in names}
    job = Job(link=link(args.link), step_s=args.step, block_s=args.block_every, **given)
    answer = plan(job)
    if args.json:
        print(json.dumps({**facts(answer), "formulas": FORMULAS}, indent=2))
        return 0
    for label, text, formula in _lines(answer, args.link):
        print(f"{label:<14}{text}")
        if args.explain and formula:
            print(f"{'':<14}= {FORMULAS[formula]}")
    return 0


def number(word: str) -> int:
    """A whole number, also as 7e9."""
    value = float(word)
    if not math.isfinite(value) or value != int(value):
        raise argparse.ArgumentTypeError(f"must be a whole number such as 1000 or 7e9, got {word}")
    return int(word) if word.isdigit() else int(value)


def seconds(word: str) -> float:
    """A time such as 2s, 150ms, 3m; without a unit in seconds."""
    found = _DURATION.fullmatch(word)
    try:
        value = float(found[1]) * _SECONDS[found[2]] if found else -1.0
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a time above 0 such as 2s or 150ms, got {word}")
    return value


number.__name__ = seconds.__name__ = "number"  # argparse names the type in its messages


def facts(answer: Answer) -> dict[str, Any]:
    """The answer, as JSON can say it; null where nothing is known, or where it never happens."""
    job, costs, ledger, committee = answer.job, answer.costs, answer.ledger, answer.committee
    return {
        "params": job.params,
        "peers": job.peers,
        "step_alone_s": job.step_s,
        "topology": job.topology,
        "algorithm": costs.method.algorithm,
        "compressor": costs.method.compressor,
        "local_steps": costs.method.local_steps,
        "choice": answer.chosen,
        "messages_per_round": answer.messages,
        "busiest_rank_messages": answer.busiest,
        "packet_bytes": costs.packet,
        "bytes_per_step": costs.sent,
        "round_s": costs.round_s,
        "codec_s": costs.codec_s,
        "step_s": costs.step_s,
        "hidden": costs.hidden,
        "allreduce_step_s": answer.allreduce_s,
        "allreduce_16bit_step_s": answer.allreduce16_s,
        "sparse_allreduce_step_s": answer.sparse_allreduce_s,
        "speedup": answer.speedup,
        "distance_updates": costs.distance,
        "distance_is_a_lower_bound": _below(answer),
        "rounding_share": costs.rounding,
        "rounds_to_1e-3": answer.mixing.rounds_to(1e-3),
        "memory_bytes": costs.memory,
        "seats": committee.seats,
        "drawn": committee.drawn,
        "log10_unsafe": committee.log10_unsafe if math.isfinite(committee.log10_unsafe) else None,
        "block_bytes": ledger.block,
        "validator_bytes_per_block": ledger.validator_sent,
        "follower_bytes_per_block": ledger.follower_received,
        "light_client_bytes_per_epoch": ledger.epoch_step,
        "block_every_s": job.block_s,
    }


def _below(answer: Answer) -> bool:
    return not answer.mixing.settled and not answer.mixing.spectrum


def _lines(answer: Answer, link: str) -> list[tuple[str, str, str]]:
    """Label, text and the name of the formula."""
    job, costs, committee, ledger = answer.job, answer.costs, answer.committee, answer.ledger
    steps = costs.method.local_steps
    gossip = f"a round takes {_time(costs.round_s)}, encoding and mixing {_time(costs.codec_s)}"
    hidden = "hidden behind computing" if costs.hidden else "not hidden"
    alone = f"{_time(job.step_s)} a step alone"
    messages = f"{answer.messages:.4g} messages, {answer.busiest:,} at most,"
    half = f"{_time(answer.allreduce16_s)}, {answer.allreduce16_s / costs.step_s:.3g} x"
    lines = [
        ("job", f"{_number(job.params)} parameters, {job.peers:,} peers, {link}, {alone}", ""),
        ("method", costs.method.words, ""),
        ("", answer.chosen, ""),
        ("topology", f"{job.topology}: {messages} a rank and round", ""),
        ("sent", f"{_bytes(costs.sent)} a rank and step, {_bytes(costs.packet)} a packet", "sent"),
        ("gossip", f"{gossip}: {hidden}", "round"),
        ("step", f"{_time(costs.step_s)}, {costs.step_s / job.step_s - 1:.1%} more than alone", "step"),
        (
            "all-reduce",
            f"{_time(answer.allreduce_s)} a step, {answer.speedup:.3g} x as long; of 16 bits {half}",
            "all-reduce",
        ),
    ]  # fmt: skip
    if steps > 1:
        ratio = answer.sparse_allreduce_s / costs.step_s
        lines.append(
            ("", f"models every {steps} steps: {_time(answer.sparse_allreduce_s)}, {ratio:.3g} x as long", "")
        )
    far = _distance(answer)
    lines += [("" if place else "distance", *line) for place, line in enumerate(far)]
    lines.append(("memory", f"{_bytes(costs.memory)} a peer for training, at most", "memory"))
    who = f"{committee.seats:,} seats drawn from {job.peers:,} peers" if committee.drawn else "all peers vote"
    rate = ledger.validator_sent / job.block_s
    others = f"; followers receive {_bytes(ledger.follower_received)}" if committee.drawn else ""
    sends = f"{_bytes(ledger.validator_sent)} a block, {_bytes(rate)}/s"
    lines.append(("ledger", f"{who}: a voter sends {sends}{others}", "ledger"))
    lines.append(("committee", _odds(answer), "committee" if committee.drawn else ""))
    return lines


def _distance(answer: Answer) -> list[tuple[str, str]]:
    costs, rounds = answer.costs, answer.mixing.rounds_to(1e-3)
    came = "too many rounds to follow" if rounds is None else f"{rounds:,} rounds"
    decay = f"a disturbance falls to a thousandth in {came}"
    if costs.distance is None:
        name = costs.method.algorithm.partition(":")[0]
        return [(f"not predicted for {name}; averaged plainly, {decay}", "")]
    least = "more than " if _below(answer) else ""
    found = [
        (f"{least}{costs.distance:.3g} x the random part of one local update, root mean square", "distance")
    ]
    if costs.rounding:
        found.append((f"and at most {costs.rounding:.2%} of the model by rounding", "rounding"))
    return [*found, (decay, "")]


def _odds(answer: Answer) -> str:
    job, committee = answer.job, answer.committee
    if not math.isfinite(committee.log10_unsafe):
        return f"safe for certain while less than a third of the stake is faulty, as with {job.faulty:.0%}"
    if committee.log10_unsafe == 0:
        return (
            f"nothing can be promised of {committee.seats:,} seats with {job.faulty:.0%} of the stake faulty"
        )
    exponent = math.floor(committee.log10_unsafe)
    value = f"{10 ** (committee.log10_unsafe - exponent):.1f}e{exponent:+03d}"
    return (
        f"unsafe in any of {job.epochs:,} epochs: {value} at most, with {job.faulty:.0%} of the stake faulty"
    )


def _scaled(value: float, base: float, units: tuple[str, ...]) -> str:
    place = 0
    while place + 1 < len(units) and value >= 0.9995 * base:
        value, place = value / base, place + 1
    return f"{value:.3g}{units[place]}"


def _number(value: float) -> str:
    return _scaled(value, 1e3, ("", " K", " M", " G", " T"))


def _bytes(value: float) -> str:
    return _scaled(value, 1e3, (" B", " kB", " MB", " GB", " TB", " PB"))


def _time(value: float) -> str:
    if value >= 1:
        return f"{value:.3g} s" if value < 1e4 else f"{value / 3600:.3g} h"
    return f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} us"
