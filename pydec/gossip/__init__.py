"""Gossip: algorithms that average models with a few neighbours, and the exchange that runs a round."""

from __future__ import annotations

import re

from pydec.aggregate import aggregators, preaggregators
from pydec.gossip.accum_adam import AccumAdam
from pydec.gossip.ad_psgd import ADPSGD
from pydec.gossip.adsgd import ADSGD
from pydec.gossip.allreduce import AllReduce
from pydec.gossip.asynchronous import Asynchronous
from pydec.gossip.base import Algorithm, Mixer, algorithms
from pydec.gossip.beer import Beer
from pydec.gossip.choco import Choco, ChocoMixer
from pydec.gossip.choco_peers import ChocoPeers
from pydec.gossip.damsgrad import DAMSGrad
from pydec.gossip.decentlam import DecentLaM
from pydec.gossip.diloco import DiLoCo, GossipDiLoCo
from pydec.gossip.dpsgd import DPSGD, AverageMixer
from pydec.gossip.dsgdm import DSGDm
from pydec.gossip.exact_diffusion import D2, ExactDiffusion
from pydec.gossip.exchange import Exchange
from pydec.gossip.gasloc import GASLoC
from pydec.gossip.k_gt import KGT
from pydec.gossip.latest import LatestExchange
from pydec.gossip.noloco import NoLoCo
from pydec.gossip.pairwise import PairwiseExchange
from pydec.gossip.powergossip import PowerGossip
from pydec.gossip.qg_dsgdm import QGDSGDm
from pydec.gossip.quorum import QuorumDiLoCo
from pydec.gossip.relaysgd import RelaySGD
from pydec.gossip.robust import RobustAlgorithm, robust_rules
from pydec.gossip.robust import make as make_robust
from pydec.gossip.rule import Gradients, LocalOptimizer, Rule
from pydec.gossip.sgp import SGP
from pydec.gossip.sparseloco import ChocoDiLoCo, SparseLoCo
from pydec.gossip.streaming import StreamingDiLoCo
from pydec.gossip.switch import Switch, SwitchedExchange
from pydec.gossip.tracking import GradientTracking, MomentumTracking

__all__ = [
    "ADPSGD",
    "ADSGD",
    "D2",
    "DPSGD",
    "KGT",
    "SGP",
    "AccumAdam",
    "Algorithm",
    "AllReduce",
    "Asynchronous",
    "AverageMixer",
    "Beer",
    "Choco",
    "ChocoDiLoCo",
    "ChocoMixer",
    "ChocoPeers",
    "DAMSGrad",
    "DSGDm",
    "DecentLaM",
    "DiLoCo",
    "ExactDiffusion",
    "Exchange",
    "GASLoC",
    "GossipDiLoCo",
    "GradientTracking",
    "Gradients",
    "LatestExchange",
    "LocalOptimizer",
    "Mixer",
    "MomentumTracking",
    "NoLoCo",
    "PairwiseExchange",
    "PowerGossip",
    "QGDSGDm",
    "QuorumDiLoCo",
    "RelaySGD",
    "RobustAlgorithm",
    "Rule",
    "SparseLoCo",
    "StreamingDiLoCo",
    "Switch",
    "SwitchedExchange",
    "algorithms",
    "make",
    "make_robust",
    "robust_rules",
]


def make(spec: str) -> Algorithm:
    """Build a gossip algorithm from its specification: ``choco:gamma=0.3``, ``cs-plus:f=2``.

    A robust average of ``pydec.aggregate``, such as ``nnm+trimmed-mean:f=2``, is one too, of a rank's model
    and its neighbours'.

    Raises:
        ConfigError: unknown name or option, or a value outside its range.
    """
    name = re.split("[:+]", spec, maxsplit=1)[0].strip()
    if name in robust_rules or name in aggregators or name in preaggregators:
        return make_robust(spec)
    return algorithms.make(spec)
