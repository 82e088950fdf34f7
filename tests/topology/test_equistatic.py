from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import make


@pytest.mark.parametrize(
    ("name", "size", "shifts", "norm"),
    [
        ("d-equistatic", 100, 5, 0.88),
        ("d-equistatic", 100, 10, 0.64),
        ("d-equistatic", 300, 5, 0.93),
        ("d-equistatic", 300, 10, 0.70),
        ("u-equistatic", 100, 5, 0.75),
        ("u-equistatic", 100, 10, 0.49),
        ("u-equistatic", 300, 5, 0.82),
        ("u-equistatic", 300, 10, 0.64),
    ],
)
def test_norms_are_those_that_were_measured_independently(name, size, shifts, norm):
    found = [1 - make(f"{name}:shifts={shifts}", size, seed=seed).spectral_gap() for seed in range(40)]
    assert np.mean(found) == pytest.approx(norm, abs=0.06)


def test_weights_are_the_mean_of_shifted_bases():
    size = 11
    topology = make("d-equistatic:shifts=3", size, seed=6)
    shifts = [r for r in range(1, size) if topology.weights(0)[0, r]]
    assert len(shifts) == 3
    basis = [(size - 1) / size * np.roll(np.eye(size), s, axis=1) + np.eye(size) / size for s in shifts]
    np.testing.assert_allclose(topology.weights(0), np.mean(basis, axis=0), atol=1e-15)
    both = make("u-equistatic:shifts=3", size, seed=6).weights(0)
    np.testing.assert_allclose(both, (topology.weights(0) + topology.weights(0).T) / 2, atol=1e-15)


def test_spectral_gap_is_the_norm_because_circulant_matrices_are_normal():
    topology = make("d-equistatic:shifts=4", 40, seed=1)
    norm = np.linalg.norm(topology.weights(0) - 1 / 40, 2)
    assert topology.spectral_gap() == pytest.approx(1 - norm)


@pytest.mark.parametrize("name", ["d-equistatic", "u-equistatic"])
def test_all_shifts_make_the_averaging_matrix(name):
    topology = make(f"{name}:shifts=99", 9)
    np.testing.assert_allclose(topology.weights(0), 1 / 9, rtol=1e-15)
    assert topology.finite_time == 1


@pytest.mark.parametrize("size", [6, 12, 30])
def test_one_shift_always_connects(size):
    for seed in range(30):
        assert make("d-equistatic:shifts=1", size, seed=seed).spectral_gap() > 1e-9


def test_enough_shifts_keep_the_norm_below_what_the_theorem_says():
    size, p, eps = 64, 0.2, 0.8
    shifts = int(np.ceil(8 / 3 * np.log(2 * size / p) / eps**2))
    norms = [1 - make(f"d-equistatic:shifts={shifts}", size, seed=seed).spectral_gap() for seed in range(50)]
    assert np.mean(np.array(norms) >= eps) <= p


@pytest.mark.parametrize("name", ["d-equistatic", "u-equistatic"])
def test_refuses_no_shifts(name):
    with pytest.raises(ConfigError, match="shifts >= 1, got shifts=0"):
        make(f"{name}:shifts=0", 5)
