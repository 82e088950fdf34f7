"""Coverage-guided fuzzing of one decoder: any bytes must give a value or FrameError, and nothing else.

    python tests/fuzz/sanitized.py tests/fuzz/decoders.py topk -max_total_time=60

``all`` fuzzes one after the other. Further arguments go to libFuzzer. The corpus is kept in
``build/fuzz/TARGET``; a failure leaves its input beside it as ``TARGET-crash-...``, and becomes a test of the
module it is in.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import atheris
import atheris.core_with_libfuzzer  # libFuzzer itself, which atheris loads only when it starts
import numpy as np

with atheris.instrument_imports(
    include=["pydec.compress", "pydec.comm.frames", "pydec.consensus", "pydec.codec", "pydec.kernels"]
):
    from pydec import compress
    from pydec.comm import frames
    from pydec.compress import compressors
    from pydec.consensus import block, certificate, genesis, light, transactions, validators
    from pydec.consensus.signed import Kind
    from pydec.consensus.state import snapshot
    from pydec.consensus.state.parts import Account
    from pydec.errors import FrameError

LENGTH_BYTES = 2  # of an input's front: the number of elements that the receiver expects
MOST_ELEMENTS = 4096  # longer vectors only slow the search down
CORPUS = Path(__file__).resolve().parents[2] / "build" / "fuzz"


def guide_by_native_code() -> None:
    """Give libFuzzer the coverage of the instrumented kernels."""
    shim = os.environ.get("PYDEC_COVERAGE")
    if shim is None:
        raise SystemExit(
            "the kernels are not instrumented; start with: python tests/fuzz/sanitized.py PROGRAM"
        )
    if ctypes.CDLL(shim).pydec_coverage_start(atheris.core_with_libfuzzer.__file__.encode()):
        raise SystemExit("libFuzzer was not found in atheris; install the version in constraints.txt")


def own_memory(data: bytes) -> np.ndarray:
    """The bytes in memory of exactly their length, so that reading beyond them is seen."""
    return np.frombuffer(data, np.uint8).copy()


def decode(name: str, data: bytes) -> None:
    """Everything that a receiver does with a payload of the compressor ``name``."""
    if len(data) < LENGTH_BYTES:
        return
    n = int.from_bytes(data[:LENGTH_BYTES], "little") % MOST_ELEMENTS
    payload = own_memory(data[LENGTH_BYTES:])
    compressor = compress.make(name)
    out, total = np.full(n, 7.0, np.float32), np.full(n, 7.0, np.float32)
    try:
        compressor.decode(payload, out)
    except FrameError:
        assert np.all(out == 7.0), "a refused payload changed out"
        for refused in (
            lambda: compressor.accumulate([payload], [1.0], total),
            lambda: compressor.sqdist(payload, out),
        ):
            try:
                refused()
            except FrameError:
                continue
            raise AssertionError("decode refused what accumulate or sqdist accepted") from None
        assert np.all(total == 7.0), "a refused payload changed the accumulated vector"
    else:
        plain = compressor.views([payload], out.size) is not None
        assert plain or np.all(np.isfinite(out)), "decoded NaN or infinity"
        with np.errstate(all="ignore"):
            compressor.accumulate([payload, payload], [0.5, -0.5], total)
            compressor.sqdist(payload, out)
            compressor.sqdists(payload, [payload], out.size)
    try:
        compress.from_wire(payload)
    except FrameError:
        pass


def unpack(data: bytes) -> None:
    """A message's header."""
    try:
        frame = frames.unpack(own_memory(data))
    except FrameError:
        return
    again = np.zeros(frames.HEADER_BYTES, np.uint8)
    frames.pack_into(again, frame)
    assert again.tobytes() == data[: frames.HEADER_BYTES], "an accepted header is not canonical"


LEDGER: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    "block": (block.Block.decode, lambda value: value.encode()),
    "certificate": (certificate.QuorumCertificate.decode, lambda value: value.encode()),
    "epoch-step": (light.decode_step, light.encode_step),
    "genesis": (genesis.Genesis.decode, lambda value: value.encode()),
    "snapshot": (lambda data: snapshot.decode(data, data[:32]), snapshot.encode),
    "table": (validators.ValidatorTable.decode, lambda value: value.encode()),
    "transaction": (transactions.Transaction.decode, lambda value: value.encode()),
}
"""Decoders of the ledger and their encoders: every value has one encoding."""


def decode_ledger(name: str, data: bytes) -> None:
    """What a peer may have sent, or a disk may hold."""
    read, write = LEDGER[name]
    try:
        value = read(data)
    except FrameError:
        return
    assert write(value) == data, "accepted bytes are not canonical"


def targets() -> dict[str, Callable[[bytes], None]]:
    """What can be fuzzed, by name."""
    found: dict[str, Callable[[bytes], None]] = {"frame": unpack}
    found |= {name: partial(decode, name) for name in compressors}
    return found | {name: partial(decode_ledger, name) for name in LEDGER}


def ledger_seeds(name: str) -> list[bytes]:
    """The first block of a chain, and what belongs to it."""
    owner = bytes(range(32))
    member = Account(owner, owner, "rank:0", 12, 12, stake=100, balance=50)
    start = genesis.Genesis("fuzz", (member,), options=(("topology", "ring"),))
    state = start.state()
    moved = transactions.Transaction(transactions.Transfer(bytes(32), 7), owner, 0, bytes(64)).encode()
    roots = (block.transactions_root([moved]), state.root(), state.table.digest())
    header = block.Header(start.chain_id, 0, 1, start.chain_id, None, *roots, 0, 0)
    votes = {0: bytes(64)}
    commit = certificate.QuorumCertificate.of(Kind.COMMIT, state.table, 1, 0, header.hash(), votes)
    evidence = transactions.prove(transactions.Evict(owner))
    return {
        "block": [block.Block(header, (moved, evidence)).encode()],
        "certificate": [commit.encode()],
        "epoch-step": [light.encode_step(light.EpochStep(header, commit, state.table))],
        "genesis": [start.encode()],
        "snapshot": [snapshot.encode(state)],
        "table": [state.table.encode()],
        "transaction": [moved, evidence],
    }[name]


def seeds(name: str) -> list[bytes]:
    """Valid inputs, to start from."""
    if name in LEDGER:
        return ledger_seeds(name)
    if name == "frame":
        fields = {"sender": 1, "round": 2, "bucket": 0, "buckets": 1, "offset": 0, "count": 4, "length": 3}
        frame = frames.Frame(kind=frames.Kind.GOSSIP, wire_id=3, **fields)
        header = np.zeros(frames.HEADER_BYTES, np.uint8)
        frames.pack_into(header, frame)
        return [header.tobytes() + b"abc"]
    made = []
    for n in (0, 1, 17, 64, 300, 1000):
        x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
        made.append(n.to_bytes(LENGTH_BYTES, "little") + compress.make(name).encode(x))
    return made


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one target until libFuzzer's limits are reached; ends the process."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    guide_by_native_code()
    options = ["-max_len=8192", f"-artifact_prefix={CORPUS}/{name}-", *arguments]
    atheris.Setup([sys.argv[0], *options, str(corpus)], targets()[name])
    atheris.Fuzz()


def fuzz_all(arguments: list[str]) -> int:
    """Fuzz every target in a process of its own; returns 0 if none failed."""
    failed = []
    for name in targets():
        command = [sys.executable, "-S", __file__, name, *arguments]
        run = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines = run.stdout.splitlines()
        done = [line for line in lines if line.startswith("Done ")]
        print(f"{name:<14} {done[-1] if done else 'FAILED'}", flush=True)
        if run.returncode:
            failed.append(name)
            print("\n".join(line for line in lines if "Instrumenting" not in line)[-6000:], flush=True)
    print(f"{len(targets())} decoders fuzzed, failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def main() -> int:
    """Fuzz the target that the command line names."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("target", choices=["all", *sorted(targets())])
    chosen, arguments = parser.parse_known_args()
    if chosen.target == "all":
        return fuzz_all(arguments)
    fuzz(chosen.target, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
