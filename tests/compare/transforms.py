"""What JAX does to the solve of a configuration: compile it, map it, differentiate it."""

from .draft import Draft

KINDS = {
    "plain": 22, "jit": 16, "vmap": 12, "vmap eager": 4, "vmap vmap": 4, "grad": 18,
    "grad eager": 3, "vmap of grad": 8, "grad of vmap": 6, "jvp": 5,
}  # fmt: skip
INPUTS = {
    "y0": 8, "args": 6, "push": 5, "t0": 3, "t1": 4, "ts": 3, "step_ts": 3, "jump_ts": 3,
    "inner": 3, "level": 3, "values": 3, "key": 3, "dt0": 0.7,
}  # fmt: skip
TIMES = ("t0", "t1", "ts", "step_ts", "jump_ts", "inner", "dt0")


def draw_transform(draft: Draft) -> None:
    """Which, and by what; whether these exist is seen later."""
    kind = draft.pick(KINDS)
    lanes = {draft.pick(INPUTS) for _ in range(draft.pick({1: 3, 2: 3, 4: 1}))}
    moved = {draft.pick(INPUTS) for _ in range(draft.pick({2: 2, 4: 3, 7: 1}))}
    mapped, derived = "vmap" in kind, "grad" in kind or kind == "jvp"
    draft.settle(transform=kind, derivative=derived, mapped=mapped)
    draft.settle(lanes=lanes if mapped else set(), by=moved if derived else set())
    draft.settle(moved=draft.facts["lanes"] | draft.facts["by"])


def finish_transform(draft: Draft) -> None:
    kind, facts = draft.facts["transform"], draft.facts
    there = {name for name in draft.inputs if draft.inputs[name] != "None"}
    lanes = sorted(facts["lanes"] & there) or ["y0"]
    # Diffrax's noise and controls refuse a derivative by the time.
    plain = ("ode", "own", "explicit and implicit", "place and speed")
    fixed = {"key"} if facts["terms"] in plain or draft.chance(0.1) else {"key", *TIMES}
    by = sorted((facts["by"] & there) - fixed) or ["y0"]
    draft.settle(lanes=lanes if facts["mapped"] else [], by=by if facts["derivative"] else [])
    draft.answer = ["run = lambda x: solve(diffeqsolve, x)"]
    if facts["mapped"]:
        _lanes(draft, lanes)
    if facts["derivative"]:
        draft.answer.append(f"by = {by}")
    draft.answer += ANSWERS[kind].strip().splitlines()
    if kind == "jvp":
        draft.call["adjoint"] = "diffrax.ForwardMode()"


ANSWERS = {
    "plain": "return run(inputs)",
    "jit": "return eqx.filter_jit(run)(inputs)",
    "vmap": "return eqx.filter_jit(eqx.filter_vmap(run, in_axes=(axes,)))(lanes)",
    "vmap eager": "return eqx.filter_vmap(run, in_axes=(axes,))(lanes)",
    "vmap vmap": """
inner = eqx.filter_vmap(run, in_axes=(axes,))
return eqx.filter_jit(eqx.filter_vmap(inner, in_axes=(outer,)))(lanes)
""",
    "grad": """
loss = lambda moved: loss_of(run(inputs | moved))
return eqx.filter_jit(eqx.filter_value_and_grad(loss))({name: inputs[name] for name in by})
""",
    "grad eager": """
loss = lambda moved: loss_of(run(inputs | moved))
return eqx.filter_value_and_grad(loss)({name: inputs[name] for name in by})
""",
    "vmap of grad": """
loss = lambda moved, x: loss_of(run(x | moved))
slope = lambda x: eqx.filter_value_and_grad(loss)({name: x[name] for name in by}, x)
return eqx.filter_jit(eqx.filter_vmap(slope, in_axes=(axes,)))(lanes)
""",
    "grad of vmap": """
each = eqx.filter_vmap(lambda x: loss_of(run(x)), in_axes=(axes,))
loss = lambda moved: jnp.sum(each(lanes | moved))
return eqx.filter_jit(eqx.filter_value_and_grad(loss))({name: lanes[name] for name in by})
""",
    "jvp": """
loss = lambda moved: loss_of(run(inputs | moved))
moved = eqx.filter({name: inputs[name] for name in by}, eqx.is_inexact_array)
return eqx.filter_jit(lambda p: jax.jvp(loss, (p,), (jax.tree.map(jnp.ones_like, p),)))(moved)
""",
}


def _lanes(draft: Draft, names: list[str]) -> None:
    """Three lanes of some inputs, the others shared."""
    lanes = [f"{name}={_three(draft, name, names)}" for name in names]
    draft.answer.append(f"lanes = inputs | dict({', '.join(lanes)})")
    if draft.facts["transform"] != "vmap vmap":
        axes = {name: 0 if name in names else None for name in draft.inputs}
        draft.answer.append(f"axes = {axes}")
        return
    # The first of the names is mapped outside, and y0 inside where it is the only one.
    outer = {name: 0 if name in names[:1] else None for name in draft.inputs}
    axes = {name: 0 if name in names[1:] else None for name in draft.inputs}
    if len(names) == 1:
        other = "push" if names == ["y0"] else "y0"
        draft.facts["lanes"].append(other)
        draft.answer[-1] = draft.answer[-1][:-1] + f", {other}={_three(draft, other, names)})"
        axes[other] = 0
    draft.answer += [f"axes = {axes}", f"outer = {outer}"]


def _three(draft: Draft, name: str, names: list[str]) -> str:
    """What three lanes hold: times stay in order, and inside the solve."""
    value, t0, t1 = f'inputs["{name}"]', draft.facts["t0"], draft.facts["t1"]
    if name == "key":
        return f"jr.split({value}, 3)"
    if name not in TIMES:
        return f"jax.tree.map(lambda v: jnp.stack([v * c for c in (1.0, 0.5, 1.4)]), {value})"
    sign = -1 if t1 < t0 else 1
    shifts = {"t0": (0.0, -0.1, -0.25), "t1": (0.0, 0.3, 0.1)}.get(name)
    if shifts:
        return f"jnp.stack([{value} + s for s in {tuple(sign * s for s in shifts)}])"
    if name == "dt0":
        return f"jnp.stack([{value} * c for c in (1.0, 0.7, 0.9)])"
    middle = round(0.5 * (t0 + t1), 6)
    return f"jnp.stack([{middle} + ({value} - {middle}) * c for c in (1.0, 0.9, 0.97)])"
