from __future__ import annotations

import json

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


@pytest.mark.parametrize("name", topologies)
@pytest.mark.parametrize("size", [1, 2, 5, 32, 33, 3000])
def test_every_topology_has_facts(name, size, capsys):
    assert main(["topology", name, "--size", str(size), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == facts(make(name, size))
    assert told["size"] == size
    assert main(["topology", name, "--size", str(size)]) == 0
    out = capsys.readouterr().out
    assert ("round 0" in out or "every round" in out) == (size <= 32)
    assert max(map(len, out.splitlines())) <= 100


def test_infinite_and_never_are_null_in_json(capsys):
    main(["topology", "random-matching", "--size", "5", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["period_rounds"] is None
    assert told["finite_time_rounds"] is None


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
        ("torus --size 4", "unknown topology 'torus'; known: base-k"),
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
