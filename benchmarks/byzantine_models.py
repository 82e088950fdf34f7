"""Models of the table of attacks, as vectors: the gradients of all ranks are one batched product.

Images are of 14 x 14 pixels, (n, batch, 196) for n ranks, and labels (n, batch).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional

SIDE, PIXELS, CLASSES = 14, 196, 10


class Model(ABC):
    """Parameters are a vector of ``size`` float32."""

    size: int

    @abstractmethod
    def start(self) -> np.ndarray:
        """Where training starts, on all ranks."""

    @abstractmethod
    def gradients(self, x: np.ndarray, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Of the mean cross entropy, for every rank: (n, size), a batch for each, to (n, size)."""

    @abstractmethod
    def logits(self, row: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Of one model: (size,), (batch, 196) to (batch, 10)."""

    def accuracy(self, row: np.ndarray, images: np.ndarray, labels: np.ndarray) -> float:
        """In percent; 0 where the model is not finite."""
        logits = self.logits(row, images)
        right = logits.argmax(axis=1) == labels
        return 100 * float(right.mean()) if np.isfinite(logits).all() else 0.0

    def loss(self, row: np.ndarray, images: np.ndarray, labels: np.ndarray) -> float:
        """The mean cross entropy of one model."""
        logits = self.logits(row, images)
        logits = logits - logits.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]))


class Linear(Model):
    """Softmax regression: convex."""

    size = (PIXELS + 1) * CLASSES

    def start(self) -> np.ndarray:
        """Zero."""
        return np.zeros(self.size, np.float32)

    def gradients(self, x: np.ndarray, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """See ``Model``."""
        logits = (
            np.matmul(images, x[:, : PIXELS * CLASSES].reshape(-1, PIXELS, CLASSES))
            + x[:, None, PIXELS * CLASSES :]
        )
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.exp(logits - logits.max(axis=2, keepdims=True))
            error /= error.sum(axis=2, keepdims=True)
        at = labels[..., None]
        np.put_along_axis(error, at, np.take_along_axis(error, at, 2) - 1, 2)
        error /= labels.shape[1]
        matrix = np.matmul(images.transpose(0, 2, 1), error).reshape(len(x), -1)
        return np.concatenate([matrix, error.sum(axis=1)], axis=1)

    def logits(self, row: np.ndarray, images: np.ndarray) -> np.ndarray:
        """See ``Model``."""
        return np.asarray(images @ row[: PIXELS * CLASSES].reshape(PIXELS, CLASSES) + row[PIXELS * CLASSES :])


class CNN(Model):
    """Two convolutions of 3 x 3 with 8 and 16 channels, each with ReLU and pooling, and a dense layer."""

    shapes = ((8, 1, 3, 3), (8,), (16, 8, 3, 3), (16,), (CLASSES, 144), (CLASSES,))
    size = sum(int(np.prod(shape)) for shape in shapes)
    _ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)]).tolist()

    def start(self) -> np.ndarray:
        """He, Zhang, Ren, Sun's initialisation, the same in every run."""
        draw = torch.Generator().manual_seed(0)
        parts = []
        for shape in self.shapes:
            fan = int(np.prod(shape[1:]))
            weights = torch.randn(shape, generator=draw) * (2.0 / fan) ** 0.5
            parts.append((weights if len(shape) > 1 else torch.zeros(shape)).reshape(-1))
        return torch.cat(parts).numpy()

    def gradients(self, x: np.ndarray, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """See ``Model``."""
        rows = torch.from_numpy(x.copy()).requires_grad_()
        logits = self._forward(rows, torch.from_numpy(np.ascontiguousarray(images)))
        of = torch.from_numpy(labels).reshape(-1)
        loss = functional.cross_entropy(logits.reshape(-1, CLASSES), of, reduction="sum") / labels.shape[1]
        (gradient,) = torch.autograd.grad(loss, rows)
        return np.asarray(gradient.numpy())

    def logits(self, row: np.ndarray, images: np.ndarray) -> np.ndarray:
        """See ``Model``."""
        with torch.no_grad():
            return np.asarray(self._forward(torch.from_numpy(row[None]), torch.from_numpy(images[None]))[0])

    def _forward(self, rows: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """(n, size), (n, batch, 196) to (n, batch, 10): one convolution with n groups for all ranks."""
        n, batch = images.shape[:2]
        cuts = pairwise(self._ends)
        first, low, second, high, dense, bias = (
            rows[:, start:stop].reshape(n, *shape)
            for (start, stop), shape in zip(cuts, self.shapes, strict=True)
        )
        x = images.transpose(0, 1).reshape(batch, n, SIDE, SIDE)
        for weights, shift in ((first, low), (second, high)):
            kernel = weights.reshape(-1, *weights.shape[2:])
            x = functional.conv2d(x, kernel, shift.reshape(-1), padding=1, groups=n)
            x = functional.max_pool2d(functional.relu(x), 2)
        flat = x.reshape(batch, n, -1).transpose(0, 1)
        return flat @ dense.transpose(1, 2) + bias[:, None]


MODELS: dict[str, Model] = {"linear": Linear(), "cnn": CNN()}
