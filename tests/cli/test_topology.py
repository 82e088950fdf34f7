from __future__ import annotations

import json
import sys

import networkx as nx
import pytest

from pydec.cli.main import main
from pydec.cli.topology import facts, picture
from pydec.topology import make, topologies

EXPONENTIAL_64 = """\
topology      exponential, 64 ranks
period        1 round
degree        6 neighbours at most
messages      6.0 per rank and round
symmetric     no
sums          rows and columns
exact after   never, only in the limit
spectral gap  0.2857
rounds/decade 6.8
"""

BASE_K_3 = """\
topology      base-k:k=1, 3 ranks
period        3 rounds
degree        1 neighbour at most
messages      0.6667 per rank and round
symmetric     yes
sums          rows and columns
exact after   3 rounds
spectral gap  1.0000

   round 0  round 1  round 2
0  o # .    o . #    o # .
1  # o .    . o .    # o .
2  . . o    # . o    . . o
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [("exponential --size 64", EXPONENTIAL_64), ("base-k --size 3", BASE_K_3)],
)
def test_prints_facts_with_units_and_a_picture_of_small_graphs(words, expected, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["topology", *words.split()]) == 0
    assert capsys.readouterr().out == expected


MADE = {"hierarchical": "hierarchical:between=base-k,m=4", "alternating": "alternating:m=1"}


@pytest.mark.parametrize("name", [MADE.get(name, name) for name in topologies if name != "file"])
@pytest.mark.parametrize("size", [1, 2, 5, 32, 33])
def test_every_topology_has_facts(name, size, capsys):
    if "hypercube" in name:
        size = 1 << (size - 1).bit_length()
    assert main(["topology", name, "--size", str(size), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == facts(make(name, size))
    assert told["size"] == size
    assert main(["topology", name, "--size", str(size)]) == 0
    out = capsys.readouterr().out
    assert ("round 0" in out or "every round" in out) == (size <= 32)
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", [MADE.get(name, name) for name in topologies if name != "file"])
def test_facts_of_thousands_of_ranks_fit_the_page(name, capsys):
    assert main(["topology", name, "--size", "4096" if "hypercube" in name else "3000"]) == 0
    out = capsys.readouterr().out
    assert "round 0" not in out
    assert "every round" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_infinite_and_never_are_null_in_json(capsys):
    main(["topology", "random-matching", "--size", "5", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["period_rounds"] is None
    assert told["finite_time_rounds"] is None


def test_says_what_is_for_push_sum_alone(tmp_path, capsys):
    nx.write_gml(nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)]), tmp_path / "g.gml")
    main(["topology", f"file:path={tmp_path / 'g.gml'}", "--size", "3"])
    assert "sums          columns only: for push-sum alone\n" in capsys.readouterr().out


def test_a_static_symmetric_graph_has_its_smallest_eigenvalue(capsys):
    main(["topology", "ring", "--size", "6"])
    assert "smallest eig  -0.3333\n" in capsys.readouterr().out


@pytest.mark.parametrize("spec", ["exponential", "base-k", "od-equidyn", "chain"])
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_plots_a_picture(spec, ending, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"graph.{ending}"
    assert main(["topology", spec, "--size", "12", "--plot", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"picture       {path}\n")
    head = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(head)


def test_plotting_needs_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["topology", "ring", "--size", "4", "--plot", str(tmp_path / "a.png")]) == 2
    assert "pip install 'pydec-train[plot]'" in capsys.readouterr().err


def test_too_many_ranks_are_not_drawn(tmp_path, capsys):
    assert main(["topology", "ring", "--size", "2000", "--plot", str(tmp_path / "a.png")]) == 2
    assert "a picture of 2000 ranks" in capsys.readouterr().err


def test_rounds_wrap_at_the_width():
    wide, narrow = (picture(make("one-peer-exponential", 16), width) for width in (200, 40))
    assert len(wide.splitlines()) == 1 + 16
    assert len(narrow.splitlines()) == 4 * (1 + 16) + 3
    assert max(map(len, narrow.splitlines())) <= 40


def test_long_periods_are_cut():
    assert picture(make("base-k", 31), 80).endswith("more rounds") == (make("base-k", 31).period > 12)
    assert make("base-k", 31).period <= 12 or "round 12" not in picture(make("base-k", 31), 80)


@pytest.mark.parametrize("seed", [0, 7])
def test_seed_reaches_random_topologies(seed, capsys):
    main(["topology", "random-matching", "--size", "16", "--seed", str(seed)])
    assert picture(make("random-matching", 16, seed=seed), 80).splitlines()[5] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("moebius --size 4", "unknown topology 'moebius'; known: alternating, base-k"),
        ("hypercube --size 6", "hypercube needs a power of two of ranks, got size=6"),
        ("hierarchical --size 6", "which ranks share a node is not known here"),
        ("file:path=/none.npy --size 4", "there is no file /none.npy"),
        ("ring --size 4 --plot ring.jpeg", "a picture ends in .png, .svg or .pdf, got ring.jpeg"),
        ("ring --size 0", "at least 1 rank, got size=0"),
        ("ring --size four", "invalid int value: 'four'"),
        ("ring", "--size"),
        ("base-k:k=0 --size 4", "k >= 1"),
        ("base-k:q=3 --size 4", "base-k has no option 'q'; its options: k"),
        ("random-matching --size 4 --seed -1", "seed must be in [0, 2^256), got -1"),
    ],
)
def test_wrong_arguments_cost_one_line_and_status_2(words, message, capsys):
    assert main(["topology", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
