"""What is counted of the bytes that a rank sends."""

from __future__ import annotations

import json

from pydec.comm.local import LocalCluster
from pydec.comm.transport import Stream
from pydec.train.traffic import Traffic


def test_gossip_counts_always_and_collect_only_where_it_trains():
    def program(transport):
        other = 1 - transport.rank
        gossip, collect = transport.stream(Stream.GOSSIP), transport.stream(Stream.COLLECT)

        def swap(stream, n_bytes):
            into = bytearray(n_bytes)
            receive = stream.irecv(other, 0, memoryview(into))
            stream.isend(other, 0, memoryview(bytes(n_bytes))).wait()
            receive.wait()

        swap(gossip, 7)  # before there is anybody who counts
        traffic = Traffic(transport)
        swap(gossip, 100)
        swap(collect, 1000)
        traffic.counted(lambda: swap(collect, 10))
        first = traffic.bytes_sent, traffic.sent_to
        later = Traffic(transport)
        later.load_state(json.loads(json.dumps(traffic.state())))
        swap(gossip, 1)
        older = Traffic(transport)
        older.load_state({"bytes": [5, 6]})
        return (
            first,
            (later.bytes_sent, later.sent_to),
            (older.bytes_sent, older.bytes_received, older.sent_to),
        )

    found = LocalCluster(2).run(program)
    for rank, (first, later, older) in enumerate(found):
        assert first == (110, {1 - rank: 110})
        assert later == (111, {1 - rank: 111})
        assert older == (5, 6, {})
