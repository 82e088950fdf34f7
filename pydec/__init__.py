"""pydec trains PyTorch models without a centre: gossip over MPI, compressed, and agreed by a ledger.

Importing this package is light: no MPI, no NumPy, no compiled code; each part loads at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydec import aggregate, compress, errors, gossip, kernels, store, topology
    from pydec.optim import DecentralizedOptimizer
    from pydec.optim.ddp_gossip import ddp_gossip
    from pydec.optim.ddp_hook import ddp_hook
    from pydec.peer import Peer, init

__version__ = "0.1.0"
__all__ = [
    "DecentralizedOptimizer",
    "Peer",
    "__version__",
    "aggregate",
    "compress",
    "ddp_gossip",
    "ddp_hook",
    "errors",
    "gossip",
    "init",
    "kernels",
    "store",
    "topology",
]

_MODULES = {"aggregate", "compress", "errors", "gossip", "kernels", "store", "topology"}
_NAMES = {
    "DecentralizedOptimizer": "pydec.optim",
    "Peer": "pydec.peer",
    "ddp_gossip": "pydec.optim.ddp_gossip",
    "ddp_hook": "pydec.optim.ddp_hook",
    "init": "pydec.peer",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"pydec.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'pydec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
