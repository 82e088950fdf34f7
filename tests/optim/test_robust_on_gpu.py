"""Robust runs of models on a GPU (the emulator): the same models as in host memory, whatever liars send."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, gossip
from pydec.aggregate.attacks import attacks
from pydec.errors import ConfigError
from pydec.gossip.robust.lying import Lying
from pydec.kernels.cuda import _module
from tests.emulated import EmulatedPlace, load_emulated

SIZE = 6

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes an emulated GPU."""
    monkeypatch.setattr(_module, "_loaded", load_emulated())
    return EmulatedPlace


def train(peer: Any, device: Any, rule: str, compressor: str, attack: str | None = None) -> Any:
    """Some steps of a model with buffers; the last rank lies, in host memory, if there is an attack."""
    lying = attack is not None and peer.rank == SIZE - 1
    random = torch.Generator().manual_seed(peer.rank)
    model = nn.Sequential(nn.Linear(7, 40), nn.BatchNorm1d(40), nn.Linear(40, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=random).mul_(0.3)
    algorithm: Any = gossip.make(rule)
    if lying:
        algorithm = Lying(algorithm, attacks.make(attack), [SIZE - 1], seed=1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    place = "cpu" if lying or device == "cpu" else device()
    graph = "epidemic:s=4" if rule.startswith("rpel") else "complete"
    opt = DecentralizedOptimizer(
        sgd, peer, model=model, iid=True, algorithm=algorithm, compressor=compressor, topology=graph,
        gossip_device=place,
    )  # fmt: skip
    opt.honest = not lying
    for _ in range(3):
        opt.zero_grad()
        model(torch.randn(5, 7, generator=random)).square().mean().backward()
        opt.step()
    seen = [value.numpy().copy() for value in model.state_dict().values()]
    seen.append(np.array([opt.consensus_distance()]))
    counts = opt.left_out
    opt.close()
    return seen, counts


def compare(run_peers: Any, emulated: Any, rule: str, compressor: str, attack: str | None = None) -> None:
    ours, theirs = (
        run_peers(SIZE, lambda peer, on=on: train(peer, on, rule, compressor, attack))
        for on in (emulated, "cpu")
    )
    for (mine, counts), (expected, known) in zip(ours[: SIZE - 1], theirs[: SIZE - 1], strict=True):
        assert counts == known
        for one, other in zip(mine, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 if compressor == "int8" else 0)
    if attack is not None:
        assert ours[0][1].malformed + ours[0][1].nonfinite + ours[0][1].over_norm > 0


@pytest.mark.parametrize(
    ("rule", "compressor"),
    [
        ("cs-plus:f=1", "none"),
        ("spectral-filter:f=1", "bf16"),
        ("gts:f=1,order=cta", "int8"),
        ("ios:f=1", "none"),
        ("bridge:f=1", "bf16"),
        ("rpel:f=1,horizon=10", "none"),
        ("nnm+trimmed-mean:f=1", "none"),
    ],
)
def test_robust_training_is_that_of_host_memory(
    run_peers: Any, emulated: Any, rule: str, compressor: str
) -> None:
    compare(run_peers, emulated, rule, compressor)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    ("compressor", "attack"), [("none", "nan"), ("bf16", "nan"), ("int8", "nan"), ("bf16", "huge")]
)
def test_liars_that_send_what_is_no_model_are_dropped(
    run_peers: Any, emulated: Any, monkeypatch: Any, direct: bool, compressor: str, attack: str
) -> None:
    from pydec.comm.local import LocalTransport

    monkeypatch.setattr(LocalTransport, "takes_gpu_memory", direct)
    compare(run_peers, emulated, "gts:f=1", compressor, attack)


def test_ubar_says_why_it_stays_in_host_memory(run_peers: Any, emulated: Any) -> None:
    def program(peer: Any) -> str:
        x = nn.Parameter(torch.zeros(6))
        sgd = torch.optim.SGD([x], lr=0.1, momentum=0.9)
        options: dict[str, Any] = {"algorithm": "ubar:f=1", "topology": "complete", "iid": True}
        with pytest.raises(ConfigError, match="UBAR judges neighbours' models one by one, from host memory"):
            DecentralizedOptimizer(sgd, peer, gossip_device=emulated(), **options)
        return DecentralizedOptimizer(sgd, peer, **options).gossip_device

    assert run_peers(4, program)[0].startswith("cpu: UBAR judges")
