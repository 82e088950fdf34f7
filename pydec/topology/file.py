"""A graph or mixing matrices from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.graph import from_graph
from pydec.topology.matrix import from_matrix

_READERS = {".gml": "read_gml", ".graphml": "read_graphml", ".adjlist": "read_adjlist"}


@topologies.register("file")
def file(size: int, path: str, kind: Literal["auto", "graph", "weights"] = "auto") -> Topology:
    """Your own graph or matrices: .npy, .gml, .graphml, .adjlist or .edgelist, checked before use.

    Graphs get Metropolis-Hastings weights, directed ones column-stochastic weights for push-sum. An .npy
    array of shape (n, n) or (T, n, n) holds mixing matrices if its numbers are floating-point, and an
    adjacency matrix if they are integers or booleans. An .edgelist has two ranks a line. Pickled
    arrays are refused. Commas cannot be part of the path.

    Args:
        size: number of ranks; must be that of the file.
        path: the file, the same on every rank; the start-up check compares what was read.
        kind: what an .npy file holds; "auto" tells by the type of its numbers.
    """
    check_size(size)
    source = Path(path).expanduser()
    name = f"file:path={path}"
    try:
        read = _read_array(source, kind, name) if source.suffix == ".npy" else _read_graph(source, name)
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path} (seen from {Path.cwd()})") from None
    except Exception as error:  # whatever a parser thinks of a broken file
        raise ConfigError(
            f"{path} cannot be read as a graph: {str(error) or type(error).__name__}"
        ) from error
    if read.size != size:
        raise ConfigError(
            f"{path} is for {read.size} ranks, but there are {size}; start as many, or give another graph"
        )
    return read


def _read_array(source: Path, kind: str, name: str) -> Topology:
    array: Any = np.load(source, allow_pickle=False)
    if kind == "weights" or (kind == "auto" and np.issubdtype(array.dtype, np.floating)):
        return from_matrix(array, name)
    return from_graph(array, name)


def _read_graph(source: Path, name: str) -> Topology:
    known = ", ".join([".npy", ".edgelist", *_READERS])
    if source.suffix != ".edgelist" and source.suffix not in _READERS:
        raise ConfigError(f"a graph file ends in one of {known}, got {source.name}")
    try:
        import networkx
    except ImportError:
        raise ConfigError(f"reading {source.name} needs networkx: pip install networkx") from None
    if source.suffix == ".edgelist":
        return from_graph(networkx.read_edgelist(source, nodetype=int, data=False), name)
    graph = getattr(networkx, _READERS[source.suffix])(source)
    if all(str(node).isdecimal() for node in graph.nodes):  # these formats keep names, and 10 < 2 as text
        graph = networkx.relabel_nodes(graph, {node: int(node) for node in graph.nodes})
    return from_graph(graph, name)
