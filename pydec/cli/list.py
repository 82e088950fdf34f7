"""What can a specification string name, and with which options?

Prints every registered topology, compressor, algorithm, robust average, mixing control, optimizer and task
as a specification with all its defaults. A specification is a name, or a name with some of its options:
topk:fraction=0.01
"""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING, Any

from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.registry import Registry

KINDS = (
    "topologies",
    "compressors",
    "algorithms",
    "aggregators",
    "preaggregators",
    "robust",
    "attacks",
    "mixing",
    "optimizers",
    "tasks",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"only these: {', '.join(KINDS)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object, by kind and name")


def run(args: argparse.Namespace) -> int:
    """Print the parts."""
    if args.kind is not None and args.kind not in KINDS:
        raise ConfigError(f"unknown kind {args.kind!r}; known: {', '.join(KINDS)}")
    kinds = KINDS if args.kind is None else (args.kind,)
    found = {kind: parts(registry(kind)) for kind in kinds}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    return 0


def registry(kind: str) -> Registry[Any]:
    """The registry of one of ``KINDS``, with every part that pydec brings along."""
    if kind == "topologies":
        from pydec.topology import topologies

        return topologies
    if kind == "compressors":
        from pydec.compress import compressors

        return compressors
    if kind == "algorithms":
        from pydec.gossip import algorithms

        return algorithms
    if kind == "aggregators":
        from pydec.aggregate import aggregators

        return aggregators
    if kind == "preaggregators":
        from pydec.aggregate import preaggregators

        return preaggregators
    if kind == "robust":
        from pydec.gossip import robust_rules

        return robust_rules
    if kind == "attacks":
        from pydec.aggregate.attacks import attacks

        return attacks
    if kind == "mixing":
        from pydec.gossip.control import controls

        return controls
    if kind == "optimizers":
        from pydec.train.optimizers import optimizers

        return optimizers
    from pydec.train.tasks import tasks

    return tasks


def parts(known: Registry[Any]) -> dict[str, dict[str, Any]]:
    """Summary and options of every part of a registry, by name."""
    return {
        name: {
            "summary": known.summary(name),
            "options": [
                {
                    "name": option.name,
                    "type": option.type,
                    "default": None if option.required else _plain(option.default),
                    "required": option.required,
                }
                for option in known.options(name)
            ],
        }
        for name in known
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) or value is None else str(value)


def _show(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    for number, (kind, named) in enumerate(found.items()):
        print(("\n" if number else "") + kind)
        for name, part in named.items():
            options = ",".join(f"{option['name']}={_word(option)}" for option in part["options"])
            print(f"  {name}{':' + options if options else ''}")
            print(textwrap.fill(part["summary"], 100, initial_indent="      ", subsequent_indent="      "))


def _word(option: dict[str, Any]) -> str:
    """A default as a specification string would say it."""
    value = option["default"]
    if option["required"]:
        return "..."
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
