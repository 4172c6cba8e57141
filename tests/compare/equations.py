"""Solvers, and equations that they can solve: terms, states, arguments, noise."""

import random

from .draft import Draft
from .times import array, between

FAMILIES = {
    "explicit": "Euler Heun Midpoint Ralston Bosh3 Tsit5 Dopri5 Dopri8 LeapfrogMidpoint "
    "ReversibleHeun Extrapolated Kutta3",
    "symplectic": "SemiImplicitEuler",
    "implicit": "ImplicitEuler Kvaerno3 Kvaerno4 Kvaerno5",
    "imex": "KenCarp3 KenCarp4 KenCarp5 Sil3",
    "sde": "EulerHeun ItoMilstein StratonovichMilstein SPaRK GeneralShARK SlowRK ShARK SRA1 SEA "
    "Heun Euler Midpoint ReversibleHeun",
    "langevin": "ALIGN ShOULD QUICSORT",
}
# Drawn again: most solves in the world are by these.
OFTEN = [("explicit", name) for name in "Tsit5 Tsit5 Tsit5 Dopri5 Dopri8 Euler Heun".split()]
SOLVERS = [(family, name) for family, names in FAMILIES.items() for name in names.split()] + OFTEN
OWN = ("Extrapolated", "Kutta3")
NO_ESTIMATE = """
    Euler LeapfrogMidpoint SemiImplicitEuler EulerHeun ItoMilstein StratonovichMilstein GeneralShARK
    SlowRK ShOULD QUICSORT SRA1 ShARK SEA
""".split()
ORDERS = {"Bosh3": 3, "Tsit5": 5, "Dopri5": 5, "Dopri8": 8, "Kutta3": 3, "Kvaerno3": 3,
          "Kvaerno4": 4, "Kvaerno5": 5, "KenCarp3": 3, "KenCarp4": 4, "KenCarp5": 5}  # fmt: skip


def draw_solver(draft: Draft, seed: int) -> None:
    """All solvers in turn, in an order that the seed decides."""
    order = random.Random(seed).sample(SOLVERS, len(SOLVERS))
    family, name = order[draft.number % len(order)]
    draft.settle(family=family, solver=name, order=ORDERS.get(name, 1))
    draft.settle(louder=draft.chance(0.08) and name not in OWN and family != "langevin")
    # Diffrax asks `HalfSolver` for what only the solver inside has: a root finder,
    # or `scan_kind` in forward mode.
    fails = family in ("implicit", "imex") or draft.facts["transform"] == "jvp"
    draft.settle(halved=draft.chance(0.02 if fails else 0.17))
    draft.settle(estimates=name not in NO_ESTIMATE or draft.facts["halved"])
    dtype = draft.facts["dtype"]
    if family in ("sde", "langevin") and (draft.facts["time_dtype"] != dtype):
        draft.settle(dtype="float64" if draft.facts["x64"] else "float32")
        draft.settle(time_dtype=draft.facts["dtype"], rough=not draft.facts["x64"])


def solver_text(draft: Draft) -> str:
    name, family = draft.facts["solver"], draft.facts["family"]
    kind = name if name in OWN else f"diffrax.{name}"
    if draft.facts["louder"]:
        kind = f"louder({kind})"
    arguments = "0.1" if family == "langevin" else root_finder(draft)
    made = f"{kind}({arguments})"
    return f"diffrax.HalfSolver({made})" if draft.facts["halved"] else made


def root_finder(draft: Draft) -> str:
    if draft.facts["family"] not in ("implicit", "imex"):
        return ""
    tolerance = "1e-5, 1e-5" if draft.facts["rough"] else "1e-9, 1e-9"
    given = {f"optx.Newton({tolerance})": 3, f"optx.Chord({tolerance})": 3}
    # Of a solver inside another one, diffrax does not replace the tolerances.
    if draft.facts["adaptive"] and not draft.facts["halved"]:
        given |= {
            "diffrax.with_stepsize_controller_tols(optx.Chord)()": 9,
            "diffrax.with_stepsize_controller_tols(optx.Newton)()": 5,
            "diffrax.with_stepsize_controller_tols(diffrax.VeryChord)()": 1,
            "": 2,
        }
    chosen = draft.pick(given)
    draft.settle(root_finder=chosen or "default")
    return f"root_finder={chosen}" if chosen else ""


def draw_equation(draft: Draft) -> None:
    dtype = draft.facts["dtype"]
    draft.inputs["push"] = array(draft.pick({0.3: 2, 0.4: 1}), real(dtype))
    draft.inputs["args"] = array(draft.pick({1.3: 2, 0.6: 1}), real(dtype))
    draft.call |= {"args": 'x["args"]', "y0": 'x["y0"]'}
    family = draft.facts["family"]
    {"explicit": _ordinary, "implicit": _ordinary, "imex": _split, "symplectic": _two,
     "sde": _stochastic, "langevin": _langevin}[family](draft)  # fmt: skip
    draft.settle(draws="key" in draft.inputs)


def real(dtype: str) -> str:
    return {"complex128": "float64", "complex64": "float32"}.get(dtype, dtype)


STATES = {
    "scalar": "jnp.array(0.7, jnp.{0})",
    "vector": "jnp.array([0.7, -0.2], jnp.{0})",
    "three": "jnp.array([0.7, -0.2, 0.4], jnp.{0})",
    "matrix": "jnp.array([[0.7, -0.2, 0.1], [0.1, 0.5, 0.3]], jnp.{0})",
    "tree": '{{"a": jnp.array([0.7, -0.2], jnp.{0}), "b": (jnp.array(0.4, jnp.{0}),)}}',
    "mixed": '{{"a": jnp.array([0.7, -0.2], jnp.float32), "b": jnp.array([0.4], jnp.{0})}}',
    "numbers": '{{"a": 0.7, "b": 2}}',
    "positive": "jnp.array([0.7, 0.4], jnp.{0})",
    "nothing": "jnp.zeros((2, 0), jnp.{0})",
    "no leaf": "()",
}


def _ordinary(draft: Draft) -> None:
    dtype = draft.facts["dtype"]
    if dtype.startswith("complex"):
        draft.settle(state="vector", field="spin", terms="ode")
        draft.inputs["y0"] = array("[1.0 + 0.5j, -0.3j]", dtype)
        draft.call["terms"] = 'diffrax.ODETerm(spin(x["push"]))'
        return
    states = {"scalar": 6, "vector": 16, "three": 6, "matrix": 3, "tree": 8, "mixed": 2,
              "numbers": 1, "nothing": 1, "no leaf": 1, "positive": 2}  # fmt: skip
    if draft.facts["louder"]:
        states = {"scalar": 1, "vector": 3, "tree": 1}
    state = draft.pick(states)
    fields = {'wave(x["push"])': 8, 'still(x["push"])': 1, 'clocked(x["push"])': 1}
    if state in ("vector", "three"):
        fields |= {'ring(x["push"])': 3, 'layer(x["push"])': 2}
    if state == "vector":
        fields |= {'swing(x["push"])': 5}
    field = 'narrow(x["push"])' if state == "positive" else draft.pick(fields)
    draft.settle(state=state, field=field.split("(")[0])
    draft.inputs["y0"] = STATES[state].format(dtype)
    field = _arguments(draft, field)
    if draft.facts["direction"] != "nowhere" and draft.chance(0.12):
        field = f'fenced({field}, jnp.asarray(x["t0"]), jnp.asarray(x["t1"]))'
    kinds = {"ode": 12, "own": 1}
    if field.startswith("swing") and not draft.facts["louder"]:
        kinds |= {"control": 3, "ode and control": 3, "control as ode": 1}
    draft.call["terms"] = _terms(draft, draft.pick(kinds), f"diffrax.ODETerm({field})")


def _arguments(draft: Draft, field: str) -> str:
    """Another form of `args` now and then."""
    dtype = draft.facts["dtype"]
    if field.startswith("layer"):
        rows = [[0.4, -0.3], [0.2, 0.1]]
        if draft.facts["state"] == "three":
            rows = [[0.4, -0.3, 0.1], [0.2, 0.1, 0.0], [-0.1, 0.3, 0.2]]
        draft.inputs["args"] = array(rows, dtype)
        return field
    if draft.chance(0.12) and "args" not in draft.facts["moved"] and not draft.facts["louder"]:
        how = draft.pick({"named": 1, "without": 1})
        draft.settle(args=how)
        if how == "without":
            draft.inputs["args"] = "None"
            return f"without({field}, {array(0.9, dtype)})"
        draft.inputs["args"] = (
            f'{{"rate": {array(0.9, dtype)}, "function": jnp.tanh, "count": jnp.array(3)}}'
        )
        return f"named({field})"
    return field


def _terms(draft: Draft, kind: str, ode: str) -> str:
    draft.settle(terms=kind)
    if kind == "ode":
        return ode
    if kind == "own":
        return f"Doubled({ode})"
    places = sorted(between(draft, share) for share in (0.0, 0.3, 0.5, 1.0))
    if draft.facts["direction"] == "nowhere":
        places = [places[0] + number / 4 for number in range(4)]
    draft.inputs["values"] = array(
        [[0.0, 0.0], [0.4, -0.1], [0.3, 0.5], [0.9, 0.2]], draft.facts["dtype"]
    )
    draft.lines.append(f"times = {array(places, draft.facts['time_dtype'])}")
    path = 'diffrax.LinearInterpolation(times, x["values"])'
    if draft.chance(0.5):
        coefficients = 'diffrax.backward_hermite_coefficients(times, x["values"])'
        path = f"diffrax.CubicInterpolation(times, {coefficients})"
    control = f'diffrax.ControlTerm(shear(x["push"]), {path})'
    if kind == "control":
        return control
    if kind == "control as ode":
        return f"{control}.to_ode()"
    return f"diffrax.MultiTerm({ode}, {control})"


def _split(draft: Draft) -> None:
    dtype = draft.facts["dtype"]
    draft.settle(terms="explicit and implicit")
    if dtype.startswith("complex"):
        draft.inputs["y0"], field = array("[1.0 + 0.5j, -0.3j]", dtype), 'spin(x["push"])'
    else:
        state = draft.pick({"vector": 3, "tree": 1, "scalar": 1})
        draft.inputs["y0"], field = STATES[state].format(dtype), 'wave(x["push"])'
    draft.call["terms"] = (
        f"diffrax.MultiTerm(diffrax.ODETerm({field}), diffrax.ODETerm(brake(4.0)))"
    )


def _two(draft: Draft) -> None:
    dtype = draft.facts["dtype"]
    draft.settle(terms="place and speed")
    halves = array([0.7, 0.1], dtype), array([-0.2, 0.3], dtype)
    draft.inputs["y0"] = f"({', '.join(halves)})"
    draft.inputs["push"] = array(0.3, dtype)
    draft.inputs["args"] = array(1.3, dtype)
    draft.call["terms"] = '(diffrax.ODETerm(place(x["push"])), diffrax.ODETerm(speed(x["push"])))'


def _path(draft: Draft, shape: str, levy_area: str) -> str:
    low, high = sorted((draft.facts["t0"], draft.facts["t1"]))
    dtype, levy_area = draft.facts["dtype"], f"diffrax.{levy_area}"
    draft.inputs["key"] = f"jr.key({draft.number})"
    struct = f"jax.ShapeDtypeStruct({shape}, jnp.{dtype})"
    ends = ", ".join(array(float(t), dtype) for t in (low - 0.5, high + 0.5))
    draft.settle(noise=f'{struct}, x["key"], {levy_area}')
    return f"diffrax.VirtualBrownianTree({ends}, 0.05, {draft.facts['noise']})"


def draw_unsafe_noise(draft: Draft) -> None:
    """Noise that remembers nothing, now and then: only steps that the user chose can take it."""
    if not draft.facts["draws"] or draft.facts["adaptive"] or not draft.chance(0.15):
        return
    draft.settle(unsafe=True)
    path = f"path = diffrax.UnsafeBrownianPath({draft.facts['noise']})"
    draft.lines = [path if line.startswith("path =") else line for line in draft.lines]


def _stochastic(draft: Draft) -> None:
    name = draft.facts["solver"]
    needs_area = name in "SPaRK GeneralShARK SlowRK ShARK SRA1 SEA".split()
    kinds = {"additive": 2, "multiplicative": 3, "mixing": 2, "diagonal": 1}
    if name in ("ShARK", "SRA1", "SEA"):
        kinds = {"additive": 1}
    if "Milstein" in name:
        kinds = {"additive": 1, "multiplicative": 2}
    kind = draft.pick(kinds)
    shape = {"mixing": "(2,)", "diagonal": "(2,)"}.get(kind, "()")
    area = "SpaceTimeLevyArea" if needs_area else "BrownianIncrement"
    draft.lines.append(f"path = {_path(draft, shape, area)}")
    draft.settle(terms=f"{kind} noise")
    draft.inputs["y0"] = array([0.7, -0.2], draft.facts["dtype"])
    noise = f'diffrax.ControlTerm({kind}(x["push"]), path)'
    draft.call["terms"] = f'diffrax.MultiTerm(diffrax.ODETerm(swing(x["push"])), {noise})'


def _langevin(draft: Draft) -> None:
    dtype = draft.facts["dtype"]
    area = "SpaceTimeLevyArea" if draft.facts["solver"] == "ALIGN" else "SpaceTimeTimeLevyArea"
    draft.lines.append(f"path = {_path(draft, '(2,)', area)}")
    draft.lines.append(f"mass = {array(1.3, dtype)}")
    draft.settle(terms="Langevin")
    draft.inputs["y0"] = f"({array([0.7, 0.1], dtype)}, {array([-0.2, 0.3], dtype)})"
    drift = 'diffrax.UnderdampedLangevinDriftTerm(x["push"], mass, lambda q, args: 2 * q)'
    noise = 'diffrax.UnderdampedLangevinDiffusionTerm(x["push"], mass, path)'
    draft.call["terms"] = f"diffrax.MultiTerm({drift}, {noise})"
