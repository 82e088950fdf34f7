"""Training that tells little about any one sample: clipped gradients, Gaussian noise, and their account."""

from __future__ import annotations

from pydec.privacy.gradients import PrivateGradients

__all__ = ["PrivateGradients"]
