"""Gossip: algorithms that average models with a few neighbours, and the exchange that runs a round."""

from __future__ import annotations

from pydec.gossip.allreduce import AllReduce
from pydec.gossip.base import Algorithm, Mixer, algorithms
from pydec.gossip.choco import Choco, ChocoMixer
from pydec.gossip.dpsgd import DPSGD, AverageMixer
from pydec.gossip.exchange import Exchange

__all__ = [
    "DPSGD",
    "Algorithm",
    "AllReduce",
    "AverageMixer",
    "Choco",
    "ChocoMixer",
    "Exchange",
    "Mixer",
    "algorithms",
    "make",
]


def make(spec: str) -> Algorithm:
    """Build a gossip algorithm from its specification, for example ``choco:gamma=0.3``.

    Raises:
        ConfigError: unknown name or option, or a value outside its range.
    """
    return algorithms.make(spec)
