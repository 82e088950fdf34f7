"""When messages are sealed, and with which keys, is decided by the user and the launcher alone."""

from __future__ import annotations

import pytest

import pydec
from pydec.comm.detect import Launch
from pydec.comm.identity import fresh
from pydec.comm.local import LocalCluster, solo
from pydec.comm.sealing import Sealing, protected, protection, sealed, wanted
from pydec.comm.secure import SecureTransport
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey
from pydec.errors import ConfigError

HERE, APART, UNKNOWN = (Launch("Open MPI", 4, 0, 0, n) for n in (4, 2, None))


@pytest.mark.parametrize(
    ("asked", "found", "result"),
    [
        (Sealing(), HERE, False),
        (Sealing(), APART, True),
        (Sealing(), UNKNOWN, True),
        (Sealing(), None, False),
        (Sealing("on"), HERE, True),
        (Sealing("off"), APART, False),
        (Sealing(key="node.key"), HERE, True),
    ],
)
def test_auto_seals_where_ranks_are_on_more_than_one_host(asked, found, result):
    assert LocalCluster(2).run(lambda transport: wanted(asked, transport, found)) == [result] * 2
    assert not wanted(asked, solo(), found)


def test_options_that_cannot_work():
    with pytest.raises(ConfigError, match="--secure must be one of on, off, auto, got 'yes'"):
        Sealing("yes")
    with pytest.raises(ConfigError, match="are for sealed messages; leave --secure off out"):
        Sealing("off", key="node.key")
    with pytest.raises(ConfigError, match="--key with --ledger"):
        Sealing(key="node.key", of_rank=lambda rank: fresh())


def test_a_plain_transport_stays_as_it_is():
    def program(transport):
        assert sealed(Sealing("off"), transport, in_job=False) is transport
        assert sealed(Sealing(), transport, in_job=False) is transport
        assert protected(transport) is None
        return protection(transport)

    assert LocalCluster(2).run(program) == ["not sealed; --secure on seals them"] * 2


def test_init_seals_what_the_peers_say(tmp_path):
    keyfile.create(tmp_path / "key", SigningKey(bytes(32)))

    def program(transport):
        asked = Sealing("on", key=str(tmp_path / "key"))
        with pydec.init(transport=transport, secure=asked) as peer:
            assert isinstance(peer.transport, SecureTransport)
            peer.agree({"a fact": "the same"})
            return protection(peer.transport), protected(peer.transport)["refused"]

    words = f"only holders of key {SigningKey(bytes(32)).public.hex()[:16]} are let in"
    for said, refused in LocalCluster(3).run(program):
        assert said.startswith("sealed with ")
        assert said.endswith(words)
        assert refused == {}
