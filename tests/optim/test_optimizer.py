"""DecentralizedOptimizer against the equations, and with everything people do to an optimiser."""

from __future__ import annotations

import copy
import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, topology
from pydec.errors import ConfigError, MismatchError, NonFiniteError

Run = Callable[..., list[Any]]
SIZE, D, ETA = 4, 6, 0.2


def targets(size: int = SIZE) -> torch.Tensor:
    return torch.randn(size, D, generator=torch.Generator().manual_seed(5))


def descend(peer: Any, steps: int, **options: Any) -> torch.Tensor:
    """Gradient descent on ||x - b_i||^2 / 2, b_i this rank's target."""
    x = nn.Parameter(torch.zeros(D))
    opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=ETA), peer, **options)
    for _ in range(steps):
        opt.zero_grad()
        (0.5 * (x - targets(peer.size)[peer.rank]).square().sum()).backward()
        opt.step()
    return x.detach().clone()


@pytest.mark.parametrize("order", ["atc", "cta"])
@pytest.mark.parametrize("graph", ["ring", "one-peer-exponential", "base-k:k=1"])
def test_dpsgd_follows_its_equation(run_peers: Run, order: str, graph: str) -> None:
    steps = 7
    got = np.stack(
        run_peers(SIZE, lambda peer: descend(peer, steps, topology=graph, algorithm=f"dpsgd:order={order}"))
    )
    x, b, schedule = np.zeros((SIZE, D)), targets().numpy(), topology.make(graph, size=SIZE)
    for t in range(steps):
        w, g = schedule.weights(t), x - b
        x = w @ (x - ETA * g) if order == "atc" else w @ x - ETA * g
    np.testing.assert_allclose(got, x, atol=1e-6)


@pytest.mark.parametrize("graph", ["hierarchical:between=ring", "alternating:between=ring", "hierarchical"])
def test_two_level_topologies_know_the_nodes_of_the_job(run_peers: Run, graph: str) -> None:
    """The ranks of a local cluster share this machine, so the exact average of one node is all there is."""
    got = np.stack(
        run_peers(SIZE, lambda peer: descend(peer, 3, topology=graph, algorithm="dpsgd:order=atc"))
    )
    assert np.abs(got - got[0]).max() < (1e-6 if graph.startswith("hier") else np.inf)
    x, b, schedule = np.zeros((SIZE, D)), targets().numpy(), topology.make(graph, SIZE, nodes=[0] * SIZE)
    for t in range(3):
        x = schedule.weights(t) @ (x - ETA * (x - b))
    np.testing.assert_allclose(got, x, atol=1e-6)


@pytest.mark.parametrize(
    "graph", ["torus", "star", "erdos-renyi", "od-equidyn", "hierarchical:between=ring,m=2"]
)
def test_dpsgd_runs_on_every_kind_of_graph(run_peers: Run, graph: str) -> None:
    got = np.stack(
        run_peers(SIZE, lambda peer: descend(peer, 5, topology=graph, algorithm="dpsgd:order=cta"))
    )
    x, b, schedule = np.zeros((SIZE, D)), targets().numpy(), topology.make(graph, SIZE, seed=7)
    for t in range(5):
        x = schedule.weights(t) @ x - ETA * (x - b)
    np.testing.assert_allclose(got, x, atol=1e-6)


def test_dpsgd_reaches_its_fixed_point(run_peers: Run) -> None:
    got = np.stack(
        run_peers(SIZE, lambda peer: descend(peer, 120, topology="ring", algorithm="dpsgd:order=atc"))
    )
    w = topology.make("ring", size=SIZE).weights(0)
    fixed = np.linalg.solve(np.eye(SIZE) - (1 - ETA) * w, ETA * w @ targets().numpy())
    np.testing.assert_allclose(got, fixed, atol=1e-5)


@pytest.mark.parametrize("order", ["atc", "cta"])
@pytest.mark.parametrize("compressor", ["int8", "topk:fraction=0.5"])
def test_choco_trains_to_the_neighbourhood_of_the_optimum(
    run_peers: Run, order: str, compressor: str
) -> None:
    options = {"topology": "ring", "compressor": compressor, "algorithm": f"choco:order={order}"}
    got = np.stack(run_peers(SIZE, lambda peer: descend(peer, 150, **options)))
    np.testing.assert_allclose(got.mean(0), targets().mean(0), atol=1e-3)


def test_allreduce_is_one_model_on_all_data(run_peers: Run) -> None:
    got = run_peers(3, lambda peer: descend(peer, 5, algorithm="allreduce"))
    expected, mean = torch.zeros(D), targets(3).mean(0)
    for _ in range(5):
        expected -= ETA * (expected - mean)
    for x in got:
        torch.testing.assert_close(x, expected)
        assert torch.equal(x, got[0])


def test_a_single_rank_is_the_wrapped_optimiser(run_peers: Run) -> None:
    for algorithm in ("dpsgd", "choco", "allreduce"):
        (got,) = run_peers(1, lambda peer, a=algorithm: descend(peer, 5, algorithm=a, topology="ring"))
        x = nn.Parameter(torch.zeros(D))
        plain = torch.optim.SGD([x], lr=ETA)
        for _ in range(5):
            plain.zero_grad()
            (0.5 * (x - targets(1)[0]).square().sum()).backward()
            plain.step()
        assert torch.equal(got, x.detach())


class Net(nn.Module):
    """Tied weights, BatchNorm, a frozen layer and two dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.decoder = nn.Linear(8, 8)
        self.decoder.weight = self.encoder.weight
        self.head = nn.Linear(8, 3, dtype=torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores, float32."""
        hidden = self.decoder(self.frozen(torch.relu(self.norm(self.encoder(x)))))
        scores: torch.Tensor = self.head(hidden.bfloat16()).float()
        return scores


def train_net(peer: Any, steps: int, resume_at: int = -1, **options: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(peer.rank)  # different starts: init="broadcast" makes them one
    net = Net()

    def build() -> tuple[DecentralizedOptimizer, torch.optim.lr_scheduler.LRScheduler]:
        groups = [
            {"params": net.encoder.parameters()},
            {"params": [*net.norm.parameters(), *net.frozen.parameters()]},
        ]
        groups += [{"params": [net.decoder.weight, net.decoder.bias, *net.head.parameters()], "lr": 0.02}]
        groups[2]["params"] = [p for p in groups[2]["params"] if p is not net.encoder.weight]
        inner = torch.optim.AdamW(groups, lr=0.01)
        opt = DecentralizedOptimizer(inner, peer, model=net, **options)
        return opt, torch.optim.lr_scheduler.StepLR(opt, 3, 0.5)

    opt, schedule = build()
    data = torch.Generator().manual_seed(100 + peer.rank)
    for step in range(steps):
        if step == resume_at:
            file = io.BytesIO()
            torch.save(
                {"net": net.state_dict(), "opt": opt.state_dict(), "schedule": schedule.state_dict()}, file
            )
            file.seek(0)
            saved = torch.load(file, weights_only=False)
            opt.close()
            opt, schedule = build()
            net.load_state_dict(saved["net"])
            opt.load_state_dict(saved["opt"])
            schedule.load_state_dict(saved["schedule"])
        x, y = torch.randn(16, 8, generator=data), torch.randint(3, (16,), generator=data)
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        schedule.step()
    opt.close()
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "dpsgd:order=cta", "compressor": "int8"},
        {"algorithm": "dpsgd:order=atc"},
        {"algorithm": "choco:order=cta", "topology": "ring", "compressor": "topk:fraction=0.2"},
        {"algorithm": "allreduce"},
    ],
    ids=lambda options: f"{options['algorithm']}",
)
def test_groups_schedulers_clipping_dtypes_tied_and_frozen_weights(
    run_peers: Run, options: dict[str, str]
) -> None:
    states = run_peers(3, lambda peer: train_net(peer, 8, **options))
    for state in states:
        assert state["decoder.weight"].equal(state["encoder.weight"])
        assert state["norm.num_batches_tracked"] == 8
        assert state["frozen.weight"].dtype == torch.float32
    spread = (states[0]["encoder.weight"] - states[1]["encoder.weight"]).abs().max()
    assert spread < 0.05
    assert (states[0]["norm.running_mean"] - states[1]["norm.running_mean"]).abs().max() < 0.2


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "dpsgd:order=cta", "compressor": "int8"},
        {"algorithm": "choco:order=cta", "topology": "ring", "compressor": "topk:fraction=0.2"},
        {"algorithm": "choco-peers:order=cta", "topology": "base-k", "compressor": "topk:fraction=0.2"},
    ],
    ids=lambda options: f"{options['algorithm']}",
)
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(run_peers: Run, options: dict[str, str]) -> None:
    through = run_peers(3, lambda peer: train_net(peer, 6, **options))
    resumed = run_peers(3, lambda peer: train_net(peer, 6, resume_at=3, init="keep", **options))
    # init="keep" leaves ranks their own start, so both runs must use it to be compared.
    kept = run_peers(3, lambda peer: train_net(peer, 6, init="keep", **options))
    assert not all(a["encoder.bias"].equal(b["encoder.bias"]) for a, b in zip(through, kept, strict=True))
    for a, b in zip(resumed, kept, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_averaged_is_the_mean_and_gives_each_rank_its_own_back(run_peers: Run) -> None:
    def program(peer: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
        x = nn.Parameter(targets()[peer.rank].clone())
        opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=0.1), peer, init="keep")
        with opt.averaged():
            mean = x.detach().clone()
        return mean, x.detach().clone(), opt.consensus_distance()

    expected = targets().mean(0)
    distance = float((targets() - expected).square().sum(1).mean().sqrt())
    for rank, (mean, own, got) in enumerate(run_peers(SIZE, program)):
        torch.testing.assert_close(mean, expected)
        assert torch.equal(own, targets()[rank])
        assert got == pytest.approx(distance, rel=1e-5)


@pytest.mark.parametrize("policy", ["raise", "skip", "continue"])
def test_nan_policy(run_peers: Run, policy: Any) -> None:
    def program(peer: Any) -> torch.Tensor:
        x = nn.Parameter(torch.ones(D))
        opt = DecentralizedOptimizer(
            torch.optim.SGD([x], lr=0.1), peer, nan_policy=policy, algorithm="dpsgd:order=atc"
        )
        x.grad = torch.full((D,), float("nan") if peer.rank == 1 else 1.0)
        opt.step()
        return x.detach()

    if policy == "raise":
        with pytest.raises(NonFiniteError, match=r"parameter 0 of group 0 holds 6 NaN.*rank 1"):
            run_peers(2, program)
        return
    expected = torch.full((D,), float("nan") if policy == "continue" else 0.95)
    for x in run_peers(2, program):
        torch.testing.assert_close(x, expected, rtol=0, atol=0, equal_nan=True)


def test_ranks_that_disagree_stop_with_the_difference_named(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        x = nn.Parameter(torch.zeros(3 + (peer.rank == 1)))
        DecentralizedOptimizer(torch.optim.SGD([x], lr=0.1), peer)

    with pytest.raises(MismatchError, match=r"parameter 0 of group 0.*\(3,\).*\(4,\)|\(4,\).*\(3,\)"):
        run_peers(3, program)


def test_a_difference_in_a_large_model_is_named(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        sizes = [1] * 1500
        sizes[1400] += peer.rank
        layers = [nn.Parameter(torch.zeros(size)) for size in sizes]
        DecentralizedOptimizer(torch.optim.SGD(layers, lr=0.1), peer)

    with pytest.raises(MismatchError, match="parameter 1400 of group 0"):
        run_peers(2, program)


def sgd(**options: Any) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(2, **options))], lr=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"topology": "moebius"}, "known: alternating"),
        ({"compressor": "int9"}, r"known: .*int8"),
        ({"algorithm": "adam"}, "known: .*allreduce"),
        ({"nan_policy": "ignore"}, "nan_policy must be one of raise, skip, continue"),
        ({"buffers": "sum"}, "buffers must be"),
        ({"algorithm": "choco"}, "must not change"),
        ({"algorithm": "choco", "topology": "ring", "late": "drop"}, "late='drop'"),
        ({"topology": topology.make("ring", size=5)}, "5 ranks, this job has 3"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(run_peers: Run, options: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_peers(3, lambda peer: DecentralizedOptimizer(sgd(), peer, **options))


def test_models_that_cannot_be_trained_are_refused(run_peers: Run) -> None:
    def frozen(peer: Any) -> None:
        DecentralizedOptimizer(torch.optim.SGD([nn.Parameter(torch.zeros(2), requires_grad=False)]), peer)

    with pytest.raises(ConfigError, match="nothing to train"):
        run_peers(1, frozen)
    with pytest.raises(ConfigError, match="complex"):
        run_peers(1, lambda peer: DecentralizedOptimizer(sgd(dtype=torch.complex64), peer))


def test_changes_after_construction_are_noticed(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        layer = nn.Linear(2, 2)
        opt = DecentralizedOptimizer(torch.optim.SGD(layer.parameters(), lr=0.1), peer)
        with pytest.raises(ConfigError, match="wrap it"):
            opt.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
        layer.bias.requires_grad_(False)
        with pytest.raises(ConfigError, match="frozen, unfrozen"):
            opt.step()
        layer.bias.requires_grad_(True)
        layer.weight.data = torch.zeros(2, 2)
        with pytest.raises(ConfigError, match="storage was replaced"):
            opt.step()

    run_peers(1, program)


def test_a_sparse_gradient_is_refused(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        table = nn.Embedding(4, 2, sparse=True)
        opt = DecentralizedOptimizer(torch.optim.SGD(table.parameters(), lr=0.1), peer, model=table)
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(ConfigError, match="gradient of weight is sparse"):
            opt.step()

    run_peers(1, program)


def test_foreign_state_is_refused(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        x = [nn.Parameter(torch.zeros(2))]
        plain = torch.optim.SGD(x, lr=0.1)
        opt = DecentralizedOptimizer(plain, peer, topology="ring", algorithm="choco")
        with pytest.raises(ConfigError, match="not a DecentralizedOptimizer state"):
            opt.load_state_dict(plain.state_dict())
        other = copy.deepcopy(opt.state_dict())
        other["gossip"]["name"] = "DPSGD(order='cta')"
        with pytest.raises(ConfigError, match="DPSGD"):
            opt.load_state_dict(other)

    run_peers(1, program)


@pytest.mark.parametrize("algorithm", ["dpsgd:order=cta", "choco:order=atc"])
def test_a_steady_step_allocates_no_buffers(run_peers: Run, algorithm: str) -> None:
    n = 1 << 18

    def program(peer: Any) -> int:
        x = nn.Parameter(torch.zeros(n))
        options = {"topology": "ring", "compressor": "int8", "algorithm": algorithm}
        opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=0.1), peer, **options)
        x.grad = torch.ones(n)
        for _ in range(3):
            opt.step()
        if peer.rank == 0:
            tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            opt.step()
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        grown = max(run_peers(2, program))
    finally:
        tracemalloc.stop()
    # The local cluster copies what is in flight (two packets of n bytes each way); nothing else may show.
    assert grown < 5 * n
