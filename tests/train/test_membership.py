"""Deaths in training, on the ledger: evicted by the living, who enter one view; a minority stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer
from pydec.comm.local import Death, LocalCluster
from pydec.consensus.file_storage import create
from pydec.consensus.node import founders, open_node
from pydec.crypto.signing import SigningKey
from pydec.peer import Peer
from pydec.train.admission import Admission
from pydec.train.membership import Membership, Minority

KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 8)]
STEP_S = 0.05


def train(
    folder: Any, size: int, deaths: dict[int, Death], steps: int = 60, seed: int = 0, **options: Any
) -> list[Any]:
    """What every rank that lives has: its models by step, the epoch of each, and the summary."""

    def program(transport: Any) -> Any:
        directory = folder / f"rank-{transport.rank}"
        create(directory, founders("test", [key.public for key in KEYS[:size]]))
        with (
            Peer(transport, signals=False) as peer,
            open_node(transport, directory, KEYS[peer.rank]) as driver,
        ):
            x = nn.Parameter(torch.full((3,), float(peer.rank)))
            opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=0.0), peer, init="keep", iid=True, **options)
            admission = Admission(peer, [key.public for key in KEYS[:size]], driver)
            follows = Membership(peer, driver, opt, patience_s=10.0, admission=admission)
            path, epochs = [], []
            for _ in range(steps):
                x.grad = torch.zeros(3)
                opt.step()
                transport.sleep(STEP_S)
                path.append(float(x.detach()[0]))
                epochs.append(peer.view.epoch)
            follows.settle()
            follows.close()
            for _ in range(200):
                driver.pause()
            return path, epochs, follows.summary(), driver.state.table.epoch, follows.kept

    return LocalCluster(size, seed, delay_s=0.001, deaths=deaths).run(program)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", ["dpsgd", "gradient-tracking"])
def test_the_living_evict_the_dead_and_enter_the_view_in_the_same_round(tmp_path, seed, algorithm):
    death = Death(at_s=(0.5, 1.2), noticed_s=(0.0, 0.2))
    found = train(tmp_path, 5, {seed: death}, seed=seed, algorithm=algorithm, topology="ring")
    living = [rank for rank in range(5) if rank != seed]
    assert found[seed] is None
    entered = {found[rank][1].index(1) for rank in living}
    assert len(entered) == 1
    for rank in living:
        _, epochs, said, epoch, kept = found[rank]
        assert (epochs[-1], epoch, kept) == (1, 1, [])
        assert said["epochs"][1]["members"] == living
        assert [(gone["rank"], gone["epoch"]) for gone in said["evicted"]] == [(seed, 1)]
        assert entered <= {said["epochs"][1]["start_round"] - 1, said["epochs"][1]["start_round"]}
    means = np.mean([found[rank][0] for rank in living], axis=0)
    assert np.abs(means[entered.pop() :] - means[-1]).max() < 1e-5  # conserved among the members
    assert np.ptp([found[rank][0][-1] for rank in living]) < 0.1


def test_two_deaths_one_after_the_other_leave_a_graph_of_the_rest(tmp_path):
    deaths = {2: Death(0.6, (0.0, 0.1)), 5: Death(0.7, (0.0, 0.1))}
    found = train(tmp_path, 7, deaths, topology="one-peer-exponential")
    living = [0, 1, 3, 4, 6]
    assert {found[rank][1][-1] for rank in living} == {2}
    assert {gone["rank"] for gone in found[0][2]["evicted"]} == {2, 5}
    assert len({tuple(found[rank][1]) for rank in living}) == 1


def test_asynchronous_ranks_switch_at_their_next_step(tmp_path):
    found = train(tmp_path, 4, {1: Death(0.6, (0.0, 0.1))}, algorithm="adsgd", topology="ring")
    assert {found[rank][1][-1] for rank in (0, 2, 3)} == {1}
    assert np.ptp([found[rank][0][-1] for rank in (0, 2, 3)]) < 0.5


def test_a_graph_that_does_not_exist_for_the_rest_is_kept_without_the_dead(tmp_path):
    found = train(tmp_path, 4, {1: Death(0.6, (0.0, 0.1))}, topology="hypercube")
    assert found[0][3] == 1  # evicted all the same
    assert found[0][1][-1] == 0
    assert "epoch 1: " in found[0][4][0]
    assert found[0][2]["kept"] == found[0][4]


def test_a_minority_stops_at_the_round_that_it_promised_and_says_what_is_missing(tmp_path):
    deaths = {rank: Death(0.6, (0.0, 0.1)) for rank in (2, 3)}
    with pytest.raises(Minority) as error:
        train(tmp_path, 4, deaths, steps=400, topology="complete")
    assert "2 of 4 members are gone (ranks 2, 3), the ledger needs 3" in str(error.value)
    assert "training has stopped in round" in str(error.value)
    stopped = int(str(error.value).partition("in round ")[2].partition(",")[0])
    assert 0.6 / STEP_S < stopped < 100


def test_members_that_stay_silent_stop_training_after_its_patience(tmp_path, monkeypatch):
    from pydec.consensus import mourning

    monkeypatch.setattr(mourning.Mourning, "tick", lambda self, state: False)  # nobody says anything
    monkeypatch.setattr(mourning.Mourning, "hold", property(lambda self: 30))
    with pytest.raises(Minority, match=r"did not decide that within 10 s.*stopped in round 3\d"):
        train(tmp_path, 4, {3: Death(0.6)}, steps=400, topology="complete")
