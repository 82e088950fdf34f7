"""What the wrapped optimiser is, in the words that algorithms ask for; and the warning about Adam."""

from __future__ import annotations

import warnings

import torch

from pydec.errors import HeterogeneityWarning, RobustnessWarning
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


def warn_if_biased(algorithm: Algorithm, local: LocalOptimizer, size: int, *, iid: bool = False) -> None:
    """Warn, once per process and optimiser, of what ranks' differences do to plain mixing and robust rules.

    Adaptive steps and plain mixing prefer the median: each rank divides by the size of its own gradients, so
    a rank whose loss is steep counts no more than one whose loss is flat: three ranks with optimum 0 and one
    with 8 settle at 0, not at 2. Robust rules take ranks whose data differ for liars.

    Args:
        algorithm: of the rounds.
        local: of the steps.
        size: ranks.
        iid: whether all ranks' data are of one distribution.
    """
    if algorithm.robust and size > 1:
        _warn_if_weak(algorithm, local, iid)
    if iid:
        return
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


def _warn_if_weak(algorithm: Algorithm, local: LocalOptimizer, iid: bool) -> None:
    name = type(algorithm).__name__
    if not local.momentum and not local.adaptive and f"{name} momentum" not in _warned:
        _warned.add(f"{name} momentum")
        warnings.warn(
            f"{name} without a local momentum lets liars hide in the noise of single gradients, round after "
            "round; use torch.optim.SGD(..., momentum=0.9)",
            RobustnessWarning,
            stacklevel=4,
        )
    if not iid and name not in _warned:
        _warned.add(name)
        warnings.warn(
            f"{name} cannot tell a liar from a rank whose data differ: where they do, ranks may keep apart, "
            "each with a model of its own data, even if nobody lies. Watch the worst rank and the consensus "
            "distance beside a run with algorithm='dpsgd', and lower f or take a denser graph; iid=True says "
            "that they do not differ",
            HeterogeneityWarning,
            stacklevel=4,
        )
