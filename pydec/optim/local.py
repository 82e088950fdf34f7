"""What the wrapped optimiser is, in the words that algorithms ask for; and the warning about Adam."""

from __future__ import annotations

import warnings

import torch

from pydec.errors import HeterogeneityWarning
from pydec.gossip import Algorithm, LocalOptimizer

_ADAPTIVE = ("ada", "prop", "lion", "lamb", "lars", "sign", "sophia", "novograd", "shampoo", "soap", "muon")
"""Parts of the names of optimisers whose step does not grow with the gradient, in lower case."""

_warned: set[str] = set()


def describe(optimizer: torch.optim.Optimizer) -> LocalOptimizer:
    """The facts about a torch optimiser that decide whether an algorithm can be used around it."""
    groups = optimizer.param_groups
    plain = type(optimizer) is torch.optim.SGD and not any(
        group.get("dampening") or group.get("nesterov") or group.get("maximize") for group in groups
    )
    name = type(optimizer).__name__
    return LocalOptimizer(
        name=name,
        sgd=plain,
        momentum=max((float(group.get("momentum", 0.0)) for group in groups), default=0.0),
        adaptive=any(word in name.lower() for word in _ADAPTIVE),
    )


def warn_if_biased(algorithm: Algorithm, local: LocalOptimizer, size: int) -> None:
    """Warn, once per process and optimiser, that adaptive steps and plain mixing prefer the median.

    Each rank divides by the size of its own gradients, so a rank whose loss is steep counts no more
    than one whose loss is flat: three ranks with optimum 0 and one with 8 settle at 0, not at 2.
    """
    name = type(algorithm).__name__ if algorithm.adaptive else local.name
    adaptive = local.adaptive or algorithm.adaptive
    if size < 2 or not adaptive or not algorithm.plain_mixing or name in _warned:
        return
    _warned.add(name)
    warnings.warn(
        f"{name} scales every rank's steps by its own gradients, so ranks whose data differ settle "
        "near the median of their optima, not the mean; with differently distributed data use "
        "algorithm='damsgrad', algorithm='gradient-tracking' around this optimiser, or SGD with momentum; "
        "iid=True says that they do not differ",
        HeterogeneityWarning,
        stacklevel=3,
    )
