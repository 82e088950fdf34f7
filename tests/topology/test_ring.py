from __future__ import annotations

import numpy as np
import pytest

from pydec.topology import make


@pytest.mark.parametrize("size", [4, 5, 16, 100])
def test_spectral_gap_has_its_closed_form(size):
    gap = make("ring", size).spectral_gap()
    assert gap == pytest.approx(2 / 3 * (1 - np.cos(2 * np.pi / size)), rel=1e-9)
    eigenvalues = np.linalg.eigvalsh(make("ring", size).weights(0))
    assert gap == pytest.approx(1 - np.sort(np.abs(eigenvalues))[-2], rel=1e-9)


def test_large_rings_follow_the_asymptote():
    assert make("ring", 1000).spectral_gap() == pytest.approx(4 * np.pi**2 / (3 * 1000**2), rel=1e-4)


@pytest.mark.parametrize("size", [4, 6, 64])
def test_smallest_eigenvalue_of_even_rings_is_minus_a_third(size):
    assert np.linalg.eigvalsh(make("ring", size).weights(0))[0] == pytest.approx(-1 / 3)


def test_hears_both_sides_with_equal_weight():
    assert make("ring", 6).row(0, 7) == (1 / 3, {1: 1 / 3, 5: 1 / 3})
    assert make("ring", 2).row(0, 0) == (1 / 2, {1: 1 / 2})
    assert make("ring", 6).is_symmetric
