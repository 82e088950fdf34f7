"""How a checkpoint's tensors lie in one safetensors file, and how they come out of one in memory.

The file is laid out here and read by the ``safetensors`` package: its writer copies every tensor, this one
sends a buffer that is filled in place. Format: huggingface.co/docs/safetensors, "Format": length of the
header, the header as JSON, the tensors without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pydec.errors import ConfigError

_TYPES = {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}
_DTYPES = {word: dtype for dtype, word in _TYPES.items()}
_ALIGNMENT = 64

Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True)
class Place:
    """Where one tensor lies, in bytes after the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class Layout:
    """The places of named tensors in one file; wide types come first, so that all are aligned.

    Args:
        tensors: by name; only their types and shapes are looked at.

    Raises:
        ConfigError: a type that the format has no word for.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.shapes = shapes(tensors)
        self.places: list[Place] = []
        at = 0
        for name, (dtype, shape) in sorted(
            self.shapes.items(), key=lambda item: (-item[1][0].itemsize, item[0])
        ):
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            self.places.append(Place(name, dtype, shape, at, at + size))
            at += size
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        for place in self.places:
            header[place.name] = {
                "dtype": _TYPES[place.dtype],
                "shape": list(place.shape),
                "data_offsets": [place.start, place.stop],
            }
        words = json.dumps(header, separators=(",", ":")).encode()
        words += b" " * (-(8 + len(words)) % _ALIGNMENT)
        self.header = len(words).to_bytes(8, "little") + words
        self.nbytes = len(self.header) + at

    def buffer(self) -> Tensor:
        """Host memory for the whole file, uint8 of shape (nbytes,), with the header in it."""
        room = torch.empty(self.nbytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        room[: len(self.header)] = torch.from_numpy(np.frombuffer(self.header, np.uint8).copy())
        return room

    def fill(self, buffer: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors to their places; allocates nothing of their size."""
        body = buffer[len(self.header) :]
        for place in self.places:
            home = body[place.start : place.stop].view(place.dtype).view(place.shape)
            home.copy_(tensors[place.name].detach())

    def pieces(self, tensors: Mapping[str, Tensor]) -> Iterator[NDArray[np.uint8]]:
        """The bytes of the file, header first, without a buffer: for a file that need not be quick."""
        yield np.frombuffer(self.header, np.uint8)
        for place in self.places:
            flat = tensors[place.name].detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy()


def shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """Type and shape by name.

    Raises:
        ConfigError: a type that the format has no word for.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES or tensor.layout is not torch.strided:
            raise ConfigError(
                f"{name} is a {tensor.layout} tensor of {tensor.dtype}, which a checkpoint cannot hold; use "
                "a dense one of a plain type, or --keep-last 0 for a run without checkpoints"
            )
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def difference(saved: Shapes, mine: Shapes) -> str:
    """The first tensor, by name, in which a checkpoint and a model differ, in words, or ""."""
    for name in sorted(saved.keys() | mine.keys()):
        if saved.get(name) != mine.get(name):
            return f"{name} is {_words(saved.get(name))} in the checkpoint and {_words(mine.get(name))} here"
    return ""


def tensors_in(buffer: Tensor) -> dict[str, Tensor]:
    """The tensors of a whole file that ``Layout`` made: views of it, or copies of those that are not aligned.

    Args:
        buffer: uint8 of shape (n,), as torch allocates it.
    """
    length = int.from_bytes(bytes(buffer[:8].tolist()), "little")
    header = json.loads(memoryview(buffer[8 : 8 + length].numpy()).tobytes())
    body = buffer[8 + length :]
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            piece = body[start:stop]
            if piece.data_ptr() % _ALIGNMENT:  # torch's generators crash on a state that is not aligned
                piece = piece.clone()
            found[name] = piece.view(_DTYPES[entry["dtype"]]).view(entry["shape"])
    return found


def _words(entry: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return "missing" if entry is None else f"{str(entry[0]).removeprefix('torch.')} of shape {entry[1]}"
