"""A peer without signals or launcher, for programs of the local cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pydec.comm.agree import agree
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.comm.view import View


@dataclass
class LocalPeer:
    """What DecentralizedOptimizer needs of a peer."""

    transport: Transport

    def __post_init__(self) -> None:
        self.rank, self.size = self.transport.rank, self.transport.size
        self.view = View(0, tuple(range(self.size)), seed=7)

    def check(self) -> None:
        """Nobody stops a test."""

    def agree(self, facts: Mapping[str, str]) -> None:
        """As the real peer."""
        agree(self.transport, facts)


@pytest.fixture
def run_peers() -> Callable[..., list[Any]]:
    """run_peers(size, program): results of program(peer) on every rank of a local cluster."""

    def run(size: int, program: Callable[[LocalPeer], Any]) -> list[Any]:
        def body(transport: Transport) -> Any:
            with torch.random.fork_rng():
                return program(LocalPeer(transport))

        return LocalCluster(size).run(body)

    return run
