"""``pydec ledger grant``, ``revoke`` and ``config``: an admin's word, signed and laid into a node's inbox."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.consensus.access import Action
    from pydec.consensus.state.chain import ChainState
    from pydec.consensus.transactions import Body


def say(args: argparse.Namespace, state: ChainState, node: Path) -> int:
    """Sign a GRANT or REVOKE of roles or a CONFIG, and hand it to a node.

    Args:
        args: ``action``, ``words`` (who and which roles, or options), ``key``, ``passphrase_from``, ``json``.
        state: the newest that is known.
        node: directory of the node that brings it to the others.

    Raises:
        ConfigError: nobody, no role or no option of that name.
        AccessDenied: the key is no admin's.
        TransactionError: it changes nothing, or the chain refuses it for another reason.
        SetupError: no key, or the inbox cannot be written.
    """
    from pydec.consensus.access import allow
    from pydec.consensus.file_storage import KEY_FILE
    from pydec.consensus.inbox import Bundle
    from pydec.crypto import keyfile

    action, body, told = _options(args) if args.action == "config" else _roles(args, state)
    phrase = keyfile.secret_from(args.passphrase_from) if args.passphrase_from else None
    key = keyfile.from_source(args.key or str(node / KEY_FILE), phrase)
    allow(state, key.public, action)
    bundle = Bundle(node, state, key)
    bundle.say(body)
    (path,) = bundle.put()
    if args.json:
        facts = {"action": args.action, **told, "by": key.public.hex(), "file": str(path)}
        print(json.dumps(facts, indent=2))
        return 0
    print(f"{args.action:<14}{_words(args.action, told)}")
    print(f"{'by':<14}{key.public.hex()}")
    print(f"{'handed over':<14}{path}; a running job commits it within seconds, another at its next start")
    return 0


def _words(action: str, told: dict[str, Any]) -> str:
    if action == "config":
        return ", ".join(f"{name}={value}" for name, value in told["options"].items())
    return f"{', '.join(told['roles'])} {'to' if action == 'grant' else 'from'} {told['identity']}"


def _options(args: argparse.Namespace) -> tuple[Action, Body, dict[str, Any]]:
    """What sets options of the run."""
    from pydec.consensus.access import Action
    from pydec.consensus.options import OPTIONS
    from pydec.consensus.transactions import Config

    known = ", ".join(OPTIONS)
    pairs = dict(word.partition("=")[::2] for word in args.words)
    if not pairs:
        raise ConfigError(
            f"ledger config: say which options: pydec ledger config DIR NAME=VALUE; known: {known}"
        )
    for name, value in pairs.items():
        if name not in OPTIONS or not OPTIONS[name][0](value):
            expected = (
                f"{name}={OPTIONS[name][1]}" if name in OPTIONS else f"NAME=VALUE, with NAME one of {known}"
            )
            raise ConfigError(f"ledger config: expected {expected}, got {name}={value}")
    return Action.CONFIGURE, Config(tuple(sorted(pairs.items()))), {"options": pairs}


def _roles(args: argparse.Namespace, state: ChainState) -> tuple[Action, Body, dict[str, Any]]:
    """What gives or takes roles."""
    from pydec.consensus.access import Action
    from pydec.consensus.roles import Role
    from pydec.consensus.transactions import Grant, Revoke

    if len(args.words) < 2:
        raise ConfigError(
            f"ledger {args.action}: say who and which roles: pydec ledger {args.action} DIR rank:2 trainer"
        )
    who, *names = args.words
    grants = args.action == "grant"
    identity = identity_of(state, who, unknown=grants)
    try:
        roles = Role.parse(names)
    except ValueError as error:
        raise ConfigError(f"ledger {args.action}: {error}") from None
    told = {"identity": identity.hex(), "roles": roles.names.split(", ")}
    if grants:
        return Action.GRANT_ROLES, Grant(identity, int(roles)), told
    return Action.REVOKE_ROLES, Revoke(identity, int(roles)), told


def identity_of(state: ChainState, who: str, *, unknown: bool) -> bytes:
    """The node id that somebody means: its digits, the first of them, or its address on the ledger."""
    if unknown and len(who) == 64:
        try:
            return bytes.fromhex(who)
        except ValueError:
            pass
    found = [
        account.node_id
        for account in state.accounts.values()
        if account.node_id.hex().startswith(who.lower()) or (account.address == who and account.roles)
    ]
    if len(found) == 1:
        return found[0]
    raise ConfigError(
        f"{len(found)} accounts of the ledger are called {who!r}; give more digits of the public key, all "
        "64 of one that the ledger does not know yet, or rank:N for a member"
    )
