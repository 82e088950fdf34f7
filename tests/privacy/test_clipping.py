"""Clipped gradients of single samples, against one backward pass a sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from pydec.errors import ConfigError
from pydec.privacy.clipping import ClippedSum, check_model, norms_of
from pydec.train.tasks.fashion_mnist import SmallCNN
from pydec.train.tasks.stdlib_lm import next_byte_loss
from pydec.train.transformer import ByteTransformer


def by_loop(model, loss, clip, inputs, target):
    """The sum of clipped gradients, one backward pass a sample, in float64."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    sums = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    for i in range(len(inputs)):
        found = torch.autograd.grad(loss(model(inputs[i : i + 1]), target[i : i + 1]), parameters)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in found))
        for total, gradient in zip(sums, found, strict=True):
            total += gradient.double() * min(1.0, clip / norm)
    return sums


def seeded(make):
    torch.manual_seed(0)
    return make()


CASES = {
    "linear": (lambda: nn.Linear(4, 3), cross_entropy, lambda: torch.randn(7, 4), (3,)),
    "convolutions": (SmallCNN, cross_entropy, lambda: torch.randn(7, 1, 28, 28), (10,)),
    "attention, tied": (
        lambda: ByteTransformer(32, 2, 2, 12),
        next_byte_loss,
        lambda: torch.randint(0, 256, (7, 12)),
        (256, 12),
    ),
    "group norm": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8), nn.ReLU(), nn.Linear(8, 3)),
        cross_entropy,
        lambda: torch.randn(7, 4),
        (3,),
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(15, 3)),
        cross_entropy,
        lambda: torch.randint(0, 9, (7, 3)),
        (3,),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_it_is_the_sum_of_clipped_gradients_one_by_one(name, chunk):
    make, loss, draw, (classes, *more) = CASES[name]
    model, x = seeded(make), seeded(draw)
    y = torch.randint(0, classes, (len(x), *more))
    norms = [by_loop(model, loss, math.inf, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    middle = sorted(math.sqrt(sum(float(g.square().sum()) for g in one)) for one in norms)[3]
    clipped = ClippedSum(model, loss, 1.001 * middle)  # so that about half are clipped
    clipped.chunk = chunk
    found = clipped((x,), y, len(x))
    expected = by_loop(model, loss, 1.001 * middle, x, y)
    scale = math.sqrt(sum(float(e.square().sum()) for e in expected))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype is torch.float64
        torch.testing.assert_close(a, b, rtol=0, atol=3e-4 * scale)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("clip", [1e-3, 1.0])
def test_no_sample_has_more_than_the_clipping_norm(clip):
    model = seeded(lambda: nn.Linear(4000, 3))
    x, y = 100 * torch.randn(5, 4000), torch.randn(5, 3)
    clipped = ClippedSum(model, mse_loss, clip)
    for i in range(5):
        norm = math.sqrt(sum(float(p.square().sum()) for p in clipped((x[i : i + 1],), y[i : i + 1], 1)))
        assert 0.999 * clip < norm <= clip


@pytest.mark.parametrize("sizes", [[1], [4095, 1], [4096], [4097, 10_000]])
def test_norms_are_never_too_small(sizes):
    torch.manual_seed(1)
    gradients = [torch.randn(3, n) for n in sizes]
    exact = torch.cat(gradients, dim=1).double().norm(dim=1)
    found = norms_of(gradients)
    assert (found >= exact).all()
    assert (found <= exact * 1.0003).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_sample_without_a_finite_gradient_counts_as_zero(bad):
    model = seeded(lambda: nn.Linear(4, 1))
    x, y = torch.randn(6, 4), torch.randn(6, 1)
    clipped = ClippedSum(model, mse_loss, 1.0)
    kept = [0, 1, 3, 4, 5]
    expected = clipped((x[kept],), y[kept], 5)
    x[2] = bad
    for a, b in zip(clipped((x,), y, 6), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_model_of_nan_gives_zeros_and_no_error():
    """As a neighbour may send it: whose samples are here must not decide whether the run goes on."""
    model = nn.Linear(4, 3)
    nn.init.constant_(model.weight, math.nan)
    sums = ClippedSum(model, cross_entropy, 1.0)((torch.randn(5, 4),), torch.zeros(5, dtype=torch.int64), 5)
    assert not any(part.any() for part in sums)


def test_no_sample_at_all_gives_zeros():
    clipped = ClippedSum(nn.Linear(4, 3), cross_entropy, 1.0)
    assert not any(part.any() for part in clipped((None,), None, 0))


class Counting(nn.Module):
    """Has frozen parameters, several inputs, a buffer that it counts in, and dropout."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, more):
        self.calls.add_(1.0)
        return self.head(self.drop(self.frozen(x) + more["scale"] * x))


def test_frozen_parameters_nested_inputs_and_dropout_work_and_buffers_stay():
    model = Counting()
    clipped = ClippedSum(model, cross_entropy, 1.0)
    assert list(clipped.parameters) == ["head.weight", "head.bias"]
    inputs = torch.randn(5, 4), {"scale": torch.rand(5, 1)}
    first = clipped(inputs, torch.zeros(5, dtype=torch.int64), 5)
    assert any(part.any() for part in first)
    assert float(model.calls) == 0.0


class Watching(nn.Module):
    """Keeps a statistic of its samples in a buffer, as layers of one's own may."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, x):
        self.largest.copy_(torch.maximum(self.largest, x.abs().max()))
        return self.layer(x)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


@pytest.mark.parametrize("model", [Watching, Branching])
def test_what_cannot_be_differentiated_sample_by_sample_is_named(model):
    with pytest.raises(ConfigError, match="cannot be differentiated sample by sample"):
        ClippedSum(model(), cross_entropy, 1.0)((torch.randn(5, 4),), torch.zeros(5, dtype=torch.int64), 5)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (nn.BatchNorm1d(4), "1 is a BatchNorm1d: its statistics are of several samples"),
        (nn.SyncBatchNorm(4), "1 is a SyncBatchNorm"),
        (nn.InstanceNorm1d(4, track_running_stats=True), "1 is a InstanceNorm1d"),
        (nn.Embedding(4, 4, sparse=True), "1 has sparse gradients"),
    ],
)
def test_layers_that_break_the_guarantee_are_refused(layer, said):
    with pytest.raises(ConfigError, match=said):
        check_model(nn.Sequential(nn.Linear(4, 4), layer))
    check_model(nn.Sequential(nn.InstanceNorm1d(4), nn.Linear(4, 4)))


def test_a_frozen_model_is_refused():
    with pytest.raises(ConfigError, match="no trainable parameter"):
        check_model(nn.Linear(2, 2).requires_grad_(False))


def test_wrong_lengths_and_losses_are_named():
    clipped = ClippedSum(nn.Linear(4, 3), cross_entropy, 1.0)
    with pytest.raises(ConfigError, match=r"a tensor of 5 samples, got \(6, 4\)"):
        clipped((torch.randn(6, 4),), torch.zeros(5, dtype=torch.int64), 5)
    with pytest.raises(ConfigError, match="a tensor of 5 samples, got str"):
        clipped((torch.randn(5, 4),), "abcde", 5)
    several = ClippedSum(nn.Linear(4, 3), lambda a, b: (a - b).square().mean(0), 1.0)
    with pytest.raises(ConfigError, match=r"must be a batch.s mean, a tensor of shape \(\); got \(3,\)"):
        several((torch.randn(5, 4),), torch.randn(5, 3), 5)
