"""Which checkpoints are in a run directory, are they whole, and how do I get plain files of them?

    pydec checkpoint show runs/R                            every part, verified, and for whom it opens
    pydec checkpoint open runs/R --key L/rank-0/key.json    the newest parts, and the model, in the clear
    pydec checkpoint open runs/R --key my.key --step 500 --rank 2 --out DIR
    pydec checkpoint open runs/R                            of a run with --store-checkpoints: it takes no key

A sealed checkpoint (pydec train --seal-checkpoints) opens with the identity key of any rank that took part:
the key of its node of the ledger, or that of --key. Verifying takes no key. What is written is what plain
torch reads: safetensors of every rank, and the averaged model; others may not read it.

Parts that lie in a store (pydec train --store-checkpoints) come from the run's, or where --store says.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pydec.cli.values import saved_options
from pydec.errors import ConfigError, SetupError, StoreError

if TYPE_CHECKING:
    from pydec.train.checkpoint_files import Store


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("action", choices=["show", "open"], help="what to do")
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="directory of the run")
    parser.add_argument(
        "--key", metavar="SOURCE", help="open: identity key of a rank; a key file, env:NAME or fd:NUMBER"
    )
    parser.add_argument(
        "--passphrase-from", metavar="SOURCE", help="passphrase of the key file: env:NAME or fd:NUMBER"
    )
    parser.add_argument(
        "--store", metavar="DIR", help="store that parts lie in; {rank} stands for the rank's number"
    )
    parser.add_argument("--step", type=int, metavar="N", help="open: of this step (the newest here)")
    parser.add_argument("--rank", type=int, metavar="R", help="open: this rank's part alone (all here)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="open: where to write (RUN_DIR/opened)")


def run(args: argparse.Namespace) -> int:
    """Show or open.

    Raises:
        ConfigError: no such checkpoint, no key, or one that does not open it.
        SetupError: something is damaged, or cannot be read or written.
    """
    from pydec.train.checkpoint_files import Store
    from pydec.train.rundir import RunDir

    if not (args.run_dir / "checkpoints").is_dir():
        raise ConfigError(f"{args.run_dir} has no checkpoints; name the --run-dir of a run")
    store = Store(RunDir(args.run_dir))
    if args.action == "show":
        return _show(store, args)
    _open(store, args)
    return 0


def _reader(store: Store, args: argparse.Namespace, step: int, rank: int) -> Store:
    """What reads a part: the run directory, or the store that it lies in."""
    if not store.stored(step, rank):
        return store
    from pydec.train.checkpoint_chunks import Chunks
    from pydec.train.checkpoint_stored import StoredParts

    base = args.store or saved_options(args.run_dir).get("store") or ""
    where = Path(str(base).replace("{rank}", str(rank))) if base else None
    return StoredParts(store.directory, Chunks(where, args.run_dir, writes=False))


def _show(store: Store, args: argparse.Namespace) -> int:
    """Print what is here; the exit status says whether all of it is whole."""
    whole = True
    for step in store.steps():
        for rank in store.ranks(step):
            try:
                with closing(_reader(store, args, step, rank)) as reader:
                    manifest = reader.verify(step, rank)
                size = manifest["tensors"]["bytes"] / 1e6
                words = f"whole, {size:.1f} MB, {_for_whom(manifest)}"
            except (ConfigError, SetupError, StoreError) as error:
                whole, words = False, str(error)
            print(f"{f'step {step}':<14}{f'rank {rank}':<10}{words}")
    if not store.steps():
        print("no finished checkpoint")
    return 0 if whole else 1


def _for_whom(manifest: dict[str, object]) -> str:
    from pydec.train.checkpoint_vault import entry_of, holders

    if "stored" in manifest:
        return f"in the store as {str(manifest['stored'])[:16]}"
    if "sealed" not in manifest:
        return "not sealed"
    entry = entry_of(manifest["sealed"])
    if entry is None:
        return "sealed, but its manifest does not say how: it was tampered with"
    return f"opens for {', '.join(name[:16] for name in holders(entry))}"


def _open(store: Store, args: argparse.Namespace) -> None:
    from pydec.crypto import keyfile
    from pydec.train.checkpoint_vault import SEALED, Vault, open_model

    vault = None
    if args.key is not None:
        phrase = keyfile.secret_from(args.passphrase_from) if args.passphrase_from else None
        vault = store.vault = Vault(keyfile.from_source(args.key, phrase))
    out = args.out or args.run_dir / "opened"
    steps = store.steps()
    if args.step is not None and args.step not in steps:
        raise ConfigError(
            f"{args.run_dir} has no finished checkpoint of step {args.step}; it has "
            f"{', '.join(map(str, steps)) or 'none'}"
        )
    for step in [args.step] if args.step is not None else steps[:1]:
        ranks = store.ranks(step)
        if args.rank is not None and args.rank not in ranks:
            raise ConfigError(
                f"{args.run_dir} has no part of rank {args.rank} of step {step}; it has those of "
                f"{', '.join(map(str, ranks))}"
            )
        for rank in [args.rank] if args.rank is not None else ranks:
            if vault is None and not store.stored(step, rank):
                raise ConfigError("checkpoint open: name the identity key of a rank of the run with --key")
            with closing(_reader(store, args, step, rank)) as reader:
                reader.verify(step, rank)
                _write(out / f"step-{step}" / f"rank-{rank}.safetensors", reader.clear(step, rank))
    if vault is None:
        return
    if args.step is None and args.rank is None:
        for path in sorted((args.run_dir / "checkpoints").glob(f"*{SEALED}")):
            _write(out / path.name.removesuffix(SEALED), open_model(path, vault))


def _write(path: Path, pieces: Iterable[memoryview]) -> None:
    """Write a new file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if path.exists():
        raise ConfigError(f"{path} exists and is not replaced; choose another directory with --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(pieces)
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        raise SetupError(
            f"{path} cannot be written: {error.strerror or error}; choose another directory with --out"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
