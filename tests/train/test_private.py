"""A job with private gradients: what it counts, what it does not tell, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pydec.cli.main import parser_of
from pydec.cli.train import config_of
from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError, PydecError
from pydec.peer import Peer
from pydec.privacy.account import BLOCK, Account, read
from pydec.privacy.accountant import Mechanism, epsilon
from pydec.train import job
from pydec.train.config import TrainConfig
from pydec.train.private import check_data, spent_before
from pydec.train.resume import configuration
from pydec.train.summary import closing_words

pytestmark = pytest.mark.skipif(find_spec("opacus") is None, reason="pip install 'pydec-train[privacy]'")


def together(size, config, run_dir="run", *, resume=False):
    def program(transport):
        with Peer(transport, signals=False) as peer:
            try:
                return job.run(peer, config, run_dir, quiet=True, resume=resume)
            except job.SharedError as error:
                shared = error
        raise shared.error

    return LocalCluster(size).run(program)[0]


def config(toy, **changes):
    options = {"steps": 12, "batch_size": 10, "dp_noise": 1.0, "log_every": 4, "checkpoint_every": 4}
    return TrainConfig(f"{toy}:{changes.pop('task', 'blobs')}", **{**options, "keep_last": 9, **changes})


def go_on(size, run_dir="run", **given):
    return together(size, configuration(run_dir, given), run_dir, resume=True)


def cut(size, config):
    """A run of 12 steps as if it had been killed, and step 8's checkpoint were the newest that is whole.

    A run always writes its last step's; those on the way may be left out where the disk is slow.
    """
    together(size, replace(config, steps=8))
    go_on(size, steps=12)
    for folder in Path("run/checkpoints").glob("step-*"):
        if int(folder.name[5:]) > 8:
            shutil.move(folder, f"cut-{folder.name}")
    Path("run/summary.json").unlink()


def counted(rank, run_dir="run"):
    return read(Path(run_dir, "privacy", f"rank-{rank}.jsonl"))[0]


THREE = Mechanism(1.0, 10 / 66)  # of 3 ranks, who have 67, 67 and 66 samples
TWO = Mechanism(1.0, 10 / 100)


def test_a_run_says_what_it_tells_about_a_sample(toy):
    result = together(3, config(toy, steps=40, dp_clip=2.0, dp_delta=1e-3))
    assert result["status"] == "done"
    spent = epsilon({THREE: 40}, 1e-3)
    assert result["privacy"]["epsilon"] == spent
    assert result["privacy"]["epsilon_by_rank"] == pytest.approx([spent] * 3)
    assert {key: result["privacy"][key] for key in ("delta", "noise", "clip", "sample_rate")} == {
        "delta": 1e-3,
        "noise": 1.0,
        "clip": 2.0,
        "sample_rate": 10 / 66,
    }
    assert result["privacy"] == json.loads(Path("run/summary.json").read_text())["privacy"]
    assert [counted(rank) for rank in range(3)] == [{THREE: 40}] * 3
    assert f"privacy         epsilon {spent:.4g} at delta 0.001 for each rank's" in closing_words(
        Path(), result
    )


def test_no_loss_of_a_training_sample_is_written_down(toy, records):
    result = together(3, config(toy))
    assert math.isnan(result["train_loss"])
    for rank in range(3):
        steps = [row for row in records(Path("run"), rank) if row["kind"] == "step"]
        assert [row["loss"] for row in steps] == [None] * 12
        shown = [row["epsilon"] for row in steps if "epsilon" in row]
        assert len(shown) == 3
        assert shown == sorted(shown)
        manifest = json.loads(Path(f"run/checkpoints/step-12/rank-{rank}.json").read_text())
        assert json.dumps(manifest["state"]["loop"]).count("nan") >= 1
        assert manifest["state"]["loop"]["dict"][1] == ["losses", []]
    assert result["loss"] > 0  # of data that nobody trains on


def test_the_seed_does_not_decide_samples_and_noise(toy):
    for name in ("one", "other"):
        together(2, config(toy, seed=7, eval_every=4), name)
    one, other = (torch.load(f"{name}/checkpoints/final.pt") for name in ("one", "other"))
    assert not (one["weight"] == other["weight"]).any()


def test_a_budget_chooses_the_noise_and_is_kept(toy):
    result = together(2, config(toy, dp_noise=0.0, dp_epsilon=4.0))
    assert 3.9 < result["privacy"]["epsilon"] <= 4.0
    options = json.loads(Path("run/config.json").read_text())["options"]
    assert options["dp_noise"] == result["privacy"]["noise"] > 0.5
    assert (options["dp_clip"], options["dp_delta"]) == (1.0, float(f"{100**-1.1:.2g}"))


def test_a_step_that_is_taken_again_counts_again(toy):
    cut(3, config(toy))
    before = load_file("cut-step-12/rank-0.safetensors")
    result = go_on(3)
    assert result["steps"] == 12
    assert [counted(rank) for rank in range(3)] == [{THREE: 16}] * 3
    assert result["privacy"]["epsilon"] == pytest.approx(epsilon({THREE: 16}, result["privacy"]["delta"]))
    after = load_file("run/checkpoints/step-12/rank-0.safetensors")
    assert not (before["weight"] == after["weight"]).any()


def test_what_a_killed_rank_may_have_sent_counts_for_all(toy):
    """Rank 1 was killed in its last steps and had written down what it might take."""
    cut(3, config(toy))
    with Account(Path("run/privacy/rank-1.jsonl"), 3) as account:
        account.at_least({THREE: 12 + BLOCK})
    go_on(3)
    assert [counted(rank) for rank in range(3)] == [{THREE: 12 + BLOCK + 4}] * 3


@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3)])
def test_other_ranks_go_on_with_the_largest_account(toy, before, after):
    of = {3: THREE, 2: TWO}
    together(before, config(toy))
    result = go_on(after, steps=20)
    expected = {of[before]: 12, of[after]: 8}
    assert [counted(rank) for rank in range(after)] == [expected] * after
    assert result["privacy"]["epsilon"] == pytest.approx(epsilon(expected, result["privacy"]["delta"]))


def test_a_budget_ends_a_run_that_took_steps_twice(toy):
    together(2, config(toy, dp_noise=0.0, dp_epsilon=4.0))
    with pytest.raises(PydecError, match="one more step would be more"):
        go_on(2, steps=13)
    shutil.rmtree("run")
    allowed = 15
    spent = [epsilon({TWO: n}, float(f"{100**-1.1:.2g}")) for n in (allowed, allowed + 1)]
    assert spent[0] <= 1.82 < spent[1]
    cut(2, config(toy, dp_epsilon=1.82))
    assert go_on(2, steps=20)["steps"] == 8 + allowed - 12
    assert counted(0) == counted(1) == {TWO: allowed}


def test_a_lost_account_is_refused_by_name(toy):
    together(3, config(toy))
    Path("run/privacy/rank-2.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"privacy/rank-2\.jsonl is on no rank's disk.*start a new run"):
        go_on(3, steps=20)
    shutil.rmtree("run/privacy")
    with pytest.raises(ConfigError, match=r"privacy/rank-0\.jsonl is on no rank's disk"):
        go_on(2, steps=20)


def test_accounts_of_all_disks_are_put_together(tmp_path):
    """Every rank has a directory of its own, and rank 0 an old copy of rank 1's account."""
    for rank, (whose, steps) in enumerate([((0, 1), (5, 3)), ((1,), (9,))]):
        for name, taken in zip(whose, steps, strict=True):
            with Account(tmp_path / str(rank) / "privacy" / f"rank-{name}.jsonl", 2) as account:
                account.at_least({TWO: taken})

    def program(transport):
        with Peer(transport, signals=False) as peer:
            return spent_before(peer, tmp_path / str(peer.rank))

    assert LocalCluster(2).run(program) == [{TWO: 9}] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compare_solo": True}, "--compare-solo trains one peer on all samples without noise"),
        ({"byzantine": "1"}, "--byzantine has ranks lie"),
        ({"clip_norm": 1.0}, "--clip-norm would clip what is mostly noise"),
        ({"dp_noise": 0.0, "dp_clip": 1.0}, "--dp-clip and --dp-delta need noise"),
        ({"dp_noise": 0.0, "dp_delta": 1e-5}, "--dp-clip and --dp-delta need noise"),
        ({"dp_noise": -1.0}, "--dp-noise must be above 0 and finite, got -1.0"),
        ({"dp_clip": math.inf}, "--dp-clip must be above 0 and finite, got inf"),
        ({"dp_delta": 1.0}, r"--dp-delta must be in \(0, 1\), got 1.0"),
        ({"dp_epsilon": 1.0, "steps": 0, "duration_s": 5.0}, "--dp-epsilon needs a number of steps"),
    ],
)
def test_options_that_break_the_guarantee_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        config("stdlib-lm", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "mixed"}, "1 is a BatchNorm1d.*use GroupNorm"),
        ({"dp_epsilon": 1.0}, "12 steps with --dp-noise 1 come to epsilon .* more than --dp-epsilon 1"),
        (
            {"task": "blobs:vector=true"},
            r"must be a batch.s mean, a tensor of shape \(\); got \(1,\)",
        ),
    ],
)
def test_tasks_and_budgets_that_do_not_fit_are_refused(toy, options, said):
    with pytest.raises(ConfigError, match=said):
        together(2, config(toy, **options))


def test_data_of_the_store_are_refused():
    check_data(False)
    with pytest.raises(ConfigError, match="fetched from other ranks as batches need them"):
        check_data(True)


def test_the_noise_of_a_run_cannot_be_changed(toy):
    together(2, config(toy))
    for given in ({"dp_noise": 2.0}, {"dp_epsilon": 9.0}, {"dp_delta": 0.1}):
        with pytest.raises(ConfigError, match="cannot be changed by --resume"):
            configuration("run", given)


def test_a_run_of_as_long_as_it_takes_counts_each_ranks_own_steps(toy):
    options = {"algorithm": "adsgd", "topology": "ring", "steps": 0, "duration_s": 0.5}
    result = together(3, config(toy, checkpoint_every=0, **options))
    for rank, steps in enumerate(result["steps_by_rank"]):
        assert counted(rank) == {THREE: steps}
        spent = epsilon({THREE: steps}, result["privacy"]["delta"])
        assert result["privacy"]["epsilon_by_rank"][rank] == pytest.approx(spent)


def test_the_command_line_has_the_options():
    words = ["stdlib-lm", "--dp-noise", "1.5", "--dp-clip", "0.5", "--dp-delta", "1e-6", "--dp-epsilon", "3"]
    found = config_of(parser_of("train").parse_args(words))
    assert (found.dp_noise, found.dp_clip, found.dp_delta, found.dp_epsilon) == (1.5, 0.5, 1e-6, 3.0)
    again = config_of(parser_of("train").parse_args(found.command()[2:]))
    assert again == found
