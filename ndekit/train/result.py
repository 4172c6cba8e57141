"""What a training run leaves in the caller's hands."""

from typing import NamedTuple

from jaxtyping import PyTree

from .update import Row


class FitResult(NamedTuple):
    """What comes out of [`ndekit.train.fit`][].

    Attributes:
        model: the best model if `patience` was given, else the last one.
        history: one row for each update (`kind="train"`) and each evaluation (`kind="evaluate"`),
            with the number of updates done as `update`; read it with [`ndekit.train.column`][].
        num_updates: updates done; fewer than asked for if `patience` or `stop` ended the run.
        best_update: after how many updates the best evaluation was; `None` if none was finite, or
            without `evaluate`.
        compile_seconds, train_seconds: for the updates, without evaluations; summed over the parts
            of an interrupted run.
        carry: what the loss handed on last; `None` if nothing.
        resumed_at: after how many updates this call went on from a checkpoint; 0 from none.
        remarks: what parts of the carry have to say at the end, for example a budget that was not
            kept; they are logged, too.
    """

    model: PyTree
    history: list[Row]
    num_updates: int
    best_update: int | None
    compile_seconds: float
    train_seconds: float
    carry: PyTree = None
    resumed_at: int = 0
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the numbers of model and history, which fill a screen."""
        losses = [row["loss"] for row in self.history if row["kind"] == "train"]
        last = f", last loss {losses[-1]:.4g}" if losses else ""
        best = "" if self.best_update is None else f", best at update {self.best_update}"
        resumed = f", resumed at {self.resumed_at}" if self.resumed_at else ""
        model = type(self.model).__name__
        if hasattr(self.model, "dtype") and hasattr(self.model, "shape"):
            model = f"{self.model.dtype}{list(self.model.shape)}"
        remarks = "".join(f", {remark!r}" for remark in self.remarks)
        return (
            f"FitResult({self.num_updates} updates{last}{best}{resumed}, "
            f"{self.train_seconds:.3g} s and {self.compile_seconds:.3g} s of compilation, history "
            f"of {len(self.history)} rows, model {model}{remarks})"
        )
