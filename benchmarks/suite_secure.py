"""What sealing costs: beside the raw cipher, at rest, per handshake, in rounds of gossip, in training."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np

from pydec.comm.identity import fresh
from pydec.crypto.handshake import Initiator, Pair, Responder
from pydec.crypto.hashing import bytes_root, merkle_root
from pydec.crypto.seal import Opener, Sealer, Way
from pydec.crypto.suites import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Suite, cipher, preferred
from pydec.crypto.vault import OVERHEAD_BYTES, DatasetKey
from pydec.train.checkpoint_vault import PLAIN_BYTES, seal_into

from .harness import Options, Row, interleaved
from .jobs import measured
from .netlab.lab import Lab, Link, missing

PEERS = 64
LIMIT_S = 2.0  # for the handshakes of so many peers on two cores, as the project set it
RANKS, ELEMENTS = 4, 10_000_000  # 40 MB
PAUSE_S = 0.1  # of an accelerator that computes, in a step of training


def rows(options: Options) -> Iterator[Row]:
    """Seals beside the raw cipher, handshakes of 64 peers, rounds and steps with and without."""
    yield from sealing(options)
    yield from at_rest(options)
    yield handshakes(8 if options.quick else PEERS)
    elements = 100_000 if options.quick else ELEMENTS
    rounds = options.rounds or (3 if options.quick else 15)
    params = {"megabytes": round(4e-6 * elements, 3), "rounds": rounds}
    yield _round("round", measured(RANKS, "secure_round.py", elements, rounds), {**params, "ranks": RANKS})
    if (reason := missing()) is not None:
        print(f"rounds over a link left out: {reason}", file=sys.stderr)
        return
    net = options.net or "1gbit"
    with Lab([Link(net)] * 2) as lab:
        found = measured(lab, "secure_round.py", elements, rounds)
        yield _round(f"round at {net}", found, {**params, "hosts": 2})
        blocks, steps = (1, 2) if options.quick else (8, 20)
        found = measured(lab, "secure_step.py", blocks, steps, PAUSE_S)
        facts = {"task": "stdlib-lm", "hosts": 2, "pause_s": PAUSE_S, "rounds": blocks, "steps": steps}
        yield _round(f"step at {net}, packets in the background", found, facts)


def sealing(options: Options) -> Iterator[Row]:
    """Seal and open, from the payload into the message and back, beside the library's cipher alone."""
    n = 1 << 20 if options.quick else 16 << 20
    text = np.random.default_rng(0).integers(0, 256, n, np.uint8)
    for suite in preferred()[: 1 if options.quick else 2]:
        way = Way(suite, 0, 0, 0, 1)
        sealer, opener = Sealer(way, bytes(KEY_BYTES)), Opener(way, bytes(KEY_BYTES))
        message = memoryview(np.empty(sealer.size(n), np.uint8))
        opened, raw_opened = np.empty_like(text), np.empty_like(text)
        tool, raw = cipher(suite, bytes(KEY_BYTES)), memoryview(np.empty(n + TAG_BYTES, np.uint8))
        numbers = iter(range(1 << 62))

        def ours(
            sealer: Sealer = sealer, opener: Opener = opener, message: memoryview = message,
            opened: np.ndarray = opened,
        ) -> None:  # fmt: skip
            sealer.seal_into(1, memoryview(text), message)
            opener.open_into(1, message, memoryview(opened))

        def theirs(
            tool: Any = tool, raw: memoryview = raw, opened: np.ndarray = raw_opened, numbers: Any = numbers
        ) -> None:
            nonce = next(numbers).to_bytes(NONCE_BYTES, "big")
            tool.encrypt_into(nonce, memoryview(text), b"", raw)
            tool.decrypt_into(nonce, raw, b"", memoryview(opened))

        rounds = options.rounds or (5 if options.quick else 41)
        timings = interleaved({"ours": ours, "raw": theirs}, rounds)
        if not (np.array_equal(opened, text) and np.array_equal(raw_opened, text)):
            raise AssertionError(f"{suite.words} did not give back what was sealed")
        seal_s, raw_s = timings["ours"].median_s, timings["raw"].median_s
        params = {"mib": n >> 20, "rounds": rounds, "threads": 1}
        rates = [2e-9 * n / seconds for seconds in (seal_s, raw_s)]
        name = f"seal + open, {suite.words}"
        yield Row("secure", name, params, rates[0], "GB/s", "raw cipher", rates[1], raw_s / seal_s)


def at_rest(options: Options) -> Iterator[Row]:
    """Chunks sealed and opened beside the cipher alone; a checkpoint for the disk beside a plain one."""
    n, key = PLAIN_BYTES, DatasetKey.generate()
    text = np.random.default_rng(0).integers(0, 256, n, np.uint8)
    message, raw = bytearray(n + OVERHEAD_BYTES), bytearray(n + TAG_BYTES)
    opened, raw_opened = np.empty_like(text), np.empty_like(text)
    tool, numbers = cipher(Suite.AES_256_GCM, bytes(KEY_BYTES)), iter(range(1 << 62))

    def ours(*, fresh: bool) -> None:
        key.encrypt_chunk_into(0, text, message, fresh=fresh)
        key.decrypt_chunk_into(0, message, opened)

    def theirs() -> None:
        nonce = next(numbers).to_bytes(NONCE_BYTES, "big")
        tool.encrypt_into(nonce, text, b"", raw)
        tool.decrypt_into(nonce, raw, b"", raw_opened)

    rounds = options.rounds or (5 if options.quick else 101)
    calls = {"data": partial(ours, fresh=False), "checkpoint": partial(ours, fresh=True), "raw": theirs}
    timings = interleaved(calls, rounds)
    if not (np.array_equal(opened, text) and np.array_equal(raw_opened, text)):
        raise AssertionError("a chunk did not come out as it went in")
    raw_s, params = timings["raw"].median_s, {"mib": 1, "rounds": rounds, "threads": 1}
    for name in ("data", "checkpoint"):
        seconds = timings[name].median_s
        rates = [2e-9 * n / taken for taken in (seconds, raw_s)]
        name = f"chunk of {name}, seal + open"
        yield Row("secure", name, params, rates[0], "GB/s", "raw cipher", rates[1], raw_s / seconds)

    whole = np.resize(text, 4 << 20 if options.quick else 64 << 20)
    with open(os.devnull, "wb", buffering=0) as sink:

        def sealed() -> None:
            merkle_root(seal_into(cast("BinaryIO", sink), [whole], key))

        def plain() -> None:
            sink.write(whole)
            bytes_root(whole)

        rounds = options.rounds or (3 if options.quick else 21)
        found = interleaved({"sealed": sealed, "plain": plain}, rounds)
    times = [found[name].median_s for name in ("sealed", "plain")]
    rates = [1e-9 * whole.nbytes / seconds for seconds in times]
    params = {"mib": whole.nbytes >> 20, "rounds": rounds, "threads": 1}
    name = "checkpoint, sealed and hashed"
    yield Row("secure", name, params, rates[0], "GB/s", "hashed alone", rates[1], times[1] / times[0])


def handshakes(peers: int) -> Row:
    """Both sides of the handshakes of all pairs of so many peers, on two processes."""
    pairs = [(first, second) for first in range(peers) for second in range(first + 1, peers)]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_shake, [[pairs[0]]] * 2))  # libraries are loaded
        began_s = time.perf_counter()
        done = sum(pool.map(_shake, [pairs[::2], pairs[1::2]]))
        seconds = time.perf_counter() - began_s
    if done != len(pairs):
        raise AssertionError(f"{done} of {len(pairs)} pairs came to the same secrets")
    limit_s = LIMIT_S * peers * (peers - 1) / (PEERS * (PEERS - 1))
    params = {"peers": peers, "pairs": len(pairs), "processes": 2}
    ratio = limit_s / seconds
    return Row("secure", "handshakes of all pairs", params, seconds, "s", "the limit", limit_s, ratio)


def _shake(pairs: list[tuple[int, int]]) -> int:
    who = [fresh().credentials() for _ in range(2)]
    agreed = 0
    for first, second in pairs:
        pair = Pair(PEERS, 0, first, second)
        a, b = Initiator(pair, who[0]), Responder(pair, who[1])
        confirm, theirs = b.accept(a.finish(b.answer(a.hello())))
        agreed += a.confirmed(confirm).sending == theirs.receiving
    return agreed


def _round(name: str, found: Mapping[str, float], params: Mapping[str, Any]) -> Row:
    sealed, plain = found["sealed"], found["plain"]
    facts = {**params, "fraction": round(sealed / plain, 3), "suite": Suite(int(found["suite"])).words}
    return Row("secure", f"{name}, sealed", facts, 1e3 * sealed, "ms", "plain", 1e3 * plain, plain / sealed)
