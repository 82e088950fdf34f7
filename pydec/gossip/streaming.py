"""Streaming DiLoCo: one fragment of the model at a time, on its way during a whole window of local steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import Mixer, algorithms
from pydec.gossip.diloco import AnchoredRule, GossipDiLoCo, OuterStep
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import Rule


class HeldMixer(AverageMixer):
    """Sends what ``hold`` has copied, so that the vector may change while the packets are under way."""

    move_scale = 0.0

    def __init__(self, x: Vector, compressor: Compressor, degree: int) -> None:
        super().__init__(x, compressor, degree)
        self.held = x.copy()

    def hold(self) -> None:
        """A round begins."""
        np.copyto(self.held, self.x)

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """The copy."""
        start, stop = self.buckets[bucket]
        return self.compressor.keyed(key).encode_into(self.held[start:stop], out)

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The copy."""
        return {"held": self.held}


class FragmentRule(AnchoredRule):
    """Hands a copy of one fragment after the other to a mixer, and blends in what comes back.

    Args:
        x: the model.
        fragment: shape (ceil(n / fragments),); what ``mixer`` mixes.
        mixer: of ``fragment``.
        outer: the step before the mixing.
        keep: share of the live model in what arrives.
    """

    def __init__(self, x: Vector, fragment: Vector, mixer: Mixer, outer: OuterStep, keep: float) -> None:
        super().__init__(x, mixer)
        self._fragment, self._outer, self.keep = fragment, outer, keep
        size = max(1, fragment.size)
        self._parts = [slice(start, min(start + size, x.size)) for start in range(0, max(1, x.size), size)]
        self._departed = 0

    def _part(self, number: int) -> tuple[slice, Vector]:
        part = self._parts[number % len(self._parts)]
        return part, self._fragment[: part.stop - part.start]

    def depart(self) -> None:
        """The outer step of the next fragment, in its copy."""
        part, fragment = self._part(self._departed)
        self._departed += 1
        np.subtract(self.anchor[part], self.x[part], out=fragment)
        self._outer.take(self.anchor[part], fragment, self.velocity[part])
        self._fragment[fragment.size :] = 0.0

    def arrive(self) -> None:
        """Its mixture is the fragment's next anchor, and is blended into the model, which has moved on."""
        part, fragment = self._part(self._departed - 1)
        np.copyto(self.anchor[part], fragment)
        x = self.x[part]
        kernels.mix([x, fragment], [self.keep, 1.0 - self.keep], out=x)

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """Anchor, outer momentum, and the fragment under way."""
        return {**super().own_state(), "fragment": self._fragment}

    def numbers(self) -> dict[str, float]:
        """How many fragments have departed."""
        return {"departed": float(self._departed)}

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """See ``numbers``."""
        self._departed = int(numbers["departed"])


@algorithms.register("streaming-diloco")
@dataclass(frozen=True)
class StreamingDiLoCo(GossipDiLoCo):
    """gossip-diloco by fragments, each on its way during the next window of local steps: nothing waits.

    After every ``local_steps`` steps the fragment of before is finished and the next one departs, so each is
    mixed once in fragments * local_steps steps. For fragment f with its own anchor and momentum:
    d = anchor - theta; m <- momentum m + d; z = anchor - outer_lr (d + momentum m) departs; one window later
    anchor <- sum_j w_ij z_j and theta <- keep theta + (1 - keep) anchor, theta the model of that time.

    A round sends 1 / fragments of the model. Links must carry that in one window. keep=0 forgets what the
    window did to the fragment, keep=1 never comes back to the others.

    Source: Douillard, Donchev, Rush, Kale, Charles, Garrett, Teston, Lacey, McIlroy, Shen, Ramé, Szlam,
    Ranzato, Barham, "Streaming DiLoCo with overlapping communication", 2025, arXiv:2501.18512, section 2,
    with gossip in place of its mean and an overlap of the whole window.
    """

    name: ClassVar[str] = "streaming-diloco"
    budget: ClassVar[int] = 3
    windowed: ClassVar[bool] = True
    order = "cta"
    outer_lr: float = 0.4
    momentum: float = 0.9
    fragments: int = 4
    keep: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fragments < 1:
            raise ConfigError(f"streaming-diloco.fragments must be at least 1, got {self.fragments}")
        if not 0.0 <= self.keep <= 1.0:
            raise ConfigError(f"streaming-diloco.keep must be in [0, 1], got {self.keep}")

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """Fragments that start from here, at rest."""
        fragment = aligned_floats(-(-x.size // self.fragments))
        mixer = self.mixer(fragment, compressor, degree)
        mixer.move_scale = 0.0  # a fragment of the outer step is not the model
        return FragmentRule(x, fragment, mixer, OuterStep(self.outer_lr, self.momentum), self.keep)
