from __future__ import annotations

import numpy as np
import pytest

from pydec import compress
from pydec.compress import ErrorFeedback
from pydec.errors import ConfigError


def gradients(rounds: int, n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((rounds, n)).astype(np.float32)


@pytest.mark.parametrize("spec", ["none", "int8", "topk:fraction=0.1"])
def test_nothing_is_lost_over_many_rounds(spec):
    feedback = ErrorFeedback(compress.make(spec))
    sent = np.zeros(500, np.float32)
    x = gradients(30, 500)
    for row in x:
        sent += feedback.compressor.decode(feedback.encode("w", row), np.empty_like(row))
    residual = feedback.residual("w")
    rest = np.zeros(500) if residual is None else residual
    np.testing.assert_allclose(sent + rest, x.sum(axis=0), atol=2e-4)
    assert (residual is None) == (spec == "none")


def test_residual_stays_bounded_by_the_contraction():
    feedback = ErrorFeedback(compress.make("topk:fraction=0.1"))
    for row in gradients(200, 500):
        feedback.encode("w", row)
    residual = feedback.residual("w")
    assert residual is not None
    assert np.sum(residual**2) <= 4 * (1 - 0.1) / 0.1**2 * 500 * 1.5  # lemma 3.2 of the source


def test_vectors_have_residuals_of_their_own():
    feedback = ErrorFeedback(compress.make("topk:k=1"))
    x = np.array([3.0, 1.0], np.float32)
    feedback.encode("a", x)
    feedback.encode("b", 2 * x)
    assert feedback.residual("a").tolist() == [0.0, 1.0]  # type: ignore[union-attr]
    assert feedback.residual("b").tolist() == [0.0, 2.0]  # type: ignore[union-attr]
    assert feedback.residual("c") is None
    with pytest.raises(ValueError, match="read-only"):
        feedback.residual("a")[0] = 1.0  # type: ignore[index]  # the error is the point
    feedback.reset()
    assert feedback.residual("a") is None


def test_state_survives_saving_and_loading():
    x = gradients(6, 50)
    straight, first = (ErrorFeedback(compress.make("int8:block=16")) for _ in range(2))
    expected = [straight.encode("w", row) for row in x]
    for row in x[:3]:
        first.encode("w", row)
    state = first.state_dict()
    first.encode("w", x[5])  # what was saved is a copy
    second = ErrorFeedback(first.compressor)
    second.load_state_dict(state)
    assert [second.encode("w", row) for row in x[3:]] == expected[3:]
    second.load_state_dict({})
    assert second.state_dict() == {}


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        (np.zeros(3), "'w' must be a float32 vector, got float64"),
        (np.zeros((3, 1), np.float32), "must be a float32 vector"),
        (np.array([np.nan], np.float32), "'w' has NaN or infinite entries"),
    ],
)
def test_damaged_state_is_refused_and_changes_nothing(residual, message):
    feedback = ErrorFeedback(compress.make("int8"))
    feedback.encode("w", np.ones(3, np.float32))
    with pytest.raises(ConfigError, match=message):
        feedback.load_state_dict({"v": np.zeros(2, np.float32), "w": residual})
    assert set(feedback.state_dict()) == {"w"}


def test_a_vector_that_changes_its_length_is_named():
    feedback = ErrorFeedback(compress.make("int8"))
    feedback.encode("w", np.ones(3, np.float32))
    with pytest.raises(ValueError, match="vector 'w' has 4 elements, but its residual has 3"):
        feedback.encode("w", np.ones(4, np.float32))
