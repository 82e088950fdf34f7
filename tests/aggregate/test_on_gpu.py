"""Vectors on a GPU, which is the emulator of the CUDA kernels: the CPU's averages and counts, bit for bit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pydec import aggregate
from pydec.aggregate import Counts, Screen
from pydec.errors import TooFewVectors
from pydec.kernels.cuda import _module
from tests.emulated import Emulated, load_emulated

RULES = list(aggregate.aggregators)
BEFORE = list(aggregate.preaggregators)
D = 700

pytestmark = pytest.mark.timeout(120, func_only=True)  # the first test waits for the compiler


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """The emulator in the place of the CUDA module."""
    monkeypatch.setattr(_module, "_loaded", load_emulated())


def there(array):
    return torch.from_numpy(array.copy()).as_subclass(Emulated)


def honest(n, d=D, seed=0):
    draw = np.random.default_rng(seed)
    return [(draw.standard_normal(d) * (1 + 0.1 * k)).astype(np.float32) for k in range(n)]


def both(text, x, own=None, **options):
    """The average on the GPU, after it was found to be the CPU's."""
    here, on_gpu = aggregate.make(text, **options), aggregate.make(text, **options)
    expected = here(x, own)
    got = on_gpu([there(v) for v in x], None if own is None else there(own))
    assert isinstance(got, Emulated)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got.numpy(), expected)
    assert on_gpu.counts == here.counts
    return on_gpu.counts


def spec(name, f):
    return name if name == "mean" else f"{name}:f={f}"


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_the_bits_of_the_cpu(name, own):
    x = honest(11)
    both(spec(name, 2), x, x[3] if own else None)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("before", BEFORE)
def test_so_have_steps_before_a_rule(name, before):
    x = honest(13, seed=1)
    f = 1 if before == "bucketing" else 2
    both(f"{before}:f={f}+{spec(name, f)}", x, x[0])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_bad_vectors_are_left_out_and_counted(name, value):
    x = honest(12, seed=2)
    x[5][7] = value
    expected = Counts(over_norm=1) if np.isfinite(value) else Counts(nonfinite=1)
    assert both(spec(name, 1), x) == expected
    assert both(spec(name, 1), x, x[0]) == expected


@pytest.mark.parametrize("name", ["trimmed-mean:f=2", "nnm+krum:f=2"])
def test_where_too_few_are_left_the_own_model_is_kept(name):
    x = [np.full(D, np.nan, np.float32)] * 8
    assert both(name, x, honest(1)[0]) == Counts(nonfinite=8, kept_own=1)
    with pytest.raises(TooFewVectors, match="0 of 8"):
        aggregate.make(name)([there(v) for v in x])
    far = [v + np.float32(1000) for v in honest(7)]
    assert both("median", far, far[0], screen=Screen(max_norm=100)) == Counts()


def test_vectors_that_lie_close_together_far_from_the_origin_are_told_apart():
    x = [np.float32(4096) + v * np.float32(2**-9) for v in honest(9, seed=3)]
    both("krum:f=2", x)


def test_more_vectors_than_a_kernel_sums_and_the_result_in_the_place_of_one():
    x = honest(70, 90, seed=4)
    both("multi-krum:f=1", x, x[0])
    both("arc:f=20+mean", x, x[1])
    tensors = [there(v) for v in x]
    rule = aggregate.make("nnm+median:f=3")
    expected = rule(x)
    rule(tensors, out=tensors[4])
    np.testing.assert_array_equal(tensors[4].numpy(), expected)


def test_vectors_on_several_devices_or_of_other_types_are_refused():
    x, rule = [there(v) for v in honest(5)], aggregate.make("median")
    here = x[0].as_subclass(torch.Tensor)
    with pytest.raises(
        ValueError, match="vector 1 is on cpu and vector 0 on cuda:0; move them to one device"
    ):
        rule([x[0], here, *x[2:]])
    with pytest.raises(ValueError, match="own is on cuda:0 and vector 0 on cpu"):
        rule(honest(5), x[0])
    with pytest.raises(ValueError, match="out is on cpu and vector 0 on cuda:0"):
        rule(x, out=here)
    second = honest(1)[0]
    other = type("Second", (Emulated,), {"device": SimpleNamespace(type="cuda", index=1)})
    with pytest.raises(ValueError, match="vector 5 is on cuda:1 and vector 0 on cuda:0"):
        rule([*x, torch.from_numpy(second).as_subclass(other)])
    with pytest.raises(
        TypeError, match=r"vector 0 is float64, and on a GPU vectors are float32; .*\.float\(\)"
    ):
        rule([v.double() for v in x])
