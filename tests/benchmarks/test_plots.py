"""What is drawn: ratios or values by name, and curves that are thinned without losing their end."""

from __future__ import annotations

from pydec.cli import bench

plots = bench.load("plots")


def row(name, ratio, value=1.0, **params):
    return {"name": name, "ratio": ratio, "value": value, "unit": "ms", "params": params}


def test_ratios_are_drawn_where_there_are_any_else_values():
    assert plots.dots([row("a", 2.0), row("b", None), row("a", 3.0)]) == {"a": [2.0, 3.0]}
    assert plots.dots([row("a", None, 4.0), row("b", None, 0.0)]) == {"a": [4.0]}


def test_curves_are_gathered_by_contest():
    rows = [
        row("a", None, contest="x", curve=[[0, 1]]),
        row("b", 2.0),
        row("c", None, contest="x", curve=[[0, 2]]),
    ]
    assert plots.contests(rows) == {"x": [rows[0], rows[2]]}


def test_long_curves_keep_their_end():
    curve = [[float(i), 0.0] for i in range(1001)]
    assert len(plots.thinned(curve)) <= 200
    assert plots.thinned(curve)[-1] == curve[-1]
    assert plots.thinned(curve[:5]) == curve[:5]


def test_a_picture_holds_no_date_and_its_text_as_text(tmp_path):
    plots.draw([row("a kernel", 2.0)], tmp_path / "x.svg")
    picture = (tmp_path / "x.svg").read_text()
    assert "a kernel" in picture
    assert "dc:date" not in picture
    assert "Matplotlib v" not in picture
