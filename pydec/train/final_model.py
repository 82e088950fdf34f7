"""The averaged model on disk, and the digest that stands for it on the ledger."""

from __future__ import annotations

import io

import torch
from torch import nn

from pydec.crypto.hashing import bytes_root, file_root
from pydec.train.checkpoint_vault import SEALED, Vault, seal_model
from pydec.train.rundir import RunDir


def keep(directory: RunDir, name: str, model: nn.Module, rank: int, vault: Vault | None = None) -> bytes:
    """Write a model's state on rank 0; the Merkle root of the bytes, which every rank makes of its own copy.

    Args:
        directory: of the run.
        name: of the file, in ``checkpoints``.
        model: the same on all ranks.
        rank: of this one.
        vault: seals the file, whose name then ends in ``SEALED``; the root is that of the bytes in the clear.

    Raises:
        SetupError: rank 0 cannot write it.
    """
    if rank:
        return model_root(model)
    if vault is not None:
        content = _saved(model).getbuffer()
        directory.write_with(f"checkpoints/{name}{SEALED}", lambda file: seal_model(file, content, vault))
        return bytes_root(content)
    directory.write_with(f"checkpoints/{name}", lambda file: torch.save(model.state_dict(), file))
    return file_root(directory.path / "checkpoints" / name)


def model_root(model: nn.Module) -> bytes:
    """Merkle root of the bytes that ``torch.save`` makes of the model's state, as ``keep`` writes them."""
    return bytes_root(_saved(model).getbuffer())


def _saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file
