"""What is to be simulated, checked before any work."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from pydec import compress, gossip
from pydec.comm.view import View
from pydec.compress.base import Compressor
from pydec.errors import ConfigError, PeerLost
from pydec.gossip.base import Algorithm
from pydec.gossip.control import controls
from pydec.gossip.dpsgd import DPSGD
from pydec.gossip.switch import refuse_auto
from pydec.optim.plan import Plan
from pydec.simulate import paces
from pydec.simulate.crowd import Churn, churn
from pydec.simulate.network import Link, link
from pydec.topology.base import Topology, topologies
from pydec.train.byzantine import Byzantine, robustness
from pydec.train.config import TrainConfig

MOST_PEERS = 1_000_000
ONE_BY_ONE = 16
"""Peers up to which each differentiates by itself, with the bits of a rank of ``pydec train``."""


@dataclass(frozen=True)
class Scenario:
    """Virtual peers and their world.

    Args:
        peers: how many.
        train: what each does, as ``pydec train``.
        vectors: numbers of every peer's vector, where nothing is learned and ``train.task`` is ignored; 0
            trains the task. ``train.steps`` is then the number of rounds.
        link: of every peer, see ``network.link``.
        step_s: what a local step takes.
        stragglers: specification, see ``paces.make``.
        churn: see ``crowd.churn``.
        era_rounds: rounds until members change; 0 takes 10.
        detect_s: after which a dead peer is known to be dead.
        late_s: after which a round goes on without a neighbour; 0 waits for all.
        gradients: "each" one by one, "batched", or "auto": one by one up to 16 peers.
        memory_bytes: what may be used; 0 takes nine tenths of what is free.

    Raises:
        ConfigError: a value out of its range, an unknown name, or parts that do not go together.
    """

    peers: int
    train: TrainConfig
    vectors: int = 0
    link: str = ""
    step_s: float = 0.0
    stragglers: str = "none"
    churn: str = ""
    era_rounds: int = 0
    detect_s: float = 0.05
    late_s: float = 0.0
    gradients: str = "auto"
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.peers <= MOST_PEERS:
            raise ConfigError(f"--peers must be in [1, {MOST_PEERS:,}], got {self.peers}")
        for name in ("step_s", "detect_s", "late_s"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"{_flag(name)} must be at least 0 seconds and finite, got {value}")
        for name in ("vectors", "era_rounds", "memory_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{_flag(name)} must be at least 1, got {getattr(self, name)}")
        if self.gradients not in ("auto", "each", "batched"):
            raise ConfigError(f"--gradients must be each, batched or auto, got {self.gradients!r}")
        self.plan.check()
        if self.plan.algorithm.averages != "parameters":
            raise ConfigError(
                f"pydec simulate runs algorithms that gossip, and {self.train.algorithm} does not; use "
                "dpsgd, choco, gradient-tracking, adsgd, ... (pydec list algorithms)"
            )
        if self.plan.algorithm.asynchronous and (self.churn or self.late_s or self.byzantine):
            raise ConfigError(
                f"--churn, --late and --byzantine are simulated in rounds, and {self.train.algorithm} has "
                "none; leave them out, or use dpsgd"
            )
        if self.plan.control.adapts:
            raise ConfigError(
                "pydec simulate repeats rounds a fixed number of times; use --mixing fixed:rounds=N"
            )
        refuse_auto("a simulation", self.plan.compressor)
        if self.vectors and self.plan.algorithm.takes_step:
            raise ConfigError(
                f"{self.train.algorithm} mixes in its local step, and vectors take none; use dpsgd or choco"
            )
        if self.parts[2].leave:
            self._check_churn()

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process as it was given: graphs are made there anew."""
        return type(self), tuple(getattr(self, item.name) for item in fields(self))

    def _check_churn(self) -> None:
        if not self.plan.outlives:
            raise ConfigError(
                f"--churn: {self.train.algorithm} needs every peer that it began with; use dpsgd, or "
                "choco-diloco for compressed deltas"
            )
        self.plan.check_change()
        if self.peers < 2:
            raise ConfigError("--churn needs at least 2 peers, one to go and one to stay")
        for mixer in self.plan.algorithm.rule(np.zeros(64, np.float32), *self._of_mixers).mixers:
            mixer.place(0, self.plan.topology)
            try:
                for peer in self.plan.topology.neighbors(0, 0)[:1]:
                    mixer.lose(peer)
            except PeerLost as error:
                raise ConfigError(f"--churn: {error}") from None
        try:
            self.topology_of(self.peers - 1, self.train.seed)
        except ConfigError as error:
            raise ConfigError(f"--churn changes the number of peers: {error}") from None

    @property
    def _of_mixers(self) -> tuple[Compressor, int, int]:
        return self.plan.compressor, self.plan.topology.degree, self.plan.local_steps

    @cached_property
    def parts(self) -> tuple[Link, paces.Stragglers, Churn]:
        """Links, stragglers and churn."""
        return link(self.link), paces.make(self.stragglers), churn(self.churn)

    def topology_of(self, size: int, seed: int) -> Topology:
        """The graph of so many members."""
        return topologies.make(self.train.topology, size=size, seed=seed, nodes=None)

    @cached_property
    def plan(self) -> Plan:
        """How honest peers gossip."""
        if topologies.takes(self.train.topology, "nodes"):
            raise ConfigError(
                f"--topology {self.train.topology} is made of nodes, which virtual peers are not on; use "
                "another, such as base-k or one-peer-exponential"
            )
        topology = self.topology_of(self.peers, self.train.seed)
        if self.byzantine is not None:
            algorithm: Algorithm = self.byzantine.algorithm
        else:
            algorithm = gossip.make(self.algorithm)
        lossless = algorithm.lossless or bool(self.vectors)
        compressor = compress.make(self.train.compressor or ("none" if lossless else "int8"))
        late = self.late_s > 0 or (self.byzantine is not None and algorithm.robust)
        return Plan(
            topology,
            compressor,
            algorithm,
            self.train.local_steps,
            controls.make(self.train.mixing),
            "drop" if late else "raise",
            estimate=False,
        )

    @cached_property
    def algorithm(self) -> str:
        """Its specification: choco takes the form that it has for graphs that change."""
        name, colon, options = self.train.algorithm.partition(":")
        if name == "choco" and self.topology_of(self.peers, self.train.seed).period != 1:
            return f"choco-peers{colon}{options}"
        if self.vectors and name == "dpsgd" and "order" not in options:
            return f"dpsgd:order=atc{',' if options else ''}{options}"
        return self.train.algorithm

    @cached_property
    def byzantine(self) -> Byzantine | None:
        """What is robust, and who lies; None if neither was asked for."""
        return robustness(replace(self.train, algorithm=self.algorithm), _Seat(self.peers, self.train.seed))

    @cached_property
    def plain(self) -> bool:
        """Whether it is plain gossip, without compression, of honest peers that stay and are waited for."""
        plan = self.plan
        return bool(
            type(plan.algorithm) is DPSGD
            and plan.compressor.lossless
            and plan.control.most == 1
            and not (self.parts[2].leave or self.late_s or self.liars)
        )

    @property
    def at_once(self) -> bool:
        """Whether ``mixing`` does all peers' vectors at once."""
        return bool(self.vectors and self.plain and self.plan.local_steps == 1)

    @property
    def liars(self) -> tuple[int, ...]:
        """Who lies."""
        return () if self.byzantine is None else self.byzantine.ranks


class _Seat:
    """Of a peer, what the placement of liars asks for."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.view = View(0, tuple(range(size)), seed)


def liars_of(text: str, peers: int) -> str:
    """``--byzantine``: a share of the peers below 1 as their number; a number or ranks as they are.

    Raises:
        ConfigError: none of these.
    """
    word = text.strip()
    if re.fullmatch(r"0?\.[0-9]+", word):
        return str(round(float(word) * peers)) if round(float(word) * peers) else ""
    if not re.fullmatch(r"[0-9]+|[0-9]+(,[0-9]+)*,?|", word):
        raise ConfigError(
            f"--byzantine must be a share of the peers such as 0.1, a number of them, or ranks with commas, "
            f"got {text!r}"
        )
    return "" if word == "0" else word


def _flag(name: str) -> str:
    return "--" + {"memory_bytes": "memory", "era_rounds": "era"}.get(name, name.removesuffix("_s"))
