"""Choose the settings inside each fold and try a residual there: how optimistic are figures whose settings were watched?

python experiments/004_qualcomm_latency/nested.py --data ../shared/data     about three minutes on one core

Outer: a network (and its twins) is left out of everything. Inner: each candidate is fitted to the rest, and its own left-out residuals
(linearised, of classifiers) decide which candidate predicts the outer network. The residual is a ridge regression of the rest's left-out
residuals on shares of kinds of work; its strength, none included, is chosen by leaving networks out inside.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from run import COMMAND, MIN_TIMED, RESULTS, SEED, about, networks_of, write_json

from latency_predictors._pooled import Fit, Priors, fit_pooled
from latency_predictors._quantities import COLUMN, KIND_OF, KINDS
from latency_predictors._switches import columns_of, draw, priors_of, relate
from latency_predictors.physical import Timings, features_of, timings_of
from nas.bench.aihub import classifiers, read_table, samples_of
from nas.devices.predictor import Floats

MEMBERS = 32
STRENGTHS = (np.inf, 30.0, 10.0, 3.0, 1.0)
log = logging.getLogger("nested")


def candidates() -> dict[str, tuple[bool, Callable[[Priors], Priors]]]:
    """Name -> (whether normalising an image is priced, change of the committed priors): the settings that were watched, on and off."""

    def narrow(priors: Priors) -> Priors:
        """Before: devices strayed half as far, networks 1.7 times as far."""
        group_sd = priors.group_sd.copy()
        group_sd[:, 0] *= 0.5
        return replace(priors, deviation_sd=0.5 * priors.deviation_sd, group_sd=group_sd, network_sd=1.7 * priors.network_sd)

    def same(priors: Priors) -> Priors:
        return priors

    return {
        f"image {'priced' if image else 'free'}, {label} devices": (image, change)
        for image in (True, False)
        for label, change in (("wide", same), ("narrow", narrow))
    }


def without(timings: Timings, gone: set[str]) -> Timings:
    """Leave networks out, and devices that are left with none."""
    keep = [i for i, name in enumerate(timings.networks) if name not in gone]
    rows = np.flatnonzero(np.isfinite(timings.log_ms[:, keep]).any(axis=1))
    return Timings(
        tuple(timings.networks[i] for i in keep),
        tuple(timings.families[i] for i in keep),
        timings.totals[keep],
        tuple(timings.devices[d] for d in rows),
        timings.log_ms[np.ix_(rows, keep)],
        timings.trust[np.ix_(rows, keep)],
    )


def fitted(timings: Timings, image: bool, change: Callable[[Priors], Priors], shared: Floats | None) -> Fit:
    settings = draw(MEMBERS, SEED)
    totals = timings.totals if image else free_of_images(timings.totals)
    priors = priors_of(settings, shared)
    if shared is not None:
        priors = relate(priors, SEED)
    return fit_pooled(features_of(totals, settings), timings.log_ms, timings.trust, change(priors))


def free_of_images(totals: Floats) -> Floats:
    plain = totals.copy()
    plain[..., COLUMN["image"]] = 0.0
    return plain


def predicted_log_ms(fit: Fit, totals: Floats) -> Floats:
    """(devices,) log latency of one network."""
    features = features_of(totals[None], draw(MEMBERS, SEED))[:, 0]
    return np.asarray(np.log(np.einsum("mk,mdk->md", features, np.exp(fit.device))).mean(axis=0))


def inner_error_pct(fit: Fit, timings: Timings, tested: set[str]) -> float:
    """Mean over devices of the mean left-out error over classifiers."""
    columns = [i for i, name in enumerate(timings.networks) if name in tested]
    left_out = np.nanmean(fit.left_out[:, :, columns], axis=0)
    by_device = [np.nanmean(np.abs(np.exp(-row) - 1)) for row in left_out if np.isfinite(row).sum() >= 5]
    return 100 * float(np.mean(by_device))


def shares_of(fit: Fit, totals: Floats) -> Floats:
    """(networks, kinds) square roots of the shares of the latency on a typical device."""
    price = np.exp(fit.device.mean(axis=1))
    unit = np.mean([columns_of(s) @ p for s, p in zip(draw(MEMBERS, SEED), price, strict=True)], axis=0)
    by_kind = np.stack([np.bincount(KIND_OF, row * unit, len(KINDS)) for row in totals])
    return np.asarray(np.sqrt(by_kind / (by_kind.sum(axis=1, keepdims=True) + 1e-9)))


def ridge(x: Floats, y: Floats, strength: float) -> tuple[Floats, Floats]:
    """Return weights and left-out residuals of y on x."""
    gram = np.linalg.inv(x.T @ x + strength * np.eye(x.shape[1])) @ x.T
    hat = x @ gram
    return gram @ y, (y - hat @ y) / (1 - np.diag(hat))


def residual_correction(fit: Fit, timings: Timings, totals: Floats) -> tuple[float, float]:
    """Return the log correction of one network and the strength that the rest chose."""
    with np.errstate(all="ignore"):
        y = np.nanmedian(np.nanmean(fit.left_out, axis=0), axis=0)  # (networks,)
    x = shares_of(fit, np.concatenate([timings.totals, totals[None]]))
    centre, y = x[:-1].mean(axis=0), np.clip(np.nan_to_num(y), -0.5, 0.5)
    best = min(STRENGTHS, key=lambda s: float(np.mean(np.abs(y if np.isinf(s) else ridge(x[:-1] - centre, y, s)[1]))))
    if np.isinf(best):
        return 0.0, best
    weights, _ = ridge(x[:-1] - centre, y, best)
    return float((x[-1] - centre) @ weights), best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    models, graphs, families, _, _ = networks_of(options.data)
    samples = samples_of(read_table(options.data / "aihub_perf.csv.gz", graphs, "qnn"), graphs, families)
    count = {key: sum((s.device, s.precision) == key for s in samples) for key in {(s.device, s.precision) for s in samples}}
    samples = [s for s in samples if count[s.device, s.precision] >= MIN_TIMED]
    tested = set(classifiers(models))
    pools = {p: timings_of([s for s in samples if s.precision == p]) for p in ("fp16", "w8a16", "w8a8")}
    twins = {n: {m for m in graphs if graphs[m].key == graphs[n].key} for n in graphs}
    choices = candidates()
    watched = next(iter(choices))
    rows: list[dict[str, Any]] = []
    for name in sorted(tested & {n for t in pools.values() for n in t.networks}):
        shared: dict[str, Floats] = {}
        for precision, timings in pools.items():
            rest = without(timings, twins[name])
            fits = {
                label: fitted(rest, image, change, None if precision == "fp16" else shared[label])
                for label, (image, change) in choices.items()
            }
            if precision == "fp16":
                shared = {label: fit.shared for label, fit in fits.items()}
            if name not in timings.networks:
                continue
            totals = timings.totals[timings.networks.index(name)]
            chosen = min(choices, key=lambda label: inner_error_pct(fits[label], rest, tested))
            answers = {
                label: predicted_log_ms(fits[label], totals if choices[label][0] else free_of_images(totals)) for label in {chosen, watched}
            }
            correction, strength = residual_correction(fits[watched], rest, totals)
            log.info("%s %s: %s; residual %s", name, precision, chosen, strength)
            for d, device in enumerate(rest.devices):
                measured = float(timings.log_ms[timings.devices.index(device), timings.networks.index(name)])
                if np.isfinite(measured):
                    rows.append(
                        {
                            "network": name,
                            "precision": precision,
                            "device": device,
                            "chosen": chosen,
                            "strength": None if np.isinf(strength) else strength,
                            "nested": measured - float(answers[chosen][d]),
                            "watched": measured - float(answers[watched][d]),
                            "residual": measured - float(answers[watched][d]) - correction,
                        }
                    )
    head = about(argparse.Namespace(members=MEMBERS)) | {"command": COMMAND.replace("run.py", "nested.py"), "candidates": list(choices)}
    write_json(RESULTS / "nested_qnn.json", head | {p: figures([r for r in rows if r["precision"] == p]) for p in pools})
    print(json.dumps({p: figures([r for r in rows if r["precision"] == p]) for p in pools}, indent=1))


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return errors of each way, how often each candidate was chosen, and how often a residual was."""
    found: dict[str, Any] = {}
    for way in ("watched", "nested", "residual"):
        by_device = {
            d: [100 * abs(np.exp(-r[way]) - 1) for r in rows if r["device"] == d] for d in sorted({str(r["device"]) for r in rows})
        }
        by_device = {d: e for d, e in by_device.items() if len(e) >= 5}
        found[way] = {
            "mean_of_mean_error_pct": float(np.mean([np.mean(e) for e in by_device.values()])),
            "worst_mean_error_pct": float(max(np.mean(e) for e in by_device.values())),
            "mean_of_median_error_pct_with_12_networks": float(np.mean([np.median(e) for e in by_device.values() if len(e) >= 12])),
            "sa8295p_mean_error_pct": float(np.mean(by_device["sa8295p"])),
            "sa8295p_median_error_pct": float(np.median(by_device["sa8295p"])),
            "sa8295p_within_10_pct": 100 * float(np.mean(np.array(by_device["sa8295p"]) <= 10)),
        }
    by_network = {r["network"]: r for r in rows}
    found["chosen"] = {c: sum(r["chosen"] == c for r in by_network.values()) for c in sorted({r["chosen"] for r in by_network.values()})}
    found["residual_used"] = sum(r["strength"] is not None for r in by_network.values())
    found["networks"] = len(by_network)
    return found


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
