"""Every rule in float64 NumPy, straight from its definition, slowly."""

from __future__ import annotations

import itertools

import numpy as np


def distances(x):
    return np.array([[((a - b) ** 2).sum() for b in x] for a in x])


def median(x, f):
    return np.median(x, axis=0)


def trimmed_mean(x, f):
    return np.sort(x, axis=0)[f : len(x) - f].mean(axis=0)


def mean_around_median(x, f):
    near = np.argsort(np.abs(x - np.median(x, axis=0)), axis=0, kind="stable")[: len(x) - f]
    return np.take_along_axis(x, near, axis=0).mean(axis=0)


def krum_scores(x, f):
    return np.array(
        [np.sort(np.delete(row, k))[: len(x) - f - 2].sum() for k, row in enumerate(distances(x))]
    )


def krum(x, f):
    return x[np.argmin(krum_scores(x, f))]


def multi_krum(x, f):
    return x[np.argsort(krum_scores(x, f))[: len(x) - f - 2]].mean(axis=0)


def bulyan(x, f):
    left, chosen = list(range(len(x))), []
    for _ in range(len(x) - 2 * f):
        d = distances(x[left])
        count = max(1, len(left) - f - 2)
        scores = [np.sort(np.delete(row, k))[:count].sum() for k, row in enumerate(d)]
        chosen.append(left.pop(int(np.argmin(scores))))
    return mean_around_median(x[chosen], 2 * f)


def mda(x, f):
    d = distances(x)
    subsets = itertools.combinations(range(len(x)), len(x) - f)
    best = min(subsets, key=lambda s: (max(d[i, j] for i in s for j in s), s))
    return x[list(best)].mean(axis=0)


def geometric_median(x, f):
    y = np.median(x, axis=0)
    for _ in range(1000):
        weights = 1 / np.maximum(1e-6, np.linalg.norm(x - y, axis=1))
        y = weights @ x / weights.sum()
    return y


def centred_clipping(x, f, iterations=3):
    v = x[np.argmin(np.sqrt(distances(x)).sum(axis=1))]
    for _ in range(iterations):
        far = np.linalg.norm(x - v, axis=1)
        radius = np.median(far)
        v = v + np.mean(
            [(row - v) * min(1, radius / max(r, 1e-300)) for row, r in zip(x, far, strict=True)], axis=0
        )
    return v


def caf(x, f):
    n, c = len(x), np.ones(len(x))
    best, least = None, np.inf
    while c.sum() > n - 2 * f or best is None:
        mu = c @ x / c.sum()
        covariance = (x - mu).T @ (c[:, None] * (x - mu)) / c.sum()
        values, vectors = np.linalg.eigh(covariance)
        if values[-1] < least:
            best, least = mu, values[-1]
        tau = ((x - mu) @ vectors[:, -1]) ** 2
        top = tau[c > 0].max()
        if top <= 0:
            break
        c = np.where(c > 0, c * (1 - np.minimum(tau / top, 1)), 0)
        if not c.any():
            break
    return best


def nnm(x, f):
    return np.stack([x[np.argsort(row, kind="stable")[: len(x) - f]].mean(axis=0) for row in distances(x)])


def arc(x, f):
    n = len(x)
    norms = np.linalg.norm(x, axis=1)
    bound = np.sort(norms)[n - 2 * f * (n - f) // n - 1]
    return np.stack([row * min(1, bound / norm) for row, norm in zip(x, norms, strict=True)])


RULES = {
    "mean": lambda x, f: x.mean(axis=0),
    "median": median,
    "trimmed-mean": trimmed_mean,
    "mean-around-median": mean_around_median,
    "krum": krum,
    "multi-krum": multi_krum,
    "bulyan": bulyan,
    "mda": mda,
    "geometric-median": geometric_median,
    "centred-clipping": centred_clipping,
    "caf": caf,
}
BEFORE = {"nnm": nnm, "arc": arc}
