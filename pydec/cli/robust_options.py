"""The options of ``pydec train`` about ranks that lie."""

from __future__ import annotations

import argparse


def add_robust(parser: argparse.ArgumentParser) -> None:
    """Add the group."""
    robust = parser.add_argument_group("robust")
    robust.add_argument(
        "--aggregate",
        metavar="SPEC",
        help="average so that liars cannot bend the model far: cs-plus, nna, nnm+trimmed-mean:f=2, ...; auto "
        "takes what fits the graph; pydec list robust and aggregators name them (docs/robust.md)",
    )
    robust.add_argument(
        "--byzantine", metavar="N|RANKS", help="for tests: so many ranks lie, or those named, such as 1,5"
    )
    robust.add_argument("--attack", metavar="SPEC", help="what they send; pydec list attacks (alie)")
