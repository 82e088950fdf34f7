"""What specifications of robust rules say, and which rule is taken where none is named."""

from __future__ import annotations

import pytest

from pydec import gossip, topology
from pydec.errors import ConfigError


@pytest.mark.parametrize(
    "text",
    ["cs-plus:f=-1", "cs-plus:eta=0", "clipped-gossip:radius=-1", "balance:alpha=1", "ubar:rho=0",
     "rpel:delta=0", "cs-plus:order=both", "bridge:average=mean", "nnm", "nna:g=1"],
)  # fmt: skip
def test_wrong_options_are_refused(text):
    with pytest.raises(ConfigError):
        gossip.make(text)


def test_f_is_filled_in_where_it_is_not_said():
    assert gossip.make_robust("cs-plus", 3).f == 3
    assert gossip.make_robust("cs-plus:f=2", 3).f == 2
    assert gossip.make_robust("nnm+krum", 3).f == 3
    assert gossip.make_robust("nnm+krum:f=1", 3).f == 1
    assert gossip.make_robust("clipped-gossip:radius=1", 2).f == 2


def test_the_default_follows_the_degree():
    assert gossip.robust.default_rule(topology.make("complete", size=8), 2) == "spectral-filter"
    assert gossip.robust.default_rule(topology.make("complete", size=7), 2) == "cs-plus"
    assert gossip.robust.default_rule(topology.make("ring", size=7), 1) == "clipped-gossip"
