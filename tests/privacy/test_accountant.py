"""The accountant against published values and a closed form."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from pydec.errors import ConfigError, SetupError
from pydec.privacy import accountant
from pydec.privacy.accountant import (
    ORDERS,
    Mechanism,
    affordable,
    default_delta,
    epsilon,
    noise_for,
)

pytestmark = pytest.mark.skipif(find_spec("opacus") is None, reason="pip install 'pydec-train[privacy]'")


def test_opacus_own_value():
    """Of opacus's test of its accountant."""
    spent = {Mechanism(1.5, 0.04): 2250}
    assert epsilon(spent, 1e-5) == pytest.approx(7.32911117143, rel=1e-9)


def test_the_moments_accountant_value():
    """Abadi et al., arXiv:1607.00133, section 3.2, converted as there: q 0.01, sigma 4, 10,000 steps."""
    divergences = 10_000 * accountant._divergences(Mechanism(4.0, 0.01))
    classic = min(divergences + math.log(1e5) / (np.array(ORDERS) - 1))
    assert classic == pytest.approx(1.2586, abs=1e-4)
    assert 1.0 < epsilon({Mechanism(4.0, 0.01): 10_000}, 1e-5) < classic


def exact_gaussian(noise, steps, delta):
    """Epsilon of ``steps`` Gaussian mechanisms, exactly: Balle and Wang, arXiv:1805.06530, theorem 8."""
    mu = math.sqrt(steps) / noise

    def delta_of(eps):
        def phi(x):
            return 0.5 * math.erfc(-x / math.sqrt(2))

        return phi(mu / 2 - eps / mu) - math.exp(eps) * phi(-mu / 2 - eps / mu)

    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if delta_of(middle) <= delta else (middle, high)
    return high


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (5.0, 10), (50.0, 3), (0.5, 2)])
def test_all_samples_in_every_step_are_gaussian_mechanisms(noise, steps):
    """Renyi's bound is above what is exact, and not far."""
    exact = exact_gaussian(noise, steps, 1e-5)
    assert exact <= epsilon({Mechanism(noise, 1.0): steps}, 1e-5) <= 1.15 * exact


def test_nothing_costs_nothing_and_more_costs_more():
    one, other = Mechanism(1.0, 0.01), Mechanism(2.0, 0.05)
    assert epsilon({}, 1e-5) == epsilon({one: 0}, 1e-5) == 0.0
    few = epsilon({one: 10}, 1e-5)
    assert 0.0 < few < epsilon({one: 11}, 1e-5) < epsilon({one: 11, other: 1}, 1e-5)
    assert few < epsilon({one: 10}, 1e-7)


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.3, 1.0])
@pytest.mark.parametrize("noise", [0.1, 1.0, 1000.0])
def test_the_ends_of_the_orders_raise_no_warning_and_hide_nothing(rate, noise):
    divergences = accountant._divergences(Mechanism(noise, rate))
    assert np.isfinite(divergences).all()
    assert (np.diff(divergences) >= 0).all()
    assert 0.0 < epsilon({Mechanism(noise, rate): 1000}, 1e-5) < math.inf


@pytest.mark.parametrize("budget", [0.5, 3.0, 20.0])
def test_the_noise_of_a_budget_just_keeps_it(budget):
    noise = noise_for(budget, 1e-5, 0.01, 1000)
    assert epsilon({Mechanism(noise, 0.01): 1000}, 1e-5) <= budget
    assert epsilon({Mechanism(0.998 * noise, 0.01): 1000}, 1e-5) > budget
    assert float(f"{noise:.4g}") == noise
    assert 1000 <= affordable(budget, 1e-5, Mechanism(noise, 0.01), {}) <= 1020
    assert affordable(budget, 1e-5, Mechanism(noise, 0.01), {Mechanism(0.3, 0.1): 100}) == 0


def test_a_budget_that_no_noise_keeps_is_refused():
    with pytest.raises(ConfigError, match="no noise below 10000 keeps 1000 steps within epsilon 1e-05"):
        noise_for(1e-5, 1e-9, 1.0, 1000)


@pytest.mark.parametrize(
    ("noise", "rate"), [(0.0, 0.1), (-1.0, 0.1), (math.nan, 0.1), (1.0, 0.0), (1.0, 1.5)]
)
def test_mechanisms_out_of_range_are_refused(noise, rate):
    with pytest.raises(ConfigError, match=r"must be above 0|may not be larger than the data"):
        Mechanism(noise, rate)


def test_delta_is_a_probability():
    for delta in (0.0, 1.0, math.nan):
        with pytest.raises(ConfigError, match=r"delta must be in \(0, 1\)"):
            epsilon({}, delta)
    assert default_delta(1) == 0.1
    assert all(0 < n * default_delta(n) < 1 for n in (2, 200, 60_000, 10**9))


def test_a_missing_opacus_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus.accountants.analysis.rdp", None)
    with pytest.raises(SetupError, match=r"privacy needs opacus.*pip install 'pydec-train\[privacy\]'"):
        epsilon({Mechanism(1.2345, 0.01): 1}, 1e-5)
