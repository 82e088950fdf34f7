"""Runs whose ranks answer for what they send: who equivocates loses its stake and its place, nobody else."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from pydec.comm.local import LocalCluster
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError, HeterogeneityWarning, RobustnessWarning
from pydec.gossip.witness import Witness
from pydec.peer import Peer
from pydec.train import job
from pydec.train.config import TrainConfig
from tests.train.test_ledger import replayed

RANKS = 5
pytestmark = pytest.mark.timeout(300)


def trained(toy: str, ranks: int = RANKS, run_dir: str = "run", **options) -> dict:
    """The summary of a robust run on a ledger, whose ranks report in every fifth step."""
    settings = {"steps": 20, "log_every": 5, "topology": "complete", "aggregate": "cs-plus:f=1", **options}
    task = settings.pop("task", f"{toy}:blobs")
    config = TrainConfig(task, threads=1, seed=3, ledger="ledger", **settings)

    def program(transport):
        with Peer(transport, signals=False) as peer:
            try:
                return job.run(peer, config, run_dir, quiet=True)
            except job.SharedError as error:
                shared = error
        raise shared.error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeterogeneityWarning)
        warnings.simplefilter("ignore", RobustnessWarning)
        LocalCluster(ranks, deadline_s=1e9).run(program)
    return json.loads(Path(run_dir, "summary.json").read_text())


@pytest.mark.parametrize("compressor", ["none", "int8"])
def test_who_equivocates_is_slashed_and_leaves_the_view(toy, compressor):
    found = trained(toy, byzantine="2,", attack="equivocation", compressor=compressor)
    told = found["ledger"]["accountable"]
    (equivocated,) = told["equivocated"]
    assert equivocated["rank"] == 2
    assert equivocated["round"] <= 2  # in its first round it has heard nobody yet, and is honest
    assert told["slashed"] == [2]
    assert [gone["rank"] for gone in found["ledger"]["evicted"]] == [2]
    assert found["ledger"]["evicted"][0]["round"] <= 10
    assert found["accuracy"] > 0.7
    state = replayed(Path("ledger/rank-0")).state
    assert [account.slashed for account in state.accounts.values()].count(1) == 1
    assert len(state.table) == RANKS - 1
    assert told["unsigned"] == told["made_up"] == 0
    assert told["refused"] > 0  # between the proof and the report


def test_honest_ranks_are_not_accused(toy):
    told = trained(toy)["ledger"]["accountable"]
    assert (told["equivocated"], told["slashed"], told["unsigned"], told["refused"]) == ([], [], 0, 0)
    links = RANKS * (RANKS - 1)
    assert told["verified"] == 20 * links
    assert told["signed"] == 20 * RANKS
    assert told["told"] == 20 * links * 2
    assert told["compared"] >= 18 * links * 2


def test_plain_gossip_is_held_to_account_on_request(toy):
    options = {"aggregate": "", "accountable": "on", "log_every": 10}
    told = trained(toy, 4, topology="one-peer-exponential", **options)["ledger"]["accountable"]
    assert told["verified"] == 21 * 4  # with the one that travels while the last gradient is computed
    assert told["slashed"] == []
    assert "accountable" not in trained(toy, 4, "second", aggregate="")["ledger"]
    off = trained(toy, 4, "third", accountable="off", aggregate="median:f=1")
    assert "accountable" not in off["ledger"]


def test_what_is_signed_with_another_key_is_dropped_and_counted(toy, monkeypatch):
    made = Witness.__init__

    def init(self, rank, context, signer, *more):
        made(self, rank, context, SigningKey(bytes(32)) if rank == 1 else signer, *more)

    monkeypatch.setattr(Witness, "__init__", init)
    told = trained(toy)["ledger"]["accountable"]
    assert told["unsigned"] == 20 * (RANKS - 1)
    assert told["slashed"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accountable": "maybe"}, "--accountable must be one of on, off, auto, got 'maybe'"),
        ({"algorithm": "powergossip", "topology": "ring"}, "PowerGossip sends every one something else"),
        ({"algorithm": "choco", "compressor": "topk", "topology": "ring"}, "cannot do without a packet"),
        ({"algorithm": "allreduce", "compressor": "none"}, "allreduce sends partial sums"),
        ({"algorithm": "adsgd"}, "compares what was sent in a round, and .* has none"),
    ],
)
def test_what_cannot_be_held_to_account_is_refused(toy, options, message):
    with pytest.raises(ConfigError, match=message):
        trained(toy, 4, aggregate="", **{"accountable": "on", **options})


def test_it_takes_a_ledger():
    with pytest.raises(ConfigError, match="name its directory with --ledger DIR"):
        TrainConfig("stdlib-lm", accountable="on")
