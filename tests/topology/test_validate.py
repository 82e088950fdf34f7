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
