"""The tasks that pydec brings along, one file each."""

from __future__ import annotations

from pydec.train.task import make, tasks
from pydec.train.tasks import fashion_mnist, stdlib_lm

__all__ = ["fashion_mnist", "make", "stdlib_lm", "tasks"]
