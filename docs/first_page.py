"""Draws the picture of the first page: `python docs/first_page.py`, some minutes on a CPU.

Two spirals are told apart by a neural ODE, trained for the task alone and with 0.02 of loss for
each step of the solver. Writes `first_page.png` and `first_page_dark.png` beside this file and
prints the figures that the page quotes.
"""

import os
import pathlib

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import optax

import ndekit as nk

QUICK = os.environ.get("NDEKIT_QUICK") == "1"  # the tests draw a picture of little training
SEEDS, UPDATES = (1, 40) if QUICK else (3, 2000)
COEFFICIENTS = {"task alone": 0.0, "with StepCount": 0.02}
# Ink and a colour for each training, on a light and on a dark page.
THEMES = {
    "first_page.png": ("#444444", ("#D55E00", "#0072B2")),
    "first_page_dark.png": ("#cccccc", ("#F08A4B", "#4FA8E0")),
}
ARMS = ("#E69F00", "#56B4E9")


def two_spirals(key, number=256):
    """Points on two arms of a spiral, with a little noise, and the arm of each."""
    arm_key, radius_key, noise_key = jr.split(key, 3)
    arm = jr.bernoulli(arm_key, shape=(number,))
    radius = jnp.sqrt(jr.uniform(radius_key, (number,), minval=0.02))
    angle = 2.5 * jnp.pi * radius + jnp.pi * arm
    points = 1.5 * radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return points + 0.03 * jr.normal(noise_key, points.shape), arm.astype(points.dtype)


def make_model(key):
    """A plane that flows for one unit of time, and a line that parts it."""
    field_key, head_key = jr.split(key)
    ode = nk.models.NeuralODE(
        nk.fields.MLP(2, width=64, depth=2, time="concat", near_zero=False, key=field_key),
        controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        costs={"steps": nk.StepCount()},
        max_steps=256,
    )
    return nk.models.ODEClassifier(eqx.nn.Identity(), ode, nk.fields.Affine(2, 1, key=head_key))


def train(coefficient, seed):
    model_key, data_key, fit_key = jr.split(jr.key(seed), 3)

    def loss_fn(model, batch, step, *, key):
        points, arm = batch
        logits, sol = model(points)
        task = jnp.mean(optax.sigmoid_binary_cross_entropy(logits[:, 0], arm))
        loss = task + coefficient * sol.costs["steps"]
        return loss, {"steps": sol.stats["num_steps"]}

    rate = optax.cosine_decay_schedule(0.003, UPDATES)
    return nk.train.fit(
        make_model(model_key),
        loss_fn,
        lambda step: two_spirals(jr.fold_in(data_key, step)),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        num_updates=UPDATES,
        key=fit_key,
        updates_per_call=20,
        progress=False,
    )


@eqx.filter_jit
def look(model, points):
    """Where the points are at many times, and at the end of each accepted step."""
    subs = {
        "path": diffrax.SubSaveAt(ts=jnp.linspace(0.0, 1.0, 200)),
        "steps": diffrax.SubSaveAt(t0=True, steps=True),
    }
    return nk.diffeqsolve(
        diffrax.ODETerm(model.ode.field),
        diffrax.Tsit5(),
        0.0,
        1.0,
        None,
        points,
        saveat=diffrax.SaveAt(subs=subs),
        stepsize_controller=model.ode.controller,
        max_steps=256,
    )


def draw_flow(ax, name, color, model, points, arm):
    sol = look(model, points)
    number = int(sol.stats["num_accepted_steps"])
    path, stops = sol.ys["path"], sol.ys["steps"][: number + 1]
    for i, shade in enumerate(np.where(np.asarray(arm) > 0.5, *ARMS)):
        ax.plot(*path[:, i].T, color=shade, linewidth=0.8, alpha=0.7)
        ax.plot(*stops[1:, i].T, ".", color=shade, markersize=3)
        ax.plot(*stops[0, i], "o", color=shade, markersize=5, fillstyle="none")
    ax.set_title(f"{name}: {number} steps", color=color, fontsize=11)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return jnp.min(path, axis=(0, 1)), jnp.max(path, axis=(0, 1))


def draw_steps(ax, results, colors):
    for (name, runs), color in zip(results.items(), colors, strict=True):
        columns = [nk.train.column(run.history, "steps") for run in runs]
        steps = np.array([smooth(np.asarray(values)) for _, values in columns])
        updates, mean = smooth(np.asarray(columns[0][0])), steps.mean(0)
        ax.plot(updates, mean, color=color, linewidth=2)
        ax.fill_between(updates, steps.min(0), steps.max(0), color=color, alpha=0.2, lw=0)
        place = dict(xytext=(0, 12), textcoords="offset points", ha="right")
        ax.annotate(name, (updates[-1], mean[-1]), color=color, **place)
    ax.set(xlabel="update", ylabel="steps of a solve", ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)


def smooth(values):
    """Means of 20 updates."""
    return values[: len(values) // 20 * 20].reshape(-1, 20).mean(1)


def draw(results, path):
    from matplotlib.figure import Figure

    ink, colors = THEMES[path.name]
    points, arm = two_spirals(jr.key(100), 48)
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    with matplotlib.rc_context(dict.fromkeys(names, ink)):
        figure = Figure(figsize=(8.6, 3.1), layout="constrained")
        *flows, last = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        ends = [
            draw_flow(ax, name, color, runs[0].model, points, arm)
            for ax, (name, runs), color in zip(flows, results.items(), colors, strict=True)
        ]
        (left, low), (right, high) = np.min(ends, axis=0)[0], np.max(ends, axis=0)[1]
        for ax in flows:
            ax.set(xlim=(left - 0.2, right + 0.2), ylim=(low - 0.2, high + 0.2))
        draw_steps(last, results, colors)
        figure.savefig(path, dpi=130, transparent=True)


def main(folder):
    results = {
        name: [train(coefficient, seed) for seed in range(SEEDS)]
        for name, coefficient in COEFFICIENTS.items()
    }
    points, arm = two_spirals(jr.key(101), 4096)
    for name, runs in results.items():
        seen = [eqx.filter_jit(run.model)(points) for run in runs]
        accuracy = [float(jnp.mean((logits[:, 0] > 0) == (arm > 0.5))) for logits, _ in seen]
        steps = [int(sol.stats["num_steps"]) for _, sol in seen]
        print(f"{name:16} steps {steps}, accuracy {[f'{100 * a:.1f} %' for a in accuracy]}")
    for name in THEMES:
        draw(results, folder / name)
    return results


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main(pathlib.Path(__file__).parent)
