"""The modulefile and the Apptainer definition in examples/, as far as they run without a cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LMOD = "/usr/share/lmod/lmod/libexec/lmod"
DEFINITION = ROOT / "examples" / "apptainer" / "pydec.def"
FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
"""


def fake(path: Path, text: str = FAKE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(params=["modulecmd", os.environ.get("LMOD_CMD", LMOD)], ids=["modules", "lmod"])
def module(request, tmp_path):
    """Runs shell lines in which ``module`` is what the profile of a cluster makes it."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"no {request.param}; on Debian and Ubuntu: apt-get install environment-modules, or lmod")

    def run(lines: str, **env: str) -> tuple[str, str]:
        shell = f'module() {{ eval "$({program} bash "$@")"; }}\n{lines}'
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **env}
        done = subprocess.run(["bash", "-c", shell], env=env, capture_output=True, text=True, check=True)
        return done.stdout, done.stderr

    return run


def test_the_module_loads_and_unloads(module, tmp_path):
    fake(tmp_path / "bin" / "pydec")
    show = 'echo "$VIRTUAL_ENV,$PATH"'
    lines = f"module use {ROOT}/examples/modules\nmodule load pydec\n{show}\nmodule unload pydec\n{show}"
    out, _ = module(lines, PYDEC_ROOT=str(tmp_path))
    assert out.splitlines() == [f"{tmp_path},{tmp_path}/bin:/usr/bin:/bin", ",/usr/bin:/bin"]


def test_the_module_names_what_is_missing_and_changes_nothing(module, tmp_path):
    lines = f'module use {ROOT}/examples/modules\nmodule load pydec\necho "$VIRTUAL_ENV,$PATH"'
    out, err = module(lines, PYDEC_ROOT=str(tmp_path))
    assert out == ",/usr/bin:/bin\n"
    assert f"pydec: no {tmp_path}/bin/pydec; set PYDEC_ROOT" in err


def sections() -> dict[str, str]:
    parts = re.split(r"^%(\w+)\n", DEFINITION.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_image_is_made_and_run_by_its_own_commands(tmp_path):
    """All sections but apt-get, pip and pydec themselves, in a folder in place of the image's /opt."""
    opt, bin_, log = tmp_path / "opt", tmp_path / "bin", tmp_path / "log"
    part = {
        name: text.replace("/opt/", f"{opt}/").replace("/var/", f"{tmp_path}/var/")
        for name, text in sections().items()
    }
    for line in part["files"].split("\n"):
        if line:
            given, taken = line.split()
            copy = shutil.copytree if (ROOT / given).is_dir() else shutil.copy
            Path(taken).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / given, taken)
    project = (opt / "src" / "pyproject.toml").read_text()
    assert re.search(r"^mpi = ", project, re.MULTILINE)
    fake(bin_ / "apt-get")
    copies = f'mkdir -p "$3/bin"; for name in pip pydec python; do cp "{bin_}/apt-get" "$3/bin/$name"; done\n'
    fake(bin_ / "python3", FAKE + copies)  # makes the environment that was asked for, with fakes in it
    env = {"PATH": f"{bin_}:/usr/bin:/bin", "LOG": str(log)}

    def run(*names: str) -> None:
        subprocess.run(
            ["sh", "-ec", "".join(part[name] for name in names), "-", "list", "tasks"], env=env, check=True
        )

    run("post")
    run("environment", "test")
    run("environment", "runscript")
    assert not (opt / "src").exists()
    called = log.read_text().splitlines()
    assert [line for line in called if line.startswith(("python3", "pip"))] == [
        f"python3 -m venv {opt}/pydec",
        f"pip install --no-cache-dir {opt}/src[mpi]",
    ]
    assert called.count("pydec list tasks") == 2


def test_the_image_gets_all_that_a_build_reads():
    copied = {line.split()[0] for line in sections()["files"].splitlines() if line}
    for name in re.findall(
        r"^(?:readme = |license-files = \[)\"([^\"]+)\"", (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    ):
        assert name in copied
    assert {"CMakeLists.txt", "csrc", "pydec", "pyproject.toml"} <= copied


def test_the_image_s_packages_are_in_debian():
    if shutil.which("apt-cache") is None:
        pytest.skip("no apt-cache here: not Debian or Ubuntu")
    (line,) = (line for line in sections()["post"].splitlines() if "apt-get install" in line)
    packages = [word for word in line.split()[2:] if not word.startswith("-")]
    said = subprocess.run(
        ["apt-cache", "policy", *packages], capture_output=True, text=True, check=True
    ).stdout
    if not said:
        pytest.skip("apt knows no packages here: apt-get update")
    assert {f"{name}:" for name in packages} <= set(said.split())
