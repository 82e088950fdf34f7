"""What the tests of scenarios share."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydec.consensus.messages import decode
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import CHAIN_ID, World


def replica_of(place) -> Any:
    """The replica of a place that runs."""
    return place.replica


def listen(world):
    """Everything that is sent from now on: (place, target, bytes)."""
    kept: list[Any] = []

    def inject(place, target, data):
        kept.append((place, target, data))
        World.inject(world, place, target, data)

    vars(world)["inject"] = inject
    return kept


def overhear(place):
    """Every message that a place sends from now on."""
    said: list[Any] = []

    def outgoing(place, target, data):
        said.append(decode(data, CHAIN_ID))
        return (data,)

    place.outgoing = outgoing
    return said


def everywhere(world, *numbers, places=None):
    """Whether the notes of these numbers are; for ``World.run``."""
    return partial(world.settled, [note(number) for number in numbers], places)
