"""What a change of a job's number of ranks comes to: who joins under which number, and what is refused."""

from __future__ import annotations

import pytest

from pydec.comm.orders import Newcomers
from pydec.errors import ConfigError
from pydec.launch.change import newcomers
from pydec.launch.relaunch import Place, Plan
from pydec.launch.scale import Request, obstacle


@pytest.mark.parametrize(
    ("ranks", "dead", "after", "numbers"),
    [
        (4, {1}, 4, (1,)),
        (4, {1}, 6, (1, 4, 5)),
        (4, set(), 6, (4, 5)),
        (4, {1, 2}, 3, "rank 3 would need another number"),
        (4, {0}, 4, (0,)),
        (4, set(), 3, "there are to be fewer ranks"),
    ],
)
def test_newcomers_take_the_numbers_of_the_dead_first(ranks, dead, after, numbers):
    places = Place(Plan(ranks), ranks, {}), Place(Plan(after), after, {"a": 9})
    found = newcomers(places[0], frozenset(dead), places[1], ("python",))
    expected = numbers if isinstance(numbers, str) else Newcomers(("python",), numbers, crowd=False)
    assert found == expected


def test_only_a_training_run_with_a_configuration_can_change(tmp_path):
    assert "is not pydec train" in obstacle("", 2, 0)
    assert "cannot be read" in obstacle(str(tmp_path), 2, 0)


@pytest.mark.parametrize("count", ["2", "+", "+-2", "+x", "", "=1.5"])
def test_a_count_of_another_form_is_refused(count):
    with pytest.raises(ConfigError, match="expected"):
        Request(count)
