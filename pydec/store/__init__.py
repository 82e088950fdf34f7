"""Data without a centre: content-addressed, replicated, verified on every read, repaired from peers.

``pydec.store.Dataset`` and its ``Sampler`` and ``Stream`` are what training reads through; they import
torch, and nothing else here does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydec.store.dataset import Dataset, Sampler, Stream

__all__ = ["Dataset", "Sampler", "Stream"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pydec.store import dataset

    return getattr(dataset, name)
