"""A rank's checkpoint on disk: tensors in one safetensors file, and a manifest that makes it count.

``checkpoints/step-N/rank-R.safetensors`` holds the model under its own names, so that
``model.load_state_dict(safetensors.torch.load_file(path), strict=False)`` is all that plain torch needs;
what else the rank holds has names that begin with ``pydec/``. ``rank-R.json`` beside it is written last: a
checkpoint without it does not exist. It holds everything that is no tensor, the Merkle root of the tensors'
file and a digest of itself.

The file is laid out here and read by the ``safetensors`` package: its writer copies every tensor, this one
sends a buffer that is filled in place. Format: huggingface.co/docs/safetensors, "Format": length of the
header, the header as JSON, the tensors without gaps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pydec import __version__
from pydec.crypto.hashing import bytes_root, file_root, sha256
from pydec.errors import ConfigError, SetupError
from pydec.train.rundir import RunDir

FORMAT = 1
OWN = "pydec/"
"""How names begin that are not the model's."""
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
_ALIGNMENT = 64
_STEP = re.compile(r"step-(\d+)")
_MANIFEST = re.compile(r"rank-(\d+)\.json")

Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


class DamagedPart(SetupError):
    """What arrived is not what was asked for; its sender's disk or the way is to blame."""


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


class Store:
    """The checkpoints below a run directory.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: RunDir) -> None:
        self.directory = directory
        self._base = directory.path / "checkpoints"

    def steps(self) -> list[int]:
        """Steps of which any rank's manifest is here, the newest first."""
        return sorted((step for step in self.folders() if self.ranks(step)), reverse=True)

    def ranks(self, step: int) -> list[int]:
        """Ranks whose manifest of a step is here."""
        found = [_MANIFEST.fullmatch(path.name) for path in _listed(self._folder(step))]
        return sorted(int(match[1]) for match in found if match)

    def members(self, step: int) -> list[int]:
        """The ranks that a step's checkpoint is of, as the first whole manifest here says; or none."""
        for rank in self.ranks(step):
            try:
                return [int(member) for member in self.manifest(step, rank)["members"]]
            except SetupError:
                continue
        return []

    def path(self, step: int, rank: int, suffix: str = "safetensors") -> Path:
        """A rank's tensors, or its manifest with suffix "json"."""
        return self._folder(step) / f"rank-{rank}.{suffix}"

    def write_buffer(self, step: int, rank: int, buffer: Tensor, body: Mapping[str, Any]) -> bytes:
        """Write a filled buffer and then its manifest; the manifest's digest.

        Args:
            step, rank: whose it is.
            buffer: of ``Layout.buffer``.
            body: entries of the manifest.

        Raises:
            SetupError: the disk is full or gone; what was there is still there.
        """
        content = cast("NDArray[np.uint8]", buffer.numpy())
        root = bytes_root(content.data)
        self._write(step, rank, lambda file: file.write(content.data))
        return self._seal(step, rank, root, len(content), body)

    def write_tensors(
        self, step: int, rank: int, tensors: Mapping[str, Tensor], body: Mapping[str, Any]
    ) -> bytes:
        """The same from the tensors themselves, one by one, which takes no memory to speak of.

        Raises:
            SetupError: the disk is full or gone; what was there is still there.
        """
        layout = Layout(tensors)

        def fill(file: BinaryIO) -> None:
            file.writelines(piece.data for piece in layout.pieces(tensors))

        self._write(step, rank, fill)
        return self._seal(step, rank, file_root(self.path(step, rank)), layout.nbytes, body)

    def manifest(self, step: int, rank: int) -> dict[str, Any]:
        """A rank's manifest, whole and of this rank and step.

        Raises:
            SetupError: it is missing or damaged; an older checkpoint may do.
            ConfigError: it was written by a newer pydec.
        """
        path = self.path(step, rank, "json")
        try:
            found = json.loads(path.read_bytes())
            version, digest = found["pydec_checkpoint"], found.pop("digest")
        except FileNotFoundError:
            raise SetupError(f"{path} is missing: the checkpoint was never finished") from None
        except OSError as error:
            raise SetupError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, LookupError, TypeError, AttributeError):
            raise SetupError(f"{path} is no manifest of a checkpoint: it is damaged") from None
        if isinstance(version, int) and version > FORMAT:
            raise ConfigError(
                f"{path} has format {version}, written by pydec {found.get('pydec')}, and this is pydec "
                f"{__version__}, which reads up to format {FORMAT}; resume with that version"
            )
        if digest != digest_of(found):
            raise SetupError(
                f"{path} is damaged: its digest is {digest_of(found)[:16]}, it says {str(digest)[:16]}"
            )
        if (found["step"], found["rank"]) != (step, rank):
            raise SetupError(
                f"{path} is of step {found['step']}, rank {found['rank']}: it is in the wrong place"
            )
        return cast("dict[str, Any]", found)

    def verify(self, step: int, rank: int) -> dict[str, Any]:
        """A rank's manifest, once every byte of the tensors has been found to be what was written.

        Raises:
            SetupError: something is missing or damaged.
            ConfigError: it was written by a newer pydec.
        """
        manifest = self.manifest(step, rank)
        path, said = self.path(step, rank), manifest["tensors"]
        if not path.exists():
            raise SetupError(f"{path} is missing, and its manifest is there")
        if path.stat().st_size != said["bytes"]:
            raise SetupError(f"{path} is damaged: it has {path.stat().st_size} bytes of {said['bytes']}")
        root = file_root(path).hex()
        if root != said["blake3"]:
            raise SetupError(f"{path} is damaged: its BLAKE3 root is {root[:16]}, not {said['blake3'][:16]}")
        return manifest

    def adopt(self, step: int, rank: int, tensors: Path, manifest: bytes, digest: str = "") -> None:
        """Put a copy from elsewhere in place, if every byte is what the manifest says.

        Args:
            step, rank: whose it is.
            tensors: file in the folder of the step, on disk; it is renamed.
            manifest: the other file's content.
            digest: that it must have, in hexadecimal; "" takes any.

        Raises:
            DamagedPart: it is damaged; what was there is still there.
            SetupError: it cannot be written; what was there is still there.
        """
        try:
            said = json.loads(manifest)
            claimed = said.pop("digest")
            whole = claimed == digest_of(said) and (said["step"], said["rank"]) == (step, rank)
            root = said["tensors"]["blake3"]
        except (ValueError, LookupError, TypeError, AttributeError):
            whole, root = False, ""
        if not whole or file_root(tensors).hex() != root:
            raise DamagedPart(f"what arrived of rank {rank}'s checkpoint of step {step} is damaged")
        if digest not in ("", claimed):
            raise DamagedPart(
                f"what arrived of rank {rank}'s checkpoint of step {step} has digest {claimed[:16]}, and "
                f"{digest[:16]} was asked for"
            )
        path = self.path(step, rank, "json")
        beside = tensors.with_suffix(".json.tmp")
        self.directory.write_with(f"checkpoints/step-{step}/{beside.name}", lambda file: file.write(manifest))
        try:
            tensors.replace(self.path(step, rank))
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise SetupError(f"{path} cannot be replaced: {error.strerror}") from error

    def tensors(self, step: int, rank: int) -> dict[str, Tensor]:
        """All tensors of a verified checkpoint.

        Raises:
            SetupError: the file is not safetensors.
        """
        path = self.path(step, rank)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise SetupError(f"{path} cannot be read: {error}") from None

    def remove(self, step: int, rank: int) -> None:
        """Remove a rank's part of a checkpoint, its manifest first; and the folder, if it was the last."""
        self.path(step, rank, "json").unlink(missing_ok=True)
        self.path(step, rank).unlink(missing_ok=True)
        self.sweep(step, rank)
        try:
            self._folder(step).rmdir()
        except OSError:
            pass  # other ranks' files are in it, or another rank was quicker

    def sweep(self, step: int, rank: int) -> None:
        """Remove what a process that was killed left half-written."""
        for path in _listed(self._folder(step)):
            if path.name.startswith(f".rank-{rank}.") and path.suffix == ".tmp":
                path.unlink(missing_ok=True)

    def sweep_copies(self, step: int, receiver: int) -> None:
        """Remove what a receiver of other ranks' files that was killed left half-written."""
        for path in _listed(self._folder(step)):
            if f"-{receiver}.tmp" in path.name or f"-{receiver}.json.tmp" in path.name:
                path.unlink(missing_ok=True)

    def folders(self) -> list[int]:
        """Steps that have a folder, finished or not."""
        found = [_STEP.fullmatch(path.name) for path in _listed(self._base) if path.is_dir()]
        return [int(match[1]) for match in found if match]

    def _folder(self, step: int) -> Path:
        return self._base / f"step-{step}"

    def _write(self, step: int, rank: int, fill: Any) -> None:
        folder = self._folder(step)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path(step, rank, "json").unlink(missing_ok=True)  # of an earlier try, with other bytes
        except OSError as error:
            raise SetupError(f"{folder} cannot be made: {error.strerror}") from error
        self.directory.write_with(f"checkpoints/step-{step}/rank-{rank}.safetensors", fill)

    def _seal(self, step: int, rank: int, root: bytes, size: int, body: Mapping[str, Any]) -> bytes:
        manifest = {
            "pydec_checkpoint": FORMAT,
            "pydec": __version__,
            "step": step,
            "rank": rank,
            "tensors": {"file": f"rank-{rank}.safetensors", "bytes": size, "blake3": root.hex()},
            **body,
        }
        digest = digest_of(manifest)
        self.directory.write(f"checkpoints/step-{step}/rank-{rank}.json", {**manifest, "digest": digest})
        return bytes.fromhex(digest)


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, which another rank may have removed already."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def digest_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its own digest, in hexadecimal."""
    return sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hex()


def _words(entry: tuple[torch.dtype, tuple[int, ...]] | None) -> str:
    return "missing" if entry is None else f"{str(entry[0]).removeprefix('torch.')} of shape {entry[1]}"
