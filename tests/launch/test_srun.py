"""When srun takes mpirun's place, and with which words; a real Slurm is in tests/slurm."""

from __future__ import annotations

import pytest

from pydec.errors import ConfigError
from pydec.launch import srun
from pydec.launch.mpirun import Job

HOSTS = "n1:2,n2:2,n3:2"


@pytest.fixture
def allocation(tmp_path):
    """An environment inside of an allocation whose srun knows some kinds of MPI."""

    def made(*types, **more):
        program = tmp_path / "srun"
        lines = "".join(f"\\t{name}\\n" for name in types)
        program.write_text(f"#!/bin/sh\nprintf 'MPI plugin types are...\\n{lines}' >&2\n")
        program.chmod(0o755)
        return {"SLURM_JOB_ID": "7", "PATH": f"{tmp_path}:/usr/bin:/bin", **more}

    return made


def test_types_are_read_from_srun_and_its_sentence_is_not_one(allocation):
    env = allocation("none", "pmi2", "pmix")
    assert srun.types(f"{env['PATH'].partition(':')[0]}/srun") == ["none", "pmi2", "pmix"]
    assert srun.types("/no/such/srun") == []


def test_auto_takes_srun_where_it_can(allocation):
    env = allocation("none", "pmix")
    assert srun.chosen("auto", env, "Open MPI", hosts=False)
    assert not srun.chosen("auto", env, "Open MPI", hosts=True)
    assert not srun.chosen("auto", {**env, "SLURM_JOB_ID": ""}, "Open MPI", hosts=False)
    assert not srun.chosen("auto", env, "MPICH", hosts=False)
    assert not srun.chosen("auto", allocation("none", "pmi2"), "Open MPI", hosts=False)
    assert not srun.chosen("mpirun", env, "Open MPI", hosts=False)


@pytest.mark.parametrize(
    ("types", "more", "kind", "reason"),
    [
        (["pmix"], {"SLURM_JOB_ID": ""}, "Open MPI", "not inside a Slurm allocation"),
        (["pmix"], {"PATH": "/nowhere"}, "Open MPI", "no srun on PATH"),
        (["pmix"], {}, "MPICH", "and this is MPICH"),
        (["none", "pmi2"], {}, "Open MPI", "without PMIx.*it has none, pmi2"),
        ([], {}, "Open MPI", "srun --mpi=list"),
    ],
)
def test_srun_that_cannot_says_why(allocation, types, more, kind, reason):
    with pytest.raises(ConfigError, match=f"--launcher srun: .*{reason}"):
        srun.chosen("srun", allocation(*types, **more), kind, hosts=False)


def test_a_job_is_spread_over_its_nodes_and_outlives_one(allocation):
    words = srun.arguments(Job(4, ("prog", "x"), HOSTS), allocation(), tolerant=True)
    text = " ".join(words[1:])
    assert text == (
        "--mpi=pmix --ntasks 4 --nodes 3 --nodelist n1,n2,n3 --input=0 --wait=0 --kill-on-bad-exit=0 "
        "--no-kill prog x"
    )
    few = srun.arguments(Job(2, ("prog",), HOSTS), allocation(), tolerant=False)
    assert "n1,n2" in few
    assert "--kill-on-bad-exit=1" in few
    assert "--no-kill" not in few
    assert "--overcommit" in srun.arguments(Job(7, ("prog",), HOSTS), allocation(), tolerant=True)


def test_steps_get_the_job_s_cores_and_no_word_of_sbatch_that_clashes(allocation):
    env = allocation(SLURM_CPUS_PER_TASK="3", SLURM_NTASKS_PER_NODE="1", SLURM_JOB_NODELIST="n[1-3]")
    words = srun.arguments(Job(3, ("prog",), HOSTS), env, tolerant=True)
    assert words[words.index("--cpus-per-task") + 1] == "3"
    made = srun.environment(env, tolerant=True)
    assert made["OMP_NUM_THREADS"] == "3"
    assert made["OMPI_MCA_mpi_ft_enable"] == "1"
    assert "SLURM_NTASKS_PER_NODE" not in made
    assert made["SLURM_JOB_NODELIST"] == "n[1-3]"
    assert srun.environment({**env, "OMP_NUM_THREADS": "2"}, tolerant=False)["OMP_NUM_THREADS"] == "2"
