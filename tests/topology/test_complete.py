from __future__ import annotations

import numpy as np
import pytest

from pydec.topology import make


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_is_the_averaging_matrix(size):
    topology = make("complete", size)
    np.testing.assert_array_equal(topology.weights(0), np.full((size, size), 1 / size))
    assert topology.degree == topology.messages_per_round == size - 1
