"""A Gaussian process over architectures: what guided search knows between evaluations.

Everything here follows from the evaluated trials in the order told, computed by the same operations whenever it is computed,
so that a resumed search has the same numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.searching.searchers._memory import Rows

Floats = npt.NDArray[np.float64]

GROUPS = ("patterns", "genes", "costs", "modes")
PRIOR_LOG_WEIGHTS = (0.0, -2.0, -2.0, -4.0)
"""Patterns explain best what a network is; genes and costs must prove that they add something, and most of all how it runs: what was seen
of a network at one precision holds at others until trials say otherwise."""
# Source of these: set by hand; accuracies are scaled to unit spread before the fit.
PRIOR_SPREAD = 1.5  # standard deviation of the logarithms of weights
PRIOR_LOG_NOISE = np.log(0.05)  # variance of an accuracy's noise
JITTER = 1e-5  # added to the diagonal so that the factorisation stays positive
SPARSE_FROM = 1024
"""Rows from which products with a feature matrix skip its zeros."""


@dataclass(frozen=True)
class Features:
    """Feature vectors of architectures, one matrix a group.

    Attributes:
        matrices: Shape (architectures, columns) each.
        outside: Squared norm of what has no column, shape (architectures,), of the first group.
    """

    matrices: tuple[Floats, ...]
    outside: Floats

    def __len__(self) -> int:
        return len(self.outside)

    def take(self, rows: npt.NDArray[np.int64]) -> Features:
        """Return some rows."""
        return Features(tuple(matrix[rows] for matrix in self.matrices), self.outside[rows])

    @cached_property
    def norms(self) -> tuple[Floats, ...]:
        """Squared norms of the rows of each group."""
        norms = [np.einsum("ij,ij->i", matrix, matrix) for matrix in self.matrices]
        return (norms[0] + self.outside, *norms[1:])

    @cached_property
    def sparse(self) -> tuple[Any, ...]:
        """The matrices without their zeros: a network has few of all patterns."""
        from scipy.sparse import csr_array

        return tuple(csr_array(matrix) for matrix in self.matrices)

    @classmethod
    def stack(cls, parts: Sequence[Features]) -> Features:
        """Return the rows of all parts; columns that one lacks are zeros."""
        joined = []
        for matrices in zip(*(part.matrices for part in parts), strict=True):
            columns = max(matrix.shape[1] for matrix in matrices)
            whole = np.zeros((sum(map(len, matrices)), columns))
            row = 0
            for matrix in matrices:
                whole[row : row + len(matrix), : matrix.shape[1]] = matrix
                row += len(matrix)
            joined.append(whole)
        return cls(tuple(joined), np.concatenate([part.outside for part in parts]))


@dataclass
class Vocabulary:
    """Columns for named numbers, in the order in which names were first met."""

    columns: dict[str, int] = field(default_factory=dict)

    def learn(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Give new names a column."""
        for row in rows:
            for name in row:
                self.columns.setdefault(name, len(self.columns))

    def write(self, rows: Sequence[Mapping[str, float]]) -> tuple[Floats, Floats]:
        """Return the matrix of some rows, and the squared norm of what has no column."""
        matrix, outside = np.zeros((len(rows), len(self.columns))), np.zeros(len(rows))
        for i, row in enumerate(rows):
            for name, value in row.items():
                if (column := self.columns.get(name)) is None:
                    outside[i] += value * value
                else:
                    matrix[i, column] = value
        return matrix, outside


def squared_distances(a: Features, b: Features) -> list[Floats]:
    """Return squared Euclidean distances by group, each of shape (len(a), len(b)).

    What has no column counts as different in every two networks that are not the same row.
    """
    distances = []
    for g, (x, y) in enumerate(zip(a.matrices, b.matrices, strict=True)):
        columns = min(x.shape[1], y.shape[1])
        if len(b) >= SPARSE_FROM and x.shape[1] == y.shape[1]:
            distance = (b.sparse[g] @ (-2.0 * x.T)).T
        else:
            distance = x[:, :columns] @ (-2.0 * y[:, :columns].T)
        distance += a.norms[g][:, None]
        distance += b.norms[g]
        distances.append(np.maximum(distance, 0.0, out=distance))
    return distances


@dataclass(frozen=True)
class GaussianProcess:
    """Hyperparameters fitted on the first trials; the kernel is squared exponential over the groups' weighted distances.

    Attributes:
        scales: Mean squared distance of each group among the trials of the fit; 0 where all are equal.
        log_weights: Weight of each group.
        log_noise: Noise variance relative to the signal's.
    """

    scales: tuple[float, ...]
    log_weights: tuple[float, ...]
    log_noise: float

    @classmethod
    def fit(cls, features: Features, targets: Floats, *, steps: int = 60) -> GaussianProcess:
        """Maximise the marginal likelihood with log-normal priors.

        Args:
            features: Of the evaluated architectures.
            targets: Standardised, shape (architectures,).
            steps: Evaluations of the likelihood.

        Source:
            Rasmussen and Williams, "Gaussian processes for machine learning", 2006, equation 5.8, with the signal's
            variance and the constant mean profiled out; Nelder-Mead from the prior's mode.
        """
        from scipy.optimize import minimize

        raw = squared_distances(features, features)
        scales = tuple(float(distance.mean()) for distance in raw)
        used = [g for g, scale in enumerate(scales) if scale > 0]
        distances = np.array([raw[g] / scales[g] for g in used]).reshape(len(used), len(targets), len(targets))
        prior = np.array([PRIOR_LOG_WEIGHTS[g] for g in used] + [PRIOR_LOG_NOISE])
        spread = np.array([PRIOR_SPREAD] * len(used) + [1.0])

        def loss(theta: Floats) -> float:
            kernel = np.tensordot(-np.exp(theta[:-1]), distances, axes=1)
            fitted = _factor(np.exp(kernel, out=kernel), float(np.exp(theta[-1])) + JITTER)
            if fitted is None:
                return 1e9
            _, variance, determinant = _profile(fitted, targets)
            return float(0.5 * len(targets) * np.log(variance) + determinant + (((theta - prior) / spread) ** 2).sum() / 2)

        best = minimize(loss, prior, method="Nelder-Mead", options={"maxfev": steps, "xatol": 0.05, "fatol": 0.05}).x.round(4)
        weights = dict(zip(used, best[:-1], strict=True))
        return cls(scales, tuple(float(weights.get(g, 0.0)) for g in range(len(scales))), float(best[-1]))

    def kernel(self, a: Features, b: Features) -> Floats:
        """Return the correlations, shape (len(a), len(b))."""
        total = np.zeros((len(a), len(b)))
        for distance, scale, log_weight in zip(squared_distances(a, b), self.scales, self.log_weights, strict=True):
            if scale > 0:
                total += distance * (np.exp(log_weight) / scale)
        return np.exp(-total)

    @cached_property
    def noise(self) -> float:
        """Noise variance relative to the signal's."""
        return float(np.exp(self.log_noise)) + JITTER


class Posterior:
    """What a Gaussian process says of candidates, extended one evaluated trial at a time.

    Args:
        process: Kernel and noise.
        evaluated: Features of the trials of the fit.
        candidates: Fixed candidates whose prediction is kept up to date; None to ask for others each time.
    """

    def __init__(self, process: GaussianProcess, evaluated: Features, candidates: Features | None = None) -> None:
        self.process, self.candidates = process, candidates
        self._evaluated = evaluated
        factor = _factor(process.kernel(evaluated, evaluated), process.noise)
        if factor is None:
            raise np.linalg.LinAlgError("the kernel of the evaluated trials is not positive definite")
        self._factor: Floats = factor
        self._solved: Rows | None = None
        self._explained: Floats = np.zeros(0)
        if candidates is not None:
            self._solved = Rows(len(candidates))
            self._solved.append(_solve(self._factor, process.kernel(evaluated, candidates)))
            self._explained = np.einsum("ij,ij->j", self._solved.array, self._solved.array)

    def extend(self, trial: Features) -> None:
        """Take in one more evaluated trial."""
        row = _solve(self._factor, self.process.kernel(self._evaluated, trial))[:, 0]
        pivot = np.sqrt(max(1.0 + self.process.noise - float(row @ row), JITTER))
        size = len(self._factor)
        factor = np.zeros((size + 1, size + 1), order="F")
        factor[:size, :size], factor[size, :size], factor[size, size] = self._factor, row, pivot
        self._factor = factor
        self._evaluated = Features.stack([self._evaluated, trial])
        if self.candidates is not None and self._solved is not None:
            new = (self.process.kernel(trial, self.candidates)[0] - row @ self._solved.array) / pivot
            self._solved.append(new)
            self._explained += new * new

    def predict(self, targets: Floats, others: Features | None = None) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of what evaluating each candidate would give, evaluation noise included.

        Args:
            targets: Of all evaluated trials taken in, in order.
            others: Candidates; the fixed ones by default.
        """
        if others is not None:
            solved = _solve(self._factor, self.process.kernel(self._evaluated, others))
            explained = np.einsum("ij,ij->j", solved, solved)
        else:
            assert self._solved is not None
            solved, explained = self._solved.array, self._explained
        mean, variance, _ = _profile(self._factor, targets)
        weights = _solve(self._factor, (targets - mean)[:, None])[:, 0]
        spread = np.maximum(1.0 - explained, 0.0) + self.process.noise
        return mean + weights @ solved, np.sqrt(variance * spread)


def _factor(kernel: Floats, noise: float) -> Floats | None:
    """Return the lower Cholesky factor of a kernel with noise, in column order; None where it has none.

    Args:
        kernel: Symmetric; overwritten.
        noise: Added to the diagonal.
    """
    from scipy.linalg.lapack import dpotrf

    kernel.flat[:: len(kernel) + 1] += noise
    factor, failed = dpotrf(kernel.T, lower=True, clean=True, overwrite_a=True)
    return None if failed else np.asarray(factor)


def _solve(factor: Floats, right: Floats) -> Floats:
    """Return factor⁻¹ right; shapes (n, n) lower triangular in column order, (n, k)."""
    from scipy.linalg.lapack import dtrtrs

    solved, _ = dtrtrs(factor, right, lower=True)
    return np.asarray(solved)


def _profile(factor: Floats, targets: Floats) -> tuple[float, float, float]:
    """Return the mean and signal variance of greatest likelihood, and half the log determinant."""
    y, one = _solve(factor, np.stack([targets, np.ones(len(targets))], axis=1)).T
    mean = float(y @ one / (one @ one))
    variance = max(float(((y - mean * one) ** 2).mean()), 1e-12)
    return mean, variance, float(np.log(np.diag(factor)).sum())


def winsorised(values: Floats) -> Floats:
    """Return values standardised after raising those below median - 2 × interquartile range to it.

    A few networks that do not train would otherwise be all that a squared error sees.
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    clipped = np.maximum(values, middle - 2.0 * (high - low)) if high > low else values
    return np.asarray((clipped - clipped.mean()) / max(float(clipped.std()), 1e-12))


def expected_improvement(mean: Floats, deviation: Floats, level: float | Floats) -> Floats:
    """Return E[max(X - level, 0)] of X ~ N(mean, deviation²)."""
    from scipy.special import ndtr

    z = (mean - level) / deviation
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.asarray(deviation * (z * ndtr(z) + density))
