"""Stochastic Runge-Kutta steps, unrolled."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from diffrax import RESULTS

from ... import tree
from ...shapes import Args, State, Time
from .unrolled_erk import PARTS


def unrolled_srk_step_of(scheme: Any, terms: Any, args: Args) -> Callable:
    r"""The step of `diffrax.AbstractSRK` as straight code, in which a stage is evaluated once.

    $z_i = y_0 + \sum_{j<i} a_{ij} h f(z_j) + \sum_{j<i} g(z_j) (a^W_{ij} W + a^H_{ij} H +
    a^K_{ij} K)$; for additive noise, where $g$ depends on time alone, with $g(t_0)$ for all $g_j$.
    """
    coefficients = (scheme.coeffs_w, scheme.coeffs_hh, scheme.coeffs_kk)
    known = [c for c in coefficients if c is not None]
    make = _additive_step if scheme.is_additive_noise() else _general_step
    drift, diffusion = terms.terms
    run = make(scheme, known, drift, diffusion, args)

    def step(t0: Time, t1: Time, y0: State, state: Any, made_jump: Any) -> tuple:
        levy = diffusion.contr(t0, t1, use_levy=True)
        areas = [levy.W, *(getattr(levy, name) for name in ("H", "K")[: len(known) - 1])]
        f, change, by_noise = run(t0, t1, y0, areas)
        y1 = tree.add(tree.add(y0, _sum(scheme.b_sol, f, y0)), change)
        info: dict[str, Any] = dict(y0=y0, y1=y1)
        error = None
        if scheme.b_error is not None:
            by_drift = _sum(scheme.b_error, f, y0)
            error, info[PARTS] = tree.add(by_drift, by_noise), (by_drift, by_noise)
        return y1, error, info, state, RESULTS.successful

    return step


def _general_step(scheme: Any, known: list[Any], drift: Any, diffusion: Any, args: Args) -> Any:
    def run(t0: Time, t1: Time, y0: State, areas: list[Any]) -> tuple:
        h, f, g = t1 - t0, [], []
        for i, (a, node) in enumerate(zip(_rows(scheme.a), _nodes(scheme), strict=True)):
            t, z = t0 + node * h, y0
            if i > 0:
                made = _over_areas([_rows(c.a)[i] for c in known], g, y0)
                z = tree.add(tree.add(y0, _sum(a, f, y0)), made)
            no_f, no_g = _skips(scheme.ignore_stage_f, i), _skips(scheme.ignore_stage_g, i)
            f.append(None if no_f else drift.vf_prod(t, z, args, h))
            rate = None if no_g else diffusion.vf(t, z, args)
            # Of each stage, what it makes of W, H and K.
            g.append([None if no_g else diffusion.prod(rate, area) for area in areas])
        change, error = _over_areas([c.b_sol for c in known], g, y0), tree.zeros_like(y0)
        if scheme.coeffs_w.b_error is not None:
            error = _over_areas([c.b_error for c in known], g, y0)
        return f, change, error

    return run


def _additive_step(scheme: Any, known: list[Any], drift: Any, diffusion: Any, args: Args) -> Any:
    def run(t0: Time, t1: Time, y0: State, areas: list[Any]) -> tuple:
        h, f = t1 - t0, []
        early, late = diffusion.vf(t0, y0, args), diffusion.vf(t1, y0, args)
        kicks = [diffusion.prod(early, area) for area in areas]
        for i, (a, node) in enumerate(zip(_rows(scheme.a), _nodes(scheme), strict=True)):
            z = tree.add(y0, _sum([c.a[i] for c in known], kicks, y0))
            z = tree.add(z, _sum(a, f, y0)) if i > 0 else z
            skipped = _skips(scheme.ignore_stage_f, i)
            f.append(None if skipped else drift.vf_prod(t0 + node * h, z, args, h))
        # Where the noise depends on time: (g(t1) - g(t0)) (W / 2 - H).
        bent = jax.tree.map(lambda *x: _sum([0.5, -1.0], x[:2], x[0]), *areas[:2])
        if len(areas) == 1:
            bent = jax.tree.map(lambda w: 0.5 * w, areas[0])
        moved = tree.subtract(diffusion.prod(late, bent), diffusion.prod(early, bent))
        change = tree.add(_sum([c.b_sol for c in known], kicks, y0), moved)
        return f, change, tree.zeros_like(y0)

    return run


def _rows(a: Any) -> list[Sequence[float]]:
    return [(), *[tuple(map(float, row)) for row in a]]


def _nodes(scheme: Any) -> list[float]:
    return [0.0, *map(float, scheme.c)]


def _skips(ignored: Any, stage: int) -> bool:
    return ignored is not None and bool(ignored[stage])


def _over_areas(weights: Sequence[Any], g: list[list[Any]], like: State) -> State:
    total = tree.zeros_like(like)
    for of_area, made in zip(weights, zip(*g, strict=True), strict=True):
        total = tree.add(total, _sum(of_area, made, like))
    return total


def _sum(weights: Any, terms: Sequence[Any], like: State) -> State:
    """The weighted sum of those terms that are there."""
    pairs = [(float(w), x) for w, x in zip(weights, terms, strict=True) if x is not None and w != 0]
    if not pairs:
        return tree.zeros_like(like)
    return tree.weighted_sum([w for w, _ in pairs], [x for _, x in pairs])
