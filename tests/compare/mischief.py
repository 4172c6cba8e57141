"""Calls that do not fit: both sides must refuse them, or bear them alike."""

from .draft import Draft
from .times import array, between


def draw_mischief(draft: Draft) -> None:
    """One thing that is wrong, now and then."""
    draft.settle(mischief=None)
    if not draft.chance(0.13):
        return
    possible = [name for name, (fits, _) in MISCHIEF.items() if fits(draft.facts)]
    name = draft.rng.choice(possible)
    draft.settle(mischief=name)
    MISCHIEF[name][1](draft)


def _call(**changed: str):
    return lambda draft: draft.call.update(changed)


def _times(*shares: float):
    def change(draft: Draft) -> None:
        places = [between(draft, share) for share in shares]
        draft.inputs["ts"] = array(places, draft.facts["time_dtype"])

    return change


def _first_step(factor: str):
    def change(draft: Draft) -> None:
        draft.inputs["dt0"] = f"{draft.inputs['dt0']} * {factor}"

    return change


def _state(text: str):
    def change(draft: Draft) -> None:
        draft.inputs["y0"] = text.format(draft.facts["dtype"])

    return change


def _nothing_saved(draft: Draft) -> None:
    draft.call["saveat"] = "diffrax.SaveAt()"


def _gap(draft: Draft) -> None:
    place = between(draft, 0.45)
    draft.call["terms"] = f'diffrax.ODETerm(gap(x["push"], {place}))'
    draft.settle(field="gap")
    if draft.facts["adaptive"]:
        draft.call["max_steps"] = "40"


def always(facts):
    return True


def given(facts):
    return facts.get("dt0") is not None


def ordinary(facts):
    return facts["family"] == "explicit" and facts.get("terms") == "ode"


MISCHIEF = {
    "ts out of order": (lambda f: "ts" in f["saves"].split(), _times(0.5, 0.2, 0.9)),
    "ts outside": (lambda f: "ts" in f["saves"].split(), _times(0.5, 1.3)),
    "dt0 backwards": (given, _first_step("-1")),
    "dt0 of zero": (given, _first_step("0")),
    "dt0 not a number": (given, _first_step("np.nan")),
    "dt0 too long": (given, _first_step("40")),
    "no dt0": (lambda f: f["controller"] in ("constant", "growing"), _call(dt0="None")),
    "dt0 and step to": (lambda f: f["controller"] == "step to", _call(dt0="0.1")),
    "no steps": (always, _call(max_steps="0")),
    "three steps": (always, _call(max_steps="3")),
    "no bound": (lambda f: not f["adaptive"] or f["derivative"], _call(max_steps="None")),
    "no estimate": (
        lambda f: not f["estimates"],
        _call(stepsize_controller="diffrax.PIDController(rtol=1e-3, atol=1e-3)"),
    ),
    "one term for two": (
        lambda f: f["family"] in ("symplectic", "imex", "sde", "langevin"),
        _call(terms='diffrax.ODETerm(wave(x["push"]))'),
    ),
    "two terms for one": (
        lambda f: f["family"] in ("explicit", "implicit"),
        _call(terms='(diffrax.ODETerm(wave(x["push"])), diffrax.ODETerm(still(x["push"])))'),
    ),
    "field of another shape": (
        ordinary,
        _call(terms="diffrax.ODETerm(lambda t, y, args: jnp.ones((7, 3)))"),
    ),
    "field of another structure": (
        ordinary,
        _call(terms="diffrax.ODETerm(lambda t, y, args: (y, y))"),
    ),
    "field of one number": (ordinary, _call(terms="diffrax.ODETerm(lambda t, y, args: 2.0)")),
    "field of a gap": (ordinary, _gap),
    "a state that is not finite": (
        lambda f: f["family"] in ("explicit", "implicit") and f.get("state") == "vector",
        _state("jnp.array([jnp.nan, 0.5], jnp.{0})"),
    ),
    "nothing saved": (lambda f: f["saves"] == "t1", _nothing_saved),
    "an end of nowhere": (
        always, lambda draft: draft.inputs.update(t1=array("jnp.nan", draft.facts["time_dtype"]))
    ),
    "complex times": (always, lambda draft: draft.inputs.update(t1="1.0 + 1.0j")),
    "event of two numbers": (
        always, _call(event="diffrax.Event(lambda t, y, args, **kwargs: jnp.ones(2))")
    ),
    "event of an integer": (always, _call(event="diffrax.Event(lambda t, y, args, **kwargs: 3)")),
    "event that takes too little": (
        always, _call(event="diffrax.Event(lambda t, y, args: t - 0.5)")
    ),
    "event of another shape of directions": (
        always,
        _call(event="diffrax.Event([clock(0.5), late(0.6)], None, (True, None))"),
    ),
    "progress": (always, _call(progress_meter="diffrax.TextProgressMeter()")),
    "backsolve": (
        lambda f: f["transform"] != "jvp", _call(adjoint="diffrax.BacksolveAdjoint()")
    ),
    "direct": (
        lambda f: f["transform"] != "jvp",
        _call(adjoint="diffrax.DirectAdjoint()", max_steps="40"),
    ),
    "implicit adjoint": (
        lambda f: f["transform"] != "jvp", _call(adjoint="diffrax.ImplicitAdjoint()")
    ),
    "forward mode by default": (
        lambda f: f["transform"] == "jvp", lambda draft: draft.call.pop("adjoint")
    ),
    "deprecated event": (
        lambda f: f["event"] is None,
        _call(discrete_terminating_event="diffrax.DiscreteTerminatingEvent("
              "lambda state, **kwargs: first(state.y) < 0.5)"),
    ),
}  # fmt: skip
