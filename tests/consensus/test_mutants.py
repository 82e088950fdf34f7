"""Every seeded bug is caught, and what catches it."""

from __future__ import annotations

import pytest

from pydec.consensus.simulator import scenarios
from pydec.consensus.simulator.campaign import build, play
from pydec.consensus.simulator.network import Network, groups
from pydec.consensus.simulator.oracles import Violation
from pydec.consensus.simulator.world import World
from tests.consensus import mutants

# Which style catches a bug, within how many seeds, by which oracle.
CAUGHT = {
    "forgets the lock": ("twins", 20, "framed"),
    "votes after timeout": ("targeted", 20, "framed"),
    "prepares twice": ("twins", 30, "two different PREPAREs|framed"),
    "times out twice": ("crashes", 20, "two different Timeouts|framed|honest node"),
    "ignores the justification as leader": ("crashes", 20, "reports an honest node: another block"),
    "commits at a prepare quorum": ("crashes", 5, "does not verify"),
    "never times out": ("crashes", 20, "no agreement"),
    "persists nothing": ("crashes", 5, "its disk does not have"),
    "persists last": ("crashes", 5, "its disk does not have"),
    "believes signatures": ("mutations", 40, "does not verify|bad certificate"),
    "believes blocks": ("targeted", 100, "was decided with"),
}


def test_every_mutant_is_hunted():
    assert set(CAUGHT) == set(mutants.REPLICAS)


@pytest.mark.parametrize("name", CAUGHT)
def test_the_oracles_catch(name):
    style, seeds, message = CAUGHT[name]
    for seed in range(seeds):
        try:
            play(build(seed, 4, style, replica_type=mutants.REPLICAS[name]), patience_s=30)
        except Violation as caught:
            with pytest.raises(Violation, match=message):
                raise caught
            return
    pytest.fail(f"{seeds} seeds of {style} do not notice a replica that {name}")


def test_unsynced_disks_are_caught_by_what_they_forget():
    """Without the check on disks: a crash makes the node contradict itself."""
    caught = []
    for seed in range(40):
        try:
            play(build(seed, 4, "crashes", lazy_disks=True))
        except Violation as violation:
            caught.append(str(violation))
    assert any("two different" in message or "framed" in message for message in caught)


def test_a_skipped_justification_is_caught_by_the_targeted_adversary(monkeypatch):
    for seed in range(8):
        scenarios.hidden_commit(seed)
    mutants.skip_justification(monkeypatch)
    caught = []
    for seed in range(8):
        try:
            scenarios.hidden_commit(seed)
        except Violation as violation:
            caught.append(str(violation))
    assert any("2 decided blocks" in message for message in caught)


def test_a_wrong_quorum_is_caught_by_a_partition(monkeypatch):
    def halves():
        world = World([1] * 4, 0, Network(cut=groups(1e9, [[0, 0, 1, 1]]), stable_s=30.0))
        return scenarios.agree(world, at=31.0, during=range(4))

    halves()
    mutants.wrong_quorum(monkeypatch)
    with pytest.raises(Violation, match="2 decided blocks"):
        halves()


def test_an_unsigned_epoch_is_caught_by_replaying_certificates(monkeypatch):
    scenarios.agree(World([1] * 4))
    mutants.epoch_not_signed(monkeypatch)
    with pytest.raises(Violation, match="can be replayed elsewhere"):
        scenarios.agree(World([1] * 4))
