"""``ensemble``: the geometric mean of ``additive`` and ``physical``, for devices of which a dozen networks are known.

The two price the same operators, one from coarse counts with robust relative errors, one from fine counts of all devices together; where networks are
few each errs on other networks. The interval is conformal on what the mean of the two says of networks left out on all devices: a dozen
residuals hold no high quantile, so the scores of all devices are taken together (`latency_predictors._calibration`), on the scale that the members' disagreement suggests.
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

from latency_predictors._calibration import Calibration, calibrated
from latency_predictors.additive import Additive
from latency_predictors.physical import Physical
from nas.errors import ArtifactError, UsageError
from nas.graph import Graph
from nas.hardware import Profile
from nas.predictor import Estimate, Estimates, Floats, OperatorLatency, Predictor, Sample, Segments, predictors

FORMAT_VERSION = 1
ROUGH = {"deviation_sd": 4.0, "group_sd": 3.0, "noise_sd": 4.0}
"""Timings that many hands took on boards of many makers stray further than those of one farm of one maker's chips."""
MEMBERS: Mapping[str, Additive | Physical] = {"additive": Additive(), "physical": Physical(members=20, refit=True, scaled=ROUGH)}
_BEYOND = 1.5  # by so much the interval's logarithm grows outside what was calibrated


@predictors.register("ensemble")
class Ensemble(Predictor):
    """See the module.

    Args:
        members: Fitted predictors by name.
    """

    def __init__(self, members: Mapping[str, Additive | Physical] | None = None) -> None:
        self.members = dict(members or {})
        self._calibrations: dict[str, Calibration] = {}

    def fit(self, samples: Sequence[Sample], profiles: Sequence[Profile] = ()) -> Ensemble:
        """Return both members fitted to the same samples."""
        return Ensemble({name: member.fit(samples, profiles) for name, member in MEMBERS.items()})

    def held_out(self, device: str, precision: str) -> list[tuple[str, float, float, float, float]]:
        """See `Predictor.held_out`: a network is left out on all devices, and out of the scale of its interval."""
        calibration, row = self._calibration(precision), (device, precision)
        known = {name: (measured, guess) for name, measured, guess, *_ in self.members["additive"].held_out(device, precision)}
        other = {name: guess for name, _, guess, *_ in self.members["physical"].held_out(device, precision)}
        rows = []
        for name, (measured, guess) in known.items():
            mean = math.sqrt(guess * other[name])
            factor = math.exp(calibration.quantile(0.9) * calibration.without[row][name])
            rows.append((name, measured, mean, mean / factor, mean * factor))
        return rows

    def _calibration(self, precision: str) -> Calibration:
        if precision not in self._calibrations:
            additive, physical = self.members["additive"], self.members["physical"]
            assert isinstance(additive, Additive)
            devices = [device for device, at in additive.devices if at == precision]
            rows = [
                [{name: math.log(guess / ms) for name, ms, guess, *_ in member.held_out(device, precision)} for device in devices]
                for member in (additive, physical)
            ]
            networks = list(dict.fromkeys(name for row in rows[0] for name in row))
            one, two = (np.array([[row.get(name, math.nan) for name in networks] for row in of_member]) for of_member in rows)
            self._calibrations[precision] = calibrated(
                [(device, precision) for device in devices], networks, (one + two) / 2, np.abs(one - two) / 2
            )
        return self._calibrations[precision]

    def _widths(self, profile: Profile, precision: str, disagreement: Floats, confidence: float) -> Floats:
        """Return the logarithms of the intervals' factors; `disagreement` is the logarithm of one member's word over the other's."""
        additive = self.members["additive"]
        assert isinstance(additive, Additive)
        names = [name for name in (profile.name, *profile.aliases) if (name, precision) in additive.devices]
        calibration = self._calibration(precision)
        return calibration.width((names[0], precision), np.abs(disagreement) / 2, confidence)

    def _fitted(self) -> tuple[Predictor, ...]:
        if not self.members:
            raise UsageError("ensemble: not fitted. Do this: Ensemble().fit(samples).")
        return tuple(self.members.values())

    def estimate(self, graph: Graph, profile: Profile, precision: str, confidence: float = 0.9) -> Estimate:
        """Estimate one graph; an operator's part is the mean of the parts that it has in the members' estimates."""
        found = [member.estimate(graph, profile, precision, confidence) for member in self._fitted()]
        latency = math.exp(float(np.mean([math.log(e.latency_ms) for e in found])))
        said = tuple(dict.fromkeys(text for e in found for text in e.extrapolated))
        apart = np.array([math.log(found[0].latency_ms / found[1].latency_ms)])
        factor = math.exp(float(self._widths(profile, precision, apart, confidence)[0]) * (_BEYOND if said else 1))
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
        widths = self._widths(profile, precision, np.log(found[0].latency_ms / found[1].latency_ms), confidence)
        factor = np.exp(widths * np.where(beyond, _BEYOND, 1.0))
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
