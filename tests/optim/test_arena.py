"""Tensors keep their values, shapes, strides and identity when they move into an arena."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pydec.errors import ConfigError
from pydec.optim.arena import make_arenas


def test_values_shapes_strides_and_identity_survive() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
    scalar = torch.nn.Parameter(torch.tensor(2.5))
    empty = torch.nn.Parameter(torch.empty(0, 4))
    tensors = [("weight", conv.weight), ("bias", conv.bias), ("scalar", scalar), ("empty", empty)]
    before = [(t.detach().clone(), t.stride(), id(t)) for _, t in tensors]
    (arena,) = make_arenas(tensors)
    for (_, tensor), (value, stride, identity) in zip(tensors, before, strict=True):
        assert torch.equal(tensor, value)
        assert (tensor.stride(), id(tensor)) == (stride, identity)
        assert tensor.data_ptr() % 64 == 0 or tensor.numel() == 0
    assert arena.holds()
    arena.vector[:] = 1
    assert all(bool((tensor == 1).all()) for _, tensor in tensors)


def test_there_is_one_arena_per_dtype_and_a_tensor_counts_once() -> None:
    a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    arenas = make_arenas([("a", a), ("b", b), ("a again", a)])
    assert [arena.dtype for arena in arenas] == [torch.float32, torch.float64]
    assert [len(arena.spans) for arena in arenas] == [1, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_travel_as_float32(dtype: torch.dtype) -> None:
    tensor = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=dtype) / 3)
    exact = tensor.detach().clone()
    (arena,) = make_arenas([("t", tensor)])
    arena.load()
    np.testing.assert_array_equal(arena.vector[:3], exact.float().numpy())
    arena.store()
    assert torch.equal(tensor.detach(), exact)
    arena.vector[:3] += 1
    arena.store()
    torch.testing.assert_close(tensor.detach(), exact + 1, rtol=0, atol=torch.finfo(dtype).eps * 4 + 1e-6)


def test_memory_shared_by_two_parameters_is_refused() -> None:
    base = torch.zeros(10)
    a, b = torch.nn.Parameter(base[:6]), torch.nn.Parameter(base[5:])
    with pytest.raises(ConfigError, match="share memory"):
        make_arenas([("a", a), ("b", b)])


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.zeros(2, dtype=torch.complex64), "complex"),
        (torch.zeros(2).to_sparse(), "layout"),
        (torch.zeros(2, dtype=torch.int64), "int64"),
        (torch.zeros(2, device="meta"), "meta"),
    ],
)
def test_what_cannot_be_averaged_is_named(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(ConfigError, match=f"head.weight.*{words}"):
        make_arenas([("head.weight", tensor)])
