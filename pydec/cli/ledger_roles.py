"""``pydec ledger grant`` and ``revoke``: an admin's word on who may do what, laid into a node's inbox."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydec.errors import ConfigError

if TYPE_CHECKING:
    from pydec.consensus.state.chain import ChainState


def say(args: argparse.Namespace, state: ChainState, node: Path) -> int:
    """Sign a GRANT or REVOKE of roles, and hand it to a node.

    Args:
        args: ``action``, ``words`` (who, and which roles), ``key``, ``passphrase_from``, ``json``.
        state: the newest that is known.
        node: directory of the node that brings it to the others.

    Raises:
        ConfigError: nobody, or no role, of that name.
        AccessDenied: the key is no admin's.
        TransactionError: it changes nothing, or the chain refuses it for another reason.
        SetupError: no key, or the inbox cannot be written.
    """
    from pydec.consensus import inbox
    from pydec.consensus.access import Action, allow
    from pydec.consensus.file_storage import KEY_FILE
    from pydec.consensus.roles import Role
    from pydec.consensus.transactions import Grant, Revoke, sign
    from pydec.crypto import keyfile

    if len(args.words) < 2:
        raise ConfigError(
            f"ledger {args.action}: say who and which roles: pydec ledger {args.action} DIR rank:2 trainer"
        )
    who, *names = args.words
    grants = args.action == "grant"
    identity = _identity(state, who, unknown=grants)
    try:
        roles = Role.parse(names)
    except ValueError as error:
        raise ConfigError(f"ledger {args.action}: {error}") from None
    phrase = keyfile.secret_from(args.passphrase_from) if args.passphrase_from else None
    key = keyfile.from_source(args.key or str(node / KEY_FILE), phrase)
    allow(state, key.public, Action.GRANT_ROLES if grants else Action.REVOKE_ROLES)
    body = Grant(identity, int(roles)) if grants else Revoke(identity, int(roles))
    ahead = sum(1 for waits in inbox.waiting(node) if waits.sender == key.public)
    data = sign(key, state.chain_id, state.accounts[key.public].sequence + ahead, body)
    state.check(data)
    path = inbox.put(node, data)
    if args.json:
        told = {"action": args.action, "identity": identity.hex(), "roles": names, "by": key.public.hex()}
        print(json.dumps(told | {"file": str(path)}, indent=2))
        return 0
    print(f"{args.action:<14}{roles.names} {'to' if grants else 'from'} {identity.hex()}")
    print(f"{'by':<14}{key.public.hex()}")
    print(f"{'handed over':<14}{path}; a running job commits it within seconds, another at its next start")
    return 0


def _identity(state: ChainState, who: str, *, unknown: bool) -> bytes:
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
