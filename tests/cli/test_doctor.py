"""`pydec doctor` always ends, tells what it found, and names a fix for what is missing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from pydec.cli import doctor
from pydec.errors import SetupError

OPEN_MPI = {
    "mpi4py": "4.1.2",
    "vendor": "Open MPI",
    "version": "5.0.11",
    "path": "",
    "thread_level": "multiple",
    "ulfm": True,
    "gpu": False,
}


def fake_mpirun(folder: Path, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "mpirun"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


def command_line(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    doctor.configure(parser)
    return parser.parse_args(arguments)


def test_json_has_every_finding_and_agrees_with_the_exit_status(capsys):
    status = doctor.run(command_line("--json"))
    report = json.loads(capsys.readouterr().out)
    assert status == (0 if report["ok"] else 1)
    names = [finding["name"] for finding in report["findings"]]
    assert {"Python", "compiler", "native code", "MPI library", "mpirun", "PyTorch", "cores"} <= set(names)
    assert len(names) == len(set(names))
    for finding in report["findings"]:
        assert finding["state"] in {"ok", "note", "missing"}
        assert finding["state"] == "ok" or finding["fix"], finding


def test_text_names_what_is_missing_on_standard_error(capsys, monkeypatch):
    finding = doctor.Finding("MPI library", "missing", "cannot load MPI library", "pip install it")
    monkeypatch.setattr(doctor, "examine", lambda: [finding])
    assert doctor.run(command_line()) == 1
    out, err = capsys.readouterr()
    assert "cannot load MPI library" in out
    assert "fix: pip install it" in out
    assert err == "pydec: error: missing: MPI library\n"


def test_probe_returns_the_last_line_as_json():
    assert doctor.probe("print('noise'); print('{\"a\": 1}')") == {"a": 1}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit status -9"),
        ("raise ValueError('broken')", "ValueError: broken"),
        ("print(7)", "exit status 0: no answer"),
        ("pass", "exit status 0: no answer"),
    ],
)
def test_probe_survives_a_child_that_fails(code, reason):
    assert reason in doctor.probe(code)["error"]


def test_probe_gives_up_on_a_child_that_hangs():
    assert doctor.probe("import time; time.sleep(60)", timeout_s=0.2) == {"error": "no answer within 0.2 s"}


def test_probe_hides_the_running_job(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    monkeypatch.setenv("PMIX_RANK", "3")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    assert not {"OMPI_COMM_WORLD_RANK", "PMIX_RANK"} & set(doctor.probe(code))


def test_missing_mpi_library_names_the_extra():
    error = {"error": "RuntimeError: cannot load MPI library"}
    (finding,) = doctor.check_mpi(error)
    assert finding.state == "missing"
    assert finding.fix is not None
    assert "pydec-train[mpi]" in finding.fix


def test_limits_of_an_mpi_are_notes():
    limited = {**OPEN_MPI, "vendor": "MPICH", "version": "5.0.2", "thread_level": "serialized", "ulfm": False}
    library, threads, faults, _gpu, hosts = doctor.check_mpi(limited)
    assert library.state == "ok"
    assert threads.state == "note"
    assert "SERIALIZED" in threads.value
    assert faults.state == "note"
    assert faults.fix
    assert doctor.check_mpi({**limited, "ulfm": True})[2].value.startswith("not with MPICH: when a rank dies")
    assert hosts.name == "lost hosts"


def test_a_machine_without_a_remote_shell_learns_of_launch_agents(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = doctor.check_nodes()
    assert finding.state == "note"
    assert "--launch-agent" in (finding.fix or "")
    fake_mpirun(tmp_path, "OpenSSH").rename(tmp_path / "ssh")
    assert doctor.check_nodes().state == "ok"


def test_mpirun_of_another_mpi_is_named_with_the_way_to_the_right_one(tmp_path, monkeypatch):
    right = fake_mpirun(tmp_path / "mpi" / "bin", "mpirun (Open MPI) 5.0.11")
    wrong = fake_mpirun(tmp_path / "other", "mpirun (Open MPI) 4.1.4")
    monkeypatch.setattr(doctor, "find_mpirun", lambda: str(wrong))
    finding = doctor.check_mpirun({**OPEN_MPI, "path": str(tmp_path / "mpi" / "lib" / "libmpi.so.40")})
    assert finding.state == "missing"
    assert "4.1.4" in finding.value
    assert "5.0.11" in finding.value
    assert finding.fix == f"put {right.parent} first on PATH"


def test_another_mpirun_first_on_path_is_a_note(tmp_path, monkeypatch):
    right = fake_mpirun(tmp_path / "mpi" / "bin", "mpirun (Open MPI) 5.0.11")
    wrong = fake_mpirun(tmp_path / "other", "HYDRA build details:")
    monkeypatch.setattr(doctor, "find_mpirun", lambda: str(right))
    monkeypatch.setenv("PATH", f"{wrong.parent}:/usr/bin:/bin")
    finding = doctor.check_mpirun(OPEN_MPI)
    assert finding.state == "note"
    assert str(wrong) in finding.value
    assert str(right) in (finding.fix or "")


def test_no_mpirun_names_the_extra(monkeypatch):
    def nothing() -> str:
        raise SetupError("no mpirun beside python or on PATH; install one")

    monkeypatch.setattr(doctor, "find_mpirun", nothing)
    finding = doctor.check_mpirun(OPEN_MPI)
    assert (finding.state, finding.value) == ("missing", "no mpirun beside python or on PATH")
    assert "pydec-train[mpi]" in (finding.fix or "")


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"version": "2.13.0+cpu", "devices": 0}, "ok"),
        ({"version": "2.4.0a0+git1", "devices": 2}, "ok"),
        ({"version": "2.3.1", "devices": 0}, "missing"),
        ({"error": "ModuleNotFoundError: No module named 'torch'"}, "missing"),
    ],
)
def test_torch_must_be_new_enough(answer, state):
    assert doctor.check_torch(answer).state == state


def test_native_code_that_does_not_load_is_missing():
    (finding,) = doctor.check_kernels({"error": "ImportError: no module _native"})
    assert finding.state == "missing"
    (finding,) = doctor.check_kernels({"error": "ConfigError: PYDEC_SIMD=v9 is none of v2, v3"})
    assert "PYDEC_SIMD" in (finding.fix or "")


def test_absent_data_names_the_package(tmp_path):
    sources, images = doctor.check_data(tmp_path)
    assert sources.state == "ok"
    assert images.state == "note"
    assert "dataset-fashion-mnist" in (images.fix or "")
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    assert doctor.check_data(tmp_path)[1].state == "ok"


def test_missing_compiler_is_only_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    finding = doctor.check_compiler()
    assert finding.state == "note"
    assert finding.fix


@pytest.mark.parametrize(("gpu", "words"), [(True, "takes GPU memory"), (False, "takes no GPU memory here")])
def test_whether_messages_may_lie_on_a_gpu_is_one_line(gpu, words):
    (found,) = [f for f in doctor.check_mpi({**OPEN_MPI, "gpu": gpu}) if f.name == "MPI on GPUs"]
    assert found.state == "ok"
    assert words in found.value
    assert "host memory" in found.value


WITH_ULFM = {"vendor": "Open MPI", "ulfm": True}


@pytest.mark.parametrize(
    ("types", "answer", "quiet", "state", "says"),
    [
        (["none", "pmix"], WITH_ULFM, "", "ok", "ranks outlive a lost node"),
        (["none", "pmi2"], WITH_ULFM, "", "note", "no PMIx"),
        (["none", "pmix"], {"vendor": "MPICH", "ulfm": False}, "", "note", "MPICH without ULFM"),
        (["none", "pmix"], WITH_ULFM, "not built", "note", "not built"),
        ([], WITH_ULFM, "", "note", "finds no cluster"),
    ],
)
def test_slurm_says_what_follows_when_a_node_is_lost(types, answer, quiet, state, says, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_first_line", lambda *words: "slurm 24.05")
    monkeypatch.setattr(doctor.srun, "types", lambda: types)
    monkeypatch.setattr(doctor.srun, "quiet", lambda: quiet)
    (finding,) = doctor.check_slurm(answer)
    assert finding.state == state
    assert says in finding.value
    assert (finding.fix is None) == (state == "ok")


def test_without_slurm_nothing_is_said_of_it(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.check_slurm(WITH_ULFM) == []
