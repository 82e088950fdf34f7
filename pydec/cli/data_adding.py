"""How data is put into a store: the options of ``pydec data add``."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.store.manifest import Policy


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``add``."""
    parser.add_argument("--name", metavar="N", help="add: name of the data set")
    parser.add_argument(
        "--append", metavar="N", help="add: begin with all of this data set, and write what is new alone"
    )
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        default="",
        help="add: files, images, idx, numpy, parquet, arrow, text or python; found out without it",
    )
    parser.add_argument("--replicas", metavar="R", type=int, help="add: copies to keep, on as many nodes (3)")
    parser.add_argument(
        "--erasure",
        metavar="K+M",
        help="add: no copies, but K+M fragments of each chunk, of which K do",
    )
    parser.add_argument("--chunk-bytes", metavar="N", type=int, help="add: most bytes of a chunk (1 MiB)")
    parser.add_argument(
        "--ragged", action="store_true", help="add MODULE:FUNCTION: the first dimension of arrays differs"
    )


def check(args: argparse.Namespace) -> None:
    """Raise ConfigError unless the options are of this action."""
    if (args.name is not None) != (args.action == "add"):
        raise ConfigError("data add needs --name N, and nothing else takes it")
    if args.append is not None and args.action != "add":
        raise ConfigError("--append needs data add")
    if args.append is not None and args.chunk_bytes is not None:
        raise ConfigError("--append takes the chunks' size of its data set; leave --chunk-bytes out")
    if args.replicas is not None and not 1 <= args.replicas <= 255:
        raise ConfigError(f"--replicas must be in [1, 255], got {args.replicas}")


def policy(args: argparse.Namespace) -> Policy | None:
    """What ``--replicas`` or ``--erasure`` ask for; None: what the data set has that is appended to.

    Raises:
        ConfigError: both of them, or not like 4+2.
    """
    from pydec.store.manifest import Policy

    if args.erasure is None and args.replicas is None and args.append:
        return None
    if args.erasure is None:
        return Policy(replicas=3 if args.replicas is None else args.replicas)
    if args.replicas is not None:
        raise ConfigError("--replicas and --erasure say the same thing; name one of them")
    words = re.fullmatch(r"([1-9]\d?)\+([1-9]\d?)", args.erasure)
    if words is None:
        raise ConfigError(f"--erasure must be like 4+2, data and parity fragments, got {args.erasure!r}")
    try:
        return Policy(replicas=int(words[1]), parity=int(words[2]))
    except ValueError as error:
        raise ConfigError(f"--erasure {args.erasure}: {error}") from None
