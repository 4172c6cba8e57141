"""What a configuration saves, and when it ends."""

from .draft import Draft
from .equations import real
from .times import array, between

PLACES = (
    (0.2, 0.55, 0.9),
    (0.0, 0.03, 0.5, 1.0),
    (0.2, 0.2, 0.5, 0.5),
    (0.5,),
    (0.07, 0.13, 0.31, 0.33, 0.34, 0.6, 0.61, 0.99),
    (1.0, 1.0),
    (0.0, 0.0),
    (),
)
KINDS = {
    "t1": 6, "ts": 10, "ts and ends": 8, "t0": 1, "steps": 6, "steps and ends": 3,
    "every third": 2, "dense": 5, "dense and ts": 2, "several": 6, "states": 6, "only states": 1,
    "ts and steps": 2, "goes on": 7,
}  # fmt: skip
STATES = "solver_state=True, controller_state=True, made_jump=True"


def draw_saves(draft: Draft) -> None:
    kind = draft.pick(KINDS)
    # A solve goes on with states only where they are the same kind of thing at its start.
    if kind == "goes on" and draft.facts["direction"] == "nowhere":
        kind = "states"
    if kind == "goes on" and draft.facts["controller"] == "step to":
        kind = "steps"
    draft.settle(saves=kind, function=False)
    if kind not in ("dense", "only states") and draft.chance(0.25):
        draft.settle(function=True)
    if kind == "goes on":
        draft.settle(function=False, passed=_passed(draft))
    draft.call["saveat"] = f"diffrax.SaveAt({_what(draft, kind)})"


def _what(draft: Draft, kind: str) -> str:
    fn = ""
    if draft.facts["function"]:
        real = (
            "nothing" not in str(draft.facts.get("state")) and draft.facts.get("state") != "no leaf"
        )
        fn = draft.pick({", fn=summary": 2, ', fn=weighed(x["push"])': 1 if real else 0})
    if "ts" in kind.split():
        # Nothing at all is refused by diffrax's `SaveAt`.
        places = draft.rng.choice(PLACES if "ends" in kind else PLACES[:-1])
        draft.settle(places=places)
        dtype = draft.facts["time_dtype"]
        draft.inputs["ts"] = array([between(draft, share) for share in places], dtype)
    plain = {
        "t1": "t1=True", "ts": 'ts=x["ts"]', "ts and ends": 'ts=x["ts"], t0=True, t1=True',
        "t0": "t0=True", "steps": "steps=True", "steps and ends": "steps=True, t0=True, t1=True",
        "every third": "steps=3, t1=True", "dense": "dense=True",
        "dense and ts": 'dense=True, ts=x["ts"]', "states": f"t1=True, {STATES}",
        "goes on": f"t1=True, {STATES}", "only states": STATES,
        "ts and steps": 'ts=x["ts"], steps=True',
    }  # fmt: skip
    if kind in plain:
        return plain[kind] + fn
    draft.inputs["ts"] = array(
        [between(draft, share) for share in (0.2, 0.5, 0.9)], draft.facts["time_dtype"]
    )
    sub = "diffrax.SubSaveAt"
    many = f'({sub}(ts=x["ts"]{fn}), [{sub}(steps=2, t0=True, t1=True), {sub}(t1=True{fn})])'
    return f"subs={many}"


def _passed(draft: Draft) -> list[str]:
    """Which states the second of two solves takes from the first."""
    draft.inputs["middle"] = array(between(draft, 0.5), draft.facts["time_dtype"])
    names = ["solver_state", "controller_state", "made_jump"]
    if draft.chance(0.3):
        names.remove(draft.rng.choice(names))
    return names


def finish_solve(draft: Draft) -> None:
    """One call, or two of which the second goes on where the first ended."""
    if draft.facts["saves"] != "goes on":
        draft.body = [f"return {draft.call_text()}"]
        return
    one = draft.call_text(t1='x["middle"]')
    passed = {name: f"one.{name}" for name in draft.facts["passed"]}
    saved = "jax.tree.map(lambda v: v[-1], one.ys)"
    two = draft.call_text(t0='x["middle"]', y0=saved, **passed)
    draft.body = [f"one = {one}", f"return one, {two}"]


CONDITIONS = {
    'crosses(x["level"])': 6, "crosses(50.0)": 1, "clock({half})": 3, "clock({third})": 2,
    'under(x["level"])': 4, "under(0.9)": 1, "late({half})": 2, "late({start})": 1,
    "clock({start})": 1, "clock({end})": 1, "late({end})": 1, 'crosses(first(x["y0"]))': 1,
}  # fmt: skip
WITHOUT_STATE = {"clock({half})": 3, "late({half})": 2, "late({start})": 1}


def draw_event(draft: Draft) -> None:
    # In diffrax too, a solve of which an event is asked goes through its general loop.
    if not draft.chance(0.3) or draft.facts["saves"] == "goes on":
        draft.settle(event=None)
        return
    number = draft.pick({1: 5, 2: 4, 3: 2})
    empty = draft.facts.get("state") in ("nothing", "no leaf")
    drawn = [draft.pick(WITHOUT_STATE if empty else CONDITIONS) for _ in range(number)]
    places = {"half": 0.5, "third": 0.37, "start": 0.0, "end": 1.0}
    conditions = [c.format(**{n: between(draft, s) for n, s in places.items()}) for c in drawn]
    shaped = _shape(draft, conditions)
    finder, direction = _finder(draft, number), _direction(draft, number)
    draft.inputs["level"] = array(draft.pick({0.5: 3, 0.62: 2}), real(draft.facts["dtype"]))
    draft.settle(event=conditions, finder=finder, event_direction=direction)
    draft.call["event"] = f"diffrax.Event({shaped}, {finder}, {direction})"


def _shape(draft: Draft, conditions: list[str]) -> str:
    """One condition as it is, several as a PyTree."""
    if len(conditions) == 1:
        return conditions[0]
    if len(conditions) == 2:
        return f"[{', '.join(conditions)}]"
    return f'{{"a": {conditions[0]}, "b": ({conditions[1]}, {conditions[2]})}}'


def _direction(draft: Draft, number: int) -> str:
    if number < 3 or draft.chance(0.6):
        return draft.pick({"None": 4, "True": 1, "False": 2})
    return '{"a": None, "b": (True, False)}'


def _finder(draft: Draft, number: int) -> str:
    """Diffrax cannot bisect where there are several conditions, nor find a root where times are
    float32 and float64 is there.
    """
    bisection = 3 if number == 1 else 0.3
    if draft.facts["x64"] and draft.facts["time_dtype"] == "float32" and draft.chance(0.8):
        return "None"
    tolerance = "1e-5, 1e-5" if draft.facts["rough"] else "1e-9, 1e-9"
    return draft.pick(
        {
            "None": 4,
            f"optx.Newton({tolerance})": 6,
            f'optx.Bisection({tolerance}, flip="detect")': bisection,
        }
    )


def draw_ending(draft: Draft) -> None:
    steps = draft.pick({"": 6, "64": 6, "128": 5, "256": 4, "4": 0.8})
    fixed = not draft.facts["adaptive"]
    asks = draft.facts["saves"]
    if fixed and not draft.facts["derivative"] and draft.chance(0.08):
        steps = "None"
    if steps == "None" and any(word in asks for word in ("steps", "dense", "third", "several")):
        steps = "64"
    if steps == "" and ("dense" in asks or "steps" in asks):
        steps = "128"
    if steps:
        draft.call["max_steps"] = steps
    draft.settle(max_steps=steps or "default", throw=not draft.chance(0.2))
    if not draft.facts["throw"]:
        draft.call["throw"] = "False"
