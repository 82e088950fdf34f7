"""Keys of random numbers: the same on every machine and in every version."""

from __future__ import annotations

from pydec.compress.keys import draw_begin, draw_key, draw_more


def test_keys_never_change():
    assert draw_key(7, 3, 12, 0) == 1111803536099492472
    assert draw_key(2**70 + 5, -1) == 4044526252929970020


def test_a_key_can_be_made_in_two_steps():
    assert draw_more(draw_begin(4, 7, 3), 12, 0) == draw_key(7, 3, 12, 0)


def test_order_and_number_of_parts_count():
    assert len({draw_key(1, 2), draw_key(2, 1), draw_key(1, 2, 0), draw_key(0, 1, 2)}) == 4
