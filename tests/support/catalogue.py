"""The calls that diffrax and ndekit must answer alike: each is a function of `solve`."""

import diffrax
import jax.numpy as jnp
import optimistix as optx
from diffrax import Event, SaveAt, SubSaveAt
from support.catalogue_parts import (
    Extrapolated,
    Growing,
    Kutta3,
    at_half,
    chord,
    clip,
    energy,
    far_away,
    halves,
    jumping,
    langevin,
    largest,
    matrix_noise,
    multiplicative,
    newton,
    noisy,
    pid,
    places,
    slow_and_fast,
    speed_below,
    stationary,
    two_parts,
    two_terms,
)
from support.catalogue_values import TERMS, VALUES, each

# Everything is made inside a function, so that each test's precision decides. The first step is
# given, also of adaptive solves: an automatic one is so short that its error estimate is mostly
# rounding.


def adaptive(solve, name, terms=None, saveat=None, **options):
    saveat = SaveAt(t0=True, ts=places()) if saveat is None else saveat
    solver = getattr(diffrax, name)(**options)
    return solve(terms, solver, dt0=0.3, stepsize_controller=pid(), saveat=saveat)


SOLVERS = {
    **each("Heun Midpoint Ralston Bosh3 Tsit5 Dopri5 Dopri8", adaptive),
    **each("ImplicitEuler Kvaerno3 Kvaerno4 Kvaerno5",
           lambda solve, name: adaptive(solve, name, root_finder=chord())),
    **each("KenCarp3 KenCarp4 KenCarp5 Sil3",
           lambda solve, name: adaptive(solve, name, slow_and_fast(), root_finder=chord())),
    **each("Euler LeapfrogMidpoint ReversibleHeun Midpoint-fixed",
           lambda solve, name: solve(
               solver=getattr(diffrax, name.removesuffix("-fixed"))(),
               saveat=SaveAt(t0=True, t1=True, ts=places()),
           )),
    "ReversibleHeun-adaptive": lambda solve: adaptive(solve, "ReversibleHeun"),
    "SemiImplicitEuler": lambda solve: solve(
        two_terms(), diffrax.SemiImplicitEuler(), y0=halves(), saveat=SaveAt(ts=places())
    ),
    "ImplicitEuler-fixed": lambda solve: solve(solver=diffrax.ImplicitEuler(newton())),
    "HalfSolver-Euler": lambda solve: adaptive(solve, "HalfSolver", solver=diffrax.Euler()),
    "HalfSolver-Heun": lambda solve: adaptive(solve, "HalfSolver", solver=diffrax.Heun()),
    "HalfSolver-SemiImplicitEuler": lambda solve: solve(
        two_terms(), diffrax.HalfSolver(diffrax.SemiImplicitEuler()), y0=halves(),
        stepsize_controller=pid(),
    ),
    "own": lambda solve: solve(solver=Extrapolated(), stepsize_controller=pid()),
    "own-fixed": lambda solve: solve(
        solver=Extrapolated(), saveat=SaveAt(ts=places(), solver_state=True)
    ),
    "own-tableau": lambda solve: solve(solver=Kutta3(), stepsize_controller=pid()),
}  # fmt: skip


def sde(solve, name, diffusion=None, **options):
    options = {"saveat": SaveAt(ts=places()), "dt0": 0.125} | options
    return solve(noisy(diffusion), getattr(diffrax, name)(), **options)


SDES = {
    **each("SRA1 ShARK SEA", sde),
    **each("EulerHeun Heun Euler ItoMilstein StratonovichMilstein GeneralShARK SlowRK",
           lambda solve, name: sde(solve, name, multiplicative)),
    "Tsit5-unmarked": lambda solve: sde(solve, "Tsit5"),
    "SPaRK-adaptive": lambda solve: sde(
        solve, "SPaRK", multiplicative, stepsize_controller=pid(rtol=1e-2, atol=1e-2)
    ),
    "ShARK-revisits": lambda solve: sde(
        solve, "ShARK", dt0=0.5,
        stepsize_controller=clip(pid(rtol=1e-3, atol=1e-3), store_rejected_steps=10),
    ),
    "matrix-noise": lambda solve: solve(matrix_noise(), diffrax.EulerHeun(), dt0=0.125),
    "ALIGN": lambda solve: solve(langevin(), diffrax.ALIGN(0.1), dt0=0.125, y0=halves()),
}  # fmt: skip


def steps(solve, controller, dt0=0.3, **options):
    saveat = SaveAt(steps=True, controller_state=True)
    return solve(dt0=dt0, stepsize_controller=controller, saveat=saveat, **options)


CONTROLLERS = {
    "i": lambda solve: steps(solve, pid()),
    "pi": lambda solve: steps(solve, pid(pcoeff=0.3, icoeff=0.4)),
    "pid": lambda solve: steps(solve, pid(pcoeff=0.2, icoeff=0.3, dcoeff=0.1)),
    "dtmax": lambda solve: steps(solve, pid(dtmax=0.06)),
    "dtmin": lambda solve: steps(solve, pid(dtmin=0.2, rtol=1e-9), throw=False),
    "dtmin-fails": lambda solve: steps(
        solve, pid(dtmin=0.1, rtol=1e-9, atol=1e-9, force_dtmin=False), throw=False
    ),
    "factors": lambda solve: steps(solve, pid(factormin=0.5, factormax=1.5, safety=0.8)),
    "norm": lambda solve: steps(solve, pid(norm=largest)),
    "error-order": lambda solve: steps(solve, pid(error_order=3)),
    "automatic-first-step": lambda solve: solve(dt0=None, stepsize_controller=pid()),
    "constant": lambda solve: steps(solve, diffrax.ConstantStepSize()),
    "step-to": lambda solve: steps(solve, diffrax.StepTo(jnp.array([0.0, 0.2, 0.5, 1.0])), None),
    "step-to-backward": lambda solve: steps(
        solve, diffrax.StepTo(jnp.array([1.0, 0.7, 0.4, 0.0])), None, t0=1.0, t1=0.0
    ),
    "clip-step": lambda solve: steps(solve, clip(pid(), step_ts=[0.31, 0.77])),
    "clip-jump": lambda solve: jumping(solve, clip(pid(), jump_ts=[0.31, 0.5])),
    "clip-backward": lambda solve: jumping(
        solve, clip(pid(), step_ts=[0.2], jump_ts=[0.5]), t0=1.0, t1=0.0, dt0=-0.3
    ),
    "clip-revisits": lambda solve: steps(solve, clip(pid(), store_rejected_steps=8)),
    "own": lambda solve: steps(solve, Growing()),
}


def saving(**what):
    return lambda solve: solve(dt0=0.3, stepsize_controller=pid(), saveat=SaveAt(**what))


def nested(solve, **options):
    subs = {
        "end": SubSaveAt(t1=True),
        "many": [SubSaveAt(ts=places(), fn=energy), (SubSaveAt(steps=2, t0=True, t1=True),)],
    }
    return solve(saveat=SaveAt(subs=subs), **options)


ALL_STATES = dict(solver_state=True, controller_state=True, made_jump=True)
SAVES = {
    "t0": saving(t0=True),
    "t1": saving(t1=True),
    "t0-t1-ts": lambda solve: saving(t0=True, t1=True, ts=places())(solve),
    "fn": lambda solve: saving(t0=True, t1=True, ts=places(), fn=energy)(solve),
    "steps": saving(steps=True),
    "steps-t0-t1": saving(steps=True, t0=True, t1=True, fn=energy),
    "every-third-step": saving(steps=3),
    "every-third-step-t1": saving(steps=3, t1=True),
    "ts-steps": lambda solve: saving(ts=places(), steps=True)(solve),
    "subs": lambda solve: nested(solve, stepsize_controller=pid()),
    "subs-backward": lambda solve: solve(
        t0=1.0, t1=0.0, dt0=-0.1,
        saveat=SaveAt(subs=(SubSaveAt(ts=places(1.0, 0.0), fn=energy), SubSaveAt(steps=4))),
    ),
    "dense": saving(dense=True),
    "dense-ts": lambda solve: saving(dense=True, ts=places(), t1=True)(solve),
    "states": saving(t1=True, **ALL_STATES),
    "states-only": saving(**ALL_STATES),
    **each("dense-Euler dense-Bosh3 dense-Dopri8", lambda solve, name: solve(
        solver=getattr(diffrax, name.removeprefix("dense-"))(), saveat=SaveAt(dense=True)
    )),
    "dense-Kvaerno3": lambda solve: adaptive(
        solve, "Kvaerno3", saveat=SaveAt(dense=True), root_finder=chord()
    ),
    "dense-backward": lambda solve: solve(t0=1.0, t1=0.2, dt0=-0.1, saveat=SaveAt(dense=True)),
    "continued": lambda solve: two_parts(solve, stepsize_controller=pid()),
    "continued-fixed": lambda solve: two_parts(solve, solver=diffrax.Dopri5()),
    "continued-clip": lambda solve: two_parts(
        solve, stepsize_controller=clip(pid(pcoeff=0.3, icoeff=0.4), jump_ts=[0.31, 0.5])
    ),
    "continued-own": lambda solve: two_parts(
        solve, solver=Extrapolated(), stepsize_controller=Growing()
    ),
}  # fmt: skip


def until(solve, cond_fn, root_finder=None, direction=None, **options):
    options = {"dt0": 0.3, "stepsize_controller": pid()} | options
    return solve(event=Event(cond_fn, root_finder, direction), t1=4.0, **options)


SEVERAL = {"half": at_half, "slow": (speed_below, far_away)}
EVENTS = {
    "end-of-step": lambda solve: until(solve, at_half),
    "newton": lambda solve: until(solve, at_half, newton()),
    "bisection": lambda solve: until(solve, at_half, optx.Bisection(1e-9, 1e-9, flip="detect")),
    "fixed-steps": lambda solve: until(
        solve, at_half, newton(), dt0=0.1, stepsize_controller=diffrax.ConstantStepSize()
    ),
    "upwards": lambda solve: until(solve, at_half, newton(), True),
    "downwards": lambda solve: until(solve, at_half, newton(), False),
    "several": lambda solve: until(solve, SEVERAL),
    "several-newton": lambda solve: until(solve, SEVERAL, newton()),
    "several-directions": lambda solve: until(
        solve, SEVERAL, newton(), {"half": True, "slow": (None, False)}
    ),
    "boolean": lambda solve: until(solve, speed_below),
    "steady-state": lambda solve: stationary(
        solve, event=Event(diffrax.steady_state_event(rtol=1e-3))
    ),
    "ts": lambda solve: until(solve, at_half, newton(), saveat=SaveAt(ts=places(0.0, 4.0))),
    "steps": lambda solve: until(solve, at_half, newton(), saveat=SaveAt(steps=True)),
    "subs": lambda solve: nested(
        lambda **options: until(solve, at_half, newton(), **options), max_steps=20
    ),
    "dense": lambda solve: until(solve, at_half, newton(), saveat=SaveAt(dense=True)),
    "never": lambda solve: until(solve, far_away, newton(), saveat=SaveAt(t1=True, t0=True)),
    "at-the-start": lambda solve: until(solve, lambda t, y, args, **kwargs: y[0] > 0.6),
    "backward": lambda solve: solve(
        t0=1.0, t1=-1.0, dt0=-0.1, event=Event(at_half, newton()), saveat=SaveAt(steps=True)
    ),
    "implicit": lambda solve: until(
        solve, at_half, newton(), solver=diffrax.Kvaerno3(root_finder=chord())
    ),
}

GROUPS = {
    "solver": SOLVERS,
    "sde": SDES,
    "controller": CONTROLLERS,
    "saveat": SAVES,
    "event": EVENTS,
    "terms": TERMS,
    "values": VALUES,
}
CASES = {f"{group}/{name}": case for group, cases in GROUPS.items() for name, case in cases.items()}


def names_in(**groups):
    return [f"{group}/{name}" for group, names in groups.items() for name in names.split()]


# What a neighbour in the list nearly covers.
SLOW = names_in(
    solver="""
        Midpoint Ralston Dopri5 Midpoint-fixed ReversibleHeun-adaptive HalfSolver-Heun own-fixed
        Kvaerno3 Kvaerno4 KenCarp3 KenCarp4 KenCarp5
    """,
    sde="""
        Heun Euler StratonovichMilstein ShARK SEA GeneralShARK SlowRK Tsit5-unmarked
        matrix-noise ALIGN SPaRK-adaptive ShARK-revisits
    """,
    controller="pi dtmax factors norm error-order step-to-backward clip-step clip-backward",
    saveat="""
        t0 fn every-third-step steps-t0-t1 subs-backward dense-ts dense-Euler dense-Dopri8
        dense-Kvaerno3 states-only continued-fixed continued-own
    """,
    event="bisection fixed-steps downwards several several-newton dense at-the-start implicit",
    terms="cubic control-adaptive multi-backward",
    values="""
        matrix args-array-of-numpy mixed-precision nowhere-adaptive field-of-integers
        complex-dense complex-adaptive nowhere-steps nowhere-dense integer-first-step
        long-first-step default-bound
    """,
)

# Compared in their gradients too.
FAST_GRADIENTS = names_in(
    solver="Tsit5 ImplicitEuler own",
    sde="SRA1",
    controller="clip-jump",
    saveat="t0-t1-ts dense",
    event="newton",
    terms="linear control-to-ode",
    values="backward",
)
SLOW_GRADIENTS = names_in(
    solver="Euler Dopri8 ReversibleHeun SemiImplicitEuler HalfSolver-Euler",
    sde="StratonovichMilstein",
    controller="step-to own",
    saveat="steps every-third-step-t1 subs",
    event="ts several",
    terms="multi own",
)
GRADIENTS = FAST_GRADIENTS + SLOW_GRADIENTS
