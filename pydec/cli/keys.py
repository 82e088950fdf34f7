"""Which identity does a key file hold, and how do I get one?

    pydec keys new node.key     make a key; others may never read the file, and it is never replaced
    pydec keys show node.key    print the public key, which is the node's name on the ledger

The passphrase is asked for on the terminal, or read from an open file descriptor or an environment variable.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pydec.errors import ConfigError

_MOST_PASSPHRASE_BYTES = 1024


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("action", choices=["new", "show"], help="what to do")
    parser.add_argument("path", metavar="FILE", type=Path, help="the key file")
    parser.add_argument(
        "--passphrase",
        action="store_true",
        help="new: seal the file; show: prove that the passphrase opens it",
    )
    parser.add_argument(
        "--passphrase-fd", metavar="FD", type=int, help="read the passphrase from this open file descriptor"
    )
    parser.add_argument(
        "--passphrase-from", metavar="SOURCE", help="where the passphrase is: env:NAME or fd:NUMBER"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make or show a key.

    Raises:
        ConfigError: the file exists (new), or a passphrase is wrong or not to be had.
        SetupError: the file cannot be written or read, or others may read it.
    """
    from pydec.crypto import keyfile
    from pydec.crypto.signing import SigningKey

    phrase = _passphrase(args, twice=args.action == "new")
    if args.action == "new":
        key = SigningKey.generate()
        keyfile.create(args.path, key, phrase)
        public, sealed = key.public, phrase is not None
    else:
        public, sealed = keyfile.public_of(args.path)
        if phrase is not None or not sealed:
            public = keyfile.load(args.path, phrase).public
    if args.json:
        print(json.dumps({"file": str(args.path), "public": public.hex(), "sealed": sealed}, indent=2))
    else:
        print(f"{'public key':<14}{public.hex()}")
        print(f"{'file':<14}{args.path}, {'sealed by a passphrase' if sealed else 'not sealed, mode 0600'}")
    return 0


def _passphrase(args: argparse.Namespace, twice: bool) -> str | None:
    if args.passphrase_fd is not None:
        try:
            with open(args.passphrase_fd, "rb") as file:
                return file.read(_MOST_PASSPHRASE_BYTES).decode().rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise ConfigError(f"--passphrase-fd {args.passphrase_fd} cannot be read: {error}") from None
    if args.passphrase_from is not None:
        from pydec.crypto.keyfile import secret_from

        return secret_from(args.passphrase_from)
    if not args.passphrase:
        return None
    import getpass

    try:
        phrase = getpass.getpass("passphrase: ")
        if twice and getpass.getpass("once more: ") != phrase:
            raise ConfigError("the two passphrases differ; nothing was written")
    except EOFError:
        raise ConfigError("no terminal to ask for a passphrase; use --passphrase-fd") from None
    return phrase
