"""What a run would cost and reach before it is started: one answer for one job, every number from a formula.

``FORMULAS`` states them; sources are in ``plan_costs``, ``plan_mixing`` and ``plan_ledger``. Parts are the
library's own: topologies give their degrees and matrices, compressors encode a sample, algorithms count their
vectors, the ledger encodes its messages. docs/scaling.md has what was measured beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydec import compress, gossip, topology
from pydec.compress.base import Compressor
from pydec.consensus.committee import log_unsafe_ever, seats_for
from pydec.consensus.validators import MAX_VALIDATORS
from pydec.errors import ConfigError
from pydec.gossip.base import Algorithm, bucket_bounds
from pydec.gossip.dpsgd import AverageMixer
from pydec.simulate.network import Link
from pydec.simulate.plan_costs import (
    BACKWARD,
    Codec,
    allreduce_s,
    codec,
    consent_s,
    packet_bytes,
    round_s,
    vectors_of,
)
from pydec.simulate.plan_ledger import LedgerCost, ledger_cost
from pydec.simulate.plan_mixing import Mixing, mixing
from pydec.topology.base import Topology

Data = Literal["iid", "differ"]
MOST_PEERS = 100_000
MOST_PARAMS = 10**13
ENOUGH = 0.05
"""Share of a step that gossip may cost before a plan compresses more, or gossips less often."""
SAFE = 1e-9
"""Probability that a run ever has an unsafe committee, up to which seats are added."""
_ALL_SIT = 256  # up to so many everybody votes

FORMULAS = {
    "sent": "messages of a round x the packet, headers of frames and buckets in it, / local steps",
    "round": "3 latencies + (1514/1448 bytes + min(bytes, buckets d^2 128 KiB)) / rate of the busiest",
    "step": "cta: ((H-1) t + max(t, round) + codec) / H; atc: t + (round + codec) / H; H local steps of t",
    "all-reduce": "t/3 + max(2t/3, 3 latencies x 2 ceil(log2 n) + 2 (n-1)/n buffers at the link's rate)",
    "distance": "sqrt(H (1-1/n) G) updates, G the sum over k of what k rounds leave; G-1 for atc",
    "rounding": "at most error x sqrt(c G) of the model, c the mean of sum w^2 + (sum w)^2 over ranks",
    "memory": "4 bytes x (parameters + gradients + optimiser's vectors + what the algorithm may hold)",
    "ledger": "(v-1) (PREPARE + COMMIT + block/v) a validator; followers fetch block and certificate",
    "committee": "epochs x 2^20 x sum over j >= k/3 of C(F,j) C(W-F,k-j) / C(W,k), hypergeometric",
}
"""How each part of an answer is computed."""


@dataclass(frozen=True)
class Job:
    """What is to be planned.

    Args:
        params: of the model, averaged as float32.
        peers: 2 to 100,000, one rank each, with a link of its own.
        link: of each.
        step_s: that forward, backward and the optimiser take.
        topology: specification.
        algorithm, compressor, local_steps: None lets the plan choose.
        data: "iid" if all peers draw from one distribution, "differ" if not.
        optimizer_vectors: of the model's size that the local optimiser keeps: 2 for Adam.
        codec_gbps: rate of encoding, and of mixing one packet, in 1e9 bytes of float32 per second; measured
            on this machine if None.
        seats: of a committee; None: all up to 256 peers, beyond as many as ``SAFE`` needs.
        faulty: share of the stake that liars hold, in [0, 1/3).
        epochs: committees over the run.
        block_s: seconds between blocks.
        seed: of random topologies.

    Raises:
        ConfigError: a number that cannot be.
    """

    params: int
    peers: int
    link: Link
    step_s: float
    topology: str = "one-peer-exponential"
    algorithm: str | None = None
    compressor: str | None = None
    local_steps: int | None = None
    data: Data = "iid"
    optimizer_vectors: float = 2.0
    codec_gbps: float | None = None
    seats: int | None = None
    faulty: float = 0.1
    epochs: int = 1000
    block_s: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        _whole("params", self.params, 1, MOST_PARAMS)
        _whole("peers", self.peers, 2, MOST_PEERS)
        _whole("epochs", self.epochs, 1, 10**9)
        if self.local_steps is not None:
            _whole("local steps", self.local_steps, 1, 10**6)
        if self.seats is not None:
            _whole("seats", self.seats, 1, MAX_VALIDATORS)
        positive = {"step": self.step_s, "block interval": self.block_s}
        positive |= {} if self.codec_gbps is None else {"codec rate": self.codec_gbps}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} must be above 0 and finite, got {value}")
        if not 0 <= self.faulty < 1 / 3:
            raise ConfigError(
                f"faulty must be in [0, 1/3), got {self.faulty}: no committee decides where more is faulty"
            )
        if not 0 <= self.optimizer_vectors <= 64:
            raise ConfigError(f"optimizer vectors must be in [0, 64], got {self.optimizer_vectors}")
        if self.link.up_bytes_per_s == math.inf:
            raise ConfigError("a plan needs the rate of a link, such as 1gbit or 20mbit/100mbit,30ms")
        if self.data not in ("iid", "differ"):
            raise ConfigError(f"data must be iid or differ, got {self.data!r}")


def _whole(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{name} must be an integer in [{least:,}, {most:,}], got {value!r}")


@dataclass(frozen=True)
class Method:
    """How to gossip."""

    algorithm: str
    compressor: str
    local_steps: int

    @property
    def words(self) -> str:
        """For people."""
        every = "every step" if self.local_steps == 1 else f"every {self.local_steps} steps"
        return f"{self.algorithm}, {self.compressor}, {every}"


@dataclass(frozen=True)
class Costs:
    """What a method costs a job; seconds and bytes.

    Args:
        method: what this is of.
        packet: bytes of one packet of the model.
        sent: bytes that a rank sends in a step, the mean over ranks and steps.
        round_s: a round on the link of the busiest rank.
        codec_s: encoding and mixing a round.
        step_s: a step of training, gossip and all.
        hidden: whether the link's time vanishes behind computing.
        distance: root mean square distance of a peer to the mean of all, over the random part of one local
            update; None if the algorithm is no plain averaging.
        rounding: what lossy packets add to it at most, over the model's norm; None as ``distance``.
        memory: bytes a peer.
    """

    method: Method
    packet: float
    sent: float
    round_s: float
    codec_s: float
    step_s: float
    hidden: bool
    distance: float | None
    rounding: float | None
    memory: float


@dataclass(frozen=True)
class Committee:
    """Who decides.

    Args:
        seats: voters; all peers with a stake where there is no need to draw.
        drawn: whether they are drawn.
        log10_unsafe: of the probability that any epoch's committee has a third of faulty seats or more.
    """

    seats: int
    drawn: bool
    log10_unsafe: float


@dataclass(frozen=True)
class Answer:
    """All that a plan says.

    Args:
        job: what was asked.
        costs: of the method in use.
        chosen: whether the plan chose any of it, and why.
        mixing: of the topology.
        messages, busiest: that a rank sends in a round: the mean, and the most that one hears or sends.
        allreduce_s, allreduce16_s: a step of all-reduced float32, or 16-bit, gradients.
        sparse_allreduce_s: a step where float32 models are all-reduced as rarely as these peers gossip.
        ledger, committee: of the ledger.
    """

    job: Job
    costs: Costs
    chosen: str
    mixing: Mixing
    messages: float
    busiest: int
    allreduce_s: float
    allreduce16_s: float
    sparse_allreduce_s: float
    ledger: LedgerCost
    committee: Committee

    @property
    def speedup(self) -> float:
        """How many times as many steps as all-reduced float32 gradients allow."""
        return self.allreduce_s / self.costs.step_s


def plan(job: Job) -> Answer:
    """Answer a job.

    Raises:
        ConfigError: a name, size or combination that cannot work.
    """
    graph = topology.make(job.topology, size=job.peers, seed=job.seed)
    candidates = [method for method in _candidates(job) if _fits(method, graph)]
    if not candidates:
        _check(next(iter(_candidates(job))), graph)
        raise ConfigError(f"no method of a plan works on {graph.name}; plan one-peer-exponential or base-k")
    averaging = mixing(graph)
    costs, chosen = _choose(job, graph, averaging, candidates)
    t, n_bytes, steps = job.step_s, 4.0 * job.params, costs.method.local_steps
    whole_s = allreduce_s(n_bytes, job.peers, job.link)
    committee = committee_of(job)
    return Answer(
        job,
        costs,
        chosen,
        averaging,
        graph.messages_per_round,
        busiest(graph),
        _overlapped(t, whole_s),
        _overlapped(t, allreduce_s(n_bytes / 2, job.peers, job.link)),
        t + whole_s / steps if steps > 1 else _overlapped(t, whole_s),
        ledger_cost(committee.seats),
        committee,
    )


def costs_of(job: Job, graph: Topology, averaging: Mixing, method: Method) -> Costs:
    """What one method costs."""
    algorithm, part = gossip.make(method.algorithm), compress.make(method.compressor)
    vectors = vectors_of(algorithm, part, graph.degree, method.local_steps)
    rounds, steps, t = algorithm.rounds(graph), method.local_steps, job.step_s
    packet = vectors.packets * packet_bytes(part, job.params, graph.degree)
    most = busiest(graph)
    buckets = len(bucket_bounds(job.params, part.block, graph.degree))
    consents_s = consent_s(job.link, most, math.ceil(vectors.packets) * buckets, most * packet)
    link_s = rounds * (round_s(job.link, most * packet, most * packet) + consents_s)
    known = _codec(job, method.compressor)
    heard = graph.degree + (not part.lossless)  # a lossy packet's sender takes its own back, too
    codec_s = rounds * vectors.packets * job.params * (known.encode_s + heard * known.mix_s)
    if algorithm.order == "cta":
        step_s = ((steps - 1) * t + max(t, link_s) + codec_s) / steps
        hidden = link_s <= t
    else:
        step_s, hidden = t + (link_s + codec_s) / steps, False
    distance = rounding = None
    if _averages(algorithm, part, graph):
        gain = averaging.gain - (algorithm.order == "atc")
        distance = math.sqrt(max(0.0, steps * (1 - 1 / job.peers) * gain))
        rounding = known.error * math.sqrt(_spread(graph) * averaging.gain)
    memory = 4.0 * job.params * (2 + job.optimizer_vectors + vectors.most)
    sent = rounds * graph.messages_per_round * packet / steps
    return Costs(method, packet, sent, link_s, codec_s, step_s, hidden, distance, rounding, memory)


def committee_of(job: Job) -> Committee:
    """All peers as one unit of stake each: who sits, and how safe that is."""
    faulty = math.floor(job.faulty * job.peers)
    seats = job.seats
    if seats is None:
        seats = job.peers
        if job.peers > _ALL_SIT:
            seats = seats_for(job.peers, faulty, math.log(SAFE), job.epochs) or MAX_VALIDATORS
    seats = min(seats, job.peers)
    drawn = seats < job.peers
    unsafe = log_unsafe_ever(job.peers, faulty, min(seats, MAX_VALIDATORS), job.epochs if drawn else 1,
                             **({} if drawn else {"grinding_bits": 0}))  # fmt: skip
    return Committee(seats, drawn, unsafe / math.log(10))


def busiest(graph: Topology) -> int:
    """The most messages that one rank hears or sends in a round."""
    if graph.is_symmetric or graph.messages_per_round == graph.degree:
        return graph.degree
    rounds = range(min(graph.period or 1, 64))
    sent = (len(graph.listeners(rank, number)) for number in rounds for rank in range(graph.size))
    return max(graph.degree, *sent)


def _overlapped(t: float, allreduce: float) -> float:
    return (1 - BACKWARD) * t + max(BACKWARD * t, allreduce)


def _codec(job: Job, spec: str) -> Codec:
    known = codec(spec)
    if job.codec_gbps is None:
        return known
    seconds = 4e-9 / job.codec_gbps
    return replace(known, encode_s=seconds, mix_s=seconds)


def _averages(algorithm: Algorithm, part: Compressor, graph: Topology) -> bool:
    import numpy as np

    mixers = algorithm.rule(np.zeros(1 << 12, np.float32), part, graph.degree).mixers
    return len(mixers) == 1 and type(mixers[0]) is AverageMixer and algorithm.rounds(graph) == 1


def _spread(graph: Topology) -> float:
    """Mean over ranks of sum_j w_ij^2 + (sum_j w_ij)^2, j the neighbours, in the schedule's first round."""
    ranks = range(0, graph.size, max(1, graph.size // 64))
    rows = [list(graph.row(rank, 0)[1].values()) for rank in ranks]
    return sum(sum(w * w for w in row) + sum(row) ** 2 for row in rows) / len(rows)


# ---------------------------------------------------------------- what to take

_RARE = (32, 64, 128, 256, 512)
_STRONG = "topk-int8:fraction=0.01"


def _ladder(data: Data) -> list[Method]:
    """Methods from what changes training least to what saves most.

    Packets of 4, 2 and 1 bytes, then local steps, then a pseudo-gradient after many of them, sent as a
    compressed difference. Plain averaging is biased where data differ (`pydec bench heterogeneity`): there it
    is tracking, whose packets must be lossless, with more and more local steps.
    """
    if data == "iid":
        ladder = [Method("dpsgd:order=cta", part, 1) for part in ("none", "bf16", "int8")]
        ladder += [Method("dpsgd:order=cta", "int8", steps) for steps in (2, 4, 8, 16)]
    else:
        ladder = [Method("momentum-tracking", "none", 1)]
        ladder += [Method("k-gt", "none", steps) for steps in (2, 4, 8, 16, 32, 64)]
    ladder += [Method("choco-diloco", "int8", steps) for steps in _RARE[:2]]
    return ladder + [Method("choco-diloco", _STRONG, steps) for steps in _RARE[1:]]


def _candidates(job: Job) -> list[Method]:
    """Of the ladder, what the job leaves open."""
    found: dict[Method, None] = {}
    for method in _ladder(job.data):
        fixed = Method(
            job.algorithm or method.algorithm,
            job.compressor or method.compressor,
            job.local_steps or method.local_steps,
        )
        found.setdefault(fixed)
    return list(found)


def _check(method: Method, graph: Topology) -> None:
    algorithm, part = gossip.make(method.algorithm), compress.make(method.compressor)
    algorithm.check(graph, part)
    vectors_of(algorithm, part, graph.degree, method.local_steps)


def _fits(method: Method, graph: Topology) -> bool:
    try:
        _check(method, graph)
    except ConfigError:
        return False
    return True


def _choose(job: Job, graph: Topology, averaging: Mixing, candidates: list[Method]) -> tuple[Costs, str]:
    """The first that costs a step at most ``ENOUGH`` more; the fastest if none does."""
    tried = []
    for method in candidates:
        tried.append(costs_of(job, graph, averaging, method))
        if tried[-1].step_s <= (1 + ENOUGH) * job.step_s:
            break
    best = min(tried, key=lambda costs: costs.step_s)
    if len(candidates) == 1:
        return best, "as asked"
    if best.step_s <= (1 + ENOUGH) * job.step_s:
        number = len(tried) - 1
        return (
            best,
            f"the mildest of {len(candidates)} within {ENOUGH:.0%} of a step; {number} milder cost more",
        )
    return best, f"the fastest of {len(candidates)}; none is within {ENOUGH:.0%} of a step alone"
