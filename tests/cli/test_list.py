"""``pydec list`` shows every registered part, and its words can be used as they stand."""

from __future__ import annotations

import json

import pytest

from pydec import compress
from pydec.cli import list as command
from pydec.cli.main import main


@pytest.mark.parametrize("kind", command.KINDS)
def test_every_part_is_printed_with_its_summary(kind, capsys):
    assert main(["list", kind]) == 0
    out = capsys.readouterr().out
    known = command.registry(kind)
    assert list(known)
    for name in known:
        assert f"\n  {name}" in out
        assert known.summary(name).split()[0] in out


def test_a_printed_specification_can_be_used(capsys):
    main(["list", "compressors"])
    lines = [
        line.strip()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  ") and line[2] != " "
    ]
    for line in lines:
        name = line.partition(":")[0]
        assert compress.make(line) == compress.make(name)


def test_json_has_names_types_and_defaults(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert tuple(found) == command.KINDS
    momentum = found["optimizers"]["sgd"]["options"][0]
    assert momentum == {"name": "momentum", "type": "a number", "default": 0.0, "required": False}
    assert found["topologies"]["ring"]["summary"]
    assert {option["name"] for option in found["tasks"]["stdlib-lm"]["options"]} >= {
        "width",
        "layers",
        "context",
    }
