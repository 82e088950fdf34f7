"""Combinations that cannot work, refused with the reason and with what to use instead."""

from __future__ import annotations

from pydec.compress.base import Compressor
from pydec.errors import ConfigError
from pydec.gossip.base import ORDERS
from pydec.topology.base import Topology

BIG = 1 << 20
"""Vector length, in elements, at which combinations are judged."""
_LEAST_GAP = 1e-9  # a ring of 60,000 ranks has more
_LEAST_DELTA = 0.5  # below this a packet is not the model any more, only its largest entries


def check_order(name: str, order: str) -> None:
    """Raise ConfigError unless ``order`` is one of ORDERS."""
    if order not in ORDERS:
        raise ConfigError(f"{name}.order must be one of {', '.join(ORDERS)}, got {order!r}")


def check_momentum(name: str, momentum: float) -> None:
    """Raise ConfigError unless the momentum is in [0, 1)."""
    if not 0.0 <= momentum < 1.0:
        raise ConfigError(f"{name}.momentum must be in [0, 1), got {momentum}")


def require_whole_model(name: str, compressor: Compressor) -> None:
    """Refuse compressors that drop most of the vector: consensus would never be reached."""
    if compressor.delta(BIG) < _LEAST_DELTA:
        raise ConfigError(
            f"{name} sends the model itself, and {type(compressor).__name__} keeps too little of it "
            f"(contraction {compressor.delta(BIG):.3g}, at least {_LEAST_DELTA} is needed); "
            "use algorithm='choco', which sends compressed differences, or a quantiser such as int8"
        )


def require_lossless(name: str, compressor: Compressor, why: str) -> None:
    """Refuse every compressor that is not lossless; ``why`` follows "because"."""
    if not compressor.lossless:
        raise ConfigError(
            f"{name} cannot use compressor {type(compressor).__name__}, because {why}; "
            "use compressor='none', or algorithm='dpsgd' or 'choco' with this compressor"
        )


def require_doubly_stochastic(name: str, topology: Topology) -> None:
    """Refuse weights whose columns do not sum to 1: the mean over the ranks would drift."""
    if not topology.is_doubly_stochastic:
        raise ConfigError(
            f"{name} needs doubly stochastic weights, and rows and columns of {topology.name} do not both "
            "sum to 1, so the mean model would drift; use algorithm='sgp', which carries push-sum weights "
            "along, or another topology, for example base-k"
        )


def require_static_connected(name: str, topology: Topology) -> None:
    """Refuse graphs that change from round to round, or that fall into parts."""
    if not topology.is_static:
        raise ConfigError(
            f"{name} keeps its neighbours for the whole run, and those of {topology.name} change every "
            "round; use ring, torus, exponential, hypercube or random-regular, or algorithm='dpsgd' with it"
        )
    if topology.spectral_gap() < _LEAST_GAP:
        raise ConfigError(
            f"{topology.name} of {topology.size} ranks does not connect them all: parts of it would "
            f"never hear of one another; {name} needs a connected graph, such as ring"
        )


def require_symmetric(name: str, topology: Topology) -> None:
    """Refuse directed graphs."""
    require_doubly_stochastic(name, topology)
    if not topology.is_symmetric:
        raise ConfigError(
            f"{name} needs a symmetric graph, and {topology.name} is directed; use topology ring or base-k, "
            "or algorithm='gradient-tracking', which removes the ranks' differences on directed graphs, too"
        )
