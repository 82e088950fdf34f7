from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import make
from pydec.topology.schedule import Schedule, SparseRound
from pydec.topology.spectrum import averaging_constants, ritz_values


@pytest.mark.parametrize("n", [2, 3, 50, 300])
def test_symmetric_ends_are_those_of_a_dense_routine(n):
    noise = np.random.default_rng(n).standard_normal((n, n))
    centre = np.eye(n) - 1 / n
    matrix = centre @ (noise + noise.T) @ centre
    wanted = np.linalg.eigvalsh(matrix)
    values = ritz_values(lambda x: matrix @ x, n, symmetric=True)
    ends = sorted((min(wanted), max(wanted)), key=abs) if n > 2 else [wanted[np.argmax(np.abs(wanted))]]
    assert np.abs(values).max() == pytest.approx(abs(ends[-1]), rel=1e-9)
    assert values.min() >= wanted[0] - 1e-9 * np.abs(wanted).max()


def test_few_different_eigenvalues_end_early():
    assert ritz_values(lambda x: x * 0.25, 5000, symmetric=True) == pytest.approx([0.25])


@pytest.mark.parametrize("spec", ["one-peer-exponential", "exponential", "ring", "base-k"])
def test_sparse_and_dense_gaps_agree(spec, monkeypatch):
    whole = make(spec, 100)
    rounds = [SparseRound.from_dense(whole.weights(t)) for t in range(max(1, whole.period - 1))]  # not exact
    monkeypatch.setattr("pydec.topology.schedule.DENSE_SIZES", 10)
    sparse = Schedule("sparse", rounds)
    found = sparse.spectral_gap(), sparse.smallest_eigenvalue()
    monkeypatch.undo()
    dense = Schedule("dense", rounds)
    assert found == (
        pytest.approx(dense.spectral_gap(), abs=1e-7),
        pytest.approx(dense.smallest_eigenvalue(), abs=1e-7),
    )


def test_the_constants_are_those_of_ring_and_complete_graph():
    for n in (5, 16):
        chi1, chi2 = averaging_constants(make("ring", size=n))
        assert chi1 == pytest.approx(1 / (2 - 2 * np.cos(2 * np.pi / n)))
        assert chi2 == pytest.approx(0.5 * (n - 1) / n)
        assert averaging_constants(make("complete", size=n)) == pytest.approx(((n - 1) / (2 * n),) * 2)


def test_resistances_of_very_many_ranks_are_refused():
    with pytest.raises(ConfigError, match="at most 4096 ranks, got 5000"):
        averaging_constants(make("ring", size=5000))
