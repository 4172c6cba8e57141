"""The training loop on problems whose answer is known without training."""

import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from support.close import assert_tree_close, close_to_rounding

from ndekit.fields import MLP
from ndekit.train import NonFiniteLossError, column, fit
from ndekit.train.progress import describe

X = np.asarray(jr.normal(jr.key(0), (64, 3)))
TRUTH = np.array([1.0, -2.0, 0.5], np.float32)
Y = X @ TRUTH


def batch_fn(step):
    rows = np.arange(8 * step, 8 * step + 8) % 64
    return X[rows], Y[rows]


def loss_fn(model, batch, step, *, key):
    x, y = batch
    return jnp.mean((x @ model - y) ** 2), {"steps": step, "noise": jr.uniform(key)}


def run(num_updates=20, model=None, optimizer=None, **options):
    return fit(
        jnp.zeros(3) if model is None else model,
        options.pop("loss_fn", loss_fn),
        options.pop("batch_fn", batch_fn),
        optimizer=optax.sgd(0.1) if optimizer is None else optimizer,
        num_updates=num_updates,
        key=options.pop("key", jr.key(1)),
        progress=False,
        **options,
    )


def sgd_by_hand(num_updates):
    weights = np.zeros(3)
    for step in range(num_updates):
        x, y = batch_fn(step)
        weights = weights - 0.1 * 2 / 8 * x.T @ (x @ weights - y)
    return weights.astype(np.float32)


class Gridded(eqx.Module):
    weights: jax.Array
    controller: diffrax.StepTo


def test_the_grid_of_a_controller_is_not_trained():
    """By weight decay it would be, whether or not it has a derivative."""
    ts = jnp.linspace(0.0, 1.0, 5)
    loss = lambda model, batch, step, *, key: (
        jnp.sum(model.weights**2) + jnp.sum(model.controller.ts**2),
        {},
    )
    model = Gridded(jnp.ones(3), diffrax.StepTo(ts))
    trained = run(model=model, loss_fn=loss, optimizer=optax.adamw(0.1, weight_decay=0.1)).model
    np.testing.assert_array_equal(trained.controller.ts, ts)
    assert not np.any(trained.weights == 1)


def test_weak_types_cost_no_second_compilation():
    def num_traces(model):
        traces = []

        def noting(model, batch, step, *, key):
            traces.append(step)
            return loss_fn(model, batch, step, key=key)

        run(num_updates=6, model=model, loss_fn=noting)
        return len(traces)

    weak = jnp.full(3, 0.5)
    assert weak.weak_type
    assert num_traces(weak) == num_traces(jnp.full(3, 0.5, jnp.float32))


@pytest.mark.parametrize("updates_per_call", [1, 4, 7])
def test_fit_is_gradient_descent(updates_per_call):
    result = run(updates_per_call=updates_per_call)
    assert close_to_rounding(result.model, sgd_by_hand(20))
    assert result.num_updates == 20


def test_fit_finds_the_least_squares_solution():
    result = run(400, updates_per_call=50)
    assert_tree_close(result.model, TRUTH, rtol=1e-4)


@pytest.mark.parametrize("updates_per_call", [1, 4, 7])
def test_history_has_one_row_for_each_update_in_order(updates_per_call):
    history = run(updates_per_call=updates_per_call).history
    updates, steps = column(history, "steps")
    assert updates.tolist() == list(range(1, 21))
    assert steps.tolist() == list(range(20))  # the number that the loss was given


def test_each_update_has_a_key_of_its_own_whatever_the_call():
    _, noise = column(run(updates_per_call=1).history, "noise")
    _, same = column(run(updates_per_call=7).history, "noise")
    assert len(set(noise)) == 20
    assert noise.tolist() == same.tolist()


def test_gradient_norm_is_that_of_the_gradient():
    row = run(1).history[0]
    gradient = 2 / 8 * X[:8].T @ (-Y[:8])
    assert close_to_rounding(np.float32(row["gradient_norm"]), np.linalg.norm(gradient))


def test_model_keeps_what_is_not_trained():
    model = {"weights": jnp.zeros(3), "count": jnp.arange(3), "name": "linear"}
    result = run(model=model, loss_fn=lambda m, b, s, *, key: loss_fn(m["weights"], b, s, key=key))
    assert result.model["name"] == "linear"
    assert result.model["count"].tolist() == [0, 1, 2]
    assert close_to_rounding(result.model["weights"], sgd_by_hand(20))


@pytest.mark.parametrize(("updates_per_call", "traces"), [(1, 1), (5, 1), (6, 2)])
def test_one_trace_for_each_shape(updates_per_call, traces):
    # 20 updates in calls of 6 end with one of 2: another shape, another trace.
    counted = eqx.debug.assert_max_traces(loss_fn, max_traces=traces)
    run(loss_fn=counted, updates_per_call=updates_per_call, evaluate=lambda m: {"loss": 0.0})
    assert eqx.debug.get_num_traces(counted) == traces


def test_a_second_fit_of_the_same_loss_compiles_nothing():
    optimizer = optax.sgd(0.1)
    counted = eqx.debug.assert_max_traces(loss_fn, max_traces=1)
    first = run(loss_fn=counted, optimizer=optimizer, model=jnp.zeros(3))
    second = run(loss_fn=counted, optimizer=optimizer, model=jnp.ones(3))
    assert not jnp.array_equal(first.model, second.model)


def test_compile_time_is_apart():
    def slow_to_trace(model, batch, step, *, key):
        import time

        time.sleep(0.3)
        return loss_fn(model, batch, step, key=key)

    result = run(loss_fn=slow_to_trace)
    assert result.compile_seconds > 0.3
    assert 0 < result.train_seconds < 0.3


def distance(model):
    return {"loss": jnp.sum((model - TRUTH) ** 2), "first": model[0]}


def test_evaluations_fall_on_their_updates_and_on_the_end():
    result = run(evaluate=distance, evaluate_every=8, updates_per_call=4)
    updates, losses = column(result.history, "loss", kind="evaluate")
    assert updates.tolist() == [8, 16, 20]
    expected = [np.sum((sgd_by_hand(n) - TRUTH) ** 2) for n in (8, 16, 20)]
    assert_tree_close(losses, np.array(expected), rtol=1e-4)


def test_patience_stops_and_returns_the_best_model():
    # Descent on (w - 1)^2 / 2 that overshoots by a tenth more at each update: |w - 1| grows.
    scores = iter([3.0, 1.0, 2.0, 1.5, 9.0, 9.0])
    models = []

    def evaluate(model):
        models.append(model)
        return {"score": next(scores)}

    result = run(evaluate=evaluate, evaluate_every=2, patience=3, monitor="score")
    assert result.num_updates == 10  # best at 4, then three worse
    assert result.best_update == 4
    assert jnp.array_equal(result.model, models[1])


def test_larger_is_better_with_a_minus():
    scores = iter([0.2, 0.9, 0.5, 0.6, 0.1])
    result = run(
        evaluate=lambda m: {"accuracy": next(scores)}, evaluate_every=2, patience=2,
        monitor="-accuracy",
    )  # fmt: skip
    assert (result.num_updates, result.best_update) == (8, 4)
    assert column(result.history, "accuracy", kind="evaluate")[1].tolist() == [0.2, 0.9, 0.5, 0.6]


def test_without_patience_the_last_model_is_returned():
    scores = iter([1.0] + [2.0] * 9)
    result = run(evaluate=lambda m: {"loss": next(scores)}, evaluate_every=2)
    assert close_to_rounding(result.model, sgd_by_hand(20))
    assert result.best_update == 2


def test_log_is_the_history(tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    result = run(log_path=path, evaluate=distance)
    assert [json.loads(line) for line in path.read_text().splitlines()] == result.history


def test_log_is_on_the_disk_before_the_next_call(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = []

    def spying(step):
        lines.append(len(path.read_text().splitlines()))
        return batch_fn(step)

    run(4, batch_fn=spying, log_path=path)
    assert lines == [0, 0, 1, 2, 3]  # the first batch is asked for twice, once to compile


def diverging(at):
    def loss(model, batch, step, *, key):
        value, metrics = loss_fn(model, batch, step, key=key)
        return jnp.where(step == at, jnp.inf, 1.0) * value, metrics

    return loss


@pytest.mark.parametrize("updates_per_call", [1, 5])
def test_non_finite_loss_names_the_update_and_what_to_try(updates_per_call):
    with pytest.raises(NonFiniteLossError, match="Update 8 gave loss inf.*smaller learning rate"):
        run(loss_fn=diverging(7), updates_per_call=updates_per_call)


def test_what_follows_in_the_same_call_does_not_see_a_broken_model():
    def loss(model, batch, step, *, key):
        checked = eqx.error_if(model, ~jnp.all(jnp.isfinite(model)), "a broken model")
        return diverging(1)(checked, batch, step, key=key)

    with pytest.raises(NonFiniteLossError, match="Update 2 gave loss inf"):
        run(loss_fn=loss, updates_per_call=5)


def test_non_finite_gradient_is_caught_where_it_arises():
    def loss(model, batch, step, *, key):
        return jnp.sum(jnp.sqrt(jnp.abs(model))), {}  # finite at zero, its gradient is not

    with pytest.raises(NonFiniteLossError, match="Update 1 gave loss 0 with a gradient of norm"):
        run(loss_fn=loss)


def test_evaluations_that_are_not_finite_are_no_better_than_any():
    scores = iter([jnp.nan, 3.0, jnp.nan, -jnp.inf, jnp.nan])
    result = run(evaluate=lambda m: {"loss": next(scores)}, evaluate_every=2, patience=3)
    assert (result.num_updates, result.best_update) == (10, 4)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_model_that_nobody_could_judge_is_no_best_model(value, tmp_path):
    """Nor is the training lost: mended, it goes on."""
    options = dict(evaluate_every=5, checkpoint_dir=tmp_path)
    broken = lambda model: {"loss": value}
    for patience, updates in ((2, 10), (9, 20)):
        with pytest.raises(ValueError, match=f"no finite 'loss' in {updates} updates"):
            run(evaluate=broken, patience=patience, resume=False, **options)
    last = run(evaluate=broken, resume=False, **options)
    assert last.best_update is None
    assert close_to_rounding(last.model, sgd_by_hand(20))
    mended = run(30, evaluate=distance, patience=9, **options)
    assert (mended.resumed_at, mended.best_update) == (20, 30)


NOT_FINITE = {
    # what is wrong with the first update: (options, what the message says)
    "data": (
        dict(batch_fn=lambda step: (X[:8] * np.float32(np.nan), Y[:8])),
        "Not finite before it: batch\\[0\\]",
    ),
    "model": (
        dict(model=jnp.array([0.0, np.inf, 0.0])),
        "Not finite before it: model.",
    ),
    "loss": (
        dict(loss_fn=lambda m, b, s, *, key: (jnp.log(jnp.sum(m) - 1), {})),
        "All numbers of batch and model are finite",
    ),
    "slope": (
        dict(loss_fn=lambda m, b, s, *, key: (jnp.sum(jnp.sqrt(jnp.abs(m))), {})),
        "a root, a norm or a logarithm at zero",
    ),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_a_first_update_that_is_not_finite_is_not_blamed_on_the_rate(name):
    options, said = NOT_FINITE[name]
    blamed = "data or the model .*not the learning rate.*" + said
    with pytest.raises(NonFiniteLossError, match=blamed):
        run(**options)


def test_a_later_batch_that_is_not_finite_is_named():
    broken = lambda step: (X[:8], Y[:8] * np.float32(np.nan if step == 6 else 1))
    with pytest.raises(NonFiniteLossError, match=r"Update 7 .*Not finite before it: batch\[1\]"):
        run(batch_fn=broken, updates_per_call=4)


RETURNS = {
    # name: (what a loss returns instead, what the message says)
    "no metrics": (
        lambda loss: loss,
        r"must return `\(loss, metrics\)`, but returned only float32\[\]",
    ),
    "no metrics at all": (
        lambda loss: (loss, None),
        "as a dict of scalars by name.*returned `None`",
    ),
    "metrics alone": (lambda loss: (loss, loss), r"as a dict of scalars by name.*float32\[\]"),
    "three": (lambda loss: (loss, {}, 1), r"`\(loss, metrics\)`, but returned 3 values"),
    "nothing": (lambda loss: None, "returned only `None`"),
    "a vector": (lambda loss: (loss[None], {}), r"floating-point scalar, but is float32\[1\]"),
    "an integer": (lambda loss: (jnp.array(1), {}), r"floating-point scalar, but is int32\[\]"),
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_a_loss_must_return_is_said(name):
    returns, said = RETURNS[name]
    loss = lambda m, b, s, *, key: returns(loss_fn(m, b, s, key=key)[0])
    with pytest.raises(ValueError, match=said):
        run(loss_fn=loss)


def test_what_a_loss_with_a_carry_must_return_is_said():
    with pytest.raises(ValueError, match=r"`\(loss, metrics, carry\)`, but returned 2 values"):
        run(loss_fn=lambda m, b, s, *, key, carry: loss_fn(m, b, s, key=key), carry=jnp.zeros(()))


@pytest.mark.parametrize("model", [{}, {"a": 1.0}, jnp.arange(3), "linear"])
def test_a_model_without_numbers_to_train_is_refused(model):
    with pytest.raises(ValueError, match="`model` has no floating-point arrays"):
        run(model=model)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(batch_fn=X), "`batch_fn` must be a function.*`lambda step: data`"),
        (dict(loss_fn=None), "`loss_fn` must be a function, got a NoneType."),
        (dict(key=0), r"must be a JAX key such as `jax.random.key\(0\)`, got 0."),
        (dict(evaluate=lambda m: jnp.sum(m)), "`evaluate` must return a dict with 'loss'"),
    ],
)
def test_what_is_of_another_kind_is_refused(options, said, types_unchecked):
    with pytest.raises(ValueError, match=said):
        run(**options)


def test_a_result_is_shown_in_a_few_words():
    model = MLP(3, 50, 2, key=jr.key(0))
    loss = lambda m, b, s, *, key: (jnp.mean(m(0.0, b[0]) ** 2), {})
    result = run(30, model=model, loss_fn=loss, evaluate=lambda m: {"loss": 1.0})
    shown = repr(result)
    assert len(shown) < 250 and str(result) == shown
    assert "model float32[3]" in repr(run(1))
    for part in ("30 updates", "last loss", "best at update 2", "45 rows", "model MLP"):
        assert part in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(num_updates=0), "`num_updates` must be at least 1, got 0."),
        (dict(updates_per_call=0), "`updates_per_call` must be at least 1, got 0."),
        (dict(patience=1), "`evaluate` is `None`"),
        (
            dict(updates_per_call=4, evaluate=distance, evaluate_every=6),
            r"`evaluate_every` must be a multiple of `updates_per_call` \(4\), got 6.",
        ),
        (dict(evaluate=distance, monitor="error"), r"returned \['first', 'loss'\]"),
        (dict(evaluate=distance, monitor="-error"), r"a dict with 'error'.*\['first', 'loss'\]"),
        (dict(evaluate=distance, monitor="accuracy"), "less is better.*write '-accuracy'"),
        (
            dict(loss_fn=lambda m, b, s, *, key: (jnp.sum(m), {"loss": 1.0})),
            "may not name a metric 'loss'",
        ),
        (
            dict(loss_fn=lambda m, b, s, *, key: (jnp.sum(m), {"rates": m})),
            r"'rates' must be a scalar, but has shape \(3,\)",
        ),
    ],
)
def test_bad_arguments_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        run(**options)


def test_progress_shows_evaluations_a_second():
    rows = [{"loss": 0.5, "accuracy": 0.75, "evals": 30.0}, {"loss": 0.25, "evals": 10.0}]
    assert describe(rows[:1], 0.5) == {"loss": "0.5", "accuracy": "0.7500", "evals/s": "60"}
    assert describe(rows, 0.5) == {"loss": "0.25", "evals/s": "80"}


def test_progress_bar_goes_to_stderr(capsys):
    fit(jnp.zeros(3), loss_fn, batch_fn, optimizer=optax.sgd(0.1), num_updates=3, key=jr.key(0))
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err and "loss=" in err and "steps=" in err


def test_fit_works_in_float64(x64):
    result = run(
        model=jnp.zeros(3, jnp.float64),
        batch_fn=lambda step: jax.tree.map(lambda a: a.astype(np.float64), batch_fn(step)),
    )
    assert result.model.dtype == jnp.float64
    assert_tree_close(result.model, sgd_by_hand(20).astype(np.float64), rtol=1e-6)
