"""Compiled functions call every kernel without a graph break, with the bits and effects of eager calls."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from pydec import kernels
from pydec.kernels import ops

OTHERWISE = {
    "ChocoStep": "choco_step",  # a method
    "squared_distances": None,  # torch's own operations
    "mix_many": None,  # one operator for each bucket
    "quant_accumulate_many": None,
    "quant_encode_many": None,
}
SIGNED = 1 << 64


@pytest.fixture(autouse=True)
def _forget_compiled():
    yield
    torch._dynamo.reset()


def tensors(tree):
    if isinstance(tree, (list, tuple)):
        return type(tree)(tensors(item) for item in tree)
    return torch.from_numpy(tree) if isinstance(tree, np.ndarray) else tree


def bits(leaf):
    return leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf


def same(compiled, eager):
    """Equal bits, or equal numbers where the graph has a 0-d tensor; keys are signed there."""
    if isinstance(compiled, torch.Tensor) and not isinstance(eager, torch.Tensor):
        assert compiled.shape == ()
        value = compiled.item()
        return value == eager or (isinstance(value, int) and value % SIGNED == eager)
    return bits(compiled) == bits(eager)


def test_every_kernel_has_an_operator_or_a_stand_in(call):
    operator = OTHERWISE.get(call, call)
    assert operator is None or operator in ops.WRAPPERS


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_calls_have_the_bits_and_effects_of_eager_ones(call, backend, fresh, leaves):
    ours, theirs = fresh(call), fresh(call)
    args, kwargs = tensors(ours.args), {key: tensors(value) for key, value in ours.kwargs.items()}
    eager_args, eager_kwargs = tensors(theirs.args), {k: tensors(v) for k, v in theirs.kwargs.items()}

    @torch.compile(backend=backend, fullgraph=True)
    def compiled(args, kwargs):
        return ours.function(*args, **kwargs)

    result, expected = leaves(compiled(args, kwargs)), leaves(theirs.function(*eager_args, **eager_kwargs))
    assert all(same(a, b) for a, b in zip(result, expected, strict=True))
    after, wanted = leaves([*args, *kwargs.values()]), leaves([*eager_args, *eager_kwargs.values()])
    assert all(same(a, b) for a, b in zip(after, wanted, strict=True))


def test_operators_are_what_their_schemas_say(call, fresh):
    operator = OTHERWISE.get(call, call)
    if operator is None:
        pytest.skip("not an operator")
    made = fresh(call)
    given = [*tensors(made.args), *(tensors(value) for value in made.kwargs.values())]
    values = dict(zip(ops.PARAMETERS[operator], tensors(made.args), strict=False))
    values |= {key: tensors(value) for key, value in made.kwargs.items()}
    if operator == "choco_step":
        values |= {"gamma": 0.5, "own_weight": 0.25, "lr": 0.1, "codec": "int8", "block": 128}
        values |= {"key": None, "first": 0}
    elif operator in ("quant_encode", "quant_encode_difference"):
        values = {"key": None, "first": 0} | values
    elif operator in ("mix", "median", "trimmed_mean", "mean_around_median"):
        values["out"] = torch.empty_like(given[0][0])
        values["largest"] = torch.empty(1, dtype=torch.float64)
    elif operator == "sqdists":
        values["out"] = torch.empty(len(given[0]), dtype=torch.float64)
    elif operator == "quant_pair_sqdists":
        values["out"] = torch.empty(len(values["codes"]), len(values["codes"]), dtype=torch.float64)
    elif operator == "quant_sqdists":
        values["out"] = torch.empty(len(values["codes"]), dtype=torch.float64)
    elif operator == "gram":
        values["out"] = torch.empty(len(given[0]), len(given[0]), dtype=torch.float64)
    operation = getattr(torch.ops.pydec, operator).default
    torch.library.opcheck(operation, tuple(values[key] for key in ops.PARAMETERS[operator]))


def gossip(x, y, residual, codes, scales):
    """A round as a user may write it: encode with feedback, decode, mix in place, and a norm."""
    bad = kernels.quant_encode(x, codes, scales, "int8", 64, residual=residual, key=(1 << 63) + 5)
    decoded = kernels.quant_decode(codes, scales, torch.empty_like(x), "int8", 64)
    kernels.mix([x, y, decoded], [0.5, 0.25, 0.25], out=x)
    return decoded.sin(), bad, kernels.sqnorm(x)


def round_arguments(n=640):
    generator = torch.Generator().manual_seed(n)
    x, y, residual = (torch.randn(n, generator=generator) for _ in range(3))
    return [x, y, residual, torch.zeros(n, dtype=torch.uint8), torch.zeros(-(-n // 64))]


def assert_same_round(compiled, n=640):
    ours, theirs = round_arguments(n), round_arguments(n)
    result, expected = compiled(*ours), gossip(*theirs)
    torch.testing.assert_close(result[0], expected[0])  # sin is torch's
    assert same(result[1], expected[1])
    assert same(result[2], expected[2])
    assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_round_of_gossip_in_one_graph(backend, dynamic):
    compiled = torch.compile(gossip, backend=backend, fullgraph=True, dynamic=dynamic)
    for n in (640, 1003):
        assert_same_round(compiled, n)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # from within torch
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles with g++")
def test_a_round_of_gossip_by_inductor():
    assert_same_round(torch.compile(gossip, fullgraph=True))


def test_parameters_are_mixed_as_under_no_grad():
    model = torch.nn.Linear(8, 1, bias=False)
    heard = torch.ones(8)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(weight, heard):
        return kernels.mix([weight.detach().view(-1), heard], [0.5, 0.5])

    expected = kernels.mix([model.weight.detach().view(-1), heard], [0.5, 0.5])
    mixed = step(model.weight, heard)
    assert torch.equal(mixed, expected)
    assert not mixed.requires_grad
    parameter = torch.nn.Parameter(torch.ones(8))
    norm = torch.compile(lambda x: kernels.sqnorm(x) + 1, backend="aot_eager", fullgraph=True)(parameter)
    assert norm.item() == 9.0
    assert not norm.requires_grad


def test_numbers_alone_are_constants_of_the_graph():
    @torch.compile(backend="eager", fullgraph=True)
    def gather(x):
        count = kernels.randk_count(640, 8, 5, 11)
        return kernels.randk_gather(x, 8, 5, 11, False, x.new_empty(count)), kernels.quant_bytes("int4", 640)

    x = round_arguments()[0]
    values, size = gather(x)
    assert size == 320
    expected = kernels.randk_gather(x, 8, 5, 11, False, torch.empty(40))
    assert torch.equal(values, expected)


def test_wrong_arguments_are_named_when_the_graph_runs():
    compiled = torch.compile(lambda x, y: kernels.stream_copy(x, out=y), backend="aot_eager", fullgraph=True)
    with pytest.raises(ValueError, match=r"out must have 8 elements \(as x has\), got 7"):
        compiled(torch.zeros(8), torch.zeros(7))


def test_the_wrappers_are_found_under_their_own_names():
    assert copy.copy(kernels.mix) is kernels.mix
    assert kernels.mix.__name__ == "mix"
    assert kernels.mix.__module__ == "pydec.kernels.mix"


def test_torch_is_imported_by_the_compiler_only():
    code = "import sys\nfrom pydec import kernels\nassert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
