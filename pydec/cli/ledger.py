"""What did the chain decide, and is every signature of it good?

    pydec ledger show DIR      members, stake, data sets, the run after the last block; --height N: one block
    pydec ledger verify DIR    replay the whole chain from its genesis: signatures, hashes, state roots
    pydec ledger follow DIR    verify, then print every block as it is decided, until interrupted
    pydec ledger export DIR    every block as one JSON object a line

DIR is a ledger directory, also one that a running node writes. Every action verifies what it prints, offline.
"""

from __future__ import annotations

import argparse
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


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("action", choices=["show", "verify", "follow", "export"], help="what to do")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the ledger directory")
    parser.add_argument("--height", type=int, metavar="N", help="show: this block; export: from it on")
    parser.add_argument(
        "--chain", metavar="HEX", help="refuse any other chain than the one whose id starts with these digits"
    )
    parser.add_argument(
        "--blocks", type=int, metavar="N", help="follow: end after N blocks (default: when interrupted)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Replay the chain and print what was asked for.

    Raises:
        ConfigError: options that do not go together, or a height that is not there.
        LedgerError: the directory holds no ledger, or a damaged or forged one; file and height are named.
    """
    from pydec.consensus.file_storage import BLOCKS, read_blocks, read_genesis
    from pydec.consensus.replay import Replay

    if args.blocks is not None and (args.action != "follow" or args.blocks < 1):
        raise ConfigError("--blocks goes with follow and is at least 1")
    if args.height is not None and (args.action not in ("show", "export") or args.height < 1):
        raise ConfigError("--height goes with show and export and is at least 1")
    genesis = read_genesis(args.directory)
    if args.chain is not None and not genesis.chain_id.hex().startswith(args.chain.lower()):
        raise LedgerError(
            f"{args.directory / 'genesis'} begins chain {genesis.chain_id.hex()}, not {args.chain}; its "
            "blocks may be sound, but they are of another chain"
        )
    replay = Replay(genesis)
    with read_blocks(args.directory, genesis) as blocks:
        chain = _Chain(replay, blocks, args.directory / BLOCKS)
        action = {"show": _show, "verify": _verify, "follow": _follow, "export": _export}[args.action]
        return action(args, chain)


class _Chain:
    """A replay that names the file when a block is refused."""

    def __init__(self, replay: Replay, blocks: LedgerFile, path: Path) -> None:
        self.replay, self.blocks, self.path = replay, blocks, path
        if blocks.first not in (None, 1):
            raise LedgerError(f"{path} starts at height {blocks.first}; what came before is on other nodes")

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


def _verify(args: argparse.Namespace, chain: _Chain) -> int:
    start = time.perf_counter()
    transactions = sum(len(block.transactions) for block in chain.verified())
    replay, seconds = chain.replay, time.perf_counter() - start
    state = replay.state
    if args.json:
        told = {
            "ok": True, "chain_id": replay.chain_id.hex(), "height": state.height, "head": replay.head.hex(),
            "epoch": state.table.epoch, "state_root": state.root().hex(), "transactions": transactions,
            "torn_bytes": chain.blocks.torn_bytes, "seconds": seconds,
        }  # fmt: skip
        print(json.dumps(told, indent=2))
        return 0
    rate = f", {state.height / seconds:,.0f} blocks/s" if state.height else ""
    print(f"{'chain':<14}{replay.chain_id.hex()}")
    print(
        f"{'verified':<14}{state.height} blocks, {transactions} transactions, "
        f"{state.table.epoch} epochs{rate}"
    )
    print(f"{'head':<14}{replay.head.hex()}")
    print(f"{'state root':<14}{state.root().hex()}")
    if chain.blocks.torn_bytes:
        print(f"{'unfinished':<14}{chain.blocks.torn_bytes} bytes at the end, of an append that was cut off")
    return 0


def _show(args: argparse.Namespace, chain: _Chain) -> int:
    from pydec.consensus import describe

    if args.height is not None:
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
        print(json.dumps(told | {"head": chain.replay.head.hex()}, indent=2))
        return 0
    _show_state(told, chain.replay.head.hex())
    return 0


def _show_state(told: dict[str, Any], head: str) -> None:
    run = told["run"]
    begun = "begun" if run["began"] else "none begun"
    print(f"{'chain':<14}{told['chain_id']}")
    print(f"{'height':<14}{told['height']}, block {head[:16]}")
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


def _follow(args: argparse.Namespace, chain: _Chain) -> int:
    seen = 0
    while True:
        for block in chain.told():
            print(json.dumps(block) if args.json else "\n".join(_lines(block)), flush=True)
            seen += 1
            if seen == args.blocks:
                return 0
        while not chain.blocks.refresh():
            time.sleep(_POLL_S)


def _export(args: argparse.Namespace, chain: _Chain) -> int:
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
