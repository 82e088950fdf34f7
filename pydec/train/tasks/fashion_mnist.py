"""Ten kinds of clothing, 28 x 28 grey pixels: 60,000 training and 10,000 test images.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine
learning algorithms", arXiv:1708.07747. File format: LeCun's IDX, gzip-compressed or not.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from pydec.errors import ConfigError, SetupError
from pydec.train.task import Defaults, StoredData, Task, tasks

DIRECTORY = "/usr/share/datasets/fashion-mnist"  # where Debian's package dataset-fashion-mnist puts it
_MEAN, _DEVIATION = 0.2860, 0.3530  # of the training pixels


@tasks.register("fashion-mnist")
def fashion_mnist(
    data: str | None = None,
    samples: int = 0,
    dense: int = 128,
    channels: int = 32,
    stored: StoredData | None = None,
) -> Task:
    """Image classification: 10 classes, a CNN of 421,642 parameters, accuracy on 10,000 images.

    Args:
        data: directory with the four IDX files, as ``*-ubyte.gz`` or unpacked.
        samples: use only the first so many training images; 0 uses all 60,000.
        dense: width of the dense layer, at least 1; 3,172 makes a model of 10 M parameters.
        channels: of the first convolution, at least 1; the second has twice as many.
        stored: reads the four files from the store in place of a directory.

    Raises:
        SetupError: a file is missing or damaged.
    """
    for name, value in (("dense", dense), ("channels", channels)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    return _task(SmallCNN(dense, channels), data, samples, stored, epochs=5)


@tasks.register("fashion-mnist-linear")
def fashion_mnist_linear(data: str | None = None, samples: int = 0, stored: StoredData | None = None) -> Task:
    """The same images for a linear model of 7,850 parameters: softmax regression, convex, about 84 % right.

    Args:
        data, samples, stored: as of ``fashion-mnist``.

    Raises:
        SetupError: a file is missing or damaged.
    """
    return _task(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), data, samples, stored, epochs=2)


def _task(
    model: nn.Module, data: str | None, samples: int, stored: StoredData | None, *, epochs: float
) -> Task:
    root = Path(data or DIRECTORY)
    images, labels = _part(root, "train", stored)
    if samples < 0 or samples > len(images):
        raise ConfigError(f"samples must be in [0, {len(images)}], got {samples}")
    if samples:
        images, labels = images[:samples], labels[:samples]
    test_images, test_labels = _part(root, "t10k", stored)
    return Task(
        model=model,
        train=TensorDataset(images, labels),
        loss=cross_entropy,
        validation=TensorDataset(test_images, test_labels),
        metric=accuracy,
        labels=labels,
        defaults=Defaults(
            batch_size=32,
            lr=0.02,
            optimizer="sgd:momentum=0.9,weight_decay=0.0005",
            schedule="cosine",
            epochs=epochs,
        ),
        facts={"data": str(root), "train_images": len(images), "test_images": len(test_images)},
    )


class SmallCNN(nn.Module):
    """Two 3 x 3 convolutions and two dense layers: float32 (batch, 1, 28, 28) to logits (batch, 10).

    Args:
        dense: width of the first dense layer.
        channels: of the first convolution; the second has twice as many.
    """

    def __init__(self, dense: int = 128, channels: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.dense1 = nn.Linear(2 * channels * 7 * 7, dense)
        self.dense2 = nn.Linear(dense, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of images."""
        # Channels last, and the largest before the rectifier, which commute: 0.6 of the time on CPUs. With
        # one channel that is a view, which torch.func can take apart, unlike ``to(memory_format=...)``.
        x = images.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2)
        x = torch.relu(torch.max_pool2d(self.conv1(x), 2))
        x = torch.relu(torch.max_pool2d(self.conv2(x), 2))
        logits: Tensor = self.dense2(torch.relu(self.dense1(x.flatten(1))))
        return logits


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Fraction of a batch whose largest logit is the target."""
    return (logits.argmax(1) == target).float().mean()


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Array of unsigned bytes in an IDX file, gzip-compressed if the name ends in ``.gz``.

    Raises:
        SetupError: not such a file, or damaged.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise SetupError(f"{path} cannot be read: {error}; copy or install it again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise SetupError(
            f"{path} is no IDX file of unsigned bytes; its first bytes are {raw[:4].hex()}; copy it again"
        )
    shape = np.frombuffer(raw, ">u4", raw[3], 4).tolist()
    start = 4 + 4 * raw[3]
    if len(raw) - start != math.prod(shape):
        raise SetupError(
            f"{path} holds {len(raw) - start} bytes, its header says {math.prod(shape)}; copy it again"
        )
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _part(root: Path, name: str, stored: StoredData | None) -> tuple[Tensor, Tensor]:
    """Normalised images (n, 1, 28, 28) float32 and labels (n,) int64."""
    if stored is not None:
        part = stored(part=name, fields=["image", "label"])
        images, labels = (tensor.numpy() for tensor in part.batch(range(len(part))))
    else:
        images = read_idx(_find(root, f"{name}-images-idx3-ubyte"))
        labels = read_idx(_find(root, f"{name}-labels-idx1-ubyte"))
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or labels.max(initial=0) > 9:
        raise SetupError(
            f"{root}: {name} images {images.shape} and labels {labels.shape} are not Fashion-MNIST; "
            "name its folder with --data"
        )
    x = torch.from_numpy(images.astype(np.float32)).div_(255.0).sub_(_MEAN).div_(_DEVIATION)
    return x.unsqueeze(1), torch.from_numpy(labels.astype(np.int64))


def _find(root: Path, name: str) -> Path:
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return path
    raise SetupError(
        f"Fashion-MNIST is not in {root}: {name}[.gz] is missing. Debian and Ubuntu: "
        "apt-get install dataset-fashion-mnist. Elsewhere: download the four files from "
        "github.com/zalandoresearch/fashion-mnist (data/fashion) and name their directory with --data DIR"
    )
