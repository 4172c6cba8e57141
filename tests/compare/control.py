"""Controllers of a configuration, and its first step."""

from .draft import Draft
from .times import array, between, draw_first_step

COEFFICIENTS = {
    "": 5,
    "pcoeff=0.3, icoeff=0.4": 2,
    "pcoeff=0.2, icoeff=0.3, dcoeff=0.1": 2,
}
OPTIONS = {
    "": 12,
    "dtmax=0.07": 1,
    "dtmin=0.04": 1,
    "dtmin=0.04, force_dtmin=False": 1,
    "factormin=0.5, factormax=1.6, safety=0.8": 1,
    "norm=largest": 1,
    "error_order=3": 1,
}


def draw_controller(draft: Draft) -> None:
    kinds = {"constant": 5, "step to": 2.5, "growing": 1}
    if draft.facts["estimates"]:
        kinds |= {"pid": 20}
    kind = draft.pick(kinds)
    if draft.facts["direction"] == "nowhere" and kind == "step to":
        kind = "constant"
    draft.settle(controller=kind, adaptive=kind == "pid", clipped=False)
    made = {"constant": _constant, "step to": _step_to, "growing": _growing, "pid": _pid}[kind]
    draft.call["stepsize_controller"] = _maybe_clipped(draft, made(draft))


def _constant(draft: Draft) -> str:
    draw_first_step(draft, (0.1, 0.13, 0.31, 0.07))
    return "diffrax.ConstantStepSize()"


def _growing(draft: Draft) -> str:
    draw_first_step(draft, (0.1, 0.13))
    return "Growing()"


def _step_to(draft: Draft) -> str:
    """Its first and last time are t0 and t1, so that they may move."""
    shares = (0.2, 0.5, 0.55) if draft.chance(0.5) else (0.1, 0.25, 0.45, 0.6, 0.8, 0.95)
    inner = [between(draft, share) for share in shares]
    draft.inputs["inner"] = array(inner, draft.facts["time_dtype"])
    dtype = f"jnp.{draft.facts['time_dtype']}"
    ends = [f'jnp.asarray(x["{end}"], {dtype})[None]' for end in ("t0", "t1")]
    draft.lines.append(f'grid = jnp.concatenate([{ends[0]}, x["inner"], {ends[1]}])')
    draft.call["dt0"] = "None"
    return "diffrax.StepTo(grid)"


def _pid(draft: Draft) -> str:
    rtol = _tolerance(draft)
    draft.settle(rtol=rtol)
    if draft.chance(0.3):
        draft.call["dt0"] = "None"
        draft.settle(dt0=None)
    else:
        draw_first_step(draft, (0.3, 0.11, 0.5))
    options = [f"rtol={rtol}", f"atol={rtol / 10}", draft.pick(COEFFICIENTS), draft.pick(OPTIONS)]
    draft.settle(coefficients=options[2] or "I", options=options[3])
    return f"diffrax.PIDController({', '.join(option for option in options if option)})"


def _tolerance(draft: Draft) -> float:
    """So loose that an error estimate is far above rounding, and the steps are few."""
    if draft.facts["rough"] or draft.facts["family"] in ("sde", "langevin"):
        return 1e-2
    if draft.facts["order"] < 3:
        return draft.pick({1e-2: 1, 1e-3: 2})
    return draft.pick({1e-3: 2, 1e-4: 3, 1e-6: 2})


def _maybe_clipped(draft: Draft, controller: str) -> str:
    if not draft.facts["adaptive"] or not draft.chance(0.3):  # diffrax clips no other
        return controller
    what = draft.pick({"step_ts": 3, "jump_ts": 4, "both": 2, "rejected": 2})
    draft.settle(clipped=what)
    options = []
    dtype = draft.facts["time_dtype"]
    if what in ("step_ts", "both"):
        draft.inputs["step_ts"] = array([between(draft, s) for s in (0.31, 0.77)], dtype)
        options.append('step_ts=x["step_ts"]')
    if what in ("jump_ts", "both"):
        draft.inputs["jump_ts"] = array([between(draft, s) for s in (0.37, 0.62)], dtype)
        options.append('jump_ts=x["jump_ts"]')
        _let_it_jump(draft)
    if what == "rejected":
        options.append("store_rejected_steps=8")
    if what == "both" and draft.chance(0.4):
        options.append("store_rejected_steps=8")
    return f"diffrax.ClipStepSizeController({', '.join([controller, *options])})"


def _let_it_jump(draft: Draft) -> None:
    if draft.facts.get("terms") == "ode" and draft.facts["field"] == "wave":
        field = 'switch(x["push"], x["jump_ts"][0])'
        draft.call["terms"] = draft.call["terms"].replace('wave(x["push"])', field)
        draft.settle(field="switch")
