"""Steps that are drawn are run again: wrong ones cost the stake, right ones and honest auditors nothing."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pydec.consensus.replay import replayed
from pydec.crypto.hashing import sha256
from pydec.errors import ConfigError, FrameError
from pydec.gossip.witness import Said
from pydec.train import audit, auditing
from pydec.train.audit import Finding, draw, judge
from pydec.train.audit_record import Account
from pydec.train.config import TrainConfig
from tests.train.test_accountability import RANKS, trained

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("budget", [0.01, 0.05, 1.0])
@pytest.mark.parametrize("steps", [1, 10])
def test_every_step_has_the_same_chance_and_no_auditor_more_than_one(budget, steps):
    members, windows = [0, 2, 3, 5, 8], 4000
    drawn: Counter[tuple[int, int]] = Counter()
    pairs: Counter[tuple[int, int]] = Counter()
    for window in range(windows):
        orders = draw(sha256(b"%d" % window), members, 100, steps, budget)
        assert (
            len({order.auditor for order in orders})
            == len({order.subject for order in orders})
            == len(orders)
        )
        for order in orders:
            assert order.subject != order.auditor
            assert 100 <= order.number < 100 + steps
            drawn[order.subject, order.number] += 1
            pairs[order.auditor, order.subject] += 1
    expected = windows * min(budget, 1.0 / steps)
    for subject in members:
        for step in range(steps):
            assert abs(drawn[subject, 100 + step] - expected) <= 5 * max(expected, 1.0) ** 0.5
    share = sum(pairs.values()) / 20
    assert all(abs(pairs[a, b] - share) <= 5 * share**0.5 for a in members for b in members if a != b)
    assert draw(sha256(b"x"), [3], 0, 5, 1.0) == []


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        ("blobs", "cs-plus:f=1"),
        ("blobs", "spectral-filter:f=1"),
        ("mixed:dropout=0.3", "spectral-filter:f=1"),
    ],
)
def test_honest_steps_come_out_the_same_when_they_are_run_again(toy, model, rule):
    """Of every rank one in each window, with momentum, BatchNorm and dropout."""
    options = {"task": f"{toy}:{model}", "audit": 1.0, "log_every": 4, "eval_every": 6, "steps": 16}
    options["aggregate"] = rule
    found = trained(toy, **options, lr=0.05, clip_norm=1.0)["ledger"]
    audits = found["audits"]
    assert (audits["audited"], audits["wrong"], audits["doubted"]) == (4 * RANKS, [], [])
    assert found["accountable"]["slashed"] == []
    assert audits["kept_bytes"] > 0


@pytest.mark.parametrize("attack", ["sign-flip", "alie", "ipm", "label-flip", "stale:delay=3", "huge"])
def test_every_attack_is_found_at_the_first_report_after_it(toy, attack):
    options = {"byzantine": "3,", "attack": attack, "audit": 1.0, "log_every": 3, "steps": 12}
    found = trained(toy, **options, compressor="none")["ledger"]
    (wrong,) = found["audits"]["wrong"]
    assert wrong["rank"] == 3
    assert wrong["fault"] == "it sent something else than its step gives"
    assert wrong["step"] < 9
    assert found["accountable"]["slashed"] == [3]
    assert [gone["rank"] for gone in found["evicted"]] == [3]
    assert found["audits"]["doubted"] == []


@pytest.mark.parametrize("attack", ["gaussian", "equivocation"])
def test_those_who_heard_a_liar_are_audited_before_and_after_it_is_out_and_found_right(toy, attack):
    """Noise between the tensors does not stay, and a view without the liar is audited as the first was."""
    options = {"byzantine": "3,", "attack": attack, "audit": 1.0, "log_every": 5, "steps": 20}
    found = trained(toy, **options, compressor="none")["ledger"]
    assert {wrong["rank"] for wrong in found["audits"]["wrong"]} <= {3}
    assert found["accountable"]["slashed"] == [3]
    assert [gone["rank"] for gone in found["evicted"]] == [3]
    assert found["audits"]["audited"] >= 4 * (RANKS - 1)


def test_ranks_whose_votes_come_late_show_the_ledger_that_they_live(toy):
    """Every draw makes blocks, with a quorum's votes; who is in none for long could be held for absent."""
    options = {"log_every": 1, "steps": 14, "eval_every": 14, "keep_last": 0, "compressor": "none"}
    found = trained(toy, 4, audit=0.01, **options)["ledger"]
    accounts = replayed(Path("ledger/rank-0")).state.accounts.values()
    assert found["evicted"] == []
    assert [account.round > 0 for account in accounts] == [True] * 4


def test_an_auditor_that_accuses_without_reason_is_not_believed_again(toy, monkeypatch):
    real = audit.Audits._audit

    def lying(self, orders, told, leaves):
        if self._peer.rank != 1:
            return real(self, orders, told, leaves)
        judged, calls = self._judged, []

        def accusing(data, order, of):
            calls.append(order)
            return Finding("I say so") if order.auditor == 1 and len(calls) == 1 else judged(data, order, of)

        self._judged = accusing
        real(self, orders, told, leaves)
        self._judged = judged
        return None

    monkeypatch.setattr(audit.Audits, "_audit", lying)
    found = trained(toy, audit=1.0, log_every=5)["ledger"]
    assert found["audits"]["doubted"] == [1]
    assert (found["audits"]["wrong"], found["accountable"]["slashed"]) == ([], [])


def test_who_changes_its_state_between_two_steps_is_found(toy, monkeypatch):
    real = audit.Audits.between

    def between(self, number):
        if self._peer.rank == 2 and number == 7:
            for parameter in self._task.model.parameters():
                parameter.data.add_(1.0)
        real(self, number)

    monkeypatch.setattr(audit.Audits, "between", between)
    monkeypatch.setattr(audit, "draw", lambda *_: [audit.Order(0, 2, 6)] if _[2] == 5 else [])
    found = trained(toy, audit=1.0, log_every=5)["ledger"]
    assert [w["fault"] for w in found["audits"]["wrong"]] == ["its step ends in another state"]
    assert found["accountable"]["slashed"] == [2]


def test_what_is_handed_over_is_checked(toy, monkeypatch):
    kept = []
    real = audit.judge

    def keeping(*arguments):
        kept.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(audit, "judge", keeping)
    trained(toy, 4, audit=1.0, log_every=4, steps=8)
    data, order, commitment, expected, witness, run = kept[-1]
    account = Account.decode(data)
    assert account.encode() == data
    step = account.step
    other = Account.decode(kept[0][0]).step
    slot, said = next(iter(step.sent.items()))
    heard = step.heard[0]
    twice = replace(heard, peer=step.heard[1].peer)

    def fault(changed: Account | bytes, against=commitment, begins=expected) -> str:
        content = changed if isinstance(changed, bytes) else changed.encode()
        return judge(content, order, against, begins, witness, run).fault

    def with_step(**changes) -> Account:
        return replace(account, step=replace(step, **changes))

    assert fault(account) == ""
    assert fault(b"") == "it handed over nothing"
    assert "no account of a step" in fault(data[:-1])
    assert fault(with_step(number=step.number + 1)) == "it handed over another step"
    assert "not those that it has published" in fault(replace(account, leaves=account.leaves[::-1]))
    assert "do not begin where the last ones have ended" in fault(account, begins=bytes(32))
    assert fault(with_step(state=other.state)) == "it handed over another state"
    assert "has not signed" in fault(with_step(heard=[replace(heard, signature=bytes(64)), *step.heard[1:]]))
    assert "has not signed" in fault(with_step(heard=[twice]))
    assert fault(with_step(heard=other.heard)) == "its step ends in another state"  # of another round
    assert "no digests of steps" in fault(replace(account, leaves=(b"", *account.leaves[1:])))
    assert "not signed what it claims" in fault(with_step(sent={slot: Said(bytes(32), said.signature)}))
    assert fault(with_step(sent={})) == "it sent something else than its step gives"
    assert fault(with_step(heard=[])) == "its step ends in another state"


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_are_an_account_or_none(seed):
    draw = random.Random(seed)
    head = b'{"__metadata__":{"account":"{}"}}'
    for data in (draw.randbytes(draw.randrange(200)), len(head).to_bytes(8, "little") + head):
        with pytest.raises(FrameError, match="no account of a step"):
            Account.decode(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audit": 2.0}, "--audit is a share of the computation in .0, 1., such as 0.01, got 2.0"),
        ({"audit": 0.1, "accountable": "off"}, "leave --accountable off out"),
        ({"audit": 0.1, "dp_noise": 1.0}, "--dp-noise nobody else may know"),
        ({"audit": 0.1, "aggregate": ""}, "has a round under way between two steps"),
        ({"audit": 0.1, "compressor": "auto"}, "compressor auto does as its timings say"),
    ],
)
def test_what_cannot_be_audited_is_refused(toy, options, message):
    with pytest.raises(ConfigError, match=message):
        trained(toy, 4, **options)


def test_states_that_would_fill_the_memory_are_refused(toy, monkeypatch):
    monkeypatch.setattr(auditing, "_MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match="use a smaller --log-every, at most 5"):
        trained(toy, 4, audit=0.1, log_every=20)


def test_audits_take_a_ledger():
    with pytest.raises(ConfigError, match="name its directory with --ledger DIR"):
        TrainConfig("stdlib-lm", audit=0.1)
