"""Gossip among those who are there, each counting for the work that it has done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError, FrameError
from pydec.gossip.base import algorithms
from pydec.gossip.diloco import GossipDiLoCo, OuterRule, OuterStep
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.rule import Rule
from pydec.gossip.weighted import PREFIX_BYTES, read_weight, write_weight

_MOST = 2.0**100


class QuorumMixer(AverageMixer):
    """x_i <- sum_j w_ij c_j x_j / sum_j w_ij c_j over those whose packets arrived, itself among them.

    c_j travels with the packet; it is 0 for a rank that has done nothing. If all are, all count alike.
    """

    move_scale = 0.0
    merit: float = 1.0
    """c of this rank in this round."""

    def capacity(self, bucket: int) -> int:
        """The weight and the payload."""
        return PREFIX_BYTES + super().capacity(bucket)

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Weight and model."""
        write_weight(out, self.merit)
        return PREFIX_BYTES + super().encode(bucket, out[PREFIX_BYTES:], key)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Mix one bucket with the weights of those who are there."""
        merits = [read_weight(packet, 0.0, _MOST) for packet in packets]
        total = (1.0 - sum(weights)) * self.merit + sum(
            weight * merit for weight, merit in zip(weights, merits, strict=True)
        )
        if total > 0.0:
            weights = [weight * merit / total for weight, merit in zip(weights, merits, strict=True)]
        super().absorb(bucket, own[PREFIX_BYTES:], [packet[PREFIX_BYTES:] for packet in packets], weights)

    def decodes(self, bucket: int, body: Bytes) -> bool:
        """Whether weight and payload are well formed."""
        try:
            read_weight(body, 0.0, _MOST)
        except FrameError:
            return False
        return super().decodes(bucket, body[PREFIX_BYTES:])


class QuorumRule(OuterRule):
    """Counts steps and samples between rounds."""

    def __init__(self, x: Vector, mixer: QuorumMixer, outer: OuterStep) -> None:
        super().__init__(x, mixer, outer)
        self._mixer = mixer
        self._steps, self._samples, self._coming = 0, 0.0, 1.0

    def count(self, samples: float) -> None:
        """The coming steps are taken on so many samples or tokens; ConfigError for an impossible number."""
        if not 0.0 < samples < math.inf:
            raise ConfigError(f"samples must be positive and finite, got {samples}")
        self._coming = float(samples)

    def after(self, lr: float) -> None:
        """A step was taken."""
        self._steps += 1
        self._samples += self._coming

    def depart(self) -> None:
        """c = samples^2 / steps: how much was done, times how much at once."""
        super().depart()
        self._mixer.merit = self._samples**2 / self._steps if self._steps else 0.0
        self._steps, self._samples = 0, 0.0

    def numbers(self) -> dict[str, float]:
        """What was counted since the last round."""
        return {"steps": float(self._steps), "samples": self._samples, "coming": self._coming}

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """See ``numbers``."""
        self._steps, self._samples = int(numbers["steps"]), numbers["samples"]
        self._coming = numbers["coming"]


@algorithms.register("quorum-diloco")
@dataclass(frozen=True)
class QuorumDiLoCo(GossipDiLoCo):
    """gossip-diloco among those who arrive in time, each weighted by its work. For uneven or absent ranks.

    The outer step is that of gossip-diloco; a packet carries c_j = samples^2 / steps of the rank's steps
    since its last round, and theta_i <- sum_j w_ij c_j z_j / sum_j w_ij c_j over those that arrived and
    itself. Use with late="drop". A step counts for one sample unless ``DecentralizedOptimizer.count`` says
    otherwise; a step that was left out counts for none. Where ranks do different amounts of work the mean
    over the ranks moves towards those that did more: that is the intention.

    Source of the weights: Decoupled DiLoCo, 2026, arXiv:2604.21428; there a central syncer uses them.
    """

    name: ClassVar[str] = "quorum-diloco"

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> QuorumMixer:
        """Weighted mixing of ``x``."""
        return QuorumMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """An outer momentum that starts at zero."""
        outer = OuterStep(self.outer_lr, self.momentum)
        return QuorumRule(x, self.mixer(x, compressor, degree), outer)
