from __future__ import annotations

import pytest

from pydec.store.store import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store", create=True) as made:
        yield made
