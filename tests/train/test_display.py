"""Progress is calm: a bar on a terminal, few lines elsewhere, nothing on other ranks."""

from __future__ import annotations

import pytest

from pydec.train import display


def test_plain_lines_are_few_and_the_last_is_shown(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    with display.Lines("toy", 100) as shown:
        for step in range(1, 101):
            clock[0] += 0.1
            shown.step(step)
            shown.report(step, {"loss": 1.0 / step, "mb": step / 10})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # the first, one 5 seconds later, the last
    assert lines[-1] == "toy  step 100/100  loss 0.010  10.0 MB sent  10.0 steps/s"


def test_a_bar_ends_complete(capsys):
    with display.Bar("toy", 3, 100) as shown:
        for step in range(1, 4):
            shown.report(step, {"loss": 0.5, "bits_per_byte": 0.7, "consensus_distance": 0.01, "mb": 2.0})
            shown.step(step)
    out = capsys.readouterr().out
    assert "3/3" in out
    assert "0.700 bits/byte" in out
    assert "apart 0.01" in out


def test_quiet_shows_nothing(capsys):
    with display.make("toy", 3, quiet=True) as shown:
        shown.step(1)
        shown.report(1, {"loss": 1.0})
        shown.say("done")
    assert capsys.readouterr().out == ""


def test_without_a_terminal_there_are_lines():
    assert display.terminal_columns() == 0
    assert isinstance(display.make("toy", 3, quiet=False), display.Lines)


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        ({"loss": 1.23456, "accuracy": 0.912345}, "loss 1.235  91.23 % right"),
        ({"f1": 0.5}, "f1 0.5"),
        ({"mb_per_s": 12.34, "waiting": 0.123, "ranks": 4}, "12.3 MB/s  12 % waiting  4 ranks"),
    ],
)
def test_figures_in_words(figures, text):
    assert display.words(figures) == text
