"""Payloads of both kinds side by side: decoded, added up, checked before anything is written."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import compress
from pydec.compress.auto import Auto
from pydec.errors import ConfigError, FrameError

N = 1000
PLAIN, PACKED = Auto(), Auto(send="packed")


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(N).astype(np.float32)


def test_both_kinds_are_what_their_compressors_write_behind_a_header():
    assert PLAIN.encode(vector(0))[16:] == compress.make("none").encode(vector(0))
    assert PACKED.encode(vector(0))[16:] == compress.make("int8").encode(vector(0))
    assert PLAIN.switched(True) == PACKED
    assert PACKED.switched(False) == PLAIN


@pytest.mark.parametrize("kinds", ["pppp", "qqqq", "pqpq", "ppqq", "qpp", "qp"])
def test_a_mixture_adds_up_in_order(kinds):
    ways = {"p": PLAIN, "q": PACKED}
    payloads = [np.frombuffer(ways[k].encode(vector(i)), np.uint8) for i, k in enumerate(kinds)]
    weights = [-0.9, 0.3, 0.25, 0.35][: len(kinds)]
    expected = vector(9)
    for payload, weight in zip(payloads, weights, strict=True):
        expected += np.float32(weight) * PLAIN.decode(payload, np.empty(N, np.float32))
    out, own = vector(9), vector(9)
    PLAIN.accumulate(payloads, weights, out)
    PACKED.accumulate_own(payloads[0], weights[0], payloads[1:], weights[1:], own)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(own, expected)


def test_a_bad_payload_of_one_kind_keeps_those_of_the_other_out():
    bad = bytearray(PACKED.encode(vector(1)))
    bad[40:44] = b"\xff" * 4  # a scale that is not finite
    for payloads in ([PLAIN.encode(vector(0)), bytes(bad)], [PACKED.encode(vector(0)), b"\x10" + bytes(40)]):
        out = vector(2)
        with pytest.raises(FrameError):
            PLAIN.accumulate(payloads, [1.0, 1.0], out)
        np.testing.assert_array_equal(out, vector(2))


def test_only_plain_payloads_have_views():
    payloads = [PLAIN.encode(vector(0)), PLAIN.encode(vector(1))]
    views = PACKED.views(payloads, N)
    assert views is not None
    np.testing.assert_array_equal(np.stack(views), np.stack([vector(0), vector(1)]))
    assert PACKED.views([*payloads, PACKED.encode(vector(2))], N) is None


def test_a_compressor_that_was_not_agreed_on_is_refused():
    with pytest.raises(FrameError, match=r"holds wire id 7, neither none \(1\) nor int8 \(3\)"):
        PLAIN.decode(Auto(lossy="int4", send="packed").encode(vector(0)), np.empty(N, np.float32))
    with pytest.raises(FrameError, match="holds wire id 2, which is none of"):
        Auto.from_payload(b"\x10\x01\x01\x00\x02\x00\x00\x00" + bytes(8))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("auto:lossy=topk", "lossy must be one of bf16, fp16, int8, int4, sign, got 'topk'"),
        ("auto:send=maybe", "send must be one of plain, packed, got 'maybe'"),
    ],
)
def test_bad_options_are_named(spec, message):
    with pytest.raises(ConfigError, match=message):
        compress.make(spec)
