"""``ensemble``: the geometric mean of ``additive`` and ``physical``, for devices of which a dozen networks are known.

The two price the same operators, one from coarse counts with robust relative errors, one from fine counts of all devices together; where networks are
few each errs on other networks. The interval is conformal on what the mean of the two says of networks left out on all devices.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile

import numpy as np

from latency_predictors.additive import Additive, conformal_quantile
from latency_predictors.physical import Physical
from nas.errors import ArtifactError, UsageError
from nas.graph import Graph
from nas.hardware import Profile
from nas.predictor import Estimate, Estimates, Floats, OperatorLatency, Predictor, Sample, Segments, predictors

FORMAT_VERSION = 1
MEMBERS: Mapping[str, Additive | Physical] = {"additive": Additive(), "physical": Physical(members=20, refit=True)}
_BEYOND = 1.5  # by so much the interval's logarithm grows outside what was calibrated


@predictors.register("ensemble")
class Ensemble(Predictor):
    """See the module.

    Args:
        members: Fitted predictors by name.
    """

    def __init__(self, members: Mapping[str, Additive | Physical] | None = None) -> None:
        self.members = dict(members or {})
        self._scores: dict[tuple[str, str], Floats] = {}

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile] = ()) -> Ensemble:
        """Return both members fitted to the same samples."""
        return Ensemble({name: member.fit(samples, profiles) for name, member in MEMBERS.items()})

    def held_out(self, device: str, precision: str) -> list[tuple[str, float, float, float, float]]:
        """See `Predictor.held_out`: a network is left out on all devices."""
        found = [{row[0]: row for row in member.held_out(device, precision)} for member in self.members.values()]
        factor = math.exp(conformal_quantile(self._left_out(device, precision), 0.9))
        rows = []
        for name, (_, measured, *_) in found[0].items():
            guess = math.exp(float(np.mean([math.log(rows_of[name][2]) for rows_of in found])))
            rows.append((name, measured, guess, guess / factor, guess * factor))
        return rows

    def _left_out(self, device: str, precision: str) -> Floats:
        """Return log residuals of networks left out, by ascending size."""
        key = (device, precision)
        if key not in self._scores:
            found = [{name: math.log(guess / ms) for name, ms, guess, *_ in m.held_out(device, precision)} for m in self.members.values()]
            mean = np.array([np.mean([residuals[name] for residuals in found]) for name in found[0]])
            self._scores[key] = mean[np.argsort(np.abs(mean), kind="stable")]
        return self._scores[key]

    def _factor(self, profile: Profile, precision: str, confidence: float) -> float:
        """Return the logarithm of the interval's factor."""
        additive = self.members["additive"]
        assert isinstance(additive, Additive)
        names = [name for name in (profile.name, *profile.aliases) if (name, precision) in additive.devices]
        return abs(conformal_quantile(self._left_out(names[0], precision), confidence))

    def _fitted(self) -> tuple[Predictor, ...]:
        if not self.members:
            raise UsageError("ensemble: not fitted. Do this: Ensemble().fit(samples).")
        return tuple(self.members.values())

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph; an operator's part is the mean of the parts that it has in the members' estimates."""
        found = [member.estimate(graph, profile, precision, confidence) for member in self._fitted()]
        latency = math.exp(float(np.mean([math.log(e.latency_ms) for e in found])))
        said = tuple(dict.fromkeys(text for e in found for text in e.extrapolated))
        factor = math.exp(self._factor(profile, precision, confidence) * (_BEYOND if said else 1))
        parts: dict[tuple[str, str], float] = {}
        for e in found:
            for op in e.operators:
                parts[op.name, op.op] = parts.get((op.name, op.op), 0.0) + latency * op.latency_ms / e.latency_ms / len(found)
        return Estimate(
            latency,
            latency / factor,
            latency * factor,
            confidence,
            unsupported=tuple(sorted({name for e in found for name in e.unsupported})),
            extrapolated=said,
            operators=tuple(OperatorLatency(name, op, ms) for (name, op), ms in parts.items()),
        )

    def estimate_batch(self, candidates: Sequence[Segments], profile: Profile, precision: str, confidence: float = 0.9) -> Estimates:
        """Estimate many candidates; both members price a segment once."""
        found = [member.estimate_batch(candidates, profile, precision, confidence) for member in self._fitted()]
        latency = np.exp(np.mean([np.log(e.latency_ms) for e in found], axis=0))
        beyond = np.any([e.extrapolated for e in found], axis=0)
        factor = np.exp(self._factor(profile, precision, confidence) * np.where(beyond, _BEYOND, 1.0))
        return Estimates(latency, latency / factor, latency * factor, np.all([e.usable for e in found], axis=0), beyond)

    def save(self, path: Path) -> None:
        """Write the members' files, as bytes, in one npz."""
        self._fitted()
        arrays: dict[str, Any] = {"head": np.array(json.dumps({"version": FORMAT_VERSION}))}
        with TemporaryDirectory() as folder:
            for name, member in self.members.items():
                member.save(Path(folder) / name)
                arrays[name] = np.frombuffer((Path(folder) / name).read_bytes(), dtype=np.uint8)
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Ensemble:
        """Read what `save` wrote."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
                if json.loads(str(data["head"]))["version"] != FORMAT_VERSION:
                    raise ArtifactError(f"ensemble: {path} is of another version. Do this: fit it again.")
                parts = {name: data[name].tobytes() for name in MEMBERS}
        except FileNotFoundError:
            raise ArtifactError(f"ensemble: no such file, got {str(path)!r}.") from None
        except (OSError, KeyError, ValueError, TypeError, EOFError, BadZipFile) as error:
            raise ArtifactError(f"ensemble: damaged file {str(path)!r} ({error}).") from None
        with TemporaryDirectory() as folder:
            for name, content in parts.items():
                (Path(folder) / name).write_bytes(content)
            return cls({name: member.load(Path(folder) / name) for name, member in MEMBERS.items()})
