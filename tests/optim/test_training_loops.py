"""What training loops do around an optimiser: resume, scale, accumulate, average, compile."""

from __future__ import annotations

import copy
import io
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, gossip

Run = Callable[..., list[Any]]

EVERY = [  # with rounds; test_asynchronous.py and gossip/test_latest.py have what the others can promise
    *(
        name
        for name in gossip.algorithms
        if name != "allreduce" and not gossip.algorithms.make(name).asynchronous
    ),
    "dsgdm:order=atc",
    "sgp:order=cta",
    "dpsgd:order=atc",
    "choco:order=cta",
]


def graph(algorithm: str) -> str:
    """One that the algorithm takes at any size."""
    name = algorithm.partition(":")[0]
    fits = {"relaysgd": "chain", "sparseloco": "complete"} | dict.fromkeys(
        ("choco", "d2", "decentlam", "beer", "powergossip"), "ring"
    )
    return fits.get(name, "base-k:k=1")


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))


def build(
    model: nn.Module, peer: Any, algorithm: str, **options: Any
) -> tuple[DecentralizedOptimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Two groups with different rates, one of them with weight decay; the rate halves every three steps."""
    parameters = list(model.parameters())
    sgd = torch.optim.SGD(
        [{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:], "lr": 0.05, "weight_decay": 0.01}]
    )
    chosen = {"topology": graph(algorithm), "algorithm": algorithm, "model": model, **options}
    opt = DecentralizedOptimizer(sgd, peer, **chosen)
    return opt, torch.optim.lr_scheduler.StepLR(opt, 3, 0.5)


def batch(random: torch.Generator, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(12, 8, generator=random) + rank
    return x, torch.randint(3, (12,), generator=random)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def run(peer: Any, algorithm: str, *, steps: int = 9, resume_at: int = -1, **options: Any) -> Any:
    model = net()
    opt, schedule = build(model, peer, algorithm, **options)
    random = torch.Generator().manual_seed(peer.rank)
    for step in range(steps):
        if step == resume_at:
            file = io.BytesIO()
            torch.save([model.state_dict(), opt.state_dict(), schedule.state_dict()], file)
            file.seek(0)
            saved = torch.load(file, weights_only=False)
            opt.close()
            model = net(1)
            opt, schedule = build(model, peer, algorithm, **options)
            model.load_state_dict(saved[0])
            opt.load_state_dict(saved[1])
            schedule.load_state_dict(saved[2])
        x, y = batch(random, peer.rank)
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        opt.step()
        schedule.step()
    opt.close()
    return weights(model)


@pytest.mark.parametrize("algorithm", EVERY)
@pytest.mark.parametrize("local_steps", [1, 2])
def test_a_resumed_run_has_the_bits_of_an_undisturbed_one(
    run_peers: Run, algorithm: str, local_steps: int
) -> None:
    through = run_peers(3, lambda peer: run(peer, algorithm, local_steps=local_steps))
    resumed = run_peers(3, lambda peer: run(peer, algorithm, local_steps=local_steps, resume_at=5))
    for a, b in zip(through, resumed, strict=True):
        assert same(a, b)
    assert not same(through[0], run_peers(3, lambda peer: run(peer, algorithm, steps=8))[0])


def test_adaptive_mixing_resumes_with_the_same_bits_and_rounds(run_peers: Run) -> None:
    options = {"mixing": "adaptive:rounds=3,early=4,after=2", "estimate": True}
    through = run_peers(5, lambda peer: run(peer, "dpsgd:order=atc", **options))
    resumed = run_peers(5, lambda peer: run(peer, "dpsgd:order=atc", resume_at=5, **options))
    assert all(same(a, b) for a, b in zip(through, resumed, strict=True))


def test_state_of_other_options_is_refused(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        plain, _ = build(net(), peer, "dpsgd:order=atc")
        measured, _ = build(net(), peer, "dpsgd:order=atc", estimate=True)
        with pytest.raises(ValueError, match="estimator does not fit"):
            plain.load_state_dict(measured.state_dict())

    run_peers(2, program)


def scaled(peer: Any, algorithm: str, *, overflow: bool, scale: bool) -> dict[str, torch.Tensor]:
    model = net()
    opt, _ = build(model, peer, algorithm)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=1000, enabled=scale)
    random = torch.Generator().manual_seed(peer.rank)
    for step in range(6):
        x, y = batch(random, peer.rank)
        opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x).float(), y)
        scaler.scale(loss).backward()
        if overflow and step == 3 and peer.rank == 1:
            model[0].weight.grad[0, 0] = float("inf")
        if step % 2:
            scaler.unscale_(opt)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(opt)
        scaler.update()
    opt.close()
    if scale:
        assert scaler.get_scale() == (32.0 if overflow and peer.rank == 1 else 64.0)
    return weights(model)


@pytest.mark.parametrize(
    "algorithm", ["dpsgd", "dsgdm", "gradient-tracking", "exact-diffusion", "qg-dsgdm", "sgp"]
)
def test_autocast_and_a_gradient_scaler(run_peers: Run, algorithm: str) -> None:
    plain = run_peers(3, lambda peer: scaled(peer, algorithm, overflow=False, scale=False))
    amp = run_peers(3, lambda peer: scaled(peer, algorithm, overflow=False, scale=True))
    for a, b in zip(plain, amp, strict=True):
        assert same(a, b)  # the scale is a power of two
    # An overflow on one rank leaves out its step; all ranks gossip on in the same rounds.
    for state in run_peers(3, lambda peer: scaled(peer, algorithm, overflow=True, scale=True)):
        assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize("algorithm", ["dpsgd", "dsgdm", "momentum-tracking", "exact-diffusion"])
def test_accumulated_gradients_are_those_of_the_larger_batch(run_peers: Run, algorithm: str) -> None:
    def program(peer: Any, pieces: int) -> torch.Tensor:
        model = nn.Linear(8, 3)
        nn.init.ones_(model.weight)
        nn.init.zeros_(model.bias)
        opt, _ = build(model, peer, algorithm)
        random = torch.Generator().manual_seed(peer.rank)
        for _ in range(5):
            x, y = batch(random, peer.rank)
            opt.zero_grad()
            for part, label in zip(x.chunk(pieces), y.chunk(pieces), strict=True):
                (nn.functional.cross_entropy(model(part), label) / pieces).backward()
            opt.step()
        opt.close()
        return model.weight.detach().clone()

    whole = run_peers(3, lambda peer: program(peer, 1))
    for a, b in zip(whole, run_peers(3, lambda peer: program(peer, 4)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ["dpsgd", "sgp", "gossip-diloco"])
def test_an_average_over_time_sees_every_model(run_peers: Run, algorithm: str) -> None:
    def program(peer: Any) -> None:
        model = net()
        opt, _ = build(model, peer, algorithm)
        ema = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
        )
        expected, random = None, torch.Generator().manual_seed(peer.rank)
        for _ in range(4):
            x, y = batch(random, peer.rank)
            opt.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            opt.step()
            ema.update_parameters(model)
            now = model[0].weight.detach().clone()
            expected = now if expected is None else 0.5 * expected + 0.5 * now
        opt.close()
        torch.testing.assert_close(ema.module[0].weight, expected)

    run_peers(2, program)


@pytest.mark.parametrize("algorithm", ["dpsgd", "dsgdm", "gradient-tracking"])
def test_compiled_models_train_like_others(run_peers: Run, algorithm: str) -> None:
    def program(peer: Any, compiled: bool) -> dict[str, torch.Tensor]:
        model = net()
        call = torch.compile(model, backend="aot_eager") if compiled else model
        opt, _ = build(model, peer, algorithm)
        random = torch.Generator().manual_seed(peer.rank)
        for _ in range(4):
            x, y = batch(random, peer.rank)
            opt.zero_grad()
            nn.functional.cross_entropy(call(x), y).backward()
            opt.step()
        opt.close()
        return weights(model)

    for a, b in zip(
        run_peers(2, lambda peer: program(peer, False)),
        run_peers(2, lambda peer: program(peer, True)),
        strict=True,
    ):
        for name in a:
            torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-5)


def test_a_missing_gradient_counts_as_zero(run_peers: Run) -> None:
    def program(peer: Any, algorithm: str) -> torch.Tensor:
        used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(5))
        sgd = torch.optim.SGD([used, unused], lr=0.1)
        opt = DecentralizedOptimizer(sgd, peer, algorithm=algorithm, topology="ring")
        for _ in range(3):
            opt.zero_grad()
            used.sum().backward()
            opt.step()
        opt.close()
        assert torch.equal(unused.detach(), torch.ones(5))
        return used.detach().clone()

    for algorithm in ("dsgdm", "gradient-tracking", "momentum-tracking", "exact-diffusion"):
        for x in run_peers(3, lambda peer, name=algorithm: program(peer, name)):
            assert x.max() < 0.75


@pytest.mark.parametrize("algorithm", ["dsgdm", "momentum-tracking", "gradient-tracking"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rules_that_see_gradients_take_other_types_and_layouts(
    run_peers: Run, algorithm: str, dtype: torch.dtype
) -> None:
    def program(peer: Any) -> torch.Tensor:
        images = nn.Conv2d(3, 4, 3, dtype=dtype).to(memory_format=torch.channels_last)
        nn.init.constant_(images.weight, 0.5)
        nn.init.zeros_(images.bias)
        target = torch.linspace(-1, 1, images.weight.numel()).to(dtype).view_as(images.weight)
        sgd = torch.optim.SGD(images.parameters(), lr=0.05)
        opt = DecentralizedOptimizer(sgd, peer, algorithm=algorithm, topology="ring")
        for _ in range(150):
            opt.zero_grad()
            (0.5 * (images.weight - target).square().sum() + images.bias.square().sum()).backward()
            opt.step()
        opt.close()
        return (images.weight - target).detach().abs().max()

    for error in run_peers(2, program):
        assert error < (0.05 if dtype is torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_steady_step_allocates_no_buffers(run_peers: Run, algorithm: str) -> None:
    n = 1 << 18

    def program(peer: Any) -> int:
        x = nn.Parameter(torch.zeros(n))
        sgd = torch.optim.SGD([x], lr=0.1)
        opt = DecentralizedOptimizer(sgd, peer, topology=graph(algorithm), algorithm=algorithm)
        x.grad = torch.ones(n)
        for _ in range(3):
            opt.step()
        if peer.rank == 0:
            tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            opt.step()
        opt.close()
        return tracemalloc.get_traced_memory()[1] - before

    twice = ("gradient-tracking", "momentum-tracking", "beer", "k-gt", "damsgrad")
    messages = 2 if algorithm in twice else 1
    for size, copies in ((1, 0), (2, 2)):
        tracemalloc.start()
        try:
            grown = max(run_peers(size, program))
        finally:
            tracemalloc.stop()
        # The local cluster copies what is in flight: each rank's packets.
        assert grown < (copies * messages * 4 + 1) * n, (size, grown)


def test_closures_go_to_the_wrapped_optimiser_or_are_refused(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        x = nn.Parameter(torch.ones(4))
        for algorithm in ("dpsgd", "exact-diffusion"):
            sgd = torch.optim.SGD([x], lr=0.1)
            opt = DecentralizedOptimizer(sgd, peer, algorithm=algorithm, topology="ring")

            def closure() -> float:
                x.grad = torch.ones(4)
                return 3.0

            assert opt.step(closure) == 3.0
        opt = DecentralizedOptimizer(copy.copy(sgd), peer, algorithm="gradient-tracking", topology="ring")
        with pytest.raises(ValueError, match="takes no closure"):
            opt.step(closure)

    run_peers(1, program)
