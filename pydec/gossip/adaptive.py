"""What algorithms share that take Adam's kind of step themselves: options, moments, weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pydec import kernels
from pydec.compress.base import Vector
from pydec.errors import ConfigError
from pydec.gossip.base import Algorithm
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import LocalOptimizer


@dataclass(frozen=True)
class Betas:
    """Averaging factors of the two moments, and what is added to the denominator.

    Args:
        first: of the gradients.
        second: of their squares.
        eps: added to, or least of, what a step is divided by.
    """

    first: float
    second: float
    eps: float

    def moments(self, gradient: Vector, state: tuple[Vector, Vector], out: tuple[Vector, Vector]) -> None:
        """``out = (first m + (1 - first) g, second v + (1 - second) g^2)`` for ``state = (m, v)``.

        Args:
            gradient: float32, shape (n,).
            state: m and v, shape (n,) each; unchanged, unless they are ``out[0]`` and not ``out[1]``.
            out: overwritten; ``out[1]`` overlaps nothing else.
        """
        (m, v), (m_out, v_out) = state, out
        np.multiply(gradient, gradient, out=v_out)
        kernels.mix([v, v_out], [self.second, 1.0 - self.second], out=v_out)
        kernels.mix([m, gradient], [self.first, 1.0 - self.first], out=m_out)


@dataclass(frozen=True)
class AdaptiveStep(Algorithm):
    """An algorithm that divides every coordinate's step by the size of its gradients."""

    budget: ClassVar[int] = 3
    needs_lr: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True
    takes_step: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    name: ClassVar[str] = ""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for option in ("beta1", "beta2"):
            value = getattr(self, option)
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"{self.name}.{option} must be in [0, 1), got {value}")
        if not 0.0 < self.eps < 1.0:
            raise ConfigError(f"{self.name}.eps must be in (0, 1), got {self.eps}")

    @property
    def betas(self) -> Betas:
        """The options together."""
        return Betas(self.beta1, self.beta2, self.eps)

    def check_local(self, local: LocalOptimizer) -> None:
        """Only plain SGD, whose groups say the rates: the step is this rule's own."""
        if not local.sgd:
            raise ConfigError(
                f"{self.name} takes its adaptive step itself and needs an optimiser that only holds learning "
                f"rates and weight decays, not {local.name}; wrap torch.optim.SGD(..., momentum=0) and write "
                f"algorithm='{self.name}:beta1=0.9,beta2=0.95', or use algorithm='gradient-tracking' around "
                f"{local.name}"
            )
        local.require_plain_sgd(self.name, f"algorithm='{self.name}:beta1={local.momentum:g}'")


class Scratch:
    """Memory for parts of tensors, grown to the largest in the first step.

    Args:
        count: vectors at a time.
    """

    def __init__(self, count: int) -> None:
        self._vectors = [np.empty(0, np.float32)] * count

    def take(self, n: int) -> list[Vector]:
        """Vectors of n elements, whose content is undefined."""
        if self._vectors[0].size < n:
            self._vectors = [aligned_floats(n) for _ in self._vectors]
        return [vector[:n] for vector in self._vectors]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(vector.nbytes for vector in self._vectors)


def decay(x: Vector, lr: float, weight_decay: float) -> None:
    """x <- x - lr weight_decay x: decoupled from the gradient, as AdamW does it.

    Source: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101.
    """
    if weight_decay:
        kernels.mix([x], [1.0 - lr * weight_decay], out=x)
