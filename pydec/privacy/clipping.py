"""Sums of gradients in which no sample has more than its part: one gradient a sample, each clipped.

Source: Abadi et al., "Deep learning with differential privacy", CCS 2016, arXiv:1607.00133, algorithm 1. The
gradient of a sample is that of the loss of a batch of this sample alone, by ``torch.func``'s ``vmap`` over
``grad``, so that nothing in the model can mix samples.

A sample whose gradient is not finite counts as zero: else one sample, or a neighbour's model made for it,
could make the sum infinite, or stop the run, and that would tell who is there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_map

from pydec.errors import ConfigError

_CHUNK_BYTES = 32 << 20  # of gradients that are held at a time: what is read twice stays near
_MOST_SAMPLES = 64
_PART = 4096
# Squares of so many float32 are added in float32, which loses at most _PART roundings of 2^-24 of their sum,
# and half of that of its root; a norm is taken to be this much larger.
_NORM_SLACK = 1.0 + _PART * 2.0**-25


class ClippedSum:
    """Clipped gradients of a model's trainable parameters, added up over a batch.

    Args:
        model: in which no layer looks at several samples, see ``check_model``.
        loss: ``loss(output, target)`` of a batch of one gives a number.
        clip: the most that one sample's gradient may have as its norm over all parameters.

    Raises:
        ConfigError: the model cannot be trained so.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Tensor], clip: float) -> None:
        check_model(model)
        self._model, self._loss, self._clip = model, loss, clip
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        n_bytes = sum(p.numel() * p.element_size() for p in self.parameters.values())
        self.chunk = max(1, min(_MOST_SAMPLES, _CHUNK_BYTES // n_bytes))
        """Samples that are differentiated at a time."""
        self._each = vmap(grad(self._one), in_dims=(None, None, 0, 0), randomness="different")

    def __call__(self, inputs: tuple[Any, ...], target: Any, samples: int) -> list[Tensor]:
        """The sum over a batch, one float64 tensor for each of ``parameters``, in their shapes.

        Args:
            inputs: the model's arguments: tensors, or dictionaries, lists and tuples of them, whose first
                dimension counts samples.
            target: the same for the loss.
            samples: how many there are; 0 gives zeros without looking at the others.

        Raises:
            ConfigError: something has another first dimension, the loss is no number, or the model does what
                cannot be differentiated sample by sample.

        Cost: about a plain step's, and ``chunk`` gradients of memory.
        """
        sums = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters.values()]
        if samples:
            _check_lengths((inputs, target), samples)
        # constants for the gradient, and copies of buffers: what a layer writes to its own is dropped
        fixed = {name: p.detach() for name, p in self._model.named_parameters() if not p.requires_grad}
        fixed |= {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        values = {name: p.detach() for name, p in self.parameters.items()}
        for start in range(0, samples, self.chunk):
            part = slice(start, min(start + self.chunk, samples))
            batch = tree_map(lambda leaf, part=part: leaf[part], (inputs, target))
            try:
                with _kernels_that_have_rules():
                    gradients = self._each(values, fixed, *batch)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise ConfigError(
                    f"the model or its loss cannot be differentiated sample by sample: {error}; torch.func's "
                    "page on vmap says what to write instead (no .item(), no branch on values, nothing "
                    "changed in place that does not depend on the sample)"
                ) from error
            self._add(sums, list(gradients.values()))
        return sums

    def _one(self, values: dict[str, Tensor], fixed: dict[str, Tensor], inputs: Any, target: Any) -> Tensor:
        """Loss of one sample."""
        inputs, target = tree_map(lambda leaf: leaf.unsqueeze(0), (inputs, target))
        loss: Any = self._loss(functional_call(self._model, (values, fixed), inputs), target)
        if not isinstance(loss, Tensor) or loss.ndim:  # one of shape (1,) may be one a sample
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(f"the loss must be a batch's mean, a tensor of shape (); got {shape}")
        return loss

    def _add(self, sums: list[Tensor], gradients: list[Tensor]) -> None:
        norms = norms_of(gradients)
        if not bool(torch.isfinite(norms).all()):
            sound = torch.isfinite(norms)
            for gradient in gradients:
                gradient[~sound] = 0.0
            norms = torch.where(sound, norms, 0.0)
        factors = (self._clip / norms).clamp_(max=1.0).tolist()  # 1 where a norm is 0
        for total, gradient in zip(sums, gradients, strict=True):
            for row, factor in zip(gradient, factors, strict=True):
                total.add_(row, alpha=factor)


def norms_of(gradients: list[Tensor]) -> Tensor:
    """Norm of each sample's gradient over all parameters, float64 of shape (samples,), never too small.

    Args:
        gradients: one tensor a parameter, the first dimension counts samples.
    """
    total = torch.zeros(len(gradients[0]), dtype=torch.float64, device=gradients[0].device)
    for gradient in gradients:
        flat = gradient.reshape(len(gradient), -1)
        if flat.dtype not in (torch.float32, torch.float64):
            flat = flat.float()
        whole = flat.shape[1] // _PART * _PART
        for part in (flat[:, :whole].reshape(len(flat), -1, _PART), flat[:, None, whole:]):
            if part.numel():
                total += torch.linalg.vector_norm(part, dim=2).double().square_().sum(dim=1)
    return total.sqrt_().mul_(_NORM_SLACK)


def check_model(model: nn.Module) -> None:
    """Raise ConfigError if a layer mixes samples or keeps statistics of them."""
    for name, module in model.named_modules():
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        kept = isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats
        if batch or kept:
            raise ConfigError(
                f"{name or 'the model'} is a {type(module).__name__}: its statistics are of several samples, "
                "without noise, so one sample's part has no bound; use GroupNorm, LayerNorm or RMSNorm"
            )
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            raise ConfigError(
                f"{name or 'the model'} has sparse gradients, which tell the words of a batch whatever the "
                "noise on their values; build it with sparse=False"
            )
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("the model has no trainable parameter; set requires_grad on some")


def _check_lengths(batch: Any, samples: int) -> None:
    for leaf in tree_flatten(batch)[0]:
        if not isinstance(leaf, Tensor) or leaf.ndim < 1 or len(leaf) != samples:
            found = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise ConfigError(
                f"every part of this step's batch must be a tensor of {samples} samples, got {found}: each "
                "sample that was drawn is used once, and no other"
            )


def _kernels_that_have_rules() -> AbstractContextManager[None]:
    """Attention by plain operations: the fused kernels have no derivative under vmap."""
    return sdpa_kernel(SDPBackend.MATH)
