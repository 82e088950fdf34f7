"""Next-byte prediction on the Python standard library's own sources: data that every machine has."""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from pydec.errors import ConfigError, SetupError
from pydec.train.task import Defaults, Task, tasks
from pydec.train.transformer import ByteTransformer

_SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_VALIDATION = 20  # one file in so many is kept for validation


@tasks.register("stdlib-lm")
def stdlib_lm(
    data: str | None = None,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    context: int = 64,
    windows: int = 512,
) -> Task:
    """Language model: a byte-level transformer on the sources of Python's standard library.

    Files are read in the order of their names; one in 20, chosen by a hash of its name, is kept for
    validation. A sample is ``context`` bytes and the byte that follows each. Labels, for a split
    by ``--alpha``, are the top-level packages.

    Args:
        data: directory to read *.py from instead; all below it, without tests.
        width: size of the residual stream, a multiple of 2 * heads.
        layers: number of blocks.
        heads: attention heads.
        context: bytes in a sample.
        windows: validation samples, spread evenly over the validation files; 0 takes all.

    Raises:
        SetupError: no sources found.
    """
    if context < 1 or windows < 0:
        raise ConfigError(f"context must be at least 1 and windows at least 0, got {context} and {windows}")
    root = Path(data or sysconfig.get_path("stdlib"))
    files = sources(root)
    kept = [path for path in files if not is_validation(path.relative_to(root))]
    held_out = [path for path in files if is_validation(path.relative_to(root))]
    train = ByteWindows(kept, root, context)
    validation = ByteWindows(held_out, root, context)
    if not len(train) or not len(validation):
        raise SetupError(
            f"too few Python sources in {root}: {len(files)} files; name another directory with --data DIR, "
            "or install the standard library's sources"
        )
    validation.thin(windows)
    return Task(
        model=ByteTransformer(width, layers, heads, context),
        train=train,
        loss=next_byte_loss,
        validation=validation,
        loss_is_nats_per_byte=True,
        labels=train.labels,
        defaults=Defaults(
            batch_size=8,
            lr=0.003,
            optimizer="adamw:weight_decay=0.1,beta2=0.95",
            schedule="cosine",
            steps=400,
        ),
        facts={
            "data": str(root),
            "files": len(kept),
            "bytes": train.bytes.numel(),
            "validation_files": len(held_out),
            "sha256": hashlib.sha256(train.bytes.numpy()).hexdigest()[:16],
        },
    )


class ByteWindows(Dataset[tuple[Tensor, Tensor]]):
    """Consecutive windows of the files laid end to end.

    Args:
        files: what to read, in order.
        root: labels are the first part of the names relative to it.
        context: bytes in a window; the target is shifted by one.
    """

    def __init__(self, files: list[Path], root: Path, context: int) -> None:
        contents = [_read(path) for path in files]
        self.bytes = torch.frombuffer(bytearray(b"".join(contents)) or bytearray(1), dtype=torch.uint8)
        self._span = torch.arange(context + 1)
        self._starts = torch.arange(0, max(0, self.bytes.numel() - context), context)
        packages = [
            path.relative_to(root).parts[0] if len(path.relative_to(root).parts) > 1 else "" for path in files
        ]
        number = {name: i for i, name in enumerate(sorted(set(packages)))}
        ends = torch.cumsum(torch.tensor([len(content) for content in contents], dtype=torch.int64), 0)
        owner = torch.searchsorted(ends, self._starts, right=True)
        self.labels = torch.tensor([number[name] for name in packages], dtype=torch.int64)[owner]

    def thin(self, windows: int) -> None:
        """Keep only so many windows, evenly spread; 0 keeps all."""
        if 0 < windows < len(self):
            keep = torch.arange(windows) * len(self) // windows
            self._starts, self.labels = self._starts[keep], self.labels[keep]

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        window = self.bytes[self._starts[index] + self._span].long()
        return window[:-1], window[1:]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Windows with these numbers, int64 of shape (batch, context), and their targets."""
        window = self.bytes[self._starts[indices].unsqueeze(1) + self._span].long()
        return window[:, :-1], window[:, 1:]


def next_byte_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy in nats per byte of logits (batch, context, 256)."""
    return cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))


def sources(root: Path) -> list[Path]:
    """Python files below ``root`` in the order of their names, without tests and installed packages.

    Raises:
        SetupError: there is no such directory.
    """
    if not root.is_dir():
        raise SetupError(f"no directory {root}; name one that holds Python sources with --data DIR")
    found = (
        path for path in root.rglob("*.py") if not _SKIPPED.intersection(path.relative_to(root).parts[:-1])
    )
    return sorted(
        (path for path in found if path.is_file()), key=lambda path: path.relative_to(root).as_posix()
    )


def is_validation(name: Path) -> bool:
    """Whether a file, by its name relative to the root, is kept for validation."""
    return int.from_bytes(hashlib.sha256(name.as_posix().encode()).digest()[:4], "little") % _VALIDATION == 0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read: {error.strerror}; make it readable or choose --data DIR"
        ) from error
