"""Ranks and members of a ledger that goes on: newcomers join, leavers leave, the missing are evicted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pydec.cli.main import main
from pydec.comm.local import LocalCluster
from pydec.comm.orders import Orders
from pydec.consensus.node import STAKE
from pydec.consensus.roles import Role
from pydec.errors import ConfigError, Stopped
from pydec.peer import Peer
from pydec.train import job
from pydec.train.config import TrainConfig

from .test_ledger import config, replayed, together


def stakes(directory: str) -> dict[str, int]:
    return {v.address: v.stake for v in replayed(Path(directory)).state.table.validators}


def equal(size: int) -> dict[str, int]:
    return {f"rank:{rank}": STAKE for rank in range(size)}


def stopped(size: int, monkeypatch, run: TrainConfig, wanted: int) -> None:
    """A run that a signal ends at its second step, so that ``wanted`` ranks go on."""
    monkeypatch.setattr(Orders, "take", lambda self, timeout_s=0.0: wanted)

    def program(transport):
        with Peer(transport, signals=False) as peer:
            reached = peer.reached

            def signal(step: int) -> bool:
                if step == 2 and peer.rank == 0:
                    peer._guard.request(15)
                return reached(step)

            monkeypatch.setattr(peer, "reached", signal, raising=True)
            job.run(peer, run, "run", quiet=True)

    with pytest.raises(Stopped):
        LocalCluster(size, delay_s=1e-3).run(program)


def test_newcomers_join_with_as_much_as_the_others_have_and_the_missing_are_evicted(toy, capsys):
    together(2, config(toy), "first")
    said = together(4, config(toy), "second")["ledger"]
    assert sorted(said["epochs"][-1]["members"]) == [0, 1, 2, 3]
    assert stakes("ledger/rank-3") == equal(4)
    newest = together(3, config(toy), "third")["ledger"]
    assert stakes("ledger/rank-2") == equal(3)
    assert (newest["chain_id"], newest["checkpoints"]) == (said["chain_id"], [2, 4, 6])
    shutil.rmtree("ledger/rank-3")
    assert main(["ledger", "verify", "ledger"]) == 0
    assert newest["head"] in capsys.readouterr().out


@pytest.mark.parametrize("admission", ["pow", "invite"])
def test_newcomers_pay_what_entry_costs(toy, admission):
    together(2, config(toy, admission=admission), "first")
    together(3, config(toy), "second")
    assert stakes("ledger/rank-2") == {**equal(2), "rank:2": 1}


def test_who_has_nothing_to_bond_trains_without_a_vote(toy, monkeypatch):
    monkeypatch.setattr("pydec.consensus.node.FUND", STAKE - 1)
    together(2, config(toy), "first")
    together(3, config(toy), "second")
    assert stakes("ledger/rank-2") == equal(2)
    accounts = replayed(Path("ledger/rank-2")).state.accounts.values()
    assert [Role(account.roles) for account in accounts if account.address == "rank:2"] == [Role.TRAINER]


def test_leavers_leave_before_the_job_ends_and_come_back_in_another(toy, monkeypatch):
    stopped(4, monkeypatch, config(toy), 1)
    assert stakes("ledger/rank-0") == equal(1)  # two thirds of four could not have decided that later
    said = together(1, config(toy), "second")["ledger"]
    assert said["checkpoints"] == [2, 4, 6]
    together(4, config(toy), "third")
    assert stakes("ledger/rank-3") == equal(4)


def test_a_directory_that_was_emptied_joins_as_a_newcomer_and_a_foreign_key_does_not(toy):
    together(4, config(toy), "first")
    Path("ledger/rank-3").rename("old")
    together(4, config(toy), "second")
    assert stakes("ledger/rank-3") == equal(4)
    assert len(replayed(Path("ledger/rank-0")).state.accounts) == 5
    Path("ledger/rank-3").rename("kept")
    Path("old").rename("ledger/rank-3")  # the disk is back
    together(4, config(toy), "with-old")
    assert stakes("ledger/rank-3") == equal(4)
    assert len(replayed(Path("ledger/rank-0")).state.accounts) == 5
    Path("ledger/rank-3").rename("old")
    together(1, TrainConfig(f"{toy}:blobs", steps=2, ledger="other"), "other-run")
    shutil.copytree("other/rank-0", "ledger/rank-3")
    with pytest.raises(ConfigError, match=r"rank 0 has chain \w+, rank 3 has chain \w+; use the directories"):
        together(4, config(toy), "third")
