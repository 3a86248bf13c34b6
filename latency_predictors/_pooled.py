"""Positive additive models of many devices, fitted together on the logarithm of latency.

A network n has features x_n ≥ 0 (launch, multiply-adds, elements, …); on device d it takes

    log t_dn = log Σ_k x_nk · exp(θ_k + s_d + g_d,group(k) + δ_dk) + b_n + ε_dn

with shared log prices θ, a scale s a device, a shift g for each group of prices a device, and deviations δ: all Gaussian around zero (θ
around a prior), so that a device with few timings stays close to the others. b_n is what the features miss about a network and is common
to all devices; without it fourteen timings of one odd network would count as fourteen independent witnesses. It is zero for a new network.
The mode is found by Gauss–Newton with Student-t weights against single broken timings; a step eliminates each device's own
prices first (by the covariance of its timings, which is smaller than the prices are many), for all members of an ensemble at once.

Source: mixed-effects regression (Laird & Ware 1982) in the log-sum form of posynomial models; leave-out residuals of a penalised
least-squares fit follow from its hat matrix, r₋ₙ = (I − Hₙₙ)⁻¹ rₙ (Cook & Weisberg 1982), here by blocks of one network on all devices and
at the last linearisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.devices.predictor import Floats

# Steps of Gauss-Newton: fixed numbers, so that a fit is the same everywhere. Set by hand.
_STEPS = 20
_DAMPED_FROM = 7
_ROBUST_FROM = 2
_NEAR_STEPS = 8
_STUDENT_NU = 4.0
"""Degrees of freedom of a Student t for residuals. Source: Lange, Little and Taylor (JASA 1989) use 4; kept while held-out errors were watched."""


@dataclass(frozen=True, eq=False)
class Priors:
    """What is believed before any timing; arrays have one row a member.

    Attributes:
        price_log: (members, columns) prior centre of the shared log prices.
        price_sd: (members, columns).
        group: (columns,) group of each price, 0 … groups − 1.
        group_sd: (members, groups) of a device's shift of a group.
        deviation_sd: (members, columns) of a device's deviation of one price.
        scale_sd: Of a device's scale.
        network_sd: (members,) of what the features miss about a network.
        noise_sd: (members,) of one timing.
        network_nu: (members,) degrees of freedom of what the features miss: Student's t; infinite is Gaussian.
        looseness: (devices,) factor on a device's own shifts and deviations; None: 1 for all.
    """

    price_log: Floats
    price_sd: Floats
    group: npt.NDArray[np.int64]
    group_sd: Floats
    deviation_sd: Floats
    network_sd: Floats
    noise_sd: Floats
    network_nu: Floats
    looseness: Floats | None = None
    scale_sd: float = 3.0


@dataclass(frozen=True, eq=False)
class Fit:
    """The mode.

    Attributes:
        shared: (members, columns) shared log prices.
        device: (members, devices, columns) log prices of each device.
        network: (members, networks) what the features miss.
        residual: (members, devices, networks) log measured − log predicted, without the network's own effect; NaN where not measured.
        left_out: The same from the fit without the rows of that network's group (linearised).
        own: (members, devices, columns + groups of prices + 1) deviations, shifts and scale of each device, of which `device` is made.
    """

    shared: Floats
    device: Floats
    network: Floats
    residual: Floats
    left_out: Floats
    own: Floats


def _left_out(
    reduced: Floats, through: Floats, own_part: Floats, weight: Floats, effect_variance: Floats, raw: Floats, groups: Sequence[str] | None
) -> Floats:
    """Return the residuals of each group of networks without its rows, (members, devices, networks).

    With the hat matrix H of a group's rows and the inverse covariance W of their noise, r₋ = (I − H W)⁻¹ r.

    Args:
        reduced: (members, devices, networks, shared) what a timing shares with the others.
        through: The same through the inverse of what the shared unknowns have against them.
        own_part: (members, devices, networks, networks) what a device's own prices explain.
        weight: (members, devices, networks).
        effect_variance: (members, networks).
        raw: (members, devices, networks) residuals, NaN where not measured.
        groups: Of the networks; None: each alone.
    """
    members, _, networks = raw.shape
    left_out = np.full_like(raw, np.nan)
    named = list(map(str, groups if groups is not None else range(networks)))
    for name in dict.fromkeys(named):
        block = np.array([i for i, other in enumerate(named) if other == name])
        measured = np.isfinite(raw[0][:, block])
        d, n = np.nonzero(measured)
        own = own_part[:, :, block[:, None], block[None]]
        w = weight[:, d, block[n]]
        for m in range(members):
            hat = reduced[m, d, block[n]] @ through[m, d, block[n]].T
            same = d[:, None] == d[None]
            hat += np.where(same, own[m][d[:, None], n[:, None], n[None]], 0.0)
            of_network = n[:, None] == n[None]
            total = np.bincount(n, w[m], len(block))
            share = effect_variance[m, block] / (1.0 + effect_variance[m, block] * total)
            noise = np.diag(w[m]) - np.where(of_network, share[n][:, None] * w[m][:, None] * w[m][None], 0.0)
            left_out[m, d, block[n]] = np.linalg.solve(np.eye(len(d)) - hat @ noise, raw[m, d, block[n]])
    return left_out


def fit_pooled(
    features: Floats,
    log_ms: Floats,
    trust: Floats,
    priors: Priors,
    groups: Sequence[str] | None = None,
    *,
    leave_out: bool = True,
    near: Fit | None = None,
) -> Fit:
    """Fit all members.

    Args:
        features: (members, networks, columns), non-negative; every row has a positive entry.
        log_ms: (devices, networks), NaN where not measured.
        trust: (devices, networks) relative weights.
        priors: See there.
        groups: Of the networks, which are left out together; default: each alone.
        leave_out: Whether to work out `Fit.left_out`.
        near: A fit of the same members, devices and networks to other timings, to start from; the mode is the same.
    """
    used = (features > 0).any(axis=1)  # (members, all columns); a column without work only echoes its prior and is put back at the end
    picked = np.argsort(~used, axis=1, kind="stable")[:, : used.sum(axis=1).max()]
    features = np.ascontiguousarray(np.take_along_axis(features, picked[:, None], axis=2))
    centre, price_sd, deviation_sd = (
        np.take_along_axis(a, picked, axis=1) for a in (priors.price_log, priors.price_sd, priors.deviation_sd)
    )
    members, networks, columns = features.shape
    devices = log_ms.shape[0]
    units = priors.group_sd.shape[1]
    member_of_group = np.eye(units)[priors.group[picked]]  # (members, columns, groups)
    measured = np.isfinite(log_ms)
    target = np.where(measured, log_ms, 0.0)
    base = np.where(measured, trust, 0.0)[None] / priors.noise_sd[:, None, None] ** 2  # (m, d, n)

    size_u = columns + units + 1  # a device's own: deviations, group shifts, scale
    variance_u = np.concatenate([deviation_sd**2, priors.group_sd**2, np.full((members, 1), priors.scale_sd**2)], axis=1)
    variance_u = np.repeat(variance_u[:, None], devices, axis=1)  # (members, devices, own)
    if priors.looseness is not None:
        variance_u[:, :, :-1] *= priors.looseness[None, :, None] ** 2
    precision_g = np.concatenate(
        [1.0 / price_sd**2, np.repeat(1.0 / priors.network_sd[:, None] ** 2, networks, axis=1)], axis=1
    )  # (m, columns + networks)

    theta = centre.copy()
    effect = np.zeros((members, networks))
    own = np.zeros((members, devices, size_u))
    start = np.nanmedian(
        target[None] - np.log(np.einsum("mnk,mk->mn", features, np.exp(theta)))[:, None, :] + np.where(measured, 0, np.nan), 2
    )
    own[:, :, -1] = np.nan_to_num(start)

    def log_prices() -> Floats:
        shift = np.einsum("mkg,mdg->mdk", member_of_group, own[:, :, columns : columns + units])
        return np.asarray(theta[:, None, :] + own[:, :, :columns] + shift + own[:, :, -1:])

    if near is not None:
        theta, effect = np.take_along_axis(near.shared, picked, axis=1), near.network.copy()
        every = near.shared.shape[1]
        own[:, :, :columns] = np.take_along_axis(near.own[:, :, :every], picked[:, None], axis=2)
        own[:, :, columns:] = near.own[:, :, every:]
    first = 0 if near is None else _ROBUST_FROM + 1
    effect_variance = np.repeat(priors.network_sd[:, None] ** 2, networks, axis=1)
    for step in range(first, _STEPS if near is None else first + _NEAR_STEPS):
        price = np.exp(np.clip(log_prices(), -40, 12))
        total = np.einsum("mnk,mdk->mdn", features, price)
        residual = target[None] - np.log(total) - effect[:, None, :]  # (m, d, n)
        weight = base * (_STUDENT_NU + 1) / (_STUDENT_NU + residual**2 * base) if step > _ROBUST_FROM else base
        share = features[:, None] * price[:, :, None, :] / total[..., None]  # (m, d, n, k), sums to one
        if step > _ROBUST_FROM:  # a network that the features cannot describe must not bend the prices of all others
            gaussian, heavy = priors.network_sd[:, None] ** 2, 1.0 / (1.0 + priors.network_nu[:, None])
            effect_variance = (1.0 - heavy) * gaussian + heavy * effect**2  # (ν·ω² + b²) / (ν + 1)
            precision_g[:, columns:] = 1.0 / effect_variance
        z = np.concatenate([share, share @ member_of_group[:, None], np.ones((*share.shape[:3], 1))], axis=3)
        zp = z * variance_u[:, :, None]
        spread = zp @ z.swapaxes(2, 3)  # (m, d, n, n) covariance of a device's networks by its own prices
        root = np.sqrt(weight)
        inverse = root[..., None] * np.linalg.inv(root[..., None] * spread * root[..., None, :] + np.eye(networks)) * root[..., None, :]
        seen_share = inverse @ share  # (m, d, n, k); `inverse` is (W⁻¹ + Z P⁻¹ Zᵀ)⁻¹, so a device's own prices are eliminated
        schur = np.zeros((members, columns + networks, columns + networks))
        schur[:, :columns, :columns] = (share.swapaxes(2, 3) @ seen_share).sum(axis=1)
        mixed = seen_share.sum(axis=1)  # (m, n, k)
        schur[:, columns:, :columns], schur[:, :columns, columns:] = mixed, mixed.swapaxes(1, 2)
        schur[:, columns:, columns:] = inverse.sum(axis=1)
        diagonal = np.arange(columns + networks)
        schur[:, diagonal, diagonal] += precision_g
        open_residual = residual + np.einsum("mdnu,mdu->mdn", z, own)  # what the device's own prices and the move of the rest explain
        pulled = np.einsum("mdij,mdj->mdi", inverse, open_residual)
        pull_g = np.concatenate([np.einsum("mdnk,mdn->mk", share, pulled), pulled.sum(axis=1)], axis=1)
        pull_g -= precision_g * np.concatenate([theta - centre, effect], axis=1)
        move_g = np.linalg.solve(schur, pull_g[..., None])[..., 0]
        rest = open_residual - np.einsum("mdnk,mk->mdn", share, move_g[:, :columns]) - move_g[:, None, columns:]
        move_u = np.einsum("mdnu,mdn->mdu", zp, np.einsum("mdij,mdj->mdi", inverse, rest)) - own
        damp = 1.0 / np.maximum(1.0, np.abs(np.concatenate([move_g, move_u.reshape(members, -1)], axis=1)).max(axis=1))
        if step > _DAMPED_FROM:  # Gauss–Newton may circle around the mode of a price that hardly matters
            damp *= 0.5
        theta += damp[:, None] * move_g[:, :columns]
        effect += damp[:, None] * move_g[:, columns:]
        own += damp[:, None, None] * move_u
        if np.abs(move_g).max() < 2e-3 and step > first + 4:
            break

    device = log_prices()
    total = np.einsum("mnk,mdk->mdn", features, np.exp(np.clip(device, -40, 12)))
    raw = np.where(measured[None], target[None] - np.log(total), np.nan)
    left_out = np.full_like(raw, np.nan)
    if leave_out:
        explained = spread @ inverse  # by a device's own prices
        reduced = np.concatenate([share - explained @ share, -explained], axis=3)  # without the network's own effect
        through = np.linalg.solve(schur[:, None], reduced.swapaxes(2, 3)).swapaxes(2, 3)
        own_part = spread - explained @ spread
        left_out = _left_out(reduced, through, own_part, weight, effect_variance, raw, groups)
    shared = priors.price_log.copy()
    np.put_along_axis(shared, picked, theta, axis=1)
    shift = own[:, :, columns : columns + units][:, :, priors.group]
    every_device = priors.price_log[:, None] + shift + own[:, :, -1:]
    np.put_along_axis(every_device, np.broadcast_to(picked[:, None], device.shape), device, axis=2)
    own_by_column = np.zeros((members, devices, priors.price_log.shape[1]))
    np.put_along_axis(own_by_column, np.broadcast_to(picked[:, None], device.shape), own[:, :, :columns], axis=2)
    return Fit(shared, every_device, effect, raw, left_out, np.concatenate([own_by_column, own[:, :, columns:]], axis=2))
