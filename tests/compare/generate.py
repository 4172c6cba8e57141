"""The configuration of a number: everything that is drawn, in its order."""

import random

from .control import draw_controller
from .draft import Draft
from .equations import draw_equation, draw_solver, draw_unsafe_noise, solver_text
from .mischief import draw_mischief
from .saves import draw_ending, draw_event, draw_saves, finish_solve
from .times import draw_precision, draw_times
from .transforms import draw_transform, finish_transform


def configuration(seed: int, number: int) -> Draft:
    """The same for the same seed and number, whatever was drawn before."""
    draft = Draft(random.Random(f"{seed}-{number}"), number)
    draw_precision(draft)
    draw_transform(draft)
    draw_solver(draft, seed)
    draw_times(draft)
    draw_equation(draft)
    draw_controller(draft)
    draw_unsafe_noise(draft)
    draft.call["solver"] = solver_text(draft)
    draw_saves(draft)
    draw_event(draft)
    draw_ending(draft)
    finish_transform(draft)
    draw_mischief(draft)
    finish_solve(draft)
    return draft


def title(draft: Draft) -> str:
    """One line."""
    facts = draft.facts
    solver = facts["solver"] + ("*" if facts["louder"] else "")
    parts = [
        f"half({solver})" if facts["halved"] else solver,
        facts["controller"] + (f" clipped by {facts['clipped']}" if facts["clipped"] else ""),
        facts["saves"],
        *(["event"] if facts["event"] else []),
        facts["transform"] + (f" by {','.join(facts['by'])}" if facts["by"] else ""),
        *([f"lanes of {','.join(facts['lanes'])}"] if facts["lanes"] else []),
        facts["dtype"],
        *([facts["direction"]] if facts["direction"] != "forwards" else []),
        *([f"({facts['mischief']})"] if facts["mischief"] else []),
    ]
    return " / ".join(parts)
