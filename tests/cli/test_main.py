"""The command line finds its commands, starts fast, and ends with the right status and one clear line."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from pydec import __version__
from pydec.cli import main as cli
from pydec.errors import ConfigError, SetupError, Stopped


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: pydec {command}")
    module = importlib.import_module(f"pydec.cli.{command}")
    assert (module.__doc__ or "missing").splitlines()[0] in out


def test_help_names_every_command(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"pydec {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["trian"],
            f"unknown command 'trian'; known: {', '.join(cli.COMMANDS)}\n",
        ),
        (["--fast"], "unrecognized arguments: --fast; see pydec --help"),
        (["train"], "train: a TASK is needed, or --resume DIR; pydec list names tasks"),
        (["list", "birds"], "unknown kind 'birds'"),
    ],
)
def test_wrong_arguments_cost_one_line_and_status_2(words, message, capsys):
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"pydec: error: {message}")
    assert err.count("\n") == 1


class Command:
    """A command that ends with a given error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def configure(self, parser):
        pass

    def run(self, args):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "last"),
    [
        (ConfigError("no"), 2, "pydec: error: no"),
        (SetupError("no\ndisk"), 1, "pydec: error: no disk"),
        (Stopped(2, 0), 130, "pydec: error: stopped by signal 2, received by rank 0"),
        (Stopped(15, 3), 143, "pydec: error: stopped by signal 15, received by rank 3"),
        (KeyboardInterrupt(), 130, "pydec: error: interrupted"),
        (ZeroDivisionError("by 0"), 1, "pydec: error: ZeroDivisionError: by 0"),
    ],
)
def test_errors_end_with_their_status_and_reason(error, status, last, monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Command(error))
    assert cli.main(["doctor"]) == status
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == last
    assert ("Traceback" in err) == isinstance(error, ZeroDivisionError)


@pytest.mark.parametrize(("rank", "shown"), [("0", "pydec: error: no\n"), ("1", "")])
def test_rank_0_speaks_for_all_about_wrong_arguments(rank, shown, monkeypatch, capsys):
    for name, value in (("SIZE", "2"), ("RANK", rank)):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Command(ConfigError("no")))
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == shown


def test_the_module_is_the_command_and_loads_nothing_heavy():
    code = (
        "import runpy, sys\nsys.argv = ['pydec']\ntry:\n    runpy.run_module('pydec', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'mpi4py', 'rich', 'msgspec'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: pydec COMMAND")


def test_a_closed_pipe_is_no_accident():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m pydec list topologies | head -c 1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
