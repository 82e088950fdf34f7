"""Gram matrices that do not cancel, distances in one pass, and clipped sums."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 7, 8, 9, 15, 16, 17, 255, 256, 257, 70_003]


def vectors(n, d, seed=0):
    return list(np.random.default_rng((n, d, seed)).standard_normal((n, d), dtype=np.float32))


def gram_by_definition(x, centre):
    """Lane e mod 8, lanes pairwise at the end of 256 elements, tiles in order, and so chunks of 2^16."""
    n, d = len(x), x[0].size
    if d > 2**16:
        return sum(
            (
                gram_by_definition(
                    [v[first : first + 2**16] for v in x],
                    None if centre is None else centre[first : first + 2**16],
                )
                for first in range(0, d, 2**16)
            ),
            np.zeros((n, n)),
        )
    rows = np.zeros((n, -(-d // 256) * 256))
    rows[:, :d] = np.stack(x).astype(np.float64) - (0 if centre is None else centre.astype(np.float64))
    total = np.zeros((n, n))
    for tile in np.split(rows, rows.shape[1] // 256, axis=1) if d else []:
        lanes = np.zeros((n, n, 8))
        for step in range(0, 256, 8):
            part = tile[:, step : step + 8]
            lanes = lanes + part[:, None, :] * part[None, :, :]
        for half in (4, 2, 1):
            lanes = lanes[..., :half] + lanes[..., half : 2 * half]
        total = total + lanes[..., 0]
    return total


@pytest.mark.parametrize("d", SIZES[:-1])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 16, 17])
def test_gram_adds_in_its_stated_order(target, n, d):
    x = vectors(n, d)
    for centre in (None, x[0], vectors(1, d, 9)[0]):
        assert kernels.gram(x, centre).tobytes() == gram_by_definition(x, centre).tobytes()


@pytest.mark.parametrize("d", [2**16, 2**16 + 1, 140_003])
def test_gram_adds_the_chunks_of_large_vectors_in_order(target, d):
    x = vectors(3, d)
    for centre in (None, x[0]):
        assert kernels.gram(x, centre).tobytes() == gram_by_definition(x, centre).tobytes()


def test_gram_of_large_vectors_has_the_same_bits_on_every_target():
    x = vectors(9, SIZES[-1])
    results = set()
    for name in kernels.targets():
        kernels.set_target(name)
        results.add(kernels.gram(x, x[3]).tobytes())
    assert len(results) == 1
    rows = np.stack(x).astype(np.float64) - x[3]
    np.testing.assert_allclose(kernels.gram(x, x[3]), rows @ rows.T, rtol=1e-10, atol=1e-8)


def test_close_models_keep_their_distances(target):
    """Norm 50, distances 2e-2: in float32 without a centre the error is several times the distance."""
    rng = np.random.default_rng(1)
    common = rng.standard_normal(100_000)
    common *= 50 / np.linalg.norm(common)
    noise = rng.standard_normal((8, 100_000))
    noise *= 1e-2 / np.linalg.norm(noise, axis=1, keepdims=True)
    x = [row.astype(np.float32) for row in common + noise]
    exact = np.stack(x).astype(np.float64)
    expected = np.array([[((a - b) ** 2).sum() for b in exact] for a in exact])
    found = kernels.squared_distances(kernels.gram(x, x[0]))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    rows = np.stack(x)
    sizes = (rows**2).sum(1)
    naive = sizes[:, None] + sizes[None, :] - 2 * rows @ rows.T
    others = ~np.eye(8, dtype=bool)
    assert np.max(np.abs(naive - expected)[others] / expected[others]) > 0.05


def test_a_vector_that_is_not_finite_spoils_its_own_row_only(target):
    x = vectors(5, 300)
    clean = kernels.squared_distances(kernels.gram(x, x[0]))
    x[2][7], x[4][0] = np.nan, np.inf
    found = kernels.squared_distances(kernels.gram(x, x[0]))
    bad = np.array([False, False, True, False, True])
    either = bad[:, None] | bad[None, :]
    assert np.all(found[either] == np.inf)
    np.testing.assert_array_equal(found[~either], clean[~either])
    one_pass = kernels.sqdists(x, x[0])
    assert list(np.isfinite(one_pass)) == list(~bad)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("m", [0, 1, 5])
def test_one_pass_gives_the_bits_of_single_distances(target, m, n):
    *x, y = vectors(m + 1, n)
    assert kernels.sqdists(x, y).tolist() == [kernels.sqdist(v, y) for v in x]


def test_distances_to_one_of_the_vectors(target):
    x = vectors(3, 200_000)
    assert kernels.sqdists(x, x[1])[1] == 0.0
    assert kernels.sqdists(x, x[1])[0] == kernels.sqdist(x[0], x[1])


def clipped(x, weights, distances, radii, centre, out):
    with np.errstate(invalid="ignore"):
        for v, w, d, r in zip(x, weights, distances, radii, strict=True):
            if np.isfinite(d):
                out = out + np.float32(w * (r / d if d > r else 1.0)) * (v - centre)
    return out


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("m", [0, 1, 2, 3, 4, 5, 8, 9])
def test_clips_and_adds_like_its_definition(target, m, d):
    *x, centre, out = vectors(m + 2, d)
    distances = np.sqrt(kernels.sqdists(x, centre)).tolist()
    weights = np.random.default_rng(m).random(m).tolist()
    radii = [0.7 * distance if k % 2 else np.inf for k, distance in enumerate(distances)]
    expected = clipped(x, weights, distances, radii, centre, out)
    assert kernels.clip_accumulate(x, weights, distances, radii, centre, out) == m
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("m", [2, 7])
def test_the_centre_or_an_input_may_be_updated_in_place(target, m):
    for place in range(m + 1):
        *x, centre = vectors(m + 1, 5001)
        out = [*x, centre][place]
        arguments = ([0.2] * m, [3.0] * m, [1.5] * m)
        expected = clipped(x, *arguments, centre, out)
        kernels.clip_accumulate(x, *arguments, centre, out)
        assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("distance", [np.nan, np.inf])
def test_a_vector_without_a_distance_is_left_out(target, distance):
    x = [np.full(40, np.nan, np.float32), np.ones(40, np.float32)]
    out = np.zeros(40, np.float32)
    assert kernels.clip_accumulate(x, [0.5, 0.5], [distance, 2.0], [1.0, 1.0], np.zeros_like(out), out) == 1
    np.testing.assert_array_equal(out, 0.25)


def test_clipped_differences_are_no_longer_than_the_radius(target):
    x, centre = vectors(2, 10_000)
    distance = kernels.sqdist(x, centre) ** 0.5
    out = np.zeros_like(centre)
    kernels.clip_accumulate([x], [1.0], [distance], [0.25], centre, out)
    assert kernels.sqnorm(out) ** 0.5 == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("n", SIZES)
def test_norm_and_finite_check_in_one_pass(target, n):
    x = vectors(1, n)[0]
    assert kernels.checked_sqnorm(x) == (kernels.sqnorm(x), 0)
    if n:
        x[n // 2] = np.inf
        x[-1] = np.nan
        total, bad = kernels.checked_sqnorm(x)
        assert not np.isfinite(total)
        assert bad == min(n, 2) if n // 2 != n - 1 else bad == 1


def test_norms_of_the_largest_numbers_are_finite(target):
    x = np.full(1000, np.finfo(np.float32).max)
    total, bad = kernels.checked_sqnorm(x)
    assert np.isfinite(total)
    assert bad == 0


def test_addresses_may_be_odd(target, unaligned):
    x = vectors(5, 1001)
    odd = [unaligned(v) for v in x]
    assert kernels.gram(odd, odd[0]).tobytes() == kernels.gram(x, x[0]).tobytes()
    assert kernels.sqdists(odd, odd[4]).tobytes() == kernels.sqdists(x, x[4]).tobytes()
    kernels.clip_accumulate(odd[:4], [0.5] * 4, [2.0] * 4, [1.0] * 4, odd[4], odd[4])
    kernels.clip_accumulate(x[:4], [0.5] * 4, [2.0] * 4, [1.0] * 4, x[4], x[4])
    assert odd[4].tobytes() == x[4].tobytes()


def test_wrong_arguments_are_named():
    x, y = np.zeros(8, np.float32), np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="at least one vector, got none"):
        kernels.gram([])
    with pytest.raises(ValueError, match=r"out must be a C-contiguous float64 array of shape \(2, 2\)"):
        kernels.gram([x, y], out=np.zeros((2, 3)))
    with pytest.raises(TypeError, match="gram must be a float64 array, got float32"):
        kernels.gram([x], out=np.zeros((1, 1), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="centre must have 8 elements"):
        kernels.gram([x], x[:7])
    with pytest.raises(ValueError, match=r"x\[1\] must have 8 elements"):
        kernels.gram([x, x[:7]])
    with pytest.raises(ValueError, match="out must have 1 elements"):
        kernels.sqdists([x], y, np.zeros(2))
    with pytest.raises(ValueError, match="distances and radii must be one for each vector, got 1 and 2"):
        kernels.clip_accumulate([x, x], [1, 1], [1], [1, 1], y, y)
    with pytest.raises(ValueError, match=r"radii\[0\] must not be negative or NaN, got nan"):
        kernels.clip_accumulate([x], [1], [1], [np.nan], y, y)
    with pytest.raises(ValueError, match=r"distances\[0\] must not be negative"):
        kernels.clip_accumulate([x], [1], [-1], [1], y, y)
    with pytest.raises(ValueError, match="2 weights for 1 vectors"):
        kernels.clip_accumulate([x], [1, 1], [1], [1], y, y)
    room = np.zeros(9, np.float32)
    with pytest.raises(ValueError, match="centre and out overlap"):
        kernels.clip_accumulate([x], [1], [1], [1], room[1:], room[:-1])
    y.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.clip_accumulate([x], [1], [1], [1], x, y)
