from __future__ import annotations

import numpy as np
import pytest

from pydec.topology import validate
from pydec.topology.circulant import Circulant
from pydec.topology.schedule import Schedule, SparseRound


def schedule(own, heard):
    return Schedule("broken", [SparseRound.from_rows(own, heard)])


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (
            schedule([0.5, 0.5], [{1: 0.4}, {0: 0.5}]),
            r"broken of 2 ranks, round 0, rank 0: its row sums to 0.9",
        ),
        (schedule([0.5, 1.0], [{1: 0.5}, {}]), "rank 0: its column sums to 0.5, so the mean would drift"),
        (schedule([1.5, 1.5], [{1: -0.5}, {0: -0.5}]), "finite and positive"),
        (schedule([np.nan, 1.0], [{}, {}]), "finite and positive"),
        (schedule([0.5, 0.5], [{0: 0.5}, {1: 0.5}]), "other ranks in increasing order"),
        (schedule([0.5, 0.5], [{7: 0.5}, {0: 0.5}]), "other ranks in increasing order"),
        (Circulant("broken", 4, [{0: 0.5, 1: 0.6}]), r"row sums to 1.1"),
    ],
)
def test_broken_schedules_are_named(topology, message):
    with pytest.raises(ValueError, match=message):
        validate(topology)


def test_facts_that_disagree_with_the_rows_are_named(monkeypatch):
    good = schedule([0.5, 0.5], [{1: 0.5}, {0: 0.5}])
    validate(good)
    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "degree", 2)
        with pytest.raises(ValueError, match="degree says 2, the rows say 1"):
            validate(good)
    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "messages_per_round", 0.5)
        with pytest.raises(ValueError, match=r"messages_per_round says 0.5, the rows say 1.0"):
            validate(good)
    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "listeners", lambda self, rank, round: [])
        with pytest.raises(ValueError, match="rank 0: listeners"):
            validate(good)
    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "neighbors", lambda self, rank, round: [])
        with pytest.raises(ValueError, match="rank 0: neighbors"):
            validate(good)


class Wrong(Schedule):
    """A schedule that says what it is told to say."""

    def __init__(self, rounds, **says):
        super().__init__("wrong", rounds, says.pop("finite_time", None))
        self.says = says

    @property
    def is_symmetric(self):
        return self.says.get("symmetric", super().is_symmetric)

    @property
    def is_doubly_stochastic(self):
        return self.says.get("doubly", True)


PAIR = SparseRound.from_rows([0.5, 0.5], [{1: 0.5}, {0: 0.5}])
LAZY = SparseRound.from_rows([0.75, 0.75], [{1: 0.25}, {0: 0.25}])
CYCLE = SparseRound.from_rows([0.5] * 3, [{1: 0.5}, {2: 0.5}, {0: 0.5}])
APART = SparseRound.from_rows([0.5] * 4, [{1: 0.5}, {0: 0.5}, {3: 0.5}, {2: 0.5}])
PUSH = SparseRound.from_rows([0.5, 0.5, 0.5], [{2: 0.5}, {0: 0.25}, {0: 0.25, 1: 0.5}])


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (
            Wrong([LAZY], finite_time=1),
            "finite_time says that 1 rounds average exactly, but a rank is 0.* off",
        ),
        (Wrong([CYCLE], symmetric=True), "is_symmetric says True"),
        (Wrong([PAIR], symmetric=False), "is_symmetric says False"),
        (Wrong([APART]), "in 1 rounds nothing gets from rank 0 to rank 2 or back, so they never agree"),
        (Wrong([PUSH]), "rank 1: its row sums to 0.75, not to 1"),
    ],
)
def test_claims_that_are_not_kept_are_named(topology, message):
    with pytest.raises(ValueError, match=message):
        validate(topology)


def test_claims_that_are_kept_pass():
    validate(Wrong([PAIR], finite_time=1))
    validate(Wrong([LAZY, PAIR], finite_time=2))
    validate(Wrong([PUSH], doubly=False))
