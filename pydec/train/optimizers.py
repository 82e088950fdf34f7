"""Local optimisers by name: what each rank does with its own gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from pydec.errors import ConfigError
from pydec.registry import Registry

optimizers: Registry[Optimizer] = Registry("optimizer", context=("parameters", "lr"))

Parameters = Iterable[nn.Parameter]


@optimizers.register("sgd")
def sgd(
    parameters: Parameters,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    """Stochastic gradient descent with momentum, torch.optim.SGD."""
    _check_decay(weight_decay)
    if not 0.0 <= momentum < 1.0:
        raise ConfigError(f"momentum must be in [0, 1), got {momentum}")
    if nesterov and not momentum:
        raise ConfigError("nesterov=true needs a momentum above 0")
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


@optimizers.register("adamw")
def adamw(
    parameters: Parameters, lr: float, weight_decay: float = 0.01, beta1: float = 0.9, beta2: float = 0.999
) -> Optimizer:
    """Adam with decoupled weight decay, which spares vectors (biases, norms), torch.optim.AdamW."""
    _check_decay(weight_decay)
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if not 0.0 <= beta < 1.0:
            raise ConfigError(f"{name} must be in [0, 1), got {beta}")
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]] or every, lr=lr, betas=(beta1, beta2))


def make(spec: str, parameters: Parameters, lr: float) -> Optimizer:
    """Build the optimiser that ``spec`` names, ``sgd:momentum=0.9``.

    Raises:
        ConfigError: unknown name or option, or a value out of range.
    """
    return optimizers.make(spec, parameters=parameters, lr=lr)


def merge(spec: str, **options: float | None) -> str:
    """``spec`` with options added, as ``--momentum 0.9`` does; None adds nothing.

    Raises:
        ConfigError: the optimiser has no such option, or the specification gives it already.
    """
    name, _, rest = spec.partition(":")
    known = [option.name for option in optimizers.options(name)]
    items = [item for item in rest.split(",") if item]
    for key, value in options.items():
        if value is None:
            continue
        flag = f"--{key.replace('_', '-')}"
        if key not in known:
            raise ConfigError(
                f"{flag} does not go with optimizer {name!r}, whose options are: {', '.join(known)}"
            )
        if any(item.partition("=")[0].strip() == key for item in items):
            raise ConfigError(f"{key} is given twice, by {flag} and in --optimizer {spec!r}")
        items.append(f"{key}={value!r}")
    return name + (":" + ",".join(items) if items else "")


def _check_decay(weight_decay: float) -> None:
    if not weight_decay >= 0.0:
        raise ConfigError(f"weight_decay must be at least 0, got {weight_decay}")
