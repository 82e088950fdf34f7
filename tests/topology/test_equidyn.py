from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import make
from pydec.topology.equidyn import _partner


def paired_one_by_one(n, shift):
    partner = [None] * n
    for place in range(n):
        other = (place + shift) % n
        if partner[place] is None and partner[other] is None:
            partner[place], partner[other] = other, place
    return partner


@pytest.mark.parametrize("n", range(2, 40))
def test_partners_are_those_of_pairing_one_by_one(n):
    for shift in range(1, n // 2 + 1):
        assert [_partner(place, shift, n) for place in range(n)] == paired_one_by_one(n, shift)


@pytest.mark.parametrize("n", [5, 12, 17])
def test_a_long_shift_pairs_as_many_as_the_short_one_the_other_way_round(n):
    for shift in range(1, n):
        long, short = paired_one_by_one(n, shift), paired_one_by_one(n, n - shift)
        assert long.count(None) == short.count(None)


@pytest.mark.parametrize("size", [2, 5, 16, 30])
def test_expected_messages_are_what_a_long_run_sends(size):
    topology = make("ou-equidyn", size, seed=1)
    sent = [sum(len(topology.neighbors(r, t)) for r in range(size)) / size for t in range(2000)]
    assert np.mean(sent) == pytest.approx(
        topology.messages_per_round, abs=5 * np.std(sent) / 2000**0.5 + 1e-12
    )


@pytest.mark.parametrize(("size", "eta"), [(16, 0.5), (16, 0.53), (38, 0.5), (7, 0.3)])
def test_directed_contraction_has_its_closed_form(size, eta):
    c = eta * (size - 1) / size
    shifts = np.arange(1, size)
    modes = np.exp(2j * np.pi * np.outer(np.arange(1, size), shifts) / size)
    factors = np.mean(np.abs(1 - c + c * modes) ** 2, axis=1)
    found = (1 - make(f"od-equidyn:eta={eta}", size).spectral_gap()) ** 2
    np.testing.assert_allclose(factors, found)


def test_contracts_about_as_random_matching_does():
    gap = make("random-matching", 38).spectral_gap()
    assert (1 - gap) ** 2 == pytest.approx(36 / 74)
    assert make("od-equidyn", 38).spectral_gap() == pytest.approx(gap, abs=5e-3)


def test_draws_these_shifts_on_every_machine():
    directed = make("od-equidyn", 10, seed=2**200 + 1)
    assert [directed.neighbors(0, t)[0] for t in (0, 1, 2, 10**9)] == SHIFTS


@pytest.mark.parametrize("name", ["od-equidyn", "ou-equidyn"])
@pytest.mark.parametrize("eta", [0.0, 1.0, -1.0])
def test_refuses_eta_outside(name, eta):
    with pytest.raises(ConfigError, match=rf"eta in \(0, 1\), got eta={eta}"):
        make(f"{name}:eta={eta}", 4)


SHIFTS = [5, 2, 7, 1]
