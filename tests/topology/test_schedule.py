from __future__ import annotations

import numpy as np
import pytest

from pydec.topology import validate
from pydec.topology.schedule import Schedule, SparseRound

DIRECTED = SparseRound.from_rows([0.5] * 3, [{1: 0.5}, {2: 0.5}, {0: 0.5}])
PAIR = SparseRound.from_rows([0.5, 0.5, 1.0], [{1: 0.5}, {0: 0.5}, {}])


def test_directed_rounds_have_transposed_listeners():
    topology = Schedule("cycle", [DIRECTED])
    validate(topology)
    assert topology.neighbors(0, 0) == [1]
    assert topology.listeners(0, 0) == [2]
    assert not topology.is_symmetric
    assert topology.spectral_gap() == pytest.approx(0.5)  # |1 + exp(2 pi i / 3)| / 2


def test_symmetric_and_directed_rounds_together():
    topology = Schedule("mixed", [PAIR, DIRECTED])
    validate(topology)
    assert PAIR.is_symmetric
    assert not topology.is_symmetric
    assert topology.degree == 1
    assert topology.messages_per_round == pytest.approx((2 + 3) / 6)
    norm = np.linalg.norm(topology.weights(1) @ topology.weights(0) - 1 / 3, 2)
    assert topology.spectral_gap() == pytest.approx(1 - np.sqrt(norm))
    assert topology.rounds_per_decade == pytest.approx(np.log(0.1) / np.log(np.sqrt(norm)))


def test_a_schedule_that_never_mixes_says_so():
    idle = Schedule("idle", [SparseRound.from_rows([1.0, 1.0], [{}, {}])])
    assert idle.spectral_gap() == 0.0
    assert idle.rounds_per_decade == np.inf
