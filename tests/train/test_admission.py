"""Ranks whose role is too weak are refused by name and the others train; observers see no tensor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pydec.cli.main import main
from pydec.comm.faults import Killed
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Stream
from pydec.consensus.epochs import members, view_of
from pydec.consensus.node import STAKE
from pydec.consensus.roles import Role
from pydec.errors import AccessDenied, ConfigError, Evicted, Stopped
from pydec.peer import Peer
from pydec.train import job
from pydec.train.config import TrainConfig
from pydec.train.loop import Loop

from .test_ledger import config, replayed, together


def run(size: int, wanted: TrainConfig, name: str, **options):
    """All results, and the trace of what was sent."""

    def program(transport):
        with Peer(transport, signals=False) as peer:
            try:
                return job.run(peer, wanted, name, quiet=True)
            except job.SharedError as error:
                shared = error
        raise shared.error

    cluster = LocalCluster(size, trace=True, **options)
    return cluster.run(program), cluster.trace


def summary(name: str) -> dict:
    return json.loads(Path(name, "summary.json").read_text())


def read(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def identity(rank: int) -> str:
    return json.loads(Path(f"ledger/rank-{rank}/key.json").read_text())["public"]


def streams_between(trace, outside: set[int]) -> set[Stream]:
    """Streams that carried anything between a rank outside and one that trains."""
    return {event.stream for event in trace if (event.sender in outside) != (event.receiver in outside)}


@pytest.mark.parametrize("observer", [3, 1])
def test_an_observer_follows_metrics_and_the_ledger_and_sees_no_tensor(toy, observer):
    """Whatever its rank, three ranks train as three alone do; what it gets are numbers and blocks."""
    with_it = config(toy, roles=f"{observer}=observer")
    results, trace = run(4, with_it, "first")
    said = summary("first")
    assert (said["status"], said["ranks_started"], said["ranks_finished"]) == ("done", 3, 3)
    assert results[observer] == {}
    (denied,) = said["ledger"]["denied"]
    assert said["ledger"]["outside"] == [observer]
    assert (denied["identity"], denied["action"]) == (identity(observer), "take part in gossip")
    assert denied["needed"] == "the role trainer or validator, and has observer"

    # Its part of the view is none, and no stream that carries tensors or checkpoints reaches it.
    replay = replayed(Path(f"ledger/rank-{observer}"))
    assert replay.state.height == said["ledger"]["height"]
    assert f"rank:{observer}" not in [account.address for account in members(replay.state)]
    assert observer not in view_of(replay.state, replay.head).members
    assert not {Stream.GOSSIP, Stream.STORE} & streams_between(trace, {observer})
    assert not any(
        event.stream is Stream.GOSSIP for event in trace if observer in (event.sender, event.receiver)
    )
    rows = [
        json.loads(line) for line in Path(f"first/observed/rank-{observer}.jsonl").read_text().splitlines()
    ]
    assert {row["rank"] for row in rows} == {0, 1, 2, 3} - {observer}
    assert sorted(row["step"] for row in rows if row["kind"] == "step") == sorted([*range(1, 7)] * 3)
    assert {type(value) for row in rows for value in row.values()} <= {int, float, str, type(None)}

    together(3, TrainConfig(f"{toy}:blobs", steps=6, eval_every=2, seed=3, ledger="other"), "alone")
    models = [torch.load(f"{name}/checkpoints/final.pt", weights_only=True) for name in ("first", "alone")]
    for name, tensor in models[0].items():
        np.testing.assert_array_equal(tensor.numpy(), models[1][name].numpy())


def test_what_an_observer_is_sent_is_no_model(toy, monkeypatch):
    """The bytes of the trained model's tensors are in nothing that goes to the observer, but to a trainer."""
    sent: dict[int, list[bytes]] = {1: [], 2: []}
    from pydec.comm.virtual import Network

    send = Network.send

    def listen(self, key, data, operation):
        if key[0] in sent:
            sent[key[0]].append(bytes(data))
        send(self, key, data, operation)

    monkeypatch.setattr(Network, "send", listen)
    plain = config(toy, roles="2=observer", compressor="none", merge=True)
    run(3, plain, "first")
    model = torch.load("first/checkpoints/final.pt", weights_only=True)
    needle = max(model.values(), key=torch.numel).numpy().tobytes()[:16]
    assert any(needle in data for data in sent[1])
    assert sent[2]
    assert not any(needle in data for data in sent[2])


def test_a_rank_that_was_revoked_is_refused_by_name_and_the_others_go_on(toy, capsys, caplog):
    together(4, config(toy), "first")
    assert main(["ledger", "revoke", "ledger", "rank:1", "trainer", "validator"]) == 0
    out = capsys.readouterr().out
    assert f"revoke        trainer, validator from {identity(1)}" in out
    assert "a running job commits it within seconds, another at its next start" in out
    results, trace = run(4, config(toy), "second")
    said = summary("second")
    assert (said["status"], said["ranks_started"], said["ledger"]["outside"]) == ("done", 3, [1])
    (denied,) = said["ledger"]["denied"]
    assert denied == {
        "identity": identity(1),
        "action": "take part in gossip",
        "resource": "",
        "needed": "the role trainer or validator, and has data-owner",
        "count": 1,
    }
    assert f"{identity(1)[:16]} may not take part in gossip" in caplog.text
    secrets = [json.loads(Path(f"ledger/rank-{rank}/key.json").read_text())["seed"] for rank in range(4)]
    assert not any(secret in caplog.text for secret in secrets)
    assert results[1] == {}
    assert Stream.GOSSIP not in streams_between(trace, {1})
    assert {v.address: v.stake for v in replayed(Path("ledger/rank-0")).state.table.validators} == {
        f"rank:{rank}": STAKE for rank in (0, 2, 3)
    }
    assert not list(Path("ledger/rank-0/inbox").iterdir())  # done with
    assert main(["ledger", "grant", "ledger", identity(1)[:8], "trainer"]) == 0
    together(4, config(toy), "third")
    assert summary("third")["ledger"]["outside"] == []
    assert main(["ledger", "verify", "ledger"]) == 0


def test_who_has_no_role_left_may_not_even_join(toy):
    together(3, config(toy), "first")
    words = ["ledger", "revoke", "ledger", "rank:2", "trainer", "validator", "data-owner", "observer"]
    assert main(words) == 0
    for name in ("second", "third"):  # it does not come back as a newcomer
        together(3, config(toy), name)
        said = summary(name)["ledger"]
        assert said["outside"] == [2]
        needed = {denied["action"]: denied["needed"] for denied in said["denied"]}
        assert needed["take part in gossip"] == "the role trainer or validator, and has none"
        assert needed["see metrics"].endswith("and has none")
        assert not Path(name, "observed").exists()
    account = replayed(Path("ledger/rank-0")).state.accounts[bytes.fromhex(identity(2))]
    assert account.roles == 0


@pytest.mark.parametrize(
    ("algorithm", "cluster"),
    [("dpsgd", {}), ("dpsgd", {"deaths": {}}), ("dpsgd:order=cta", {}), ("exact-diffusion", {})],
)
def test_a_role_that_is_taken_while_training_goes_on_counts_from_the_next_report(
    toy, monkeypatch, algorithm, cluster
):
    """An admin revokes rank 2 at step 20; it leaves after a report, at one step, and the mean goes on."""
    long = TrainConfig(
        f"{toy}:blobs", steps=80, eval_every=40, log_every=10, seed=3, ledger="ledger", threads=1,
        algorithm=algorithm, topology="ring",
    )  # fmt: skip
    report = Loop._report

    def revoke(self, alone):
        if self.progress.step == 20 and self.peer.rank == 0:
            assert main(["ledger", "revoke", "ledger", "rank:2", "trainer", "validator"]) == 0
        report(self, alone)

    monkeypatch.setattr(Loop, "_report", revoke)
    monkeypatch.setattr("pydec.consensus.inbox._EVERY_S", 0.02)
    results, trace = run(4, long, "first", delay_s=(5e-4, 2e-3), **cluster)
    said = summary("first")
    assert (said["status"], said["ranks_finished"]) == ("done", 3)
    assert said["ledger"]["outside"] == [2]
    assert said["ledger"]["denied"][0]["needed"] == "the role trainer or validator, and has data-owner"
    first, second = said["ledger"]["epochs"]
    assert (sorted(first["members"]), sorted(second["members"])) == ([0, 1, 2, 3], [0, 1, 3])
    steps = {rank: read(f"first/metrics/rank-{rank}.jsonl")[-1]["step"] for rank in range(4)}
    assert steps[0] == steps[1] == steps[3] == 80
    assert 20 <= steps[2] < 80
    assert steps[2] % 10 in (0, 9)  # the row of the report's step may not be there
    last = max(
        event.time_s
        for event in trace
        if event.stream is Stream.GOSSIP and 2 in (event.sender, event.receiver)
    )
    assert last < max(event.time_s for event in trace if event.stream is Stream.GOSSIP)
    assert max(row["step"] for row in read("first/observed/rank-2.jsonl")) == 80
    assert results[2] == {}


def test_without_common_steps_a_rank_whose_role_is_taken_is_told_so(toy, monkeypatch):
    """Asynchronous ranks make no report together: rank 2 ends when it hears of it, and the others go on."""
    wanted = TrainConfig(
        f"{toy}:blobs", steps=60, log_every=1, seed=3, ledger="ledger", threads=1,
        algorithm="adsgd", topology="ring",
    )  # fmt: skip
    told, report = [], Loop._report

    def revoke(self, alone):
        if self.progress.step == 4 and self.peer.rank == 0:
            assert main(["ledger", "revoke", "ledger", "rank:2", "trainer", "validator"]) == 0
        self.peer.transport.sleep(0.02)  # of a computation; blocks take some of these
        report(self, alone)

    def program(transport):
        with Peer(transport, signals=False) as peer:
            try:
                return job.run(peer, wanted, "run", quiet=True)
            except Evicted as error:
                told.append((transport.rank, str(error)))
                raise Killed from None

    monkeypatch.setattr(Loop, "_report", revoke)
    monkeypatch.setattr("pydec.consensus.inbox._EVERY_S", 0.02)
    LocalCluster(4, delay_s=(5e-4, 2e-3), deaths={}).run(program)
    ((rank, words),) = told
    assert rank == 2
    assert "its role was taken: " in words
    assert "may not take part in gossip: it needs the role trainer or validator, and has data-owner" in words
    assert (summary("run")["status"], summary("run")["ranks_finished"]) == ("done", 3)


def signalled(peer: Peer, step):
    """As ``Peer.defer``, and a signal comes."""
    peer._guard.request(15)
    return peer._guard.defer(step)


def test_a_signal_ends_observers_with_the_others(toy, monkeypatch):
    """The ranks that train save one step and stop; who is outside hears of it from them."""
    ended = []

    def program(transport):
        with Peer(transport, signals=False) as peer:
            reached = peer.reached

            def signal(step: int) -> bool:
                if step == 2 and peer.rank == 0:
                    peer._guard.request(15)
                return reached(step)

            monkeypatch.setattr(peer, "reached", signal)
            if peer.rank == 2:  # a launcher signals all ranks
                monkeypatch.setattr(peer, "defer", lambda step: signalled(peer, step))
            ended.append((transport.rank, job.run(peer, config(toy, roles="2=observer"), "run", quiet=True)))

    with pytest.raises(Stopped):
        LocalCluster(3, delay_s=1e-3).run(program)
    assert ended == [(2, {})]


def test_roles_of_founders_are_those_that_are_asked_for(toy):
    together(3, config(toy, roles="0=trainer,1=admin+trainer+validator+data-owner,2=validator"), "first")
    accounts = {a.address: a for a in replayed(Path("ledger/rank-2")).state.accounts.values()}
    assert Role(accounts["rank:0"].roles) == Role.TRAINER
    assert (accounts["rank:0"].stake, accounts["rank:2"].stake) == (0, STAKE)
    assert accounts["rank:1"].balance > 0
    assert summary("first")["status"] == "done"


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ("0=trainer,1=trainer", "--roles leaves nobody who is admin"),
        ("0=admin,1=trainer", "--roles leaves nobody who is validator"),
        ("7=observer", "--roles names rank 7; the job that makes this ledger has ranks 0 to 1"),
    ],
)
def test_roles_that_no_ledger_can_begin_with_are_refused(toy, roles, said):
    with pytest.raises(ConfigError, match=said):
        together(2, config(toy, roles=roles), "first")


@pytest.mark.parametrize("roles", ["1", "x=trainer", "1=king", "2-1=trainer", "1=trainer,0-2=observer"])
def test_words_that_are_no_roles_are_refused(roles):
    with pytest.raises(ConfigError, match="--roles"):
        TrainConfig("stdlib-lm", ledger="ledger", roles=roles)


def test_what_a_run_has_to_say_needs_somebody_who_may(toy):
    with pytest.raises(
        AccessDenied, match="may not register a data set: it needs the role data-owner, and has"
    ):
        together(2, config(toy, roles="0=admin+trainer,1=trainer+validator"), "first")
