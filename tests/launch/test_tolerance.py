"""Fault tolerance is asked of the mpirun at hand, and its flags are a function of what is wanted."""

from __future__ import annotations

import pytest

from pydec.launch.mpirun import Job, arguments
from pydec.launch.tolerance import Tolerance, missing


def options(argv):
    return {argv[i + 1]: argv[i + 2] for i, word in enumerate(argv) if word in ("--mca", "--prtemca")}


def test_the_others_live_on_and_mpi_s_own_detector_is_off():
    argv = arguments(Job(2, ("true",)), "mpirun", "Open MPI", 2, tolerance=Tolerance())
    assert argv[argv.index("--with-ft") + 1] == "ulfm"
    found = options(argv)
    assert (found["async_mpi_finalize"], found["btl_tcp_flags"]) == ("1", "send,inplace")
    assert not any("detector" in name for name in found)


def test_mpich_gets_none_of_it():
    argv = arguments(Job(2, ("true",)), "mpirun", "MPICH", 2, tolerance=Tolerance())
    assert argv == ["mpirun", "-n", "2", "true"]


@pytest.mark.parametrize(
    ("said", "words"), [("options:ft_mpi_support:yes", ""), ("options:ft_mpi_support:no", "without fault")]
)
def test_the_mpirun_at_hand_is_asked(tmp_path, said, words):
    info = tmp_path / "ompi_info"
    info.write_text(f"#!/bin/sh\necho option:prefix:/\necho {said}\n")
    info.chmod(0o755)
    why = missing(str(tmp_path / "mpirun"), "Open MPI")
    assert words in why
    assert bool(words) == bool(why)


def test_who_cannot_be_asked_has_none(tmp_path):
    assert "does not run" in missing(str(tmp_path / "mpirun"), "Open MPI")
    assert "MPICH ends the job" in missing("mpirun", "MPICH")
