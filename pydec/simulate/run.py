"""From a scenario to what came of it."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from pydec.errors import ConfigError
from pydec.gossip.packets import name_of
from pydec.optim.plan import Plan
from pydec.simulate.batched import Batched
from pydec.simulate.crowd import Crowd
from pydec.simulate.each import Each
from pydec.simulate.engine import Engine, Pose
from pydec.simulate.free import connect
from pydec.simulate.learner import Learners, Vector
from pydec.simulate.liars import Posing
from pydec.simulate.memory import Budget
from pydec.simulate.mixing import Mixing, mixed
from pydec.simulate.network import Network
from pydec.simulate.observer import Observer, Row
from pydec.simulate.paces import Paces
from pydec.simulate.peers import Rules
from pydec.simulate.rounds import PeerRounds
from pydec.simulate.scenario import ONE_BY_ONE, Scenario
from pydec.simulate.together import Together
from pydec.simulate.vectors import VectorLearner, Vectors
from pydec.train import split, tasks
from pydec.train.batches import labels_of
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from pydec.train.split import Indices
from pydec.train.task import Task

_BATCHES_BYTES = 4_000  # one peer's order of its samples
_OBJECTS_BYTES = 24_000  # Python's own, of one peer's rules, mixers, batches and events
_DEFAULT_ERA = 10
_LEAST_STEPS = 50  # unless so many are asked for: five eras


Found = tuple[list[Row], dict[str, Any], dict[int, Vector]]


@dataclass
class Outcome:
    """What came of a simulation.

    Attributes:
        rows: as the run went on: step, virtual time, loss, consensus distance, bytes.
        summary: at the end.
        models: numbers of every honest peer that came to the end, if asked for, by place.
    """

    rows: list[Row]
    summary: dict[str, Any]
    models: dict[int, Vector] = field(default_factory=dict)


def digest(numbers: Vector) -> str:
    """Short name of a model's bits."""
    return hashlib.sha256(np.ascontiguousarray(numbers, "<f4").tobytes()).hexdigest()[:16]


class Simulation:
    """A scenario, made ready. Memory is planned here and taken in ``run``.

    Args:
        scenario: checked.

    Raises:
        ConfigError: the task does not go with it.
        SetupError: data are missing, or there is too little memory.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.config, self.learners = self._prepare()
        self.budget = self._budget()
        self.budget.check(
            scenario.memory_bytes,
            "" if scenario.vectors else ", a smaller model, or --vectors, which simulates gossip alone",
        )

    def _prepare(self) -> tuple[TrainConfig, Learners]:
        scenario, config = self.scenario, self.scenario.train
        if scenario.vectors:  # rounds of gossip, without a rate
            steps = config.steps or 20
            every = max(1, steps // 20)
            config = replace(
                config, steps=steps, log_every=config.log_every or every, lr=1.0, schedule="constant"
            )
            return replace(config, eval_every=config.eval_every or steps), Vectors(
                scenario.peers, scenario.vectors, self.plan_of, config.seed
            )
        task = tasks.make(config.task, data=config.data or None, seed=config.seed)
        share = task.samples // scenario.peers
        if not config.batch_size and 1 <= share < task.defaults.batch_size:
            config = replace(config, batch_size=share)
        if not (config.steps or config.epochs):
            most = config.resolve(task, scenario.peers).steps  # few where many peers share the samples
            config = replace(config, steps=max(_LEAST_STEPS, most))
        config = config.resolve(task, scenario.peers)
        each = scenario.gradients == "each" or (scenario.gradients == "auto" and scenario.peers <= ONE_BY_ONE)
        made = (Each if each else Batched)(
            config, self.plan_of, task, _shares(config, task, scenario.peers), self._flipped(task)
        )
        return config, made

    def plan_of(self, rank: int) -> Plan:
        """How a peer gossips."""
        return self._lying if rank in self._liars and self._lying is not None else self.scenario.plan

    @cached_property
    def _liars(self) -> frozenset[int]:
        return frozenset(self.scenario.liars)

    @cached_property
    def _lying(self) -> Plan | None:
        """How liars gossip; None where no liar's mixer does, and they pose."""
        byzantine = self.scenario.byzantine
        if byzantine is None or not byzantine.ranks:
            return None
        try:
            return replace(self.scenario.plan, algorithm=byzantine.algorithm_of(byzantine.ranks[0]))
        except ConfigError:
            return None  # its packets are not the models

    def _flipped(self, task: Task) -> Callable[[int], int]:
        byzantine = self.scenario.byzantine
        if byzantine is None or byzantine.attack is None or not byzantine.attack.flips_labels:
            return lambda rank: 0
        classes = int(labels_of(task.train, task.labels).max()) + 1
        return lambda rank: classes if rank in self._liars else 0

    def _budget(self) -> Budget:
        """From one peer's rule and mixers, made for the purpose."""
        plan, scenario = self.scenario.plan, self.scenario
        if self._in_step:
            return Budget(
                scenario.peers,
                {"model": self.learners.peer_bytes + 4 * self.learners.parameters, "batches": _BATCHES_BYTES},
            )
        if scenario.at_once:
            rows = round(24 * (1 + plan.topology.messages_per_round))
            return Budget(scenario.peers, {"vectors": 8 * scenario.vectors, "graph": rows})
        one = VectorLearner(np.zeros(self.learners.parameters, np.float32), plan)
        mixers = [mixer for part in one.parts for mixer in part.rule.mixers]
        algorithm = sum(part.rule.state_bytes for part in one.parts)
        if plan.algorithm.asynchronous:
            algorithm += sum(mixer.state_bytes for mixer in mixers)
            packets = connect(None, plan, 0, mixers, 0).exchange.slots.nbytes
        else:
            rounds = PeerRounds(0, plan.topology, mixers, 0)
            algorithm += rounds.state_bytes
            # its own packet, and those on their way to it
            packets = (1 + math.ceil(plan.topology.messages_per_round)) * rounds.packet_bytes
        return Budget(
            scenario.peers,
            {
                "model" if not scenario.vectors else "vector": self.learners.peer_bytes,
                "algorithm": algorithm,
                "packets": packets,
                "objects": _OBJECTS_BYTES,
            },
        )

    def run(self, show: Callable[[Row], None] = lambda row: None, *, keep: bool = False) -> Outcome:
        """Simulate it.

        Args:
            show: called with every row.
            keep: whether to keep all honest peers' models.

        Raises:
            NonFiniteError, PeerLost: as a run of ranks would.
        """
        started_s = time.perf_counter()
        simulate = self._together if self._in_step else self._simulated
        if self.scenario.at_once:
            simulate = self._mixed
        rows, found, models = simulate(show, keep)
        plan = self.scenario.plan
        summary = {
            "peers": self.scenario.peers,
            "steps": self.config.steps,
            "topology": plan.topology.name,
            "algorithm": name_of(plan.algorithm),
            "compressor": repr(plan.compressor),
            **found,
            "liars": len(self._liars),
            "memory_bytes": self.budget.n_bytes,
            "wall_s": time.perf_counter() - started_s,
        }
        return Outcome(rows, summary, models)

    def _mixed(self, show: Callable[[Row], None], keep: bool) -> Found:
        scenario, config = self.scenario, self.config
        link, kind, _ = scenario.parts
        paces = Paces(kind, scenario.step_s, scenario.peers, config.seed)
        mixing = Mixing(scenario.plan.topology, scenario.vectors, config.seed, link, paces)
        rows = mixed(mixing, config.steps, config.log_every, show)
        found = {
            "consensus_distance": rows[-1]["consensus_distance"],
            "virtual_s": float(mixing.ready_s.max()),
            "bytes_sent": mixing.bytes_sent,
            "finished": scenario.peers,
        }
        return rows, found, dict(enumerate(mixing.x)) if keep else {}

    @property
    def _in_step(self) -> bool:
        """Whether ``together`` does all peers at once."""
        return (
            self.scenario.plain
            and isinstance(self.learners, Batched)
            and self.learners.uniform
            and self.config.nan_policy != "skip"  # whoever leaves a step out is not in step
        )

    def _together(self, show: Callable[[Row], None], keep: bool) -> Found:
        scenario, config = self.scenario, self.config
        assert isinstance(self.learners, Batched)
        link, kind, _ = scenario.parts
        paces = Paces(kind, scenario.step_s, scenario.peers, config.seed)
        with reproducible(config.threads):
            peers = Together(config, scenario.plan, self.learners, link, paces)
            rows = peers.run(show)
            outcome = peers.outcome()
        found = {
            **outcome,
            "train_loss": next((row["loss"] for row in reversed(rows) if "loss" in row), math.nan),
            "virtual_s": float(peers.mixing.ready_s.max()),
            "waited_s": float(peers.waited_s.mean()),
            "bytes_sent": peers.mixing.bytes_sent,
            "finished": scenario.peers,
            "died": 0,
            "joined": 0,
            "late": 0,
        }
        return rows, found, dict(enumerate(peers.mixing.x)) if keep else {}

    def _simulated(self, show: Callable[[Row], None], keep: bool) -> Found:
        scenario, config = self.scenario, self.config
        link, kind, rates = scenario.parts
        self.learners.allocate()
        observer = Observer(
            self.learners.parameters, config.steps, config.log_every, config.eval_every, self._liars,
            self.learners.evaluate, show, keep=keep,
        )  # fmt: skip
        era = scenario.era_rounds or _DEFAULT_ERA
        era += -era % scenario.plan.algorithm.rounds(scenario.plan.topology)
        slowest = min(link.up_bytes_per_s, link.down_bytes_per_s)
        rules = Rules(
            config.steps,
            lambda step: config.rate(step) / config.lr,
            scenario.late_s or math.inf,
            scenario.detect_s,
            link.latency_s + 4 * self.learners.parameters / slowest,
        )
        engine = Engine(
            self.plan_of,
            self.learners,
            rules,
            Crowd(scenario.plan.topology, scenario.topology_of, rates, era, config.seed),
            Network(scenario.peers, link, config.seed),
            Paces(kind, scenario.step_s, scenario.peers, config.seed),
            observer,
            self._pose(),
        )
        with reproducible(config.threads or int(isinstance(self.learners, Each))):
            engine.run()
            outcome = observer.outcome()
        waited = [peer.waited_s for peer in engine.peers.values() if peer.over]
        losses = [row["loss"] for row in observer.rows if "loss" in row]
        found = {
            **outcome,
            "train_loss": losses[-1] if losses else math.nan,
            "virtual_s": engine.ended_s,
            "waited_s": float(np.mean(waited)) if waited else 0.0,
            "bytes_sent": observer.bytes_sent,
            "finished": observer.finished,
            "died": observer.died,
            "joined": observer.joined,
            "late": observer.dropped,
        }
        return observer.rows, found, observer.final

    def _pose(self) -> Pose:
        byzantine = self.scenario.byzantine
        if byzantine is None or byzantine.attack is None or self._lying is not None:
            return lambda engine, peer: None
        return Posing(byzantine.attack, self._liars, byzantine.seed).of


def _shares(config: TrainConfig, task: Task, peers: int) -> Sequence[Indices]:
    if config.alpha:
        return split.dirichlet(labels_of(task.train, task.labels), peers, config.alpha, config.seed)
    return split.iid(task.samples, peers, config.seed)
