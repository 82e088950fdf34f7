"""A rank's checkpoint on disk: tensors in one safetensors file, and a manifest that makes it count.

``checkpoints/step-N/rank-R.safetensors`` holds the model under its own names, so that
``model.load_state_dict(safetensors.torch.load_file(path), strict=False)`` is all that plain torch needs;
what else the rank holds has names that begin with ``pydec/``. ``rank-R.json`` beside it is written last: a
checkpoint without it does not exist. It holds everything that is no tensor, the Merkle root of the tensors'
file and a digest of itself. Both may be sealed, see ``checkpoint_vault``; then plain torch reads what
``pydec checkpoint open`` makes of them.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pydec import __version__
from pydec.crypto.hashing import bytes_root, file_root, merkle_root, sha256
from pydec.crypto.vault import DatasetKey
from pydec.errors import ConfigError, SetupError
from pydec.trace import traced
from pydec.train.checkpoint_layout import Layout, tensors_in
from pydec.train.checkpoint_vault import (
    Vault,
    open_file,
    open_state,
    seal_into,
    seal_state,
    sealed_bytes,
)
from pydec.train.rundir import RunDir

if TYPE_CHECKING:
    from pydec.train.checkpoint_chunks import Chunks

FORMAT = 1
OWN = "pydec/"
"""How names begin that are not the model's."""
_STEP = re.compile(r"step-(\d+)")
_MANIFEST = re.compile(r"rank-(\d+)\.json")


class DamagedPart(SetupError):
    """What arrived is not what was asked for; its sender's disk or the way is to blame."""


class Store:
    """The checkpoints below a run directory.

    Args:
        directory: of the run.
        vault: seals what is written, and opens what is sealed; None writes in the clear.

    Attributes:
        chunks: a store that tensors may lie in, see ``checkpoint_stored``; None: all are files here.
    """

    chunks: Chunks | None = None

    def __init__(self, directory: RunDir, vault: Vault | None = None) -> None:
        self.directory, self.vault = directory, vault
        self._base = directory.path / "checkpoints"

    def steps(self) -> list[int]:
        """Steps of which any rank's manifest is here, the newest first."""
        return sorted((step for step in self.folders() if self.ranks(step)), reverse=True)

    def ranks(self, step: int) -> list[int]:
        """Ranks whose manifest of a step is here."""
        found = [_MANIFEST.fullmatch(path.name) for path in _listed(self._folder(step))]
        return sorted(int(match[1]) for match in found if match)

    @property
    def home(self) -> Path:
        """A folder on the disk that tensors are written to."""
        return self.directory.path

    def stored(self, step: int, rank: int) -> bytes:
        """The root of a part that lies in a store, as its manifest says; empty: it is a file, or not here."""
        try:
            return bytes.fromhex(json.loads(self.path(step, rank, "json").read_bytes())["stored"])
        except (OSError, ValueError, LookupError, TypeError):
            return b""

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

    @traced("write checkpoint")
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
        if self.vault is not None:
            return self._write_sealed(self.vault, step, rank, [content.data], len(content), body)
        root = bytes_root(content.data)
        self._write(step, rank, lambda file: file.write(content.data))
        return self._seal(step, rank, root, len(content), body)

    @traced("write checkpoint")
    def write_tensors(
        self, step: int, rank: int, tensors: Mapping[str, Tensor], body: Mapping[str, Any]
    ) -> bytes:
        """The same from the tensors themselves, one by one, which takes no memory to speak of.

        Raises:
            SetupError: the disk is full or gone; what was there is still there.
        """
        layout = Layout(tensors)
        if self.vault is not None:
            pieces = (piece.data for piece in layout.pieces(tensors))
            return self._write_sealed(self.vault, step, rank, pieces, layout.nbytes, body)

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
        if "stored" in manifest:
            raise ConfigError(f"{path} lies in a store that is not here; name it with --store DIR")
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
            raise SetupError(
                f"{path} cannot be replaced: {error.strerror}; free space, or mend the disk"
            ) from error

    def opened(self, step: int, rank: int, manifest: dict[str, Any]) -> dict[str, Any]:
        """A rank's manifest with its state in the clear.

        Raises:
            ConfigError: it is sealed, and not for this rank.
            SetupError: it was tampered with.
        """
        key = self._key(step, rank, manifest)
        if key is None:
            return manifest
        return {**manifest, "state": open_state(self.path(step, rank, "json"), manifest.get("state"), key)}

    def clear(self, step: int, rank: int) -> Iterator[memoryview]:
        """The bytes of a sealed part's file in the clear, piece by piece, each valid until the next.

        Raises:
            ConfigError: it is not sealed, or not for this rank.
            SetupError: it cannot be read, or was tampered with.
        """
        manifest, path = self.manifest(step, rank), self.path(step, rank)
        key = self._key(step, rank, manifest)
        if key is None:
            raise ConfigError(f"{path} is not sealed; safetensors reads it as it is")
        return open_file(path, key, manifest["sealed"]["bytes"])

    def tensors(self, step: int, rank: int) -> dict[str, Tensor]:
        """All tensors of a verified checkpoint.

        Raises:
            ConfigError: it is sealed, and not for this rank.
            SetupError: the file is not safetensors, or was tampered with.
        """
        manifest, path = self.manifest(step, rank), self.path(step, rank)
        key = self._key(step, rank, manifest)
        if key is not None:
            buffer = torch.empty(manifest["sealed"]["bytes"], dtype=torch.uint8)
            for _ in open_file(path, key, len(buffer), memoryview(buffer.numpy())):
                pass
            return tensors_in(buffer)
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

    def set_aside(self, step: int) -> None:
        """Move what is newer than a step out of the way; of ranks on one disk one does it."""
        for newer in self.folders():
            to = self._base / f"aside-{newer}-{time.time_ns()}"
            if newer > step:
                with contextlib.suppress(FileNotFoundError):
                    self._folder(newer).rename(to)

    def _folder(self, step: int) -> Path:
        return self._base / f"step-{step}"

    def _key(self, step: int, rank: int, manifest: Mapping[str, Any]) -> DatasetKey | None:
        """The key of a part; None if it is not sealed."""
        if "sealed" not in manifest:
            return None
        path = self.path(step, rank)
        if self.vault is None:
            raise ConfigError(
                f"{path} is sealed; go on with --seal-checkpoints and the --ledger or --key of its run, or "
                "open it with pydec checkpoint open"
            )
        return self.vault.key(path, manifest["sealed"], step, rank)

    def _write_sealed(
        self, vault: Vault, step: int, rank: int, pieces: Iterable[Any], size: int, body: Mapping[str, Any]
    ) -> bytes:
        """Seal a file on its way to the disk, and then its manifest."""
        key, said = vault.lock(step, rank, size)
        root = b""

        def fill(file: BinaryIO) -> None:
            nonlocal root
            root = merkle_root(seal_into(file, pieces, key))

        self._write(step, rank, fill)
        state = {"state": seal_state(body["state"], key)} if "state" in body else {}
        return self._seal(step, rank, root, sealed_bytes(size), {**body, **state, "sealed": said})

    def close(self) -> None:
        """Give back what is held, and what removed parts still take; idempotent."""

    def _write(self, step: int, rank: int, fill: Any) -> None:
        self._make_folder(step, rank)
        self.directory.write_with(f"checkpoints/step-{step}/rank-{rank}.safetensors", fill)

    def _make_folder(self, step: int, rank: int) -> None:
        folder = self._folder(step)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path(step, rank, "json").unlink(missing_ok=True)  # of an earlier try, with other bytes
        except OSError as error:
            raise SetupError(
                f"{folder} cannot be made: {error.strerror}; choose another --run-dir"
            ) from error

    def _seal(self, step: int, rank: int, root: bytes, size: int, body: Mapping[str, Any]) -> bytes:
        return self._write_manifest(step, rank, self._said(step, rank, root, size, body))

    def _said(self, step: int, rank: int, root: bytes, size: int, body: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "pydec_checkpoint": FORMAT,
            "pydec": __version__,
            "step": step,
            "rank": rank,
            "tensors": {"file": f"rank-{rank}.safetensors", "bytes": size, "blake3": root.hex()},
            **body,
        }

    def _write_manifest(self, step: int, rank: int, manifest: Mapping[str, Any]) -> bytes:
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
