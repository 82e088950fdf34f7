"""Other members from a round on: what is conserved, where training ends, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, topology
from pydec.comm.view import View
from pydec.errors import ConfigError, Evicted
from pydec.gossip import algorithms

SIZE, GONE, START, STEPS = 5, 3, 8, 50
MEMBERS = (4, 0, 2, 1)
GRAPHS = {
    "choco-peers": "base-k:k=1",
    "choco-diloco": "base-k:k=1",
    "d2": "complete",
    "diloco": "base-k:k=1",
    "noloco": "random-matching",
    "relaysgd": "chain",
    "sgp": "exponential",
    "streaming-diloco": "one-peer-exponential",
}
COMPRESSED = ("choco", "choco-peers", "choco-diloco", "beer")
REFUSED = {"ad-psgd": "adsgd", "allreduce": "dpsgd", "sparseloco": "choco-diloco"}
CHANGING = sorted(set(algorithms) - set(REFUSED))
FEDERATED = (
    "diloco",
    "gossip-diloco",
    "gasloc",
    "noloco",
    "streaming-diloco",
    "quorum-diloco",
    "choco-diloco",
)


def options(name: str, **more: Any) -> dict[str, Any]:
    spec = f"{name}:momentum=0.3" if name in FEDERATED and name != "noloco" else name
    found = {"algorithm": spec, "topology": GRAPHS.get(name, "ring"), "iid": True, **more}
    if name in COMPRESSED:
        found["compressor"] = "topk:fraction=0.5"
    return found


def follow(peer: Any, problem: Any, rates: Any, view: View, see: Any = None, **more: Any) -> list[Any]:
    """One rank's models (or what ``see`` says of its optimiser) after every step, until it is evicted."""
    x = nn.Parameter(torch.zeros(6))
    opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=0.1), peer, **more)
    opt.views.change(view)
    found: list[Any] = []
    try:
        for lr in rates:
            opt.param_groups[0]["lr"] = lr
            opt.zero_grad()
            problem.loss(peer.rank, x).backward()
            opt.step()
            if opt.algorithm.asynchronous:
                peer.transport.sleep(0.01)  # what a gradient takes, or nobody would hear of anybody in time
            found.append(x.detach().numpy().copy() if see is None else see(opt))
        opt.close()
    except Evicted as error:
        found.append(str(error))
    return found


def view(start: int = START, members: tuple[int, ...] = MEMBERS, epoch: int = 1) -> View:
    return View(epoch, members, seed=9, start_round=start)


@pytest.mark.parametrize("name", CHANGING)
def test_training_goes_on_without_a_member_and_finds_the_optimum_of_the_others(name, run_peers, quadratics):
    problem = quadratics(SIZE, curved=False)
    if name == "accum-adam":
        problem.b[:] = problem.b[0]  # any local Adam finds the median
    rates = [0.2] * STEPS + [0.05] * 10
    results = run_peers(SIZE, lambda peer: follow(peer, problem, rates, view(), **options(name)))
    gone = results[GONE]
    assert "rank 3 is no member of epoch 1" in gone[-1]
    if name != "adsgd":
        assert len(gone) - 1 <= START
    last = np.stack([results[rank][-1] for rank in MEMBERS])
    wanted = problem.b[list(MEMBERS)].mean(axis=0)
    assert np.abs(last.mean(axis=0) - wanted).max() < 0.1
    assert np.linalg.norm(last - last.mean(axis=0)) < 2.5  # 4.4 if nobody averaged


PLAIN = sorted(set(CHANGING) - {*FEDERATED, "adsgd", "relaysgd"})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PLAIN)
def test_the_mean_over_the_members_is_kept_from_the_change_on(name, seed, run_peers, quadratics):
    problem = quadratics(SIZE + seed, curved=False)  # of more ranks: other data
    rates = [0.3] * START + [0.0] * 16
    results = run_peers(SIZE, lambda peer: follow(peer, problem, rates, view(), **options(name)))
    paths = np.stack([results[rank] for rank in MEMBERS]).astype(np.float64)[:, START - 1 :]
    means = paths.mean(axis=0)
    assert np.abs(means - means[0]).max() < 3e-6
    spread = np.linalg.norm(paths - means, axis=(0, 2))
    assert spread[-1] < max(0.7 * spread[0], 1e-5)


def vectors(names: tuple[str, ...]) -> Any:
    def see(opt: DecentralizedOptimizer) -> list[np.ndarray]:
        assert opt._rounds is not None
        (part,) = opt._rounds.parts
        return [part.rule.state()[name].astype(np.float64)[:6] for name in names]

    return see


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("gradient-tracking", "tracker", "previous"),
        ("momentum-tracking", "tracker", "previous"),
        ("beer", "tracker", "previous"),
        ("damsgrad", "shared", "largest"),
        ("exact-diffusion", "correction", None),
        ("d2", "correction", None),
        ("k-gt", "correction", None),
    ],
)
def test_sums_over_the_members_hold_again_from_the_change_on(name, first, second, run_peers, quadratics):
    problem, names = quadratics(SIZE), (first, second) if second else (first,)
    rates = [0.1] * (START + 15)
    results = run_peers(
        SIZE, lambda peer: follow(peer, problem, rates, view(), vectors(names), **options(name))
    )
    for step in range(START + 1, len(rates)):
        sums = [sum(results[rank][step][number] for rank in MEMBERS) for number in range(len(names))]
        wanted = sums[1] if second else 0.0
        assert np.abs(sums[0] - wanted).max() < 1e-5
    without = sum(results[rank][START - 3][0] for rank in MEMBERS)
    kept = sum(results[rank][START - 3][1] for rank in MEMBERS) if second else 0.0
    assert np.abs(without - kept).max() > 1e-3  # what the one who leaves takes along


@pytest.mark.parametrize("seed", range(3))
def test_push_sum_loses_the_mass_of_who_leaves_and_what_remains_is_averaged_rightly(
    seed, run_peers, quadratics, leaky, monkeypatch
):
    """On a graph whose columns alone sum to 1: all end at sum s / sum w of the members at the change."""
    monkeypatch.setitem(topology.topologies._parts, "leaky", leaky)
    problem = quadratics(SIZE + seed)

    def see(opt: DecentralizedOptimizer) -> tuple[np.ndarray, float, np.ndarray]:
        assert opt._rounds is not None
        rule = opt._rounds.parts[0].rule
        (mixer,) = rule.mixers
        return (
            rule.state()["numerator"].astype(np.float64)[:6],
            rule.numbers()["weight.0"],
            mixer.x.astype(np.float64)[:6],
        )

    rates = [0.3] * START + [0.0] * 40
    more = options("sgp", topology="leaky")
    results = run_peers(SIZE, lambda peer: follow(peer, problem, rates, view(), see, **more))
    mass = np.array(
        [sum(results[rank][step][1] for rank in MEMBERS) for step in range(START - 1, len(rates))]
    )
    sums = np.array(
        [sum(results[rank][step][0] for rank in MEMBERS) for step in range(START - 1, len(rates))]
    )
    assert abs(mass[0] - len(MEMBERS)) > 1e-3  # weights have moved to, or from, the one who leaves
    np.testing.assert_allclose(mass, mass[0], rtol=1e-12)
    np.testing.assert_allclose(sums, sums[:1].repeat(len(sums), axis=0), atol=1e-5)
    for rank in MEMBERS:
        np.testing.assert_allclose(results[rank][-1][2], sums[0] / mass[0], atol=1e-4)


def test_estimates_of_choco_agree_at_both_ends_again(run_peers, quadratics):
    """What a rank holds as the sum of its neighbours' estimates is that of what they hold of themselves."""
    problem = quadratics(SIZE)
    more = options("choco")
    see = vectors(("estimate", "mixed"))
    rates = [0.2] * (START + 6)
    results = run_peers(SIZE, lambda peer: follow(peer, problem, rates, view(), see, **more))
    weights = topology.make("ring", 4).weights(0)
    for step in (START, START + 5):
        estimates = np.stack([results[rank][step][0] for rank in MEMBERS])
        mixed = np.stack([results[rank][step][1] for rank in MEMBERS])
        np.testing.assert_allclose(mixed, weights @ estimates, atol=1e-5)


def test_members_come_back_and_several_views_follow_one_another(run_peers, quadratics):
    """A rank that rests with its model is a member again later: weights are those of the larger graph."""
    problem = quadratics(SIZE, curved=False)

    def program(peer: Any) -> list[np.ndarray]:
        x = nn.Parameter(torch.full((6,), float(peer.rank)))
        opt = DecentralizedOptimizer(
            torch.optim.SGD([x], lr=0.0),
            peer,
            topology="complete",
            init="keep",
            iid=True,
            algorithm="dpsgd:order=atc",
        )
        opt.views.change(View(1, (2, 0, 1), seed=1, start_round=0))
        if peer.rank in (3, 4):
            x.grad = torch.zeros(6)
            with pytest.raises(Evicted):
                opt.step()
            return []
        found = []
        for step in range(4):
            if step == 2:
                opt.views.change(View(2, (0, 1), seed=1, start_round=2))
                opt.views.change(View(3, (1, 2), seed=1, start_round=2))
            opt.zero_grad()
            (problem.loss(peer.rank, x) * 0).backward()
            try:
                opt.step()
            except Evicted:
                return found
            found.append(x.detach().numpy()[0].item())
            assert peer.view.epoch == (1 if step < 2 else 3)
        return found

    results = run_peers(SIZE, program)
    assert results[1] == pytest.approx([1.0] * 4)
    assert [len(found) for found in results] == [2, 4, 4, 0, 0]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_algorithms_without_a_rule_are_refused_with_another(name, run_peers):
    def program(peer: Any) -> str:
        x = nn.Parameter(torch.zeros(6))
        more = options(name)
        if name == "sparseloco":
            more |= {"topology": "complete", "compressor": "topk:fraction=0.5"}
        opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=0.1), peer, **more)
        with pytest.raises(ConfigError) as error:
            opt.views.change(view(members=(0, 1)))
        return str(error.value)

    (said, *_) = run_peers(3, program)
    assert REFUSED[name] in said


def test_topologies_that_do_not_exist_for_so_many_are_refused_and_nothing_changes(
    run_peers, quadratics, leaky
):
    problem = quadratics(4)

    def program(peer: Any) -> tuple[str, ...]:
        x = nn.Parameter(torch.zeros(6))
        said = []
        for graph in ("hypercube", leaky(4)):
            opt = DecentralizedOptimizer(
                torch.optim.SGD([x], lr=0.1), peer, topology=graph, algorithm="sgp", iid=True
            )
            with pytest.raises(ConfigError) as error:
                opt.views.change(view(start=0, members=(0, 1, 2)))
            said.append(str(error.value))
            problem.loss(peer.rank, x).backward()
            opt.step()
            assert peer.view.epoch == 0
            opt.close()
        return tuple(said)

    (first, second), *_ = run_peers(4, program)
    assert "hypercube" in first
    assert "leaky, which was given as an object, cannot be made for others" in second


def test_the_table_of_rules_names_every_algorithm():
    text = (Path(__file__).parents[2] / "docs" / "members.md").read_text()
    named = {
        name for row in text.splitlines() if row.startswith("| `") for name in row.split("|")[1].split(", ")
    }
    assert {name.strip(" `") for name in named} == set(algorithms)
