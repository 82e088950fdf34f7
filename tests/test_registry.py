from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from pydec.errors import ConfigError
from pydec.registry import Option, Registry


@dataclass(frozen=True)
class Wheel:
    """Rolls.

    And more words.
    """

    radius: float = 0.5
    spokes: int = 32
    spare: bool = False
    maker: str = "unknown"
    tread: Literal["slick", "rough"] = "slick"
    grade: Literal[1, 2] = 1
    load: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 1:
            raise ValueError(f"radius must be in (0, 1], got {self.radius}")


def parts() -> Registry[Any]:
    registry: Registry[Any] = Registry("part", context=("size", "seed"))
    registry.register("wheel")(Wheel)

    @registry.register("axle")
    def axle(size: int, length: float, *rest: int, seed: int = 0, **more: str) -> tuple[int, float, int]:
        return (size, length, seed)

    @registry.register("bolt")
    def bolt(size: int) -> int:
        """Holds."""
        return size

    return registry


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("wheel", Wheel()),
        (" wheel : radius = 0.25 , spokes=8", Wheel(radius=0.25, spokes=8)),
        ("wheel:", Wheel()),
        ("wheel:radius=1e-3,", Wheel(radius=1e-3)),
        ("wheel:spare=true", Wheel(spare=True)),
        ("wheel:spare=On", Wheel(spare=True)),
        ("wheel:spare=0", Wheel(spare=False)),
        ("wheel:maker=none", Wheel(maker="none")),
        ("wheel:maker=a=b", Wheel(maker="a=b")),
        ("wheel:tread=rough", Wheel(tread="rough")),
        ("wheel:grade=2", Wheel(grade=2)),
        ("wheel:load=3", Wheel(load=3.0)),
        ("wheel:load=None", Wheel(load=None)),
    ],
)
def test_specifications_are_parsed_by_type(spec, expected):
    made = parts().make(spec)
    assert made == expected
    assert type(made.spare) is bool
    assert type(made.grade) is int


def test_context_reaches_the_parts_that_take_it():
    registry = parts()
    assert registry.make("bolt", size=7, seed=1) == 7
    assert registry.make("axle:length=2", size=7, seed=1) == (7, 2.0, 1)
    assert registry.make("wheel", size=7, seed=1) == Wheel()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gear", "^unknown part 'gear'; known: axle, bolt, wheel$"),
        ("", "unknown part ''; known"),
        (
            "wheel:radios=1",
            "^part 'wheel:radios=1': wheel has no option 'radios'; its options: radius, spokes, ",
        ),
        ("bolt:size=3", "bolt has no option 'size'; its options: none"),
        ("axle:length=1,seed=3", "axle has no option 'seed'; its options: length$"),
        ("axle", "^part 'axle': axle needs length=...$"),
        ("wheel:radius", "'radius' is not of the form key=value"),
        ("wheel:radius=", "'radius=' is not of the form key=value"),
        ("wheel:radius=0.1,radius=0.2", "option 'radius' is given twice"),
        ("wheel:radius=big", "radius must be a number, got 'big'"),
        ("wheel:radius=2", r"^part 'wheel:radius=2': radius must be in \(0, 1\], got 2.0$"),
        ("wheel:radius=nan", r"radius must be in \(0, 1\], got nan"),
        ("wheel:spokes=2.5", "spokes must be an integer, got '2.5'"),
        ("wheel:spare=maybe", "spare must be true or false, got 'maybe'"),
        ("wheel:tread=wet", "tread must be one of slick, rough, got 'wet'"),
        ("wheel:grade=3", "grade must be one of 1, 2, got '3'"),
        ("wheel:load=heavy", "load must be a number, got 'heavy'"),
        ("wheel:radius=none", "radius must be a number, got 'none'"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(ConfigError, match=message):
        parts().make(spec, size=2)


def test_options_and_summary_describe_a_part():
    registry = parts()
    assert registry.summary("wheel") == "Rolls."
    assert registry.options("wheel")[:3] == [
        Option("radius", "a number", 0.5, False),
        Option("spokes", "an integer", 32, False),
        Option("spare", "true or false", False, False),
    ]
    assert registry.options("wheel")[4].type == "Literal['slick', 'rough']"
    assert [(option.name, option.required) for option in registry.options("axle")] == [("length", True)]
    assert registry.options("bolt") == []


def test_is_a_sorted_collection_of_names():
    registry = parts()
    assert isinstance(registry, Collection)
    assert list(registry) == ["axle", "bolt", "wheel"]
    assert len(registry) == 3
    assert "bolt" in registry
    assert "gear" not in registry
    assert registry.get("wheel") is Wheel


def test_a_name_is_taken_once():
    registry = parts()
    with pytest.raises(ConfigError, match="part 'wheel' is registered twice"):
        registry.register("wheel")(Wheel)
