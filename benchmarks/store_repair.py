"""Two ranks under mpirun: one holds a data set, the other gets its copy of it; prints seconds and bytes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pydec.comm.mpi import open_mpi
from pydec.comm.transport import Stream
from pydec.store.exchange import Exchange
from pydec.store.keeper import Keeper
from pydec.store.manifest import Manifest
from pydec.store.placement import Holder
from pydec.store.store import Store
from pydec.store.upkeep import verify


def main(folder: str) -> None:
    """Run a rank; ``folder`` holds the first rank's store, and the second's comes to be in it."""
    transport = open_mpi()
    rank, control, link = transport.rank, transport.stream(Stream.CONTROL), transport.stream(Stream.DATA)
    source = Path(folder) / "source"
    with Store(source) as known:
        manifest = known.manifest(known.roots()[0])
    with Store(source if rank == 0 else Path(folder) / "copy", create=True) as store:
        exchange = Exchange(link, store)
        if rank == 0:
            while control.poll() is None:
                if not exchange.turn():
                    time.sleep(50e-6)
        else:
            seconds, n_bytes = _get(exchange, link, store, manifest)
            control.post(0, b"done")
            print(json.dumps({"seconds": seconds, "bytes": n_bytes}), flush=True)
    transport.close()


def _get(exchange: Exchange, link: Stream, store: Store, manifest: Manifest) -> tuple[float, int]:
    keeper = Keeper(exchange, link, store, [manifest], b"1")
    keeper.enter([Holder(b"0", "a"), Holder(b"1", "b")])
    began_s = time.perf_counter()
    while not keeper.done:
        if not (keeper.turn() | exchange.turn()):
            time.sleep(50e-6)
    seconds = time.perf_counter() - began_s
    if not verify(store, manifest).whole:
        raise AssertionError("what was repaired is not whole")
    return seconds, keeper.fetched_bytes


if __name__ == "__main__":
    main(sys.argv[1])
