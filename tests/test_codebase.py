"""Rules about the code as a whole: its floors, its size, its words, and what importing it does."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pydec
from pydec.cli.main import COMMANDS, parser_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pydec"
MAX_LINES = 400
CODE = {".py", ".pyi", ".h", ".cpp", ".cu", ".cuh"}

MODULES = sorted(PACKAGE.rglob("*.py"))
LIGHT = ["pydec", "pydec.errors", "pydec.registry", "pydec.cli.main"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def tracked_files() -> list[Path]:
    """What git tracks; in an unpacked source distribution, everything that a build did not make."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        return [
            path for item in listed.stdout.decode().split("\0") if item and (path := ROOT / item).is_file()
        ]
    skip = {".venv", "build", "dist", "__pycache__", "runs"}
    return [
        path for path in ROOT.rglob("*") if path.is_file() and not skip & set(path.relative_to(ROOT).parts)
    ]


def fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, text=True)


def test_imports_point_down_the_floors():
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = fresh_python(code)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_too_long():
    lengths = {name(p): p.read_bytes().count(b"\n") for p in tracked_files() if p.suffix in CODE}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public_definitions(
    body: list[ast.stmt], owner: ast.ClassDef | None = None
) -> Iterator[tuple[Definition, ast.ClassDef | None]]:
    for node in body:
        if isinstance(node, Definition) and node.name[0] != "_":
            yield node, owner
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, node)


def test_every_public_name_has_a_docstring():
    names = [(path, node, owner) for path in MODULES for node, owner in public_definitions(tree(path).body)]
    documented_methods = {node.name for _, node, owner in names if owner and ast.get_docstring(node)}
    missing = [name(path) for path in MODULES if ast.get_docstring(tree(path)) is None]
    for path, node, owner in names:
        if ast.get_docstring(node) is not None:
            continue
        # A method may inherit the text of the one it overrides; a setter has its getter's.
        inherits = owner is not None and owner.bases and node.name in documented_methods
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if not inherits and not any(d.endswith((".setter", "overload")) for d in decorators):
            missing.append(f"{name(path)}:{node.lineno}: {node.name}")
    assert missing == []


@pytest.mark.parametrize("module", LIGHT)
def test_importing_is_light(module):
    heavy = {"numpy", "torch", "mpi4py", "mpi4py.MPI", "pydec._native", "pydec._native_cuda"}
    done = fresh_python(
        f"import sys, threading\nimport {module}\n"
        f"loaded = {heavy!r} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("package", ["topology", "crypto", "comm", "consensus"])
def test_pure_packages_load_neither_torch_nor_mpi(package):
    modules = [
        module_name(path)
        for path in MODULES
        if path.is_relative_to(PACKAGE / package) and path != PACKAGE / "comm" / "mpi.py"
    ]
    code = "import sys\n" + "".join(f"import {module}\n" for module in modules)
    code += "loaded = {'torch', 'mpi4py'} & set(sys.modules)\nassert not loaded, loaded\n"
    done = fresh_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_only_comm_mpi_and_launch_import_mpi4py():
    users = {
        name(path)
        for path in MODULES
        for node in ast.walk(tree(path))
        if (
            isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "mpi4py" for alias in node.names)
        )
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mpi4py")
    }
    assert {
        user for user in users if user != "pydec/comm/mpi.py" and not user.startswith("pydec/launch/")
    } == set()


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF objects")
@pytest.mark.parametrize("source", sorted((ROOT / "csrc" / "cpu").glob("*.cpp")), ids=lambda path: path.stem)
def test_objects_of_an_instruction_set_hold_no_weak_symbol(source, tmp_path):
    """The linker keeps one copy of a weak symbol: it could be AVX-512 code on a CPU without it."""
    compiler, nm = shutil.which("c++") or shutil.which("g++"), shutil.which("nm")
    assert compiler, "needs a C++ compiler"
    assert nm, "needs binutils"
    target, options = ("v3", ["-march=x86-64-v3"]) if os.uname().machine == "x86_64" else ("baseline", [])
    built = tmp_path / "kernel.o"
    rules = [
        "-ffp-contract=off",
        "-fno-exceptions",
        "-fno-rtti",
        "-fvisibility=hidden",
        f"-DPYDEC_TARGET={target}",
    ]
    places = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}", "-c", str(source), "-o", str(built)]
    subprocess.run([compiler, "-std=c++20", "-O2", "-fPIC", *options, *rules, *places], check=True)
    listing = subprocess.run([nm, "-C", str(built)], capture_output=True, check=True, text=True).stdout
    kinds = [line[17:].split(maxsplit=1) for line in listing.splitlines()]
    assert any(kind == "T" for kind, _ in kinds), listing
    assert [symbol for kind, symbol in kinds if kind in "WwVvu"] == []


def test_no_file_names_a_machine_or_a_registry():
    # Spelled in pieces, so that this file passes its own rule.
    folders = ["/wo" + "rk/", "/tmp/" + "dev", "/ro" + "ot/", "/ho" + "me/"]
    hosts = ["pypi" + ".org", "pythonhosted" + ".org", "download.py" + "torch.org", "index" + "-url"]
    pattern = re.compile("|".join(map(re.escape, folders + hosts)))
    found = []
    for path in tracked_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name(path)}:{number}: {line.strip()}")
    assert found == []


def shell_lines(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documented_commands_exist(document):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = shell_lines(document)
    assert lines
    for line in lines:
        words = shlex.split(line)
        for folder in ("examples/", "tests/", "benchmarks/", ".ci/"):
            for word in words:
                assert not word.startswith(folder) or (ROOT / word.partition("::")[0]).exists(), line
        if words[0] == "make":
            assert [word for word in words[1:] if "=" not in word and word not in targets] == [], line
        if "pydec" in words:
            arguments = words[words.index("pydec") + 1 :]
            if arguments and arguments[0][0] != "-":
                assert_parses(arguments)


def assert_parses(arguments: list[str]) -> None:
    """The words of a documented command are ones that its parser takes."""
    args = parser_of(arguments[0]).parse_args(arguments[1:])
    if arguments[0] == "run":
        started = next(i for i, word in enumerate(arguments) if word in COMMANDS and i > 0)
        assert_parses(arguments[started:])
    assert args.run


def test_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(pydec.__version__)}$", citation, flags=re.MULTILINE)
    assert f"## [{pydec.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


MESSAGES = re.compile(r"(Config|Setup|Value|Type|Runtime|Store|Ledger|Mismatch|NonFinite)Error$")
VAGUE = re.compile(r"\b(invalid|illegal|bad|incorrect|oops|unexpected error)\b", re.IGNORECASE)
BARE = {"pydec/privacy/account.py"}  # raised and caught within one function


def words_of(node: ast.expr) -> str:
    """A message with {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return words_of(node.left) + words_of(node.right)
    return "{}"


def faults_of(kind: str, args: list[ast.expr]) -> Iterator[str]:
    """What an error's message lacks, as far as a program can tell."""
    message = max((words_of(arg) for arg in args), key=len, default="")
    if not message:
        yield "no message"
        return
    if len(message.split()) < 4 and "{}" not in message:
        yield "says too little"
    if VAGUE.search(message):
        yield "is vague: say what was expected"
    if message.endswith("!") or (message.endswith(".") and not message.endswith("...")):
        yield "ends like a sentence, and pydec goes on after it"
    if re.search(r"\bmust (be|have|hold)\b|\bexpected\b", message) and not re.search(
        r"\{\}|\bgot\b", message
    ):
        yield "says what must be, and not what was given"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_error_messages_say_what_what_was_expected_and_what_to_do(path):
    found = []
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Raise) or node.exc is None:
            continue
        call = node.exc if isinstance(node.exc, ast.Call) else ast.Call(node.exc, [], [])
        kind = ast.unparse(call.func)
        if MESSAGES.search(kind) and not (not call.args and name(path) in BARE):
            found += [f"line {node.lineno}: {kind} {fault}" for fault in faults_of(kind, call.args)]
    assert found == []
