"""What did the chain decide, and is every signature of it good?

    pydec ledger show DIR      members, stake, data sets, the run after the last block; --height N: one block
    pydec ledger verify DIR    replay the whole chain from where it begins: signatures, hashes, state roots
    pydec ledger follow DIR    verify, then print every block as it is decided, until interrupted
    pydec ledger export DIR    every block as one JSON object a line
    pydec ledger committee DIR --seats K   who would sit if the epoch's seed drew K seats by stake; how safe
    pydec ledger grant DIR WHO ROLE...     give roles: admin, data-owner, trainer, validator, observer
    pydec ledger revoke DIR WHO ROLE...    take them
    pydec ledger config DIR NAME=VALUE...  set options of the run: admission, algorithm, aggregate, ...

DIR is a ledger directory, also one that a running node writes; verify also takes the directory of a run,
which holds one for every rank, and compares them. Every action verifies what it prints, offline. The ledger
of a node that joined by a snapshot begins there, and every action says so: the certificates of all epochs
from the genesis to the snapshot's block and the state's root are verified, the blocks before it are not here.

The last three need an admin's key, --key FILE or that of the node. WHO is a public key, as pydec keys show
prints it, its first digits, or rank:N. What is said goes to the inbox of DIR's first node: a running job
commits it within seconds, another one at its next start. It counts from the ledger's next epoch on; a rank
that may not train any more is left out at the next report. Options decide what the ledger asks of newcomers
at once; how a job trains is its own command's word, which the next start writes over them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydec.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from pydec.consensus.ledger_file import LedgerFile
    from pydec.consensus.replay import Replay

_POLL_S = 0.2
_SAYS = ("grant", "revoke", "config")
_ACTIONS = ["show", "verify", "follow", "export", "committee", *_SAYS]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the ledger directory")
    parser.add_argument(
        "words",
        metavar="WHO ROLE",
        nargs="*",
        help="grant, revoke: to whom, and which roles; config: NAME=VALUE",
    )
    parser.add_argument("--key", metavar="SOURCE", help="an admin's: a key file, env:NAME or fd:NUMBER")
    parser.add_argument(
        "--passphrase-from", metavar="SOURCE", help="where the key's passphrase is: env:NAME or fd:NUMBER"
    )
    parser.add_argument("--height", type=int, metavar="N", help="show: this block; export: from it on")
    parser.add_argument(
        "--chain", metavar="HEX", help="refuse any other chain than the one whose id starts with these digits"
    )
    parser.add_argument(
        "--blocks", type=int, metavar="N", help="follow: end after N blocks (default: when interrupted)"
    )
    parser.add_argument("--seats", type=int, metavar="K", help="committee: 1 to 1024; default 64")
    parser.add_argument(
        "--faulty", type=float, metavar="SHARE", help="committee: of the stake, in [0, 1/3); default 0.1"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Replay the chain and print what was asked for.

    Raises:
        ConfigError: options that do not go together, or a height that is not there.
        LedgerError: the directory holds no ledger, or a damaged or forged one; file and height are named.
    """
    if args.blocks is not None and (args.action != "follow" or args.blocks < 1):
        raise ConfigError(f"--blocks goes with follow, from 1 on, got {args.action} --blocks {args.blocks}")
    if args.height is not None and (args.action not in ("show", "export") or args.height < 1):
        raise ConfigError(
            f"--height goes with show and export, from 1 on, got {args.action} --height {args.height}"
        )
    if args.action != "committee" and (args.seats is not None or args.faulty is not None):
        raise ConfigError(f"--seats and --faulty go with committee, not with {args.action}")
    ranks = nodes_of(args.directory)
    if args.action in _SAYS:
        return _roles(args, ranks[0] if ranks else args.directory)
    if args.words or args.key or args.passphrase_from:
        raise ConfigError(f"ledger {args.action} takes a directory and no role or key; leave them out")
    if args.action == "verify":
        return _verify(args, ranks or [args.directory])
    if ranks:
        raise ConfigError(
            f"{args.directory} holds the ledgers of {len(ranks)} ranks; name one of them, such as {ranks[0]}"
        )
    with _opened(args, args.directory) as chain:
        actions = {"show": _show, "follow": _follow, "export": _export, "committee": _committee}
        return actions[args.action](args, chain)


def _roles(args: argparse.Namespace, node: Path) -> int:
    from pydec.cli.ledger_roles import say

    with _opened(args, node) as chain:
        for _ in chain.verified():
            pass
        return say(args, chain.replay.state, node)


def nodes_of(directory: Path) -> list[Path]:
    """The ledger directories of a run's ranks; none if the directory is a ledger itself."""
    from pydec.consensus.file_storage import GENESIS

    if (directory / GENESIS).exists():
        return []
    found = [path.parent for path in directory.glob(f"rank-*/{GENESIS}")]
    return sorted(found, key=lambda path: (len(path.name), path.name))


@contextlib.contextmanager
def _opened(args: argparse.Namespace, directory: Path) -> Iterator[_Chain]:
    from pydec.consensus.file_storage import (
        GENESIS,
        SNAPSHOT,
        blocks_path,
        read_blocks,
        read_genesis,
        read_snapshot,
        read_steps,
    )
    from pydec.consensus.replay import Replay

    genesis = read_genesis(directory)
    if args.chain is not None and not genesis.chain_id.hex().startswith(args.chain.lower()):
        raise LedgerError(
            f"{directory / GENESIS} begins chain {genesis.chain_id.hex()}, not {args.chain}; its blocks may "
            "be sound, but they are of another chain"
        )
    replay, base = Replay(genesis), read_snapshot(directory, genesis.chain_id)
    if base.height:
        try:
            replay.begin(base.record, read_steps(directory, genesis))
        except LedgerError as error:
            raise LedgerError(f"{directory / SNAPSHOT}: {error}") from None
    with read_blocks(directory, genesis, base=base) as blocks:
        yield _Chain(replay, blocks, blocks_path(directory, base))


class _Chain:
    """A replay that names the file when a block is refused."""

    def __init__(self, replay: Replay, blocks: LedgerFile, path: Path) -> None:
        self.replay, self.blocks, self.path = replay, blocks, path
        if blocks.first not in (None, replay.base + 1):
            raise LedgerError(f"{path} starts at height {blocks.first}; what came before is on other nodes")
        state = replay.state
        self.begins = {
            "snapshot": True, "height": state.height, "hash": replay.head.hex(), "epoch": state.table.epoch,
            "state_root": state.root().hex(),
            "verified": "certificates of all epochs up to this block, by their validators, and its state",
            "missing": f"blocks 1 to {state.height}, which were not executed here",
        } if replay.base else None  # fmt: skip

    def told(self) -> Iterator[dict[str, Any]]:
        """Every further block in the file, verified and described."""
        from pydec.consensus import describe

        for block in self.verified():
            commit = self.replay.commit
            assert commit is not None
            yield describe.block(block, commit)

    def verified(self) -> Iterator[Any]:
        """Every further block in the file, verified."""
        for height, record in self.blocks.records(self.replay.state.height + 1):
            try:
                yield self.replay.add(record)
            except LedgerError as error:
                raise LedgerError(f"{self.path}, offset {self.blocks.offset(height)}: {error}") from None


def _verify(args: argparse.Namespace, directories: list[Path]) -> int:
    told: list[dict[str, Any]] = []
    known: dict[int, tuple[bytes, Path]] = {}  # hash of every height, and the first ledger that has it
    for directory in directories:
        with _opened(args, directory) as chain:
            told.append({"directory": str(directory), **_verified(chain, known)})
        if not args.json:
            print(("\n" if len(told) > 1 else "") + "\n".join(_summary(told[-1])))
    if args.json:
        print(json.dumps(told[0] if len(told) == 1 else {"ok": True, "ledgers": told}, indent=2))
    elif len(told) > 1:
        print(
            f"\n{'agreement':<14}{len(told)} ledgers hold the same blocks, from where each begins to its end"
            if any(one["begins"] for one in told)
            else f"\n{'agreement':<14}{len(told)} ledgers hold the same blocks, up to where each ends"
        )
    return 0


def _verified(chain: _Chain, known: dict[int, tuple[bytes, Path]]) -> dict[str, Any]:
    """Verify one ledger, and that it has no other block where one before it has one."""
    start, transactions, replay = time.perf_counter(), 0, chain.replay
    if known.setdefault(0, (replay.chain_id, chain.path))[0] != replay.chain_id:
        raise LedgerError(f"{chain.path} and {known[0][1]} are of different chains")
    _compare(chain, known)
    for block in chain.verified():
        transactions += len(block.transactions)
        _compare(chain, known)
    seconds, state = time.perf_counter() - start, replay.state
    return {
        "ok": True, "chain_id": replay.chain_id.hex(), "height": state.height, "head": replay.head.hex(),
        "epoch": state.table.epoch, "state_root": state.root().hex(), "transactions": transactions,
        "blocks": state.height - replay.base, "begins": chain.begins,
        "torn_bytes": chain.blocks.torn_bytes, "seconds": seconds,
    }  # fmt: skip


def _compare(chain: _Chain, known: dict[int, tuple[bytes, Path]]) -> None:
    """Hold a ledger's last block against those of the ledgers before it."""
    height, head = chain.replay.state.height, chain.replay.head
    other, path = known.setdefault(height, (head, chain.path))
    if other != head:
        raise LedgerError(
            f"{chain.path} and {path} disagree at height {height}: {head.hex()[:16]} and {other.hex()[:16]}; "
            "more than a third of the stake broke the rules"
        )


def _summary(told: dict[str, Any]) -> Iterator[str]:
    rate = f", {told['blocks'] / told['seconds']:,.0f} blocks/s" if told["blocks"] else ""
    counts = f"{told['blocks']} blocks, {told['transactions']} transactions, epoch {told['epoch']}"
    yield f"{'ledger':<14}{told['directory']}"
    yield f"{'chain':<14}{told['chain_id']}"
    yield from _beginning(told["begins"])
    yield f"{'verified':<14}{counts}{rate}"
    yield f"{'head':<14}{told['head']}"
    yield f"{'state root':<14}{told['state_root']}"
    if told["torn_bytes"]:
        yield f"{'unfinished':<14}{told['torn_bytes']} bytes at the end, of an append that was cut off"


def _beginning(begins: dict[str, Any] | None) -> Iterator[str]:
    """What is said of a ledger that does not begin at the genesis."""
    if begins is not None:
        yield f"{'begins':<14}at a snapshot of height {begins['height']}, block {begins['hash'][:16]}"
        yield f"{'  verified':<14}{begins['verified']}"
        yield f"{'  missing':<14}{begins['missing']}"


def _show(args: argparse.Namespace, chain: _Chain) -> int:
    from pydec.consensus import describe

    if args.height is not None:
        if chain.begins is not None and args.height <= chain.replay.base:
            raise ConfigError(
                f"the ledger begins at a snapshot of height {chain.replay.base}, so block {args.height} is "
                "not here; look at a node that has the whole chain"
            )
        for block in chain.told():
            if block["height"] == args.height:
                print(json.dumps(block, indent=2) if args.json else "\n".join(_lines(block)))
                return 0
        raise ConfigError(
            f"the ledger ends at height {chain.replay.state.height}, there is no block {args.height}"
        )
    for _ in chain.verified():
        pass
    told = describe.state(chain.replay.state)
    if args.json:
        print(json.dumps(told | {"head": chain.replay.head.hex(), "begins": chain.begins}, indent=2))
        return 0
    _show_state(told, chain)
    return 0


def _show_state(told: dict[str, Any], chain: _Chain) -> None:
    run = told["run"]
    begun = "begun" if run["began"] else "none begun"
    print(f"{'chain':<14}{told['chain_id']}")
    for line in _beginning(chain.begins):
        print(line)
    print(f"{'height':<14}{told['height']}, block {chain.replay.head.hex()[:16]}")
    print(f"{'epoch':<14}{told['epoch']}, in effect from round {told['effect_round']}")
    print(f"{'run':<14}{'ended after round ' + str(run['end_round']) if run['ended'] else begun}")
    for name, value in run["options"].items():
        print(f"{'  ' + name:<14}{value}")
    if run["checkpoints"]:
        newest = run["checkpoints"][-1]
        print(f"{'checkpoint':<14}round {newest['round']}, root {newest['root'][:16]}")
    for record in told["datasets"]:
        print(f"{'data set':<14}{record['root'][:16]} {record['name']}, {record['replicas']} replicas")
    print(f"\n{'node':<18}{'stake':>12}{'balance':>12}{'locked':>12}  roles")
    for account in told["accounts"]:
        roles = ", ".join(account["roles"]) or ("slashed" if account["slashed"] else "-")
        amounts = "".join(f"{account[name]:>12}" for name in ("stake", "balance", "locked"))
        print(f"{account['node_id'][:16]:<18}{amounts}  {roles}")


def _committee(args: argparse.Namespace, chain: _Chain) -> int:
    from pydec.cli.ledger_committee import say

    for _ in chain.verified():
        pass
    return say(args, chain.replay)


def _follow(args: argparse.Namespace, chain: _Chain) -> int:
    seen = 0
    if chain.begins is not None:
        print(json.dumps(chain.begins) if args.json else "\n".join(_beginning(chain.begins)), flush=True)
    while True:
        for block in chain.told():
            print(json.dumps(block) if args.json else "\n".join(_lines(block)), flush=True)
            seen += 1
            if seen == args.blocks:
                return 0
        while not chain.blocks.refresh():
            time.sleep(_POLL_S)


def _export(args: argparse.Namespace, chain: _Chain) -> int:
    if chain.begins is not None and (args.height is None or args.height <= chain.replay.base):
        print(json.dumps(chain.begins))
    for block in chain.told():
        if args.height is None or block["height"] >= args.height:
            print(json.dumps(block))
    return 0


def _lines(block: dict[str, Any]) -> Iterator[str]:
    signers = len(block["signers"])
    yield (
        f"height {block['height']}  epoch {block['epoch']}  round {block['round']}  {block['hash'][:16]}  "
        f"{signers} signers  {len(block['transactions'])} transactions"
    )
    for told in block["transactions"]:
        sender = told.get("sender", told.get("node", ""))[:16]
        yield f"  {told['kind']:<12}{sender}"
