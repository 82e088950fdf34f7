"""What the pages take from elsewhere: registries with their docstrings, results, links into the repository.

``<!-- registry: KIND -->`` in a page becomes every name of that registry with its docstring,
``<!-- docstring: MODULE:NAME -->`` a docstring, ``<!-- transactions -->`` those of the ledger,
``<!-- results -->`` the tables of benchmarks/results.
"""

from __future__ import annotations

import dataclasses
import html
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def on_files(files: Any, config: Any) -> Any:
    """Put the pictures of results beside the page that shows them."""
    for picture in sorted(RESULTS.glob("*.svg")):
        name = f"results/{picture.name}"
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what the page asks for."""
    markdown = re.sub(r"<!-- registry: (\w+) -->", lambda found: _registry(found[1]), markdown)
    markdown = re.sub(r"<!-- docstring: (\S+) -->", lambda found: _docstring(found[1]), markdown)
    if "<!-- transactions -->" in markdown:
        markdown = markdown.replace("<!-- transactions -->", _transactions())
    if "<!-- results -->" in markdown:
        markdown = markdown.replace("<!-- results -->", _results())
    # Files of the repository that are no pages are named, not linked: the site has none of them.
    return re.sub(r"\[([^\]]+)\]\(\.\./(?!docs/)([^)]+)\)", r"\1 (`\2`)", markdown)


def _registry(kind: str) -> str:
    from pydec.cli.list import registry

    known = registry(kind)
    return "\n".join(f"### `{name}`\n\n{_escaped(inspect.getdoc(known.get(name)))}\n" for name in known)


def _docstring(what: str) -> str:
    module, _, name = what.partition(":")
    found: Any = importlib.import_module(module)
    return _escaped(inspect.getdoc(getattr(found, name) if name else found))


def _transactions() -> str:
    from pydec.consensus.transactions import KINDS

    rows = ["| kind | name | fields | what it does |", "|---|---|---|---|"]
    for number, (kind, _) in KINDS.items():
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind))
        summary = _escaped(inspect.getdoc(kind)).partition("\n\n")[0].replace("\n", " ")
        rows.append(f"| {number} | {kind.__name__} | {fields} | {summary} |")
    return "\n".join(rows)


def _escaped(text: str | None) -> str:
    """A docstring as Markdown that shows it as it stands: indented lines and formulas keep their lines."""
    paragraphs = []
    for paragraph in (text or "").split("\n\n"):
        lines = paragraph.splitlines()
        if any(line.startswith("    ") for line in lines):
            head = [line for line in lines if not line.startswith("    ")]
            body = "\n".join(line for line in lines if line.startswith("    "))
            paragraphs += [" ".join(map(_plain, head))] if head else []
            body = body.replace("``", "")
            paragraphs.append(f"```text\n{textwrap.dedent(body)}\n```")
        else:
            formula = any("<-" in line or " = " in line for line in lines)
            paragraphs.append(("  \n" if formula else "\n").join(map(_plain, lines)))
    return "\n\n".join(paragraphs)


def _plain(line: str) -> str:
    """One line without what Markdown or HTML would take for theirs; between backquotes it is code."""
    line = line.replace("``", "`")
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_\\\[\]])", r"\\\1", html.escape(part, quote=False))
        for part in parts
    )


def _results() -> str:
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    text = text.partition("\n")[2]  # the page has a title of its own
    text = re.sub(r"!\[([^\]]*)\]\(([^)]+\.svg)\)", r"![\1](results/\2)", text)
    return re.sub(r"\[([^\]]+\.json)\]\([^)]+\)", r"`benchmarks/results/\1`", text)
