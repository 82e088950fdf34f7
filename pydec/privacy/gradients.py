"""``PrivateGradients``: what a training loop calls in place of ``loss.backward()``."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pydec.crypto.noise import SecretNumbers, grid_of
from pydec.errors import BudgetSpent, ConfigError
from pydec.privacy.account import BLOCK, Account
from pydec.privacy.accountant import Mechanism, affordable, check_delta, default_delta, epsilon
from pydec.privacy.clipping import ClippedSum


class PrivateGradients:
    """Gradients from which little follows about any one sample: DP-SGD's, with an account.

    Each step draws every sample by itself with probability ``batch_size / samples`` from numbers that nobody
    else knows, clips each one's gradient to norm ``clip``, adds Gaussian noise of deviation ``noise * clip``
    to the sum and divides by ``batch_size``. Whatever is then made of the gradients, by optimisers, gossip
    and all who hear it, is (epsilon, delta)-differentially private for this rank's samples, ``epsilon()``
    says how much: neighbours are data sets where one sample was added or removed. The source is that of
    ``pydec.privacy.clipping``, the account's that of ``pydec.privacy.accountant``.

    The guarantee is about gradients. Losses of training samples, how many were drawn, and how long a step
    took are not covered: keep them to yourself.

    Args:
        model: whose trainable parameters get gradients; no layer may look at several samples.
        loss: ``loss(output, target)`` gives a batch's mean loss.
        samples: of this rank, as it may be known to all.
        batch_size: samples that a step draws on average.
        noise: deviation of the noise, in units of ``clip``.
        account: file that remembers what was spent, see ``Account``; one for each rank's data, kept for as
            long as they are used.
        clip: largest norm of one sample's gradient.
        delta: None takes ``samples`` to the power -1.1.
        budget: epsilon that is never exceeded; None sets no limit.
        rate: probability with which a step draws a sample; None takes ``batch_size / samples``.
        ranks: of the job, noted in the account.
        numbers: of samples and noise, for tests; None makes fresh ones.

    Raises:
        ConfigError: a value out of range, a model that cannot be trained so, or a damaged account.
        SetupError: opacus is not installed, or the account cannot be written or is held by another process.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        *,
        samples: int,
        batch_size: int,
        noise: float,
        account: str | Path,
        clip: float = 1.0,
        delta: float | None = None,
        budget: float | None = None,
        rate: float | None = None,
        ranks: int = 1,
        numbers: SecretNumbers | None = None,
    ) -> None:
        if not (clip > 0.0 and math.isfinite(clip)):
            raise ConfigError(f"the clipping norm must be above 0 and finite, got {clip}")
        if samples < 1 or batch_size < 1:
            raise ConfigError(f"samples and batch_size must be at least 1, got {samples} and {batch_size}")
        self.mechanism = Mechanism(noise, batch_size / samples if rate is None else rate)
        self.delta = default_delta(samples) if delta is None else delta
        self.budget = budget
        check_delta(self.delta)
        epsilon({}, self.delta)
        self._sum = ClippedSum(model, loss, clip)
        self._samples, self._batch_size, self._clip = samples, batch_size, clip
        self._numbers = numbers or SecretNumbers()
        self._drawn: int | None = None
        self.account = Account(account, ranks)
        self._affordable = self.steps_left() if budget is not None else None

    def draw(self) -> NDArray[np.int64]:
        """Numbers of the samples that the coming step uses, ascending, of 0 ... ``samples`` - 1; maybe none.

        Raises:
            ConfigError: what was drawn before has not been used.
        """
        if self._drawn is not None:
            raise ConfigError("draw() twice before backward(): each draw is for one step, and is used")
        chosen = self._numbers.choose(self._samples, self.mechanism.rate)
        self._drawn = len(chosen)
        return chosen

    def backward(self, inputs: Any, target: Any) -> None:
        """Put the noised gradient into every trainable parameter's ``grad``.

        Args:
            inputs: the model's arguments, or the only one, for the samples that were drawn, in any order;
                see ``ClippedSum``. If none were drawn they are not looked at.
            target: the loss's second argument.

        Raises:
            ConfigError: nothing was drawn, other samples are given, a gradient is there already, or the
                model cannot be differentiated sample by sample.
            BudgetSpent: the step would spend more than the budget.
            SetupError: the step cannot be counted; nothing of it was made.
        """
        if self._drawn is None:
            raise ConfigError("backward() without draw(): a step uses the samples that draw() has chosen")
        for name, parameter in self._sum.parameters.items():
            if parameter.grad is not None and bool(parameter.grad.any()):
                raise ConfigError(
                    f"{name} has a gradient already: gradients are not accumulated here, as noise and "
                    "account are those of one step; use a larger batch_size, and zero_grad() after each step"
                )
        if self._affordable is not None and self._affordable < 1:
            raise BudgetSpent(
                f"one more step would spend more than epsilon {self.budget:g} at delta {self.delta:g}; this "
                "is the end of what these data may be used for"
            )
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        with torch.no_grad():
            sums = self._sum(inputs, target, self._drawn)
            self.account.spend(self.mechanism, BLOCK if self._affordable is None else self._affordable)
            self._noise(sums)
        self._drawn = None
        if self._affordable is not None:
            self._affordable -= 1

    def epsilon(self) -> float:
        """What all steps in the account have spent, at ``delta``."""
        return epsilon(self.account.spent, self.delta)

    def epsilon_after(self, steps: int) -> float:
        """What will have been spent after so many more steps."""
        spent = self.account.spent
        return epsilon({**spent, self.mechanism: spent.get(self.mechanism, 0) + steps}, self.delta)

    def steps_left(self) -> int:
        """How many steps the budget still allows; at most 10^9, also without one."""
        budget = math.inf if self.budget is None else self.budget
        return affordable(budget, self.delta, self.mechanism, self.account.spent)

    def close(self) -> None:
        """Put the account right and let it go; idempotent."""
        self.account.close()

    def __enter__(self) -> PrivateGradients:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _noise(self, sums: list[Tensor]) -> None:
        """Add the noise and leave the gradients.

        Sum and noise are whole multiples of one grid, so that their low bits do not tell them apart, see
        ``pydec.crypto.noise``. Rounding takes the sums of neighbouring data apart by at most a grid in each
        number; the noise is larger by that.
        """
        deviation = self.mechanism.noise * self._clip
        total = sum(part.numel() for part in sums)
        apart = 2.0 * grid_of(deviation) * math.sqrt(total)  # the larger deviation's grid may be the next
        deviation += self.mechanism.noise * apart
        for part, parameter in zip(sums, self._sum.parameters.values(), strict=True):
            multiples, grid = self._numbers.on_grid(part.numel(), deviation)
            noise = torch.from_numpy(multiples).to(part.device).view(part.shape)
            noised = part.div_(grid).round_().add_(noise).mul_(grid / self._batch_size)
            parameter.grad = torch.empty_like(parameter).copy_(noised)
