"""What ranks under srun find arranged; the job itself is tested in tests/slurm."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pydec.comm import pmix

STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1", "PMIX_RANK": "1"}
ASKED = {"OMPI_MCA_mpi_ft_enable": "1"}


@pytest.fixture
def prefix(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libmpi.so.40").touch()
    return str(tmp_path)


@pytest.fixture(autouse=True)
def _afterwards():
    yield
    pmix._obstacle = ""


@pytest.mark.parametrize("env", [{}, {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"} | STEP])
def test_nothing_is_changed_outside_of_a_step_of_slurm(env, prefix):
    found = env | ASKED
    pmix.prepare(found, prefix)
    assert found == env | ASKED


def test_open_mpi_finds_its_files_and_what_the_user_has_set_stays(prefix):
    env = STEP | {"OMPI_MCA_mpi_yield_when_idle": "0"}
    pmix.prepare(env, prefix)
    assert env == STEP | {"OMPI_MCA_mpi_yield_when_idle": "0", "OPAL_PREFIX": prefix}
    env = dict(STEP)
    pmix.prepare(env, "/nowhere")
    assert "OPAL_PREFIX" not in env


def test_fault_tolerance_brings_the_parameters_that_mpirun_would_set(prefix, monkeypatch):
    monkeypatch.setattr(pmix, "_keep_quiet", lambda path: "")
    env = STEP | ASKED | {"OMPI_MCA_btl": "tcp,self"}
    pmix.prepare(env, prefix)
    assert env["OMPI_MCA_pml"] == "ob1"
    assert env["OMPI_MCA_btl"] == "tcp,self"
    assert env["OMPI_MCA_mpi_ft_enable"] == "1"
    assert pmix.obstacle() == ""


def test_without_the_library_fault_tolerance_is_off_and_the_reason_kept(prefix, monkeypatch):
    monkeypatch.setattr(pmix, "library", lambda: None)
    env = STEP | ASKED
    pmix.prepare(env, prefix)
    assert env["OMPI_MCA_mpi_ft_enable"] == "0"
    assert "OMPI_MCA_pml" not in env
    assert "pip install ." in pmix.obstacle()


def test_a_library_that_cannot_be_loaded_is_named(tmp_path):
    broken = tmp_path / pmix.LIBRARY
    broken.write_text("no library")
    assert str(broken) in pmix._keep_quiet(broken)


SWALLOW = """
import ctypes, sys
from pydec.comm import pmix
assert pmix._keep_quiet(pmix.library()) == ""
notify = ctypes.CDLL(None).PMIx_Notify_event
print(notify(-200, None, 3, None, 0, None, None), notify(-1, None, 3, None, 0, None, None))
"""


@pytest.mark.skipif(pmix.library() is None, reason="built without the library: Linux only; pip install .")
def test_the_report_of_a_death_goes_no_further_and_others_look_for_the_next():
    done = subprocess.run([sys.executable, "-c", SWALLOW], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "-47"]  # no libpmix is loaded in this process
