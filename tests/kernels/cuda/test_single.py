"""Every kernel that takes a tensor on a GPU gives what it gives for one on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels
from pydec.errors import ConfigError, SetupError
from pydec.kernels import cuda
from pydec.kernels._library import native
from pydec.kernels.cuda import _module, single

torch = pytest.importorskip("torch")


def on_gpu(tree, gpu):
    """The same call with its arrays on the GPU."""
    if isinstance(tree, np.ndarray):
        return gpu.tensor(tree.reshape(-1)).view(tree.shape) if tree.ndim > 1 else gpu.tensor(tree)
    if isinstance(tree, (list, tuple)):
        return type(tree)(on_gpu(item, gpu) for item in tree)
    return tree


def test_a_call_goes_on_to_the_gpu_or_is_refused(gpu, same, fresh, leaves, call):
    ours, theirs = fresh(call), fresh(call)
    args, kwargs = on_gpu(ours.args, gpu), {k: on_gpu(v, gpu) for k, v in ours.kwargs.items()}
    if call == "squared_distances":
        return  # NumPy's own arithmetic; on a GPU it is torch's
    try:
        result = ours.function(*args, **kwargs)
    except (ConfigError, ValueError) as error:
        if "works on the CPU; use" in str(error) or call == "threshold_select":
            return  # no kernel yet
        raise
    expected = theirs.function(*theirs.args, **theirs.kwargs)
    written = zip(
        leaves([args, *kwargs.values()]), leaves([theirs.args, *theirs.kwargs.values()]), strict=True
    )
    for mine, right in written:
        if isinstance(right, np.ndarray):
            same(mine, right)
    for mine, right in zip(leaves([result]), leaves([expected]), strict=True):
        if isinstance(right, np.ndarray):
            same(mine, right)
        elif right is not None:
            number = mine.item() if isinstance(mine, torch.Tensor) else mine
            assert number % 2**64 == right % 2**64


def test_every_gpu_function_is_named_as_its_cpu_twin():
    names = [name for name in vars(single) if name.endswith("_f32")]
    assert len(names) > 30
    assert [name for name in names if not hasattr(native, name)] == []


def test_what_the_gpu_has_not_is_refused(gpu):
    x = gpu.room(8)
    with pytest.raises(ConfigError, match="indices and values apart"):
        kernels.threshold_select(x, None, 2, 1, gpu.room(16, np.uint8))
    with pytest.raises(ValueError, match="works on the CPU; use"):
        kernels.gaps_pack(gpu.room(8, np.uint32), gpu.room(80, np.uint8))
    with pytest.raises(ValueError, match="works on a CUDA device; use"):
        kernels.mix([x, torch.zeros(8)], [0.5, 0.5], gpu.room(8))


def test_a_build_without_cuda_says_so(gpu, monkeypatch):
    monkeypatch.setattr(_module, "_loaded", None)
    monkeypatch.setitem(__import__("sys").modules, "pydec._native_cuda", None)
    monkeypatch.delattr("pydec._native_cuda", raising=False)
    with pytest.raises(SetupError, match=r"need pydec's CUDA kernels: .*; or move them with \.cpu\(\)"):
        kernels.sqnorm(gpu.room(4))


def test_clipping_with_known_distances_checks_them(gpu):
    x, out = gpu.room(4), gpu.room(4)
    with pytest.raises(ValueError, match="equally many, got 1, 1, 1 and 0"):
        single.clip_accumulate_f32([x], [1.0], [1.0], [], out, out)
    with pytest.raises(ValueError, match=r"must not be negative, got -1\.0"):
        single.clip_accumulate_f32([x], [1.0], [-1.0], [1.0], out, out)
    assert cuda.native() is gpu.module
