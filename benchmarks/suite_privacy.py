"""What private gradients cost: a step beside a plain one and beside opacus's, and the noise alone."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pydec.crypto.noise import SecretNumbers
from pydec.errors import SetupError
from pydec.privacy import PrivateGradients
from pydec.train.tasks.fashion_mnist import SmallCNN
from pydec.train.tasks.stdlib_lm import next_byte_loss
from pydec.train.transformer import ByteTransformer

from .harness import Options, Row, interleaved, threads

Loss = Callable[[Tensor, Tensor], Tensor]


def rows(options: Options) -> Iterator[Row]:
    """Steps of the CNN and the language model, and their noise; one thread."""
    torch.manual_seed(0)
    batch = 8 if options.quick else 64
    with threads(1):
        images = torch.randn(8 * batch, 1, 28, 28), torch.randint(0, 10, (8 * batch,))
        yield from _steps("CNN of 0.4 M", SmallCNN, cross_entropy, images, batch, options)
        text = torch.randint(0, 256, (8 * batch, 64)), torch.randint(0, 256, (8 * batch, 64))
        model = partial(ByteTransformer, 128, 2, 4, 64)
        yield from _steps("transformer of 0.5 M", model, next_byte_loss, text, batch, options)
        yield _noise(10_000 if options.quick else 421_642, options)


def _steps(
    what: str,
    make: Callable[[], nn.Module],
    loss: Loss,
    data: tuple[Tensor, Tensor],
    batch: int,
    options: Options,
) -> Iterator[Row]:
    """Our step draws its batch, as it must; the others take one of that size."""
    x, y = data
    rounds = options.rounds or (2 if options.quick else 15)
    plain, ours = make(), make()
    sgd = [torch.optim.SGD(model.parameters(), lr=1e-3) for model in (plain, ours)]
    with tempfile.TemporaryDirectory() as folder:
        private = PrivateGradients(
            ours, loss, samples=len(x), batch_size=batch, noise=1.0, account=Path(folder) / "account.jsonl"
        )

        def step() -> None:
            chosen = private.draw()
            private.backward(x[chosen], y[chosen])
            sgd[1].step()
            sgd[1].zero_grad()

        def plain_step() -> None:
            loss(plain(x[:batch]), y[:batch]).backward()  # type: ignore[no-untyped-call]
            sgd[0].step()
            sgd[0].zero_grad()

        contenders: dict[str, Callable[[], object]] = {"ours": step, "plain": plain_step}
        if make is SmallCNN:  # opacus's hooks miss the second use of the transformer's tied weights
            contenders["opacus"] = _opacus_step(make, loss, x[:batch], y[:batch])
        before = [p.detach().clone() for p in ours.parameters()]
        timings = interleaved(contenders, rounds)
        private.close()
    if any(
        torch.equal(a, b) or not bool(b.isfinite().all())
        for a, b in zip(before, ours.parameters(), strict=True)
    ):
        raise AssertionError("private steps changed nothing, or made something that is no number")
    ours_s = timings["ours"].median_s
    params = {"batch": batch, "rounds": rounds, "threads": 1}
    for peer, timing in timings.items():
        if peer != "ours":
            ratio = timing.median_s / ours_s
            yield Row(
                "privacy",
                f"private step, {what}",
                params,
                1e3 * ours_s,
                "ms",
                peer,
                1e3 * timing.median_s,
                ratio,
            )


def _opacus_step(make: Callable[[], nn.Module], loss: Loss, x: Tensor, y: Tensor) -> Callable[[], object]:
    """One step of opacus's own optimiser, whose noise is torch's."""
    warnings.filterwarnings("ignore", "Full backward hook")  # of torch, about opacus's
    try:
        from opacus.grad_sample import GradSampleModule
        from opacus.optimizers import DPOptimizer
    except ImportError as error:
        raise SetupError("this suite needs opacus: pip install 'pydec-train[privacy]'") from error
    model = GradSampleModule(make())
    optimizer: Any = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=1e-3),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=len(x),
    )

    def step() -> None:
        loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def _noise(n: int, options: Options) -> Row:
    """Noise of a step, beside torch's generator, whose numbers anyone can compute who has seen some."""
    numbers, out = SecretNumbers(), torch.empty(n)
    made = numbers.on_grid(n, 1.0)
    if not 0.9 < float(np.std(made[0] * made[1])) < 1.1:
        raise AssertionError("the noise has another deviation")
    rounds = options.rounds or (3 if options.quick else 41)
    timings = interleaved({"ours": lambda: numbers.on_grid(n, 1.0), "torch": out.normal_}, rounds)
    ours_s, torch_s = timings["ours"].median_s, timings["torch"].median_s
    params = {"numbers": n, "rounds": rounds, "threads": 1}
    return Row(
        "privacy",
        "secret normal numbers",
        params,
        1e3 * ours_s,
        "ms",
        "torch's normal_",
        1e3 * torch_s,
        torch_s / ours_s,
    )
