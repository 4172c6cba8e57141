"""Precision, direction and times of a configuration."""

from .draft import Draft

# (64 bits allowed, of the state, of times)
PRECISIONS = {
    (True, "float64", "float64"): 62,
    (False, "float32", "float32"): 16,
    (True, "float32", "float32"): 8,
    (True, "float32", "float64"): 5,
    (True, "float64", "float32"): 4,
    (True, "complex128", "float64"): 4,
    (False, "complex64", "float32"): 1,
}


def draw_precision(draft: Draft) -> None:
    x64, dtype, time_dtype = draft.pick(PRECISIONS)
    rough = "32" in dtype + time_dtype or dtype == "complex64"
    draft.settle(x64=x64, dtype=dtype, time_dtype=time_dtype, rough=rough)
    # Where precisions are mixed, JAX's strict promotion refuses most things.
    draft.settle(strict=draft.chance(0.17) and not (x64 and rough))


def array(values, dtype: str) -> str:
    return f"jnp.array({values}, jnp.{dtype})"


def draw_times(draft: Draft) -> None:
    kind = draft.pick({"array": 5, "python": 4, "integer": 1})
    if draft.facts["moved"] & {"t0", "t1"}:
        kind = "array"
    start = draft.pick({0.0: 5, 0.25: 2, -0.5: 2})
    length = draft.pick({1.0: 4, 0.8: 2, 1.7: 2})
    if kind == "integer":
        start, length = draft.pick({0: 2, -1: 1}), 2
    direction = draft.pick({"forwards": 65, "backwards": 30, "nowhere": 5})
    end = start + length
    if direction == "backwards":
        start, end = end, start
    if direction == "nowhere":
        end = start
    draft.settle(times=kind, direction=direction, t0=start, t1=end)
    text = lambda value: array(value, draft.facts["time_dtype"]) if kind == "array" else str(value)
    draft.inputs |= {"t0": text(start), "t1": text(end)}
    draft.call |= {"t0": 'x["t0"]', "t1": 'x["t1"]'}


def between(draft: Draft, share: float) -> float:
    """The time at a share of the way."""
    t0, t1 = draft.facts["t0"], draft.facts["t1"]
    return round(t0 + share * (t1 - t0), 6)


def draw_first_step(draft: Draft, choices: tuple[float, ...]) -> None:
    """`dt0` as a share of the whole."""
    length = draft.facts["t1"] - draft.facts["t0"] or 1.0
    value = round(length * draft.rng.choice(choices), 4)
    if draft.facts["times"] == "array" or "dt0" in draft.facts["moved"]:
        draft.inputs["dt0"] = array(value, draft.facts["time_dtype"])
    else:
        draft.inputs["dt0"] = str(value)
    draft.call["dt0"] = 'x["dt0"]'
    draft.settle(dt0=value)
