"""Many seeds: each draws stakes, a network, crashes and an adversary, runs, and must satisfy every oracle.

    python -m pydec.consensus.simulator.campaign --seeds 10000

A failing seed is printed with its style and size, and becomes a test; none is ever skipped.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pydec.consensus.replica import Replica
from pydec.consensus.simulator.adversaries import TARGETED, Mutator, twin_partitions
from pydec.consensus.simulator.network import Network, groups, no_cut, one_way, ring
from pydec.consensus.simulator.oracles import Violation
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import Place, World
from pydec.consensus.storage import MemoryStorage

STYLES = ("crashes", "mutations", "targeted", "twins")
PACE_S = 0.2
PATIENCE_S = 60.0  # simulated, after everything is stable


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Args:
        world: as it ended.
        waited_s: simulated time from stability to agreement on everything.
    """

    world: World
    waited_s: float


def stakes_of(draw: random.Random, size: int, faulty: int) -> list[int]:
    """Equal or skewed stakes; the last ``faulty`` nodes, the corruptible ones, have less than a third."""
    if draw.random() < 0.5:
        return [1] * size
    stakes = [draw.randrange(1, 100) for _ in range(size)]
    honest = sum(stakes[: size - faulty])
    if faulty:
        # Just under a third of all: 3 * b < honest + b.
        share = max(1, (honest - 1) // 2 // faulty)
        stakes[size - faulty :] = [share] * faulty
        if 3 * share * faulty >= honest + share * faulty:
            return [1] * size
    return stakes


def network_of(draw: random.Random, size: int, stable_s: float) -> Network:
    """Loss, repeats, and one of the ways to cut a network, before it is stable."""
    period = PACE_S * draw.choice((0.5, 1, 2, 4))
    half = [[draw.randrange(2) for _ in range(size)] for _ in range(8)]
    single = [[int(place == k % size) for place in range(size)] for k in range(size)]
    links = frozenset((draw.randrange(size), draw.randrange(size)) for _ in range(size))
    cuts = (no_cut, groups(period, half), groups(period, single), ring(size), one_way(links))
    return Network(
        loss=draw.choice((0.0, 0.1, 0.3, 0.5)),
        repeat=draw.choice((0.0, 0.2, 1.0)),
        stable_s=stable_s,
        unstable_delay_s=draw.choice((0.01, 0.1, 0.5)),
        cut=draw.choice(cuts),
    )


def build(
    seed: int,
    size: int,
    style: str,
    faulty: int | None = None,
    replica_type: type[Replica] = Replica,
    lazy_disks: bool = False,
) -> World:
    """The world of a seed, not started.

    Args:
        seed: of everything.
        size: nodes.
        style: one of ``STYLES``.
        faulty: nodes that lie or have twins; (size - 1) // 3 by default. More may disagree.
        replica_type: of the honest nodes.
        lazy_disks: nothing is synced.
    """
    draw = random.Random(f"{seed} {size} {style}")
    most = (size - 1) // 3
    liars = (draw.randint(1, most) if most and style != "crashes" else 0) if faulty is None else faulty
    stakes = stakes_of(draw, size, liars) if faulty is None else [1] * size
    stable_s = draw.uniform(0.5, 4.0)
    places = list(range(size))
    if style == "twins":
        places += list(range(size - liars, size))
    network = network_of(draw, len(places), stable_s)
    if style == "twins":
        cut = twin_partitions(draw, len(places), PACE_S * draw.choice((0.5, 1, 2)))
        network = Network(stable_s=stable_s, loss=draw.choice((0.0, 0.1)), cut=cut)
    world = World(stakes, seed, network, places, PACE_S)
    for place in world.places:
        place.replica_type = replica_type
        place.storage = MemoryStorage(lazy_disks)
    for node in range(size - liars, size):
        if style == "mutations":
            world.corrupt(node, Mutator(world))
        elif style == "targeted":
            world.corrupt(node, TARGETED[draw.choice(sorted(TARGETED))](world))
        else:
            world.corrupt(node)
    if style in ("crashes", "mutations"):
        _plan_crashes(world, draw, size - liars, stable_s)
    _plan_clocks(world, draw)
    return world


def _plan_crashes(world: World, draw: random.Random, honest: int, stable_s: float) -> None:
    """Crashes between any two effects, of one node or of all at once; all are back before it is stable."""
    for _ in range(draw.randrange(4)):
        chosen = list(range(honest)) if draw.random() < 0.3 else [draw.randrange(honest)]
        time_s, down_s = draw.uniform(0, stable_s), draw.uniform(0.01, 1.0)
        for number in chosen:
            place = world.places[number]

            world.at(time_s, partial(_doom, place, draw.randrange(12), down_s))
    for place in world.places[:honest]:
        world.at(stable_s, partial(_spare, place))


def _doom(place: Place, steps: int, down_s: float) -> None:
    if place.replica is not None and place.crash_after is None:
        place.crash_after, place.restart_after = steps, down_s


def _spare(place: Place) -> None:
    place.crash_after = None


def _plan_clocks(world: World, draw: random.Random) -> None:
    for place in world.places:
        place.clock = draw.choice((1.0, 1.0, 1.0, 0.3, 3.0))


def play(world: World, transactions: int = 5, patience_s: float = PATIENCE_S) -> Outcome:
    """Run a world: transactions while it is unstable, two more afterwards that must get in everywhere.

    Raises:
        Violation: an oracle tripped.
    """
    draw, stable_s = world.draw, world.network.stable_s
    world.start()
    honest = world.honest()
    for number in range(transactions):
        at = draw.choice(honest).number
        world.at(draw.uniform(0, stable_s), partial(world.submit, at, note(number)))
    world.run(stable_s + 1.1)
    last = [note(100), note(101)]
    for transaction, place in zip(last, draw.sample(honest, min(2, len(honest))), strict=False):
        if not world.submit(place.number, transaction):
            raise Violation(f"place {place.number} takes no transaction")
    last = last[: len(honest)]

    def gossip() -> None:
        world.gossip_heads()
        world.at(world.now + 1.0, gossip)

    gossip()
    began = world.now
    if not world.run(began + patience_s, lambda: world.settled(last)):
        if world.watch.disagreements:
            return Outcome(world, patience_s)
        raise Violation(f"no agreement {patience_s} s after all was stable; heights {world.heights()}")
    check_bounds(world)
    return Outcome(world, world.now - began)


def check_bounds(world: World) -> None:
    """Memory stays within what the number of nodes explains."""
    size = len(world.nodes)
    limits = {
        "votes": 3 * size * 80,
        "statements": 256 * size,
        "blocks": 160,
        "certificates": 240,
        "pool": 4096,
        "early": 8 * (size + 64),
        "claims": 3 * 1024,
        "signatures": 8192,
    }
    over = {name: peak for name, peak in world.peaks.items() if peak > limits[name]}
    if over:
        raise Violation(f"tables have grown beyond their bounds: {over}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", type=int, default=4)
    parser.add_argument("--style", choices=STYLES, action="append")
    options = parser.parse_args(arguments)
    failed, waits, heights, began = 0, [], 0, time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        style = (options.style or STYLES)[seed % len(options.style or STYLES)]
        try:
            outcome = play(build(seed, options.size, style))
        except Exception as error:  # whatever happens in a seed is a finding
            failed += 1
            print(f"seed {seed}, {options.size} nodes, {style}: {type(error).__name__}: {error}")
            continue
        waits.append(outcome.waited_s)
        heights += max(outcome.world.heights())
    taken = time.monotonic() - began
    print(
        f"{options.seeds} seeds, {failed} failed, {heights} heights; {options.seeds / taken:.1f} seeds/s; "
        f"longest wait {max(waits, default=0):.1f} s simulated"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
