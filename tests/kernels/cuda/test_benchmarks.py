"""The cases of `pydec bench cuda` give right answers; where there is no GPU the suite says so."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np
import pytest

from pydec.cli import bench
from pydec.errors import SetupError
from tests.emulated import EmulatedPlace

torch = pytest.importorskip("torch")


def module(name):
    bench.suites()  # finds the package
    return importlib.import_module(f"pydec._benchmarks.{name}")


@dataclass(frozen=True)
class Place:
    """``cases_cuda.Device`` on the emulator or a GPU."""

    gpu: object

    def normal(self, n, seed):
        return self.gpu.tensor(np.random.default_rng([n, seed]).standard_normal(n).astype(np.float32))

    def zeros(self, n, dtype=torch.float32):
        return self.gpu.tensor(torch.zeros(n, dtype=dtype).numpy())


@pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning"
)  # torch's compiler loads what it deprecates
@pytest.mark.parametrize(
    ("cases", "number"),
    [*(("cases_cuda", k) for k in range(6)), *(("cases_cuda_coded", k) for k in range(3))],
)
def test_cases_are_right(gpu, cases, number):
    case = module(cases).MAKERS[number](Place(gpu))
    case.check(case.make(20_480, 1))
    assert case.bytes_per_element > 4
    eager = next(name for name in case.peers if name.startswith("torch ") or name == "torch.topk")
    case.peers[eager](case.make(20_480, 2))


@pytest.mark.parametrize("number", range(4))
def test_both_ways_of_a_round_agree(gpu, number):
    timed, (algorithm, compressor) = (
        module("cases_cuda_round").timed,
        module("cases_cuda_round").CASES[number],
    )
    on_gpu = gpu.device != "cpu"
    home, device = ("cuda", "cuda") if on_gpu else ("cpu", EmulatedPlace)
    ours, found = timed(algorithm, compressor, 3000, 2, device, home)
    _, expected = timed(algorithm, compressor, 3000, 2, "cpu", home)
    assert ours > 0
    np.testing.assert_array_equal(found, expected)


def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    suite, harness = module("suite_cuda"), module("harness")
    with pytest.raises(SetupError, match="pydec bench cuda measures a GPU, and torch sees none here"):
        next(iter(suite.rows(harness.Options(quick=True))))
