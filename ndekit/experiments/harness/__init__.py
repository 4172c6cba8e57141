"""What every experiment goes through: it is trained, measured, and compared with others.

In comes a `Config`, which holds an experiment's data, task, solve and optimiser, and a `Job`, which
says by which names, with which regulariser, coefficient and seed. The model is trained with a log
and checkpoints, measured on data that it has not seen, and timed. Out go a row of `rows.jsonl`, the
steps of a solve, tables, pictures, and a coefficient chosen on validation data. Nothing here knows
an experiment: their list stands above.
"""
