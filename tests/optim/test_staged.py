"""Models on a GPU are averaged in a copy in host memory: the same bits as models that are there already.

There may be no GPU here, so the tensors are in host memory all the same, and the arenas take them for a
GPU's: what is copied where, and that nothing else looks at the tensors, does not depend on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, compress, gossip, topology
from pydec.errors import ConfigError, NonFiniteError
from pydec.optim import arena as arena_module
from pydec.optim import gradients as gradients_module
from pydec.optim.arena import Arena, make_arenas

Run = Callable[..., list[Any]]
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.Tensor], None]:
    """All tensors count as a GPU's; NumPy may not look at arenas, nor at what is given to this function."""
    device: set[int] = set()
    make, numpy = Arena.__init__, torch.Tensor.numpy

    def made(self: Arena, tensors: Any, place: None = None) -> None:
        make(self, tensors, place)
        device.add(self.flat.untyped_storage().data_ptr())

    def seen(tensor: torch.Tensor, **options: Any) -> Any:
        assert tensor.untyped_storage().data_ptr() not in device, "NumPy cannot see a GPU's memory"
        return numpy(tensor, **options)

    for module in (arena_module, gradients_module):
        monkeypatch.setattr(module, "in_host_memory", lambda tensor: False)
    monkeypatch.setattr(Arena, "__init__", made)
    monkeypatch.setattr(torch.Tensor, "numpy", seen)
    return lambda tensor: device.add(tensor.untyped_storage().data_ptr())


def options_of(name: str) -> dict[str, str]:
    """Options with which an algorithm runs on four ranks: the first graph that it takes."""
    compressor = "topk:fraction=0.3" if name == "choco" else "none"
    for graph in ("ring", "one-peer-exponential", "chain", "complete"):
        try:
            gossip.make(name).check(topology.make(graph, size=4), compress.make(compressor))
        except ConfigError:
            continue
        return {"topology": graph, "compressor": compressor, "algorithm": name}
    raise AssertionError(f"no graph here fits {name}")


def program(keep: Callable[[torch.Tensor], None] | None, dtype: torch.dtype, options: dict[str, str]) -> Any:
    """What a rank does, and the bits that come out."""

    def run(peer: Any) -> list[np.ndarray]:
        random = torch.Generator().manual_seed(peer.rank)  # ranks take turns with the common one
        model = nn.Sequential(nn.Linear(7, 19), nn.BatchNorm1d(19), nn.Linear(19, 3)).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(generator=random).mul_(0.3)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        opt = DecentralizedOptimizer(sgd, peer, model=model, iid=True, **options)
        for _ in range(5):
            opt.zero_grad(set_to_none=False)
            model(torch.randn(11, 7, generator=random).to(dtype)).square().mean().backward()
            for parameter in model.parameters():
                assert parameter.grad is not None
                if keep is not None:
                    keep(parameter.grad)
            opt.step()
        seen = [torch.tensor([opt.consensus_distance()])]
        with opt.averaged():
            seen += [value.clone() for value in model.state_dict().values()]
        opt.merge()
        seen += [value.clone() for value in model.state_dict().values()]
        return [value.detach().double().numpy() for value in seen]

    return run


CASES = [
    *((name, torch.float32) for name in gossip.algorithms if name != "adsgd"),  # whose order is the clock's
    *itertools.product(["dpsgd", "dsgdm", "allreduce"], DTYPES[1:]),
]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_training_has_the_same_bits(
    run_peers: Run, request: pytest.FixtureRequest, name: str, dtype: torch.dtype
) -> None:
    options = options_of(name)
    expected = run_peers(4, program(None, dtype, options))
    elsewhere = request.getfixturevalue("elsewhere")
    for ours, theirs in zip(run_peers(4, program(elsewhere, dtype, options)), expected, strict=True):
        for mine, right in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, right)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_copy_is_loaded_and_stored(elsewhere: Any, dtype: torch.dtype) -> None:
    tensor = nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=dtype) / 3)
    exact = tensor.detach().clone()
    (arena,) = make_arenas([("t", tensor)])
    arena.load()
    np.testing.assert_array_equal(arena.vector[:3], exact.float().numpy())
    arena.vector[:3] += 1
    assert torch.equal(tensor.detach(), exact)
    arena.store()
    torch.testing.assert_close(tensor.detach(), exact + 1, rtol=0, atol=torch.finfo(dtype).eps * 4 + 1e-6)
    with arena.exact() as flat:
        flat[:3] = 7
    assert torch.equal(tensor.detach(), torch.full_like(exact, 7))
    assert arena.staging_bytes == arena.vector.nbytes


def test_gradients_are_counted_where_they_are(run_peers: Run, elsewhere: Any) -> None:
    def run(peer: Any) -> None:
        x = nn.Parameter(torch.zeros(5))
        y = nn.Parameter(torch.zeros(3))
        opt = DecentralizedOptimizer(torch.optim.SGD([x, y], lr=0.1), peer, iid=True)
        x.grad, y.grad = torch.zeros(5), torch.tensor([1.0, float("nan"), float("inf")])
        elsewhere(y.grad)
        opt.step()

    with pytest.raises(NonFiniteError, match="parameter 1 of group 0 holds 2 NaN"):
        run_peers(1, run)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parameters_on_a_gpu_stay_there(dtype: torch.dtype) -> None:
    tensor = nn.Parameter(torch.arange(5, dtype=dtype, device="cuda"))
    (arena,) = make_arenas([("t", tensor)])
    arena.load()
    arena.vector *= 2
    arena.store()
    assert tensor.device.type == "cuda"
    assert tensor.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
