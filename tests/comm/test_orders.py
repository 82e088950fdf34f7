"""Orders of the supervisor: lines, whole or in pieces, and nothing where there is nobody to give them."""

from __future__ import annotations

import os

import pytest

from pydec.comm.orders import Newcomers, Orders, growth, order
from pydec.comm.words import VARIABLE


@pytest.fixture
def pipe(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_orders_arrive_in_order_whatever_stands_between_them(pipe):
    orders = Orders(0, pipe[0])
    assert orders.take() is None
    os.write(pipe[1], b"noise\n" + order(3)[:7])
    assert orders.take() is None
    os.write(pipe[1], order(3)[7:] + order(0))
    assert (orders.take(5.0), orders.take(5.0), orders.take()) == (3, 0, None)


def test_who_is_not_told_hears_nothing(pipe, monkeypatch):
    os.write(pipe[1], order(3))
    assert Orders(1, pipe[0]).take() is None
    monkeypatch.delenv(VARIABLE)
    assert Orders(0, pipe[0]).take() is None


def test_other_ranks_and_those_that_have_joined_hear_from_a_file(pipe, monkeypatch, tmp_path):
    (tmp_path / "orders").write_bytes(order(5))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "orders"))
    others = [Orders(1, pipe[0]), Orders(0, pipe[0], joins=True)]
    assert [orders.take() for orders in others] == [None, None]  # what was said before is not for them
    with (tmp_path / "orders").open("ab") as file:
        file.write(order(3))
    assert [orders.take(5.0) for orders in others] == [3, 3]
    os.write(pipe[1], order(4))
    assert [orders.take() for orders in others] == [None, None]
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    assert [Orders(rank, pipe[0]).heard for rank in (0, 1)] == [True, False]


def test_a_supervisor_that_is_gone_gives_no_orders(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    reader, writer = os.pipe()
    orders = Orders(0, reader)
    os.write(writer, order(2))
    os.close(writer)
    assert (orders.take(5.0), orders.take(5.0), orders.take()) == (2, None, None)
    os.close(reader)


def test_newcomers_are_asked_for_beside_other_orders(pipe):
    orders = Orders(0, pipe[0])
    asked = Newcomers(("python", "-m", "pydec", "train"), (1, 4), crowd=True)
    assert orders.newcomers() is None
    os.write(pipe[1], growth(asked)[:20])
    assert orders.newcomers() is None
    os.write(pipe[1], growth(asked)[20:] + order(3) + growth(asked))
    assert (orders.take(5.0), orders.newcomers(), orders.newcomers()) == (3, asked, asked)
    assert orders.newcomers() is None
