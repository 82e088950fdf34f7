"""Tensors are taken as arrays are, with the same bits and checks, whichever way they are read."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pydec import kernels

X = np.arange(8, dtype=np.float32)


class Opaque(torch.Tensor):
    """As a tensor of a torch without the exchange table."""

    __dlpack_c_exchange_api__ = None


def tensor(array):
    return torch.from_numpy(array)


def parameter(array):
    floating = np.issubdtype(array.dtype, np.floating)
    return torch.nn.Parameter(torch.from_numpy(array)) if floating else torch.from_numpy(array)


def opaque(array):
    return torch.from_numpy(array).as_subclass(Opaque)


def convert(tree, kind):
    if isinstance(tree, (list, tuple)):
        return type(tree)(convert(item, kind) for item in tree)
    return kind(tree) if isinstance(tree, np.ndarray) else tree


def as_array(leaf):
    return leaf.detach().numpy() if isinstance(leaf, torch.Tensor) else np.asarray(leaf)


def bits(leaves):
    return [(as_array(leaf).dtype, as_array(leaf).shape, as_array(leaf).tobytes()) for leaf in leaves]


@pytest.mark.parametrize("kind", [tensor, parameter, opaque])
def test_tensors_give_the_bits_of_arrays(call, kind, fresh, leaves):
    ours, theirs = fresh(call), fresh(call)
    result = ours.function(*ours.args, **ours.kwargs)
    expected = [*leaves(result), *leaves(ours.args), *leaves(tuple(ours.kwargs.values()))]
    args, kwargs = convert(theirs.args, kind), {k: convert(v, kind) for k, v in theirs.kwargs.items()}
    if call == "squared_distances" and kind is parameter:
        args = (args[0].detach(),)  # computed by NumPy, which refuses a Parameter
    returned = theirs.function(*args, **kwargs)
    assert bits([*leaves(returned), *leaves(args), *leaves(tuple(kwargs.values()))]) == bits(expected)
    for mine, other in zip(leaves(result), leaves(returned), strict=True):
        assert isinstance(other, torch.Tensor) == isinstance(
            mine, np.ndarray
        )  # what comes out is what went in


def test_arrays_and_tensors_may_be_mixed():
    out = torch.zeros(8)
    assert kernels.mix([X, tensor(X)], [0.5, 0.25], out) is out
    np.testing.assert_array_equal(out.numpy(), X * np.float32(0.75))
    assert isinstance(kernels.mix([tensor(X), X], [1.0, 1.0]), torch.Tensor)
    assert isinstance(kernels.mix([X, tensor(X)], [1.0, 1.0]), np.ndarray)


def test_rows_of_a_matrix_and_lazy_sequences_are_vectors():
    matrix = np.arange(24, dtype=np.float32).reshape(3, 8)

    class Lazy:
        def __len__(self):
            return 3

        def __getitem__(self, k):
            if k >= 3:
                raise IndexError
            return matrix[k].copy()  # nobody else holds it

    expected = matrix.sum(axis=0)
    for x in (matrix, tensor(matrix).unbind(), Lazy()):
        np.testing.assert_array_equal(kernels.mix(x, np.ones(3), np.zeros(8, np.float32)), expected)


def test_a_storage_offset_and_an_odd_address_are_honoured(unaligned):
    base = torch.arange(10, dtype=torch.float32)
    assert kernels.sqnorm(base[3:5]) == 25.0
    odd = torch.from_numpy(np.concatenate([[0], X.view(np.uint8)]).astype(np.uint8))[1:]
    decoded = kernels.quant_decode(odd, unaligned(X)[1:3], torch.zeros(32), "int8", 16)
    assert decoded.tolist() == (X.view(np.int8) * np.repeat(X[1:3], 16)).tolist()


def test_an_empty_tensor_is_a_vector():
    assert kernels.sqnorm(torch.empty(0)) == 0.0
    assert kernels.mix([torch.empty(0)], [1.0]).shape == (0,)


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_codes_of_a_cast_may_be_of_their_own_type(half):
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[half]
    x = torch.randn(100, generator=torch.Generator().manual_seed(1))
    codes = torch.empty(100, dtype=dtype)
    assert kernels.cast_encode(x, codes, half) == 0
    assert torch.equal(codes, x.to(dtype))
    assert torch.equal(kernels.cast_decode(codes, torch.empty(100), half), codes.float())
    other = codes.to({"bf16": torch.float16, "fp16": torch.bfloat16}[half])
    with pytest.raises(TypeError, match="codes must be a uint16 array, got torch"):
        kernels.cast_encode(x, other, half)


DTYPES = [
    torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64,
    torch.bool, torch.complex64, torch.float8_e4m3fn,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [torch.Tensor, Opaque])
def test_another_dtype_is_refused(kind, dtype):
    x = torch.zeros(8).to(dtype).as_subclass(kind)
    with pytest.raises(TypeError, match=rf"bfloat16 or float16 array, got {dtype}; use x\.to\(torch\."):
        kernels.sqnorm(x)


@pytest.mark.parametrize("kind", [torch.Tensor, Opaque])
def test_wrong_tensors_are_named(kind):
    x = tensor(X).as_subclass(kind)
    with pytest.raises(ValueError, match=r"got shape \(2, 4\) and strides \(4, 1\); use x\.contig"):
        kernels.sqnorm(x.view(2, 4))
    with pytest.raises(ValueError, match=r"\(4,\) and strides \(2,\); use x\.contiguous\(\)\.view\(-1\)"):
        kernels.sqnorm(x[::2])
    with pytest.raises(ValueError, match=r"shape \(5,\) and strides \(0,\)"):
        kernels.sqnorm(x[:1].expand(5))
    with pytest.raises(ValueError, match=r"shape \(\)"):
        kernels.sqnorm(x[0])
    with pytest.raises(ValueError, match=r"y must have 8 elements \(as x has\), got 7"):
        kernels.sqdist(x, x[:7])
    with pytest.raises(TypeError, match=r"x\[1\] must be a float32 array, got torch\.float64"):
        kernels.mix([x, x.double()], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"x cannot be read as plain memory: it is on the meta device"):
        kernels.sqnorm(torch.empty(8, device="meta").as_subclass(kind))
    with pytest.raises(ValueError, match=r"x\[0\] cannot be read as plain memory: it is on the meta device"):
        kernels.mix([torch.empty(8, device="meta")], [1.0])


@pytest.mark.parametrize("kind", [torch.Tensor, Opaque])
def test_a_single_element_of_a_negated_view_is_refused(kind):
    values = torch.tensor([3 + 4j], dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"x is a negated view of other memory; use x\.resolve_neg\(\)"):
        kernels.sqnorm(values.conj().imag.as_subclass(kind))
    assert kernels.sqnorm(values.imag.as_subclass(kind)) == 16.0


def test_tensors_without_plain_memory_are_refused():
    with pytest.raises(ValueError, match=r"its layout is torch\.sparse_coo; use x\.to_dense\(\)"):
        kernels.sqnorm(tensor(X).to_sparse())
    fake = FakeTensorMode().from_tensor(tensor(X))
    with pytest.raises(ValueError, match="x cannot be read as plain memory"):
        kernels.sqnorm(fake)
    with pytest.raises(ValueError, match="x cannot be read as plain memory"):
        torch.vmap(kernels.sqnorm)(torch.ones(3, 4))


def test_other_objects_are_refused():
    for wrong in ([1.0], None, memoryview(X), 1.0, torch.Tensor, b"1234"):
        with pytest.raises(TypeError, match=r"x must be a NumPy array of float32, got .*; a torch tensor is"):
            kernels.sqnorm(wrong)
    with pytest.raises(TypeError, match=r"weights\[0\] must be a number, got str"):
        kernels.mix([X], ["a"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"weights\[1\] must be a number, got list"):
        kernels.quant_accumulate([X.view(np.uint8)[:8]] * 2, [X[:1]] * 2, [1, []], X + 1, "int8", 16)  # type: ignore[list-item]


def test_an_overlap_of_a_tensor_and_an_array_is_refused():
    room = np.arange(9, dtype=np.float32)
    with pytest.raises(ValueError, match=r"x\[0\] and out overlap in memory"):
        kernels.mix([room[:-1]], [2.0], out=tensor(room)[1:])
    with pytest.raises(ValueError, match="x and codes overlap"):
        kernels.quant_encode(X, tensor(X).view(torch.uint8)[:8], np.zeros(1, np.float32), "int8", 16)
    with pytest.raises(ValueError, match="residual and codes overlap"):
        kernels.cast_encode(X, tensor(room).view(torch.uint16)[:8], "bf16", residual=room[:8])
    np.testing.assert_array_equal(room, np.arange(9, dtype=np.float32))
    assert kernels.mix([tensor(room)], [2.0], out=room)[8] == 16.0  # the very same memory is in place


def test_read_only_arrays_are_refused_as_outputs_only():
    fixed = np.zeros(8, np.float32)
    fixed.flags.writeable = False
    kernels.stream_copy(fixed, torch.ones(8))
    with pytest.raises(ValueError, match="out is read-only and would be written"):
        kernels.stream_copy(torch.ones(8), fixed)


def test_tensors_that_require_grad_are_raw_memory():
    weight = torch.nn.Parameter(torch.ones(8))
    version = weight._version
    mixed = kernels.mix([weight, tensor(X)], [1.0, 1.0], out=weight)
    assert mixed is weight
    assert weight.tolist() == (X + 1).tolist()
    assert weight._version == version
    assert not kernels.mix([weight], [1.0]).requires_grad
    kernels.mix([weight * 2.0], [1.0], out=weight)  # an input in the middle of a graph


def test_torch_may_come_after_the_kernels():
    """The kernels work without torch, and find it when it is there."""
    code = (
        "import sys, numpy as np\n"
        "from pydec import kernels\n"
        "assert kernels.sqnorm(np.ones(3, np.float32)) == 3\n"
        "try: kernels.sqnorm([1.0])\n"
        "except TypeError: pass\n"
        "assert 'torch' not in sys.modules\n"
        "import torch\n"
        "assert kernels.sqnorm(torch.ones(3)) == kernels.sqnorm(torch.nn.Parameter(torch.ones(3))) == 3\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_references_are_returned():
    """No call keeps or loses a reference, whether it succeeds or fails."""
    x, y, p = X.copy(), tensor(X.copy()), torch.nn.Parameter(torch.ones(8))
    vectors, weights = [x, y, p], [0.25, 0.5, 0.25]
    watched = [x, y, p, vectors, weights, torch.Tensor, torch.nn.Parameter, X.dtype]
    kernels.mix(vectors, weights, np.zeros(8, np.float32))
    before = [sys.getrefcount(item) for item in watched]
    for _ in range(50):
        kernels.mix(vectors, weights, np.zeros(8, np.float32))
        kernels.mix([x, y.as_subclass(Opaque)], [1.0, 1.0])
        with pytest.raises(ValueError, match="elements"):
            kernels.mix([x, y[:7], p], weights, y)
    after = [sys.getrefcount(item) for item in watched]
    assert max(abs(a - b) for a, b in zip(after, before, strict=True)) < 10
