"""Hosts from the command line, from files and from Slurm; what is malformed is named with its line."""

from __future__ import annotations

import pytest

from pydec.errors import ConfigError
from pydec.launch.hosts import expand_nodes, known, of_slurm, parse, read_hostfile, render


def test_what_is_written_is_read():
    assert parse("a:2, b,a") == {"a": 3, "b": 1}
    assert render(parse("a:2,b")) == "a:2,b:1"
    assert parse("") == {}


def test_a_hostfile_in_the_forms_of_open_mpi_and_mpich(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# ours\na slots=2 max_slots=4\n\nb:3  # new\nc\na\n")
    assert read_hostfile(path, lambda host: True) == {"a": 3, "b": 3, "c": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\nb slots=x\n", r"line 2: expected .*, got 'b slots=x'"),
        ("a slots=0\n", "line 1: expected"),
        ("a cores=2\n", "line 1: expected"),
        ("a\n\nghost\n", "line 3: this machine knows no host 'ghost'"),
        ("# nothing\n", "names no host"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, words):
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_hostfile(path, lambda host: host != "ghost")


def test_a_missing_file_is_one_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hostfile(tmp_path / "none")


def test_this_machine_is_known():
    assert known("localhost")
    assert not known("no-such-host.invalid")


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("n1", ["n1"]),
        ("n[08-11,3],login", ["n08", "n09", "n10", "n11", "n3", "login"]),
        ("r[1-2]n[1-2]-ib", ["r1n1-ib", "r1n2-ib", "r2n1-ib", "r2n2-ib"]),
        ("a-b,c[1]", ["a-b", "c1"]),
    ],
)
def test_slurm_s_compressed_names_are_expanded(text, nodes):
    assert list(expand_nodes(text)) == nodes


@pytest.mark.parametrize("text", ["n[1-", "n[2-1]", "n[a]", "n]1[", "n1,,n2", "n[1-99999999]", "n[[1]]"])
def test_other_forms_are_refused(text):
    with pytest.raises(ConfigError, match="SLURM_JOB_NODELIST"):
        list(expand_nodes(text))


def test_an_allocation_gives_slots():
    assert of_slurm({}) == {}
    env = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TASKS_PER_NODE": "2(x2),1"}
    assert of_slurm(env) == {"n1": 2, "n2": 2, "n3": 1}
    assert of_slurm({"SLURM_JOB_NODELIST": "n[1-2]"}) == {"n1": 1, "n2": 1}


@pytest.mark.parametrize(("tasks", "words"), [("2(x2)", "2 counts for the 3 nodes"), ("2x3", "should read")])
def test_an_allocation_that_does_not_add_up_is_refused(tasks, words):
    with pytest.raises(ConfigError, match=words):
        of_slurm({"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TASKS_PER_NODE": tasks})
