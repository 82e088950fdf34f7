"""The genesis: who starts a chain, with which stake and rules. The hash of its bytes names the chain.

It is written by people, as JSON, and compared by everybody as canonical bytes:

    {"name": "demo", "accounts": [{"node_id": "HEX", "address": "rank:0", "roles": ["trainer", "validator"],
     "stake": 100, "balance": 0}], "rules": {"admission": "stake"}, "options": {"topology": "ring"}}

``node_id`` is what ``pydec keys show`` prints. ``key`` (the key that votes) is the node id if left out. A
chain that goes on from another after more than a third of its stake was lost names the old head in
``previous``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydec.codec import fields
from pydec.codec.fields import DIGEST
from pydec.consensus import options
from pydec.consensus.leader import advance
from pydec.consensus.roles import Role
from pydec.consensus.rules import RULES, Rules
from pydec.consensus.state.chain import ChainState, validator_table
from pydec.consensus.state.parts import ACCOUNT, Account, Presence, Run, Supply, Work
from pydec.consensus.transactions import NO_DIGEST
from pydec.consensus.validators import MAX_VALIDATORS
from pydec.crypto.hashing import sha256
from pydec.errors import ConfigError, FrameError, SetupError, TransactionError

_MOST_ACCOUNTS = 1 << 16
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Genesis:
    """The start of a chain.

    Args:
        name: for people.
        accounts: sorted by node id; at least one validator.
        rules: of the chain.
        options: of the run, sorted by name.
        previous: hash of the last block of the chain that this one continues; zero: none.
    """

    name: str
    accounts: tuple[Account, ...]
    rules: Rules = Rules()  # noqa: RUF009  # frozen
    options: tuple[tuple[str, str], ...] = ()
    previous: bytes = NO_DIGEST

    def __post_init__(self) -> None:
        validators = [account for account in self.accounts if account.is_validator]
        total = sum(account.stake for account in validators)
        if not 1 <= len(validators) <= MAX_VALIDATORS:
            raise ValueError(
                f"a genesis has 1 to {MAX_VALIDATORS} validators with stake, got {len(validators)}"
            )
        keys = [key for account in self.accounts for key in {account.node_id, account.key}]
        if len(set(keys)) != len(keys):
            raise ValueError("two accounts of the genesis share a key")
        if sum(a.balance + a.stake for a in self.accounts) >= 1 << 62:
            raise ValueError("the stake and balances of a genesis must sum up to less than 2^62")
        for account in self.accounts:
            who = f"account {account.node_id.hex()[:16]}"
            if account.stake and not account.is_validator:
                raise ValueError(f"{who} has stake {account.stake} but not the role validator")
            if account.roles & Role.VALIDATOR and account.stake < self.rules.min_stake:
                raise ValueError(f"{who} has stake {account.stake}; a validator needs {self.rules.min_stake}")
            percent, least = self.rules.cap_percent, min(a.stake for a in validators)
            if 100 * account.stake > percent * total and account.stake > least:
                raise ValueError(f"{who} has stake {account.stake} of {total}, above cap_percent {percent}")
        options.check(dict(self.options))

    def encode(self) -> bytes:
        """Canonical bytes."""
        return _GENESIS.encode(self)

    @property
    def chain_id(self) -> bytes:
        """SHA-256 of the canonical bytes, behind a tag: never the same for two chains."""
        return sha256(b"pydec.genesis.v1", self.encode())

    @classmethod
    def decode(cls, data: bytes) -> Genesis:
        """The genesis of these bytes.

        Raises:
            FrameError: they are none.
        """
        if len(data) > _MOST_BYTES:
            raise FrameError(f"a genesis has at most {_MOST_BYTES} bytes, got {len(data)}")
        found = _GENESIS.decode(data, "a genesis")
        plain = tuple(
            _initial(a.node_id, a.key, a.address, a.roles, a.stake, a.balance) for a in found.accounts
        )
        if plain != found.accounts:
            raise FrameError("an account of the genesis has a past")
        return found

    def state(self) -> ChainState:
        """The state at height 0."""
        accounts = {account.node_id: account for account in self.accounts}
        table = validator_table(0, self.accounts)
        leader, priorities = advance(table, (0,) * len(table), range(len(table)))
        total = sum(account.balance + account.stake for account in self.accounts)
        presence = tuple(Presence(validator.node_id, 0, 0) for validator in table.validators)
        return ChainState(
            self.chain_id, self.rules, 0, table, leader, priorities, accounts, {}, Run(self.options),
            Work(self.rules.target), Supply(total), presence=presence,
        )  # fmt: skip


def _initial(node_id: bytes, key: bytes, address: str, roles: int, stake: int, balance: int) -> Account:
    return Account(node_id, key, address, roles, granted=roles, balance=balance, stake=stake)


_GENESIS = fields.record(
    Genesis,
    name=fields.text(64),
    accounts=fields.many(ACCOUNT, _MOST_ACCOUNTS, key=lambda account: account.node_id),
    rules=RULES,
    options=fields.PAIRS,
    previous=DIGEST,
)


def load(path: Path) -> Genesis:
    """A genesis from a JSON file.

    Raises:
        SetupError: the file cannot be read.
        ConfigError: it is not a genesis; the message names the field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(
            f"genesis {path} cannot be read: {getattr(error, 'strerror', None) or error}; every node "
            "of the chain has it"
        ) from None
    try:
        return parse(json.loads(text))
    except (ConfigError, ValueError, RecursionError, TransactionError) as error:
        raise ConfigError(f"genesis {path}: {error}") from None


def parse(content: Any) -> Genesis:
    """A genesis from what its JSON says.

    Raises:
        ConfigError: a field is unknown, missing or of another type; ValueError and TransactionError: a value
            that does not fit.
    """
    known = _take(
        content,
        "the genesis",
        {"name": str, "accounts": list},
        {"rules": dict, "options": dict, "previous": str},
    )
    names = {name: type(value) for name, value in Rules().__dict__.items()}
    rules = replace(Rules(), **_take(known.get("rules", {}), "rules", {}, names))
    given = known.get("options", {})
    chosen = tuple(sorted((str(name), str(value)) for name, value in given.items()))
    accounts = sorted(
        (_account(item, n) for n, item in enumerate(known["accounts"])), key=lambda a: a.node_id
    )
    previous = _hex(known.get("previous", NO_DIGEST.hex()), "previous")
    found = Genesis(known["name"], tuple(accounts), rules, chosen, previous)
    found.encode()  # refuses what no peer could read
    return found


def _account(item: Any, number: int) -> Account:
    what = f"account {number}"
    found = _take(
        item,
        what,
        {"node_id": str, "roles": list},
        {"key": str, "address": str, "stake": int, "balance": int},
    )
    node_id = _hex(found["node_id"], f"{what}: node_id")
    key = _hex(found["key"], f"{what}: key") if "key" in found else node_id
    roles = Role.parse([str(name) for name in found["roles"]])
    amounts = found.get("stake", 0), found.get("balance", 0)
    return _initial(node_id, key, found.get("address", ""), int(roles), *amounts)


def _take(content: Any, what: str, needed: dict[str, type], more: dict[str, type]) -> dict[str, Any]:
    """``content`` if it is an object with all needed names, no unknown one, and values of their types."""
    if not isinstance(content, dict):
        raise ConfigError(f"{what} must be a JSON object, got {type(content).__name__}")
    for name in needed:
        if name not in content:
            raise ConfigError(f"{what} lacks {name!r}")
    types = needed | more
    for name, value in content.items():
        if name not in types:
            raise ConfigError(f"{what} has an unknown field {name!r}; known: {', '.join(types)}")
        if type(value) is not types[name]:
            raise ConfigError(f"{what}: {name} must be of type {types[name].__name__}, got {value!r}")
    return content


def _hex(text: str, what: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise ConfigError(f"{what} must be 64 hexadecimal digits, got {text[:80]!r}")
    return found
