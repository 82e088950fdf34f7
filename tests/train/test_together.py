"""What all ranks do at the same point gives all of them the same."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError, SetupError
from pydec.train.together import await_release, release, settle, table, text


class Member:
    def __init__(self, transport):
        self.transport = transport
        self.rank, self.size = transport.rank, transport.size

    def check(self):
        pass


def everywhere(size, program):
    return LocalCluster(size).run(lambda transport: program(Member(transport)))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_table_has_the_numbers_of_every_rank(size):
    rows = everywhere(size, lambda peer: table(peer, [peer.rank + 1.0, 2.0**40]))
    for found in rows:
        np.testing.assert_allclose(found, [[rank + 1.0, 2.0**40] for rank in range(size)], rtol=1e-15)


@pytest.mark.parametrize(("size", "root"), [(1, 0), (4, 0), (5, 3)])
def test_a_text_reaches_everyone(size, root):
    assert everywhere(size, lambda peer: text(peer, f"grüße {peer.rank}", root)) == [f"grüße {root}"] * size
    assert everywhere(size, lambda peer: text(peer, "", root)) == [""] * size


def test_nobody_fails_alone():
    def program(peer):
        settle(peer, None)
        with pytest.raises(SetupError, match=r"^rank 2: no disk$"):
            settle(peer, SetupError("no disk") if peer.rank == 2 else None)
        with pytest.raises(ConfigError, match=r"^bad option$"):
            settle(peer, ConfigError("bad option"))
        return True

    assert everywhere(4, program) == [True] * 4


def test_the_others_wait_for_release():
    order = []

    def program(peer):
        if peer.rank:
            await_release(peer)
        else:
            order.append("work")
            release(peer)
        order.append(peer.rank)

    everywhere(3, program)
    assert order[0] == "work"
    assert sorted(order[1:]) == [0, 1, 2]
