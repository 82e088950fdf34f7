"""Tables of results: every row, its target, where a peer is better, and headlines between README's marks."""

from __future__ import annotations

import json

import pytest

from pydec.cli import bench

publish, races = bench.load("publish"), bench.load("netlab.races")
attacks, byzantine = bench.load("publish_attacks"), bench.load("suite_byzantine")


def row(suite="aggregate", name="median", peer="byzfl", ratio=2.0, **more):
    facts = {"suite": suite, "name": name, "params": {"n": 1 << 20, "rounds": 5}, "value": 1.5, "unit": "ms"}
    peer_value = None if ratio is None else 1.5 * ratio
    return {**facts, "peer": peer, "peer_value": peer_value, "ratio": ratio, "floor_fraction": None, **more}


FIRST = {
    "command": "pydec bench aggregate --rounds 5",
    "machine": {"cpu": "A | CPU", "cores": 2, "load_1min": 0.1},
    "versions": {"pydec": "0.1.0"},
}


def published(tmp_path, files):
    for name, rows in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    readme = tmp_path / "TOP.md"
    readme.write_text(f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n")
    publish.main(["--results", str(tmp_path), "--readme", str(readme)])
    return (tmp_path / "README.md").read_text(), readme.read_text()


def test_every_row_has_its_line_and_worse_ones_are_said_plainly(tmp_path):
    rows = [
        row(**FIRST),
        row(peer="torch.sort", ratio=0.5),
        row(name="krum", peer="krum: not installed", ratio=None),
    ]
    page, readme = published(tmp_path, {"aggregate-here": rows})
    assert "`pydec bench aggregate --rounds 5`; A | CPU, 2 cores, load 0.1 at the start; pydec 0.1.0." in page
    assert "| median | n 1 Mi | 1.5 ms | byzfl | 3 ms | 2.00 |  | 5 x: **missed** |" in page
    assert "- median (n 1 Mi): torch.sort is 2.00 x better" in page
    assert "| krum | n 1 Mi | 1.5 ms | krum: not installed |  |  |  |  |" in page
    assert "![aggregate-here](aggregate-here.svg)" in page
    assert "byzfl 3 (2.00 x); torch.sort 0.75 (0.50 x)" in readme
    assert readme.startswith(f"before\n{publish.BEGIN}\n| what |")
    assert readme.endswith(f"{publish.END}\nafter\n")


def test_the_same_files_give_the_same_bytes_and_publishing_twice_changes_nothing(tmp_path):
    files = {"b": [row()], "a": [row(suite="consensus", name="commit, p50", ratio=None)]}
    pages = published(tmp_path, files)
    pictures = [(tmp_path / f"{name}.svg").read_bytes() for name in files]
    publish.main(["--results", str(tmp_path), "--readme", str(tmp_path / "TOP.md")])
    assert ((tmp_path / "README.md").read_text(), (tmp_path / "TOP.md").read_text()) == pages
    assert [(tmp_path / f"{name}.svg").read_bytes() for name in files] == pictures
    assert pages[0].index("## a") < pages[0].index("## b")


def test_old_files_say_their_command_by_their_suite_and_settings():
    file = publish.Results(publish.Path("x.json"), [row("train", params={"net": "1gbit", "hosts": 3})])
    assert file.command == "pydec bench train --net 1gbit --hosts 3"
    assert file.machine == "machine not named"


def test_a_headline_shows_our_best_run_of_the_largest_size():
    name = "time to 90 % accuracy, CNN of 0.4 M: pydec, "
    rows = [
        row("train", f"{name}slow", value=9.0, params={}),
        row("train", f"{name}fast", value=3.0, params={}),
    ]
    rows.append(
        row("train", "time to 90 % accuracy, CNN of 0.4 M: not reached by pydec", value=1.0, params={})
    )
    table = publish.headlines([publish.Results(publish.Path("race.json"), rows)], "link")
    assert table.count("CNN of 0.4 M") == 1
    assert "3 s" not in table  # its unit is the row's
    assert "| 3 ms by pydec, fast | byzfl 3 (2.00 x) | [race](link) |" in table


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"params": {"n": 1 << 26, "fraction": 0.01, "threads": 1}, "peer": "torch eager"}, (60.0, 0.60)),
        ({"params": {"n": 1 << 26, "fraction": 0.001, "threads": 1}, "peer": "torch eager"}, (None, 0.75)),
        ({"params": {"n": 1 << 26, "fraction": 0.01, "threads": 2}, "peer": "torch eager"}, None),
        ({"params": {"n": 1 << 20, "fraction": 0.01, "threads": 1}, "peer": "torch eager"}, None),
    ],
)
def test_shares_are_asked_of_one_thread_and_large_vectors(changes, expected):
    target = publish.target_of(row("kernels", "top-k", **changes))
    assert (target and (target.ratio, target.share)) == expected


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="needs the marks"):
        publish.insert("no marks", "table")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match=r"other\.json does not hold the rows"):
        publish.read(tmp_path)


def test_each_contender_of_a_race_leaves_its_curve(tmp_path, monkeypatch):
    points = [{"step": s, "time_s": 2.0 * s, "bytes_sent": 8, "accuracy": 0.3 * s} for s in (1, 2, 3)]
    monkeypatch.setattr(races, "_one", lambda lab, race: {"parameters": 5, "curve": points})
    contest = races.Contest("a race", races.Race(""), {"DDP": ("ddp", {}), "pydec": races.ours()}, target=0.9)
    rows = [
        found.as_dict() for found in races._raced(None, contest, bench.load("harness").Options(net="1gbit"))
    ]
    curves = {r["params"]["contender"]: r["params"]["curve"] for r in rows if "curve" in r["params"]}
    assert curves == {name: [[2.0, 0.3], [4.0, 0.6], [6.0, 0.9]] for name in ("DDP", "pydec")}
    page, _ = published(tmp_path, {"race": rows})
    assert "[2.0" not in page
    picture = (tmp_path / "race.svg").read_text()
    assert "seconds of training" in picture
    assert len(picture) < 60_000


def attacked(name, least, **params):
    cells = {
        byzantine.SHORT.get(a, a): f"{least + k:.1f} (worst {50 + k:.1f})"
        for k, a in enumerate(byzantine.ATTACKS)
    }
    return row(
        "byzantine", name, "gossip", None, value=least, unit="%", params={"seeds": 3, **cells, **params}
    )


def test_tables_of_attacks_are_those_of_the_rows(tmp_path):
    rules = ["complete, iid: dpsgd", "complete, iid: gts", "complete, iid, byzfl krum", "ring, iid: gts"]
    facts = {
        "default": True,
        "f": 3,
        "connectivity": 13.0,
        "gossip": 79.2,
        "without_attack": 78.9,
        "worst_attack": "ipm",
    }
    rows = [
        *(attacked(name, 70.0) for name in rules),
        row(
            "byzantine",
            "complete, iid: points lost to the worst attack, gts",
            "as asked",
            1.0,
            value=1.6,
            params={**facts, "seeds": 3},
        ),
        row("byzantine", "ring, 2 liars each: ubar, alie", "published, MNIST", None, value=79.0)
        | {"peer_value": 95.23},
        row("byzantine", "ring, 2 liars each: ubar, ipm", "", None, value=10.0),
        row(
            "byzantine",
            "two cliques of 10, no attack: gts",
            "",
            None,
            value=71.0,
            params={"halves": "44.0 and 46.0"},
        ),
        row(
            "byzantine",
            "server, 5 of 25 lie, one class each: krum, mimic",
            "published, MNIST",
            None,
            value=26.0,
        )
        | {"peer_value": 37.0},
    ]
    found = attacks.tables(rows)
    assert "complete, iid, 3 seeds:" in found
    assert "| byzfl krum | 70.0 | 71.0 |" in found
    assert "| 70.0 | 50.0 |" in found  # the least, and the worst rank
    assert "ring, iid" not in found  # one rule is no table
    assert "| complete, iid | 3 | 13 | 79.2 | gts (default) | 78.9 | ipm | 1.6 |" in found
    assert "| ring, 2 liars each | ubar | 79.0 (95.2) | 10.0 |" in found
    assert "| two cliques of 10, no attack | gts | 71.0 | 44.0 and 46.0 |" in found
    assert "| krum | 26.0 (37.0) |" in found
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "robust.md"
    page.write_text(f"a\n{publish.BEGIN}\n{publish.END}\nb\n")
    published(tmp_path, {"byzantine": rows})
    assert page.read_text() == f"a\n{publish.BEGIN}\n\n{found}\n{publish.END}\nb\n"
