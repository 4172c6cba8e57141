"""Velocities that a network has learnt: solved along chosen paths, and learnt along them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from ...fields import MLP, Preconditioned
from ...integrate import EveryStep
from ...losses import denoising, iso, stratified_times
from ...models import Flow, GaussianMixture
from ...paths import VE, AbstractGaussianPath, CondOT, LearnedPath
from ...regularize import StepError
from ...samplers import ProbabilityFlow
from ...train import PathSolve, fit
from .measured import TableRow
from .path_cases import (
    FACTORS,
    PINNED,
    SOLVERS,
    Case,
    Sizes,
    case_of,
    fine_ends,
    known_paths,
    ours,
    solved,
    solver_along,
    told_of,
)
from .transport import wasserstein2

KNOWN = ("Cond-OT", "trigonometric", "kinetic-optimal")
ISO, ISO_STEP = 0.1, 0.02  # weight and step of Iso-FM's penalty
ERROR, PENALISED = 0.6, 32  # weight of the mean error estimate, and samples that are solved for it

Penalty = Callable[[Any, Any, Any], Any]  # of velocity field, data and key


class Learnt(eqx.Module):
    """A law as a network has learnt it: one network, by the level of noise, for all paths."""

    net: MLP

    def predictor(self, path: AbstractGaussianPath) -> Preconditioned:
        return Preconditioned(self.net, path)

    def velocity(self, path: AbstractGaussianPath) -> ProbabilityFlow:
        return ProbabilityFlow(self.predictor(path), path, "data", "t")

    def log_prob(self, x: Any) -> Any:
        """Of points with the least noise, which does not depend on a path."""
        path = VE(*PINNED)
        flow = Flow(
            self.predictor(path), path, x.shape[-1], predicts="data", variable="angle",
            controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        )  # fmt: skip
        return flow.log_prob(x)


def ends_of(path: AbstractGaussianPath) -> tuple[Any, Any]:
    """The times of the most and the least noise."""
    if isinstance(path, LearnedPath):
        return 0.0, 1.0
    return path.t_of_sigma(PINNED[1]), path.t_of_sigma(PINNED[0])


def learn(
    path: AbstractGaussianPath,
    sample: Callable[[Any, int], tuple[Any, Any]],
    sizes: Sizes,
    key: Any,
    penalty: Penalty | None = None,
) -> Learnt:
    """Denoising at times of a path that are as likely as each other; `sample(key, number)` draws
    noises and data.

    In EDM's weights: by the velocities of a path an error counts most where the path is fast, and
    a path that hurries from noise alone to where the data begin to be seen teaches nothing else.
    """
    net_key, data_key, key = jr.split(key, 3)
    start = Learnt(MLP(2, 64, 3, time="concat", final="linear", key=net_key))
    t0, t1 = ends_of(path)

    def loss_fn(law: Learnt, batch: Any, step: Any, *, key: Any) -> tuple[Any, Mapping]:
        (x0, x1), data = batch, law.predictor(path)
        time_key, penalty_key = jr.split(key)
        ts = stratified_times(time_key, len(x1), t0, t1)
        # All that is drawn is given, so that the key says nothing.
        by = partial(denoising, data, path, key=key, predicts="data", weight=data.weight)
        loss = jnp.mean(jax.vmap(lambda x0, x1, t: by(x1, x0=x0, t=t))(x0, x1, ts))
        if penalty is not None:
            loss = loss + penalty(law.velocity(path), batch, penalty_key)
        return loss, {}

    drawn = eqx.filter_jit(lambda key: sample(key, sizes.learning_batch))
    draw = lambda step: drawn(jr.fold_in(data_key, step))
    schedule = optax.cosine_decay_schedule(3e-3, sizes.learning)
    return fit(
        start, loss_fn, draw, optimizer=optax.adam(schedule), num_updates=sizes.learning, key=key,
        progress=False, updates_per_call=min(50, sizes.learning),
    ).model  # fmt: skip


# Penalties along Cond-OT.


def straighter(velocity: Any, batch: Any, key: Any) -> Any:
    """Iso-FM's acceleration at points of the path."""
    (x0, x1), path = batch, CondOT()
    t0, t1 = ends_of(path)
    ts = stratified_times(key, len(x1), t0, t1 - ISO_STEP)
    one = lambda t, x0, x1: iso(velocity, t, path.sample(t, x0, x1), ISO_STEP)
    return ISO * jnp.mean(jax.vmap(one)(ts, x0, x1))


def cheaper(by: str, velocity: Any, batch: Any, key: Any) -> Any:
    """The sampler's own mean error estimate (ERNODE), of solves that are those of the table."""
    (solver, tolerance), (x0, x1) = SOLVERS[by], batch
    solve = PathSolve(CondOT(), velocity, solver, tolerance, PINNED, max_steps=256)
    starts = (x1 + PINNED[1] * x0)[:PENALISED]
    along = lambda x: solve(solve.path0, x, costs={"error": EveryStep(StepError(), "mean")})
    return ERROR * jnp.mean(jax.vmap(along)(starts).costs["error"])


def straightened(law: Learnt, dtype: Any) -> Callable[[Any, int], tuple[Any, Any]]:
    """Reflow: noises, and where the learnt field carries them."""
    path, size = CondOT(), (1 + PINNED[1] ** 2) ** 0.5
    solve = PathSolve(path, law.velocity(path), diffrax.Tsit5(), 1e-4, PINNED)

    def sample(key: Any, number: int) -> tuple[Any, Any]:
        x0 = jr.normal(key, (number, 2), dtype)
        return x0, jax.lax.stop_gradient(solved(solve, path, size * x0)["ends"])

    return sample


# Rows.


def rows_of(
    law: GaussianMixture, seed: int, sizes: Sizes, by: str, /, **about: Any
) -> Iterator[TableRow]:
    """Every way to learn and to solve, of one law."""
    case, key = case_of(law, seed, sizes.samples), jr.fold_in(jr.key(seed), 1)
    targets = [law.sample((sizes.samples,), key=k) for k in jr.split(jr.fold_in(key, 1))]
    everything = known_paths(law, key, PINNED)
    known = {name: everything[name] for name in KNOWN}
    sample = lambda key, number: _drawn(law, key, number)
    learnt = lambda path, penalty=None, sample=sample: learn(path, sample, sizes, key, penalty)
    solver, tolerance = SOLVERS[by]
    chosen = lambda seen: ours(seen, seed, sizes, solver, tolerance=tolerance)
    about |= dict(solver=by, w2_floor=wasserstein2(*map(np.asarray, targets)))
    judged = partial(_judged, target=targets[0], by=by, about=about)

    exact = law.along(VE(*PINNED), 1.0)
    yield from judged(case, {name: known[name] for name in KNOWN[::2]}, "exact", density=exact)
    base = learnt(known["Cond-OT"])
    seen = _seen_by(base, case)
    after = chosen(seen)
    yield from judged(seen, known | {"ours": after}, "on Cond-OT")
    for name in KNOWN[1:]:
        found = _seen_by(learnt(known[name]), case)
        yield from judged(found, {name: known[name]}, f"on {name}")
    found = _seen_by(learnt(after), case)
    yield from judged(found, {"ours": after, "ours, anew": chosen(found)}, "on ours")
    others = {
        "on Cond-OT, iso": learnt(known["Cond-OT"], straighter),
        "on Cond-OT, error": learnt(known["Cond-OT"], partial(cheaper, by)),
        "reflow": learnt(known["Cond-OT"], sample=straightened(base, case.starts.dtype)),
    }
    for name, found in others.items():
        yield from judged(_seen_by(found, case), {"Cond-OT": known["Cond-OT"]}, name)


def _drawn(law: GaussianMixture, key: Any, number: int) -> tuple[Any, Any]:
    noise_key, data_key = jr.split(key)
    x1 = law.sample((number,), key=data_key)
    return jr.normal(noise_key, x1.shape, x1.dtype), x1


def _seen_by(law: Any, case: Case) -> Case:
    """The same starts, with the ends of a law's own fine solves."""
    return case._replace(law=law, ends=fine_ends(law, case.starts))


def _judged(
    seen: Case,
    paths: Mapping[str, Any],
    trained: str,
    *,
    density: Any = None,
    target: Any,
    by: str,
    about: dict[str, Any],
) -> Iterator[TableRow]:
    """Steps, and how near samples come to the target, on each path at several tolerances."""
    (solver, tolerance), noise = SOLVERS[by], jr.normal(jr.key(7), target.shape, target.dtype)
    log_prob = eqx.filter_jit(lambda law, x: law.log_prob(x))
    density = seen.law if density is None else density
    nll = float(-jnp.mean(log_prob(density, target + PINNED[0] * noise)))
    for name, path in paths.items():
        for factor in FACTORS:
            looser = jnp.asarray(factor * tolerance)
            found = solved(solver_along(path, seen.law, solver, looser, PINNED), path, seen.starts)
            w2 = wasserstein2(np.asarray(found["ends"]), np.asarray(target))
            told = dict(trained=trained, path=name, tolerance=factor * tolerance)
            yield about | told | told_of(found, seen) | dict(w2=w2, nll=nll)
