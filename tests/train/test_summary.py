"""The last words of a run name what a reader asks first."""

from __future__ import annotations

from pathlib import Path

from pydec.train.progress import Progress
from pydec.train.summary import closing_words, comparison, failed_reason

RESULT = {
    "loss": 1.5,
    "bits_per_byte": 2.164,
    "worst_rank": {"rank": 3, "loss": 1.6, "bits_per_byte": 2.308},
    "solo": {"loss": 1.75, "bits_per_byte": 2.525, "train_loss": 1.7, "wall_s": 30.0},
    "steps": 240,
    "bytes_sent": 120_000_000,
    "dense_bytes": 2_000_000_000,
    "ranks_started": 4,
    "wait_s": 2.0,
    "wall_s": 60.0,
}


def test_a_language_model_with_a_comparison():
    lines = closing_words(Path("runs/x"), RESULT).splitlines()
    assert lines[0] == "run directory   runs/x"
    assert lines[1] == "averaged model  loss 1.5000, 2.164 bits/byte"
    assert lines[2] == "worst rank      loss 1.6000, 2.308 bits/byte (rank 3)"
    assert lines[3] == "one peer alone  loss 1.7500, 2.525 bits/byte, same 240 steps, 30.0 s"
    assert lines[4].strip() == "4 ranks together are 0.361 bits/byte better"
    assert lines[5] == "sent            120.0 MB by 4 ranks; all-reduce would send 2000.0 MB (computed)"
    assert lines[6] == "time            60.0 s for 240 steps, at most 2.0 s of it waiting for peers"


ROBUST = {
    **RESULT,
    "accuracy": 0.71,
    "consensus_distance": 12.3,
    "byzantine": {"left_out_weight": 0.34, "distance_growth": 1.9, "growth_since": 50},
}


def test_a_robust_run_says_how_far_apart_its_rule_keeps_the_ranks():
    """Robust rules can destroy consensus on data that differ: with the numbers, and what to do."""
    fine = {**ROBUST, "worst_rank": {"rank": 3, "loss": 1.6, "accuracy": 0.69}}
    lines = closing_words(Path("x"), fine).splitlines()
    assert lines[3] == (
        "consensus       34 % of the neighbours' weight left out, models 12.3 apart, "
        "1.9 times as far as at step 50"
    )
    assert not any(line.startswith("warning") for line in lines)
    apart = {**ROBUST, "worst_rank": {"rank": 3, "loss": 2.6, "accuracy": 0.43}}
    (words,) = [line for line in closing_words(Path("x"), apart).splitlines() if line.startswith("warning")]
    assert "rank 3 has loss 2.6000, 43.00 % right, the averaged model loss 1.5000" in words
    assert "lower f, take a denser graph, or put nnm+" in words
    by_loss = {**ROBUST, "worst_rank": {"rank": 3, "loss": 1.6}}
    assert "warning" in closing_words(Path("x"), by_loss)
    assert "consensus" not in closing_words(Path("x"), {**apart, "byzantine": {"ranks": [1]}})


def test_the_consensus_distance_is_compared_with_an_early_one():
    progress = Progress()
    for step, distance in [(10, 1.0), (20, 2.0), (30, 3.0), (40, 5.0), (50, 6.0)]:
        progress.step = step
        progress.measured(distance)
    assert progress.early == (20, 2.0)
    assert progress.growth == 3.0
    assert progress.consensus_distance == 6.0


def test_accuracy_is_compared_in_points():
    result = {
        **RESULT,
        "accuracy": 0.9,
        "solo": {"loss": 1.0, "accuracy": 0.91, "train_loss": 1.0, "wall_s": 1.0},
    }
    assert "4 ranks together are 1.000 points worse" in closing_words(
        Path("x"), {**result, "bits_per_byte": 1.0}
    )


def test_an_unfinished_score_is_left_out():
    words = closing_words(Path("x"), {"steps": 3, "bytes_sent": 0, "ranks_started": 1, "wall_s": 1.0})
    assert words.splitlines() == ["run directory   x", "time            1.0 s for 3 steps"]


def test_a_ring_all_reduce_sends_twice_the_model_less_one_share():
    assert comparison(4, 10, 100) == 4 * 10 * (2 * 3 / 4 * 400)


def test_the_reason_of_a_failure_is_found_again(tmp_path):
    assert failed_reason(tmp_path) == ""
    (tmp_path / "summary.json").write_text('{"status": "failed", "reason": "rank 2: NaN"}')
    assert failed_reason(tmp_path) == "rank 2: NaN"
