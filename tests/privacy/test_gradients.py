"""Private gradients: the right noise, another in every process, and no step that is not counted."""

from __future__ import annotations

import copy
import errno
import math
import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import pydec
from pydec.comm.local import LocalCluster
from pydec.crypto.noise import SecretNumbers
from pydec.errors import BudgetSpent, ConfigError, SetupError
from pydec.peer import Peer
from pydec.privacy import PrivateGradients
from pydec.privacy.account import read
from pydec.privacy.accountant import Mechanism, default_delta, epsilon
from pydec.privacy.clipping import ClippedSum

pytestmark = pytest.mark.skipif(find_spec("opacus") is None, reason="pip install 'pydec-train[privacy]'")

KEY = bytes(range(32))
X = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
Y = (X[:, 0] > 0).long()


@pytest.fixture
def private(tmp_path):
    """private(**changes): gradients of a small linear model; closed after the test."""
    made = []

    def make(model=None, name="account.jsonl", **changes):
        torch.manual_seed(0)
        options = {"samples": 50, "batch_size": 10, "noise": 1.0, "clip": 0.5, "delta": 1e-3, **changes}
        made.append(
            PrivateGradients(model or nn.Linear(4, 2), cross_entropy, account=tmp_path / name, **options)
        )
        return made[-1]

    yield make
    for gradients in made:
        gradients.close()


def flat(parameters):
    return torch.cat([p.grad.reshape(-1) for p in parameters])


def step(gradients):
    """One step's gradients, flat."""
    chosen = gradients.draw()
    gradients.backward(X[chosen], Y[chosen])
    parameters = list(gradients._sum.parameters.values())
    found = flat(parameters)
    for p in parameters:
        p.grad = None
    return found


def test_noise_is_added_to_the_clipped_sum_once(private):
    model = nn.Linear(4, 2)
    gradients = private(model, numbers=SecretNumbers(KEY), noise=2.0)
    same = SecretNumbers(KEY)
    chosen = gradients.draw()
    np.testing.assert_array_equal(chosen, same.choose(50, 0.2))
    gradients.backward(X[chosen], Y[chosen])
    sums = ClippedSum(model, cross_entropy, 0.5)((X[chosen],), Y[chosen], len(chosen))
    for total, parameter in zip(sums, model.parameters(), strict=True):
        noise = torch.from_numpy(same.normal(total.numel())).view(total.shape)
        expected = (total + 2.0 * 0.5 * noise) / 10  # by the batch that was expected, not the one drawn
        torch.testing.assert_close(parameter.grad, expected.float(), rtol=1e-5, atol=1e-6)


def test_the_noise_has_its_deviation_and_nothing_is_left_without(private):
    model = nn.Linear(400, 500)
    nn.init.zeros_(model.weight)
    gradients = private(model, numbers=SecretNumbers(KEY), noise=1.5, clip=0.1)
    gradients.draw()
    gradients._drawn = 0  # nobody was drawn: noise alone
    gradients.backward(None, None)
    found = flat(model.parameters())
    assert float(found.std()) * 10 == pytest.approx(1.5 * 0.1, rel=0.01)
    assert abs(float(found.mean())) * 10 < 5 * 0.15 / math.sqrt(len(found))
    assert (found != 0).all()


def test_a_key_decides_a_step_and_no_two_processes_share_one(private):
    runs = [private(name=f"{i}", numbers=SecretNumbers(KEY)) for i in range(2)]
    one, other = ([step(gradients) for _ in range(3)] for gradients in runs)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[0], one[1])
    fresh = [step(private(name=f"fresh-{i}")) for i in range(2)]
    assert not (fresh[0] == fresh[1]).any()


def test_a_restored_model_gets_new_samples_and_noise_and_counts_again(private, tmp_path):
    """What a checkpoint holds is the model alone; the same step is taken twice from it."""
    model = nn.Linear(4, 2)
    saved = copy.deepcopy(model.state_dict())
    first = private(model)
    before = step(first)
    with pytest.raises(TypeError, match="neither copied nor stored"):
        copy.deepcopy(first._numbers)
    first.close()
    model.load_state_dict(saved)
    again = private(model)
    assert not (step(again) == before).any()
    assert again.account.spent == {Mechanism(1.0, 0.2): 2}
    assert again.epsilon() == epsilon({Mechanism(1.0, 0.2): 2}, 1e-3)


def test_every_step_counts_before_its_gradient_is_there(private, monkeypatch):
    gradients = private()
    chosen = gradients.draw()
    with monkeypatch.context() as patch:

        def full(file):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(SetupError, match="no step is taken that is not counted"):
            gradients.backward(X[chosen], Y[chosen])
    assert all(p.grad is None for p in gradients._sum.parameters.values())


def test_gradients_are_not_accumulated(private):
    model = nn.Linear(4, 2)
    gradients = private(model)
    chosen = gradients.draw()
    cross_entropy(model(X), Y).backward()
    with pytest.raises(ConfigError, match="weight has a gradient already: gradients are not accumulated"):
        gradients.backward(X[chosen], Y[chosen])
    model.zero_grad(set_to_none=False)
    gradients.backward(X[chosen], Y[chosen])


def test_samples_are_those_that_were_drawn_and_used_once(private):
    gradients = private()
    with pytest.raises(ConfigError, match="without draw"):
        gradients.backward(X, Y)
    chosen = gradients.draw()
    with pytest.raises(ConfigError, match="twice before backward"):
        gradients.draw()
    with pytest.raises(ConfigError, match=f"must be a tensor of {len(chosen)} samples, got \\(50, 4\\)"):
        gradients.backward(X, Y)
    gradients.backward(X[chosen], Y[chosen])
    gradients._sum.parameters["weight"].grad = gradients._sum.parameters["bias"].grad = None
    with pytest.raises(ConfigError, match="without draw"):
        gradients.backward(X[chosen], Y[chosen])


def test_a_budget_is_never_exceeded_also_after_a_restart(private):
    gradients = private(budget=12.0)
    allowed = gradients.steps_left()
    assert 3 < allowed < 100
    assert gradients.epsilon_after(allowed) <= 12.0 < gradients.epsilon_after(allowed + 1)
    for _ in range(allowed - 2):
        step(gradients)
    gradients.close()
    again = private(budget=12.0)
    for _ in range(2):
        step(again)
    with pytest.raises(BudgetSpent, match=r"one more step would spend more than epsilon 12 at delta 0\.001"):
        step(again)
    assert again.epsilon() <= 12.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"noise": 0.0}, "noise must be above 0"),
        ({"clip": 0.0}, "clipping norm must be above 0"),
        ({"batch_size": 51}, "may not be larger than the data"),
        ({"batch_size": 0}, "must be at least 1"),
        ({"delta": 1.0}, "delta must be in"),
        ({"model": nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))}, "use GroupNorm"),
    ],
)
def test_what_cannot_be_private_is_refused_before_an_account_is_made(private, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        private(**changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_have_their_parameters_type(private, dtype):
    model = nn.Linear(4, 2).to(dtype)
    gradients = private(model)
    chosen = gradients.draw()
    gradients.backward(X[chosen].to(dtype), Y[chosen])
    assert flat(model.parameters()).dtype is dtype


def test_peers_learn_together_from_private_gradients(tmp_path):
    """A user's own loop around ``DecentralizedOptimizer``; each peer has its own samples and account."""

    def program(transport):
        with Peer(transport, signals=False) as peer, torch.random.fork_rng():
            mine = slice(peer.rank, None, peer.size)
            x, y = X.repeat(8, 1)[mine], Y.repeat(8)[mine]
            model = nn.Linear(4, 2)
            sgd = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
            opt = pydec.DecentralizedOptimizer(sgd, peer, model=model, compressor="int8", iid=True)
            account = tmp_path / f"rank-{peer.rank}"
            options = {"samples": len(x), "batch_size": 20, "noise": 1.0, "account": account}
            numbers = SecretNumbers(bytes([peer.rank]) * 32)  # so that the result is the same every time
            with PrivateGradients(model, cross_entropy, **options, numbers=numbers) as private:
                for _ in range(40):
                    chosen = private.draw()
                    private.backward(x[chosen], y[chosen])
                    opt.step()
                    opt.zero_grad()
                spent = private.epsilon()
            opt.merge()
            return spent, float((model(X).argmax(1) == Y).float().mean())

    results = LocalCluster(3).run(program)
    for rank, (samples, (spent, right)) in enumerate(zip((134, 133, 133), results, strict=True)):
        mechanism = Mechanism(1.0, 20 / samples)
        assert read(tmp_path / f"rank-{rank}") == ({mechanism: 40}, 1)
        assert spent == epsilon({mechanism: 40}, default_delta(samples))
        assert right > 0.8
