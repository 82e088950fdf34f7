"""What test_ddp_hook.py runs on every rank of a gloo group; this file is also the rank's process."""

from __future__ import annotations

import copy
import datetime
import io
import os
import pickle
import sys
import traceback
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

import pydec
from pydec import compress
from pydec.errors import ConfigError, MismatchError


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 300), nn.Tanh(), nn.Linear(300, 40), nn.Tanh(), nn.Linear(40, 3)]
    return nn.Sequential(*layers).to(dtype)


def batch(random: torch.Generator, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(12, 8, generator=random) + dist.get_rank()
    return x.to(dtype), torch.randint(3, (12,), generator=random)


def flat(model: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().float().view(-1) for p in model.parameters()]).numpy().copy()


def grads(model: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: p.grad.float().numpy().ravel().copy()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def train(
    spec: str | None,
    steps: int = 5,
    *,
    dtype: str = "float32",
    accumulate: int = 1,
    compiled: bool = False,
    extras: bool = False,
    **options: Any,
) -> Any:
    """Parameters after training with the hook, or with plain DDP if there is no compressor."""
    kind = getattr(torch, dtype)
    options.setdefault("bucket_cap_mb", 0.01)  # several buckets, and others after the first step
    ddp = DDP(net(kind), **options)
    state = pydec.ddp_hook(ddp, spec) if spec else None
    call = torch.compile(ddp, backend="aot_eager") if compiled else ddp
    opt = torch.optim.AdamW(ddp.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(opt, 2, 0.5)
    ema = torch.optim.swa_utils.AveragedModel(ddp.module)
    random = torch.Generator().manual_seed(dist.get_rank())
    for _ in range(steps):
        opt.zero_grad()
        x, y = batch(random, kind)
        for i in range(accumulate):
            with ddp.no_sync() if i < accumulate - 1 else nullcontext():
                part, label = x.chunk(accumulate)[i], y.chunk(accumulate)[i]
                (nn.functional.cross_entropy(call(part).float(), label) / accumulate).backward()
        if extras:
            nn.utils.clip_grad_norm_(ddp.parameters(), 0.1)
        opt.step()
        if extras:
            schedule.step()
            ema.update_parameters(ddp.module)
    if state is not None:
        assert state.step == steps - 1
        assert state.refused == 0
    return flat(ddp.module), flat(ema.module), state.payload_bytes if state else 0


def against_its_definition(spec: str, feedback: bool | None) -> tuple[np.ndarray, np.ndarray]:
    """One bucket of one parameter: what DDP leaves in .grad, and what a few lines of NumPy say."""
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = nn.Linear(97, 11, bias=False)
    ddp = DDP(copy.deepcopy(model))
    pydec.ddp_hook(ddp, spec, seed=5, feedback=feedback)
    compressor = compress.make(spec)
    contracts = compressor.delta(97 * 11) > 0 or compressor.variance(97 * 11) is None
    residual = np.zeros(97 * 11, np.float32)
    random = torch.Generator().manual_seed(rank)
    got, expected = [], []
    for step in range(4):
        x = torch.randn(5, 97, generator=random)
        ddp.zero_grad()
        model.zero_grad()
        ddp(x).square().sum().backward()
        model(x).square().sum().backward()
        a = grads(model)["weight"] + residual
        payload = compressor.keyed(compress.draw_key(5, rank, step, 0)).encode(a)
        if feedback or (feedback is None and contracts):
            residual = a - compressor.decode(payload, np.empty_like(a))
        payloads: list[Any] = [None] * size
        dist.all_gather_object(payloads, payload)
        mean = np.zeros_like(a)
        for other in payloads:
            mean += np.float32(1 / size) * compressor.decode(other, np.empty_like(a))
        got.append(grads(ddp.module)["weight"])
        expected.append(mean)
    return np.stack(got), np.stack(expected)


def conservation(spec: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What was applied plus what waits, and the sum of all gradients: means over the ranks, by parameter."""
    model = net()
    ddp = DDP(copy.deepcopy(model), bucket_cap_mb=0.01)
    state = pydec.ddp_hook(ddp, spec)
    sent: dict[str, np.ndarray] = {}
    wanted: dict[str, np.ndarray] = {}
    random = torch.Generator().manual_seed(dist.get_rank())
    layouts = set()
    for _ in range(4):
        x, y = batch(random)
        for m, total in ((ddp, sent), (model, wanted)):
            m.zero_grad()
            nn.functional.cross_entropy(m(x), y).backward()
            for name, gradient in grads(m.module if m is ddp else m).items():
                total[name] = total.get(name, 0.0) + gradient.astype(np.float64)
        layouts.add(tuple(tuple(map(id, b.parameters)) for _, b in sorted(state._buckets.items())))
    assert len(layouts) > 1  # DDP sorted the parameters again
    for name, residual in state.residuals().items():
        for total, part in ((sent, residual), (wanted, None)):
            mine = torch.from_numpy(total[name] if part is None else part.astype(np.float64))
            dist.all_reduce(mine)
            mean = mine.numpy() / dist.get_world_size()
            total[name] = mean if part is None else total[name] + mean
    return sent, wanted


def overflow(spec: str) -> dict[str, Any]:
    """An infinite gradient on one rank, under a GradScaler."""
    rank = dist.get_rank()
    ddp = DDP(net(), bucket_cap_mb=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=1000)
    state = pydec.ddp_hook(ddp, spec, scaler=scaler)
    opt = torch.optim.SGD(ddp.parameters(), lr=0.1)
    random = torch.Generator().manual_seed(rank)
    seen: dict[str, Any] = {}
    for step in range(5):
        x, y = batch(random)
        if step == 3 and rank == 1:
            x[0, 0] = torch.inf
        before, residuals = flat(ddp.module), state.residuals()
        alone = copy.deepcopy(ddp.module)
        opt.zero_grad()
        alone.zero_grad()
        for model in (ddp, alone):
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(x).float(), y)
            scaler.scale(loss).backward()
        if step == 3:
            lost = {name: bool(p.grad.isnan().all()) for name, p in ddp.module.named_parameters()}
            assert lost["0.weight"] or spec == "none"
            assert not lost["4.weight"]
            for name, residual in state.residuals().items():
                gradient = grads(alone)[name]
                expected = residuals[name] + (0.0 if lost[name] else gradient)
                expected[~np.isfinite(gradient)] = 0.0  # on the rank that refused
                np.testing.assert_allclose(residual, expected, atol=1e-5)
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)
        scaler.step(opt)
        scaler.update()
        seen[f"stepped {step}"] = not np.array_equal(before, flat(ddp.module))
        if step == 3:
            waiting = state.residuals()
            state._follow_scale()
            for name, residual in state.residuals().items():
                np.testing.assert_array_equal(residual, waiting[name] / 2)
    seen |= {"refused": state.refused, "reason": state.last_refusal, "scale": scaler.get_scale()}
    seen["parameters"] = flat(ddp.module)
    return seen


def not_scaled_not_finite() -> bool:
    ddp = DDP(nn.Linear(4, 2))
    pydec.ddp_hook(ddp, "int8")
    ddp(torch.full((1, 4), torch.nan if dist.get_rank() == 2 else 1.0)).sum().backward()
    return bool(ddp.module.weight.grad.isnan().all())


def resumed() -> None:
    random = torch.Generator().manual_seed(dist.get_rank())
    x, y = batch(random)
    ddp = DDP(net(), bucket_cap_mb=0.01)
    state = pydec.ddp_hook(ddp, "topk:fraction=0.1")
    for _ in range(3):
        nn.functional.cross_entropy(ddp(x), y).backward()
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    again = DDP(net(), bucket_cap_mb=0.01)
    other = pydec.ddp_hook(again, "topk:fraction=0.1")
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.step == 2
    residuals = state.residuals()
    assert set(residuals) == {name for name, _ in ddp.module.named_parameters()}
    for name, residual in other.residuals().items():
        np.testing.assert_array_equal(residual, residuals[name])
    for m in (ddp, again):
        m.zero_grad()
        nn.functional.cross_entropy(m(x), y).backward()
    assert set(other.residuals()) == set(residuals)
    # Buckets differ, so do the entries sent; what is sent and what waits have the same sum.
    size = dist.get_world_size()
    for name, p in ddp.module.named_parameters():
        sums = []
        for model, hook in ((ddp, state), (again, other)):
            waiting = torch.from_numpy(hook.residuals()[name])
            dist.all_reduce(waiting)
            sums.append(model.module.get_parameter(name).grad.flatten() + waiting / size)
        torch.testing.assert_close(sums[0], sums[1], atol=1e-6, rtol=1e-4)
        assert p.grad is not None
    bad = state.state_dict()
    bad["residuals"]["0.weight"] = torch.zeros(3)
    try:
        state.load_state_dict(bad)
    except ConfigError as error:
        assert "3 residuals for '0.weight', which has 2400" in str(error)  # noqa: PT017
    else:
        raise AssertionError("took residuals of another model")


def alone() -> None:
    """A group of one: gradients stay as they are."""
    groups = [dist.new_group([rank]) for rank in range(dist.get_world_size())]
    model = net()
    ddp = DDP(copy.deepcopy(model), process_group=groups[dist.get_rank()])
    state = pydec.ddp_hook(ddp, "int2")
    x, y = batch(torch.Generator().manual_seed(dist.get_rank()))
    for m in (model, ddp):
        nn.functional.cross_entropy(m(x), y).backward()
    for a, b in zip(model.parameters(), ddp.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert state.payload_bytes == 0


def mismatch() -> str:
    try:
        pydec.ddp_hook(DDP(net()), "int8" if dist.get_rank() else "topk")
    except MismatchError as error:
        return str(error)
    return ""


def refusals() -> list[str]:
    """What is refused, in words."""
    said = []

    def refuse(act: Any) -> None:
        try:
            act()
        except ConfigError as error:
            said.append(str(error))
        else:
            said.append("not refused")

    refuse(lambda: pydec.ddp_hook(net(), "int8"))
    refuse(lambda: pydec.ddp_hook(DDP(net()), "no-such"))
    refuse(lambda: pydec.ddp_hook(DDP(net()), "auto"))
    refuse(lambda: pydec.ddp_hook(DDP(net()), "randk:unbiased=true", feedback=True))
    refuse(lambda: pydec.ddp_hook(DDP(nn.Linear(2, 2, dtype=torch.complex64))))
    refuse(lambda: pydec.ddp_gossip(nn.Linear(2, 2)))
    refuse(lambda: pydec.ddp_gossip(DDP(nn.BatchNorm1d(2))))
    refuse(lambda: pydec.ddp_gossip(DDP(nn.Linear(2, 2), find_unused_parameters=True)))
    sparse = DDP(nn.Embedding(5, 2, sparse=True))
    pydec.ddp_hook(sparse)
    try:
        sparse(torch.tensor([1])).sum().backward()
    except (ConfigError, RuntimeError) as error:
        said.append(str(error))
    return said


def main() -> None:
    rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no result
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    while True:
        try:
            name, args, options = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        try:
            answer = True, globals()[name](*args, **options)
        except BaseException:
            answer = False, f"rank {rank}:\n{traceback.format_exc()}"
        pickle.dump(answer, results)
        results.flush()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
