"""Numbers that nobody else can know: their distribution, and that none comes twice."""

from __future__ import annotations

import copy
import math
import os
import pickle

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pydec.crypto.noise import GRID_BITS, SecretNumbers, grid_of
from pydec.errors import SetupError

KEY = bytes(range(32))


def test_the_stream_is_that_of_aes_in_counter_mode():
    """NIST SP 800-38A, appendix F.5.5: its key, and its first counter block as our 0."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    expected = b"".join(block.update(i.to_bytes(16, "big")) for i in range(3))
    assert SecretNumbers(key).words(6).astype("<u8").tobytes() == expected


@pytest.mark.parametrize("n", [0, 1, 7, 16384, 40001])
def test_a_key_decides_every_number(n):
    one, other = SecretNumbers(KEY), SecretNumbers(KEY)
    for _ in range(2):
        np.testing.assert_array_equal(one.normal(n), other.normal(n))
        np.testing.assert_array_equal(one.choose(n, 0.3), other.choose(n, 0.3))


def test_numbers_go_on_where_they_were():
    whole = SecretNumbers(KEY).words(50_000)
    parts = SecretNumbers(KEY)
    np.testing.assert_array_equal(np.concatenate([parts.words(n) for n in (0, 1, 16_385, 33_614)]), whole)
    assert len(np.unique(whole)) == len(whole)


def test_no_process_has_the_numbers_of_another():
    """As after a restore: what is made anew has another key."""
    assert not np.intersect1d(SecretNumbers().words(10_000), SecretNumbers().words(10_000)).size


def test_numbers_are_neither_copied_nor_stored():
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a restored stream would repeat them"):
            take(SecretNumbers())


def test_a_forked_process_is_refused(monkeypatch):
    numbers, process = SecretNumbers(), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    for use in (numbers.words, numbers.normal, lambda n: numbers.choose(n, 0.5)):
        with pytest.raises(SetupError, match="forked"):
            use(4)


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32 bytes, got 16"):
        SecretNumbers(bytes(16))


def test_normal_numbers_are_normal():
    n = 400_000
    x = SecretNumbers(KEY).normal(n)
    # moments 1 to 6 of the standard normal, each within 5 deviations of its estimate
    for power, moment in enumerate([0, 1, 0, 3, 0, 15], 1):
        deviation = math.sqrt((math.prod(range(1, 2 * power, 2)) - moment**2) / n)
        assert abs(np.mean(x**power) - moment) < 5 * deviation, power
    # Kolmogorov and Smirnov: above 1.95 / sqrt(n) once in a thousand
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in np.sort(x)])
    steps = np.arange(n + 1) / n
    assert max(np.max(steps[1:] - cdf), np.max(cdf - steps[:-1])) < 1.95 / math.sqrt(n)
    # no number follows from the one before it, nor from its twin of the same radius and angle
    for lag in (1, 8192):
        assert abs(np.mean(x[:-lag] * x[lag:])) < 5 / math.sqrt(n - lag)
        assert abs(np.mean(x[:-lag] ** 2 * x[lag:] ** 2) - 1) < 5 * math.sqrt(8 / n)


def test_the_extremes_of_the_stream_are_finite(monkeypatch):
    numbers = SecretNumbers(KEY)
    most = np.array([0, 2**64 - 1, 0, 2**64 - 1], np.uint64)
    monkeypatch.setattr(numbers, "words", lambda n: most)
    found = numbers.normal(4)
    assert np.isfinite(found).all()
    assert np.abs(found).max() == pytest.approx(math.sqrt(2 * 65 * math.log(2)))  # 9.49


@pytest.mark.parametrize("rate", [0.0, 1e-4, 0.01, 0.5, 1.0])
def test_each_sample_is_chosen_by_itself(rate):
    n, draws = 1000, 400
    numbers = SecretNumbers(KEY)
    chosen = np.zeros((draws, n), bool)
    for row in chosen:
        picked = numbers.choose(n, rate)
        assert (np.diff(picked) > 0).all()
        row[picked] = True
    spread = math.sqrt(rate * (1 - rate))
    assert abs(chosen.mean() - rate) <= 5 * spread / math.sqrt(n * draws)
    sizes = chosen.sum(axis=1)
    if 0.0 < rate < 1.0:  # the variance of a binomial, which a fixed batch size does not have
        assert np.var(sizes) == pytest.approx(n * spread**2, rel=0.3)
    else:
        assert set(sizes) == {round(n * rate)}


def test_probabilities_outside_their_range_are_refused():
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="a probability is in"):
            SecretNumbers().choose(3, rate)


@pytest.mark.parametrize("deviation", [1e-9, 0.7, 1.0, 3.0, 1e6])
def test_noise_is_whole_multiples_of_its_grid(deviation):
    made, grid = SecretNumbers(KEY).on_grid(20_000, deviation)
    assert grid == grid_of(deviation)
    assert math.frexp(grid)[0] == 0.5
    assert 2.0**-GRID_BITS <= grid / deviation <= 2.0 ** (1 - GRID_BITS)
    np.testing.assert_array_equal(made, np.rint(made))
    assert np.std(made * grid) == pytest.approx(deviation, rel=0.02)
    np.testing.assert_allclose(made * grid, SecretNumbers(KEY).normal(20_000) * deviation, atol=grid)
    for bad in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="above 0 and finite"):
            grid_of(bad)
