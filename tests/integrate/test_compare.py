"""A few of the random configurations of `make compare`, and the judge that it rests on."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
import pytest
from compare.differences import CHECKED, CONSTANT_GRID, DIFFERENCES, with_the_users_time
from compare.equations import SOLVERS
from compare.generate import configuration
from compare.judge import Gap, beyond_rounding, came_by, gaps_between, judged
from compare.mischief import MISCHIEF
from compare.recorded import on_recorded_grid
from compare.saves import KINDS as SAVES
from compare.transforms import KINDS as TRANSFORMS
from support.catalogue_parts import Growing
from support.checkout import ROOT
from support.close import assert_tree_close

import ndekit as nk

pytestmark = pytest.mark.usefixtures("types_unchecked")

# Quick ones that have little in common.
FEW = (1, 2, 3)
ALL = [configuration(0, number) for number in range(300)]


def compared(draft, ours):
    return judged(draft, came_by(draft, ours), came_by(draft, diffrax.diffeqsolve))


@pytest.mark.parametrize("number", FEW)
def test_a_configuration_is_explained(number):
    came = compared(configuration(0, number), nk.diffeqsolve)
    assert came.kind != "UNEXPLAINED", came.gaps


def test_a_configuration_follows_from_its_number():
    again = configuration(0, 7)
    assert again.program() == ALL[7].program()
    assert again.program() != configuration(1, 7).program()


@pytest.mark.parametrize(
    ("fact", "values"),
    [
        ("solver", {name for _, name in SOLVERS}),
        ("saves", set(SAVES)),
        ("transform", set(TRANSFORMS)),
        ("mischief", {None}),
        ("direction", {"forwards", "backwards", "nowhere"}),
        ("controller", {"constant", "step to", "growing", "pid"}),
        ("clipped", {False, "step_ts", "jump_ts", "both", "rejected"}),
        ("times", {"array", "python", "integer"}),
        ("dtype", {"float32", "float64", "complex128"}),
    ],
)
def test_everything_is_drawn(fact, values):
    assert {draft.facts[fact] for draft in ALL} >= values


def test_half_of_the_mischief_is_drawn():
    assert len({draft.facts["mischief"] for draft in ALL}) > len(MISCHIEF) / 2


def test_every_program_can_be_read():
    for draft in ALL:
        compile(draft.program(), "program", "exec")


# Libraries that are wrong in one thing each.


def changed(**how):
    """Diffrax, some fields of what it gives back changed."""

    def solve(*problem, **options):
        sol = diffrax.diffeqsolve(*problem, **options)
        for name, change in how.items():
            sol = eqx.tree_at(
                lambda s, name=name: getattr(s, name), sol, change(getattr(sol, name))
            )
        return sol

    return solve


def scaled(tree):
    return jax.tree.map(lambda x: x * (1 + 1e-10), tree)


def one_step_more(stats):
    return stats | {"num_steps": stats["num_steps"] + 1}


def refusing(*problem, **options):
    raise ValueError("Not today.")


def steeper(terms, solver, t0, t1, dt0, y0, args, **options):
    """The derivative by `args` is off by a millionth."""
    args = args + 1e-6 * (args - jax.lax.stop_gradient(args))
    return diffrax.diffeqsolve(terms, solver, t0, t1, dt0, y0, args, **options)


def first_of(**facts):
    """The first configuration that is so."""
    fits = lambda draft: all(draft.facts[name] == value for name, value in facts.items())
    return next(draft for draft in ALL if fits(draft))


PLAIN = dict(family="explicit", mischief=None, event=None, rough=False)
WRONG = {
    "values": (changed(ys=scaled), ["ys"]),
    "times": (changed(ts=scaled), ["ts"]),
    "steps": (changed(stats=one_step_more), ["num_steps"]),
    "refusal": (refusing, ["raised"]),
    "nothing": (diffrax.diffeqsolve, []),
}


@pytest.fixture(scope="module")
def plain():
    draft = first_of(**PLAIN, saves="several", transform="plain")
    return draft, came_by(draft, diffrax.diffeqsolve)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen(plain, name):
    (draft, theirs), (library, where) = plain, WRONG[name]
    gaps = gaps_between(came_by(draft, library), theirs, operations=10)
    assert bool(gaps) == bool(where)
    assert all(word in gap.where for gap in gaps for word in where)


@pytest.mark.slow
def test_a_wrong_gradient_is_seen():
    draft = first_of(**PLAIN, by=["args", "dt0", "push", "t1", "y0"])
    mine, theirs = (came_by(draft, library) for library in (steeper, diffrax.diffeqsolve))
    assert [gap.where for gap in gaps_between(mine, theirs, operations=10)] == ["[1]['args']"]


def test_what_rounding_decides_is_no_fault(plain):
    """A leaf that is off by as much as it is when `y0` moves in the last place."""
    draft, theirs = plain
    path = next(path for path in theirs.leaves if "ys" in path)
    near, far = (replaced(theirs, path, theirs.leaves[path] * (1 + x)) for x in (1e-15, 1e-6))
    gap = Gap(path, "is off")
    assert beyond_rounding(draft, near, theirs, [gap], diffrax.diffeqsolve) == []
    assert beyond_rounding(draft, far, theirs, [gap], diffrax.diffeqsolve) == [gap]


def replaced(outcome, path, leaf):
    return dataclasses.replace(outcome, leaves=outcome.leaves | {path: leaf})


def test_what_should_be_refused_is_seen():
    draft = first_of(mischief="two terms for one")
    theirs = came_by(draft, diffrax.diffeqsolve)
    mine = dataclasses.replace(theirs, raised=None)
    assert judged(draft, theirs, theirs).kind == "refused alike"
    assert judged(draft, mine, theirs).kind == "UNEXPLAINED"


def test_a_wrong_reason_is_seen():
    draft = first_of(mischief="two terms for one")
    theirs = came_by(draft, diffrax.diffeqsolve)
    mine = dataclasses.replace(theirs, said="The first step is too long.")
    assert [gap.where for gap in judged(draft, mine, theirs).gaps] == ["said"]


# What diffrax is changed to, where ndekit differs on purpose.


def test_the_recorded_grid_knows_of_the_first_step_alone(x64):
    """Heun's rule for y' = t**2 on steps that grow, whose first ends at 0.2 where t0 is 0.1."""

    def end(t0, solve):
        field = diffrax.ODETerm(lambda t, y, args: t**2)
        controller = Growing()
        return solve(
            field, diffrax.Heun(), t0, 1.0, 0.1, jnp.array(0.0), stepsize_controller=controller
        ).ys[-1]

    solve = on_recorded_grid(diffrax.diffeqsolve)
    t0, first = 0.1, 0.2
    slope = -0.5 * (t0**2 + first**2) + (first - t0) * t0
    assert_tree_close(jax.grad(end)(t0, solve), jnp.array(slope), rtol=1e-12)
    assert_tree_close(end(t0, solve), end(t0, diffrax.diffeqsolve), rtol=1e-14)


def test_a_condition_can_be_told_the_users_time(x64):
    event = diffrax.Event(lambda t, y, args, **known: t - 0.3, optx.Newton(1e-9, 1e-9))
    still = diffrax.ODETerm(lambda t, y, args: 0.0)
    solve = with_the_users_time(diffrax.diffeqsolve)
    sol = solve(still, diffrax.Euler(), 1.0, 0.0, -0.25, jnp.array(0.0), event=event)
    assert_tree_close(sol.ts[-1], jnp.array(0.3), rtol=1e-9)


def test_every_difference_has_a_reason():
    assert all(difference.reason for difference in DIFFERENCES.values())


def test_the_page_lists_every_difference():
    page = (ROOT / "docs" / "develop" / "testing.md").read_text()
    assert not [
        name for name in [*DIFFERENCES, *CHECKED, CONSTANT_GRID] if f"| {name} |" not in page
    ]
