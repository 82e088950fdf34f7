"""Peers that lie: the mixers and attacks of real runs, and lies in algorithms that real runs have none for.

Where packets hold the models themselves (dpsgd and the robust rules) a liar runs ``gossip.robust.lying``, as
a rank of ``pydec train --byzantine`` does. In any other algorithm it follows the protocol with a made-up
model in place of its own whenever it encodes; it knows its honest neighbours' models of that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pydec.aggregate.attacks import Attack, Scene

if TYPE_CHECKING:
    from pydec.simulate.engine import Engine
    from pydec.simulate.peers import VirtualPeer


class Posing:
    """Makes peers pose as ones with other models.

    Args:
        attack: what they make up.
        liars: who they are.
        seed: what attacks draw from.
    """

    def __init__(self, attack: Attack, liars: frozenset[int], seed: int) -> None:
        self._attack, self._liars, self._seed = attack, liars, seed

    def of(self, engine: Engine, peer: VirtualPeer) -> Callable[[], None] | None:
        """What replaces a peer's model before it encodes; None for honest ones."""
        if peer.rank not in self._liars:
            return None
        memory: dict[str, Any] = {}
        return lambda: self._replace(engine, peer, memory)

    def _replace(self, engine: Engine, peer: VirtualPeer, memory: dict[str, Any]) -> None:
        _, row = peer.era.topology.row(peer.rank, peer.rounds.round)
        near = [*row, *peer.rounds.listeners]
        honest = [
            engine.peers[rank]
            for rank in dict.fromkeys(near)
            if rank not in self._liars and rank in engine.peers
        ]
        if not honest:
            return
        for number, part in enumerate(peer.learner.parts):
            scene = Scene(
                own=part.rule.x.copy(),
                honest=np.stack([other.learner.parts[number].rule.x for other in honest]),
                n=1 + len(row),
                round=peer.rounds.round,
                draw=np.random.default_rng([self._seed, peer.rank, peer.rounds.round, number]),
                memory=memory.setdefault(str(number), {}),
            )
            part.rule.x[:] = self._attack.craft(scene)
