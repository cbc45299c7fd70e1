"""What a person sees of a training run, on stderr: a bar on a terminal, one line an epoch everywhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any, Self

import keras
import rich.console
import rich.progress

from tfctr.training.schedule import PlateauSchedule

_NOT_A_TERM = ("loss", "learning_rate", "seconds", "rows_per_second")


class Progress(keras.callbacks.Callback):
    """One line an epoch: rows a second, loss terms, validation AUC, learning rate; on a terminal a bar within the epoch too.

    Stands behind `Stopwatch` and `PlateauSchedule`, whose logs and verdict it shows. Its `with` block removes the bar however
    `fit` ends: Keras calls no callback after an exception or Ctrl-C.

    Args:
        rows, batch_size: of the training table.
        schedule: the `PlateauSchedule` that knows the best epoch.
        console: a `rich` console; stderr by default.
    """

    async_safe = True  # Keras then does not wait for the device after each step

    def __init__(
        self, rows: int, batch_size: int, schedule: PlateauSchedule, console: rich.console.Console | None = None
    ) -> None:
        super().__init__()
        self.rows = rows
        self.batch_size = batch_size
        self.schedule = schedule
        self.console = console or rich.console.Console(stderr=True)
        self.bar: rich.progress.Progress | None = None

    def say(self, line: str) -> None:
        """Print one line, without wrapping or colours."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.console.is_interactive:
            columns = (
                "epoch {task.fields[epoch]}",
                rich.progress.BarColumn(),
                "{task.percentage:>3.0f} %",
                "{task.description}",
            )
            # What is printed meanwhile goes above the bar; but output that is piped away must not come to the terminal.
            self.bar = rich.progress.Progress(
                *columns, console=self.console, transient=True, redirect_stdout=sys.stdout.isatty()
            )
            self.start = time.perf_counter()
            self.bar.add_task("", total=self.rows, epoch=epoch + 1)
            self.bar.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        bar = self.bar  # Keras calls this from other threads, perhaps late and out of order
        if bar:
            assert logs is not None  # Keras gives them after every batch
            (task,) = bar.tasks
            rows = max(task.completed, min((batch + 1) * self.batch_size, self.rows))
            speed = f"{rows / (time.perf_counter() - self.start):,.0f} rows/s"
            bar.update(task.id, completed=rows, description=f"{speed}  {loss_text(logs)}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert logs is not None  # and every epoch
        self.close()
        self.say(epoch_text(epoch + 1, logs, best=self.schedule.best_epoch == epoch + 1))

    def close(self) -> None:
        """Remove the bar, if there is one."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def loss_text(logs: Mapping[str, float]) -> str:
    """The loss, and the terms it is the sum of.

    >>> loss_text({"loss": 0.5, "ctr": 0.3, "l2": 0.2, "val_auc": 0.7})
    'loss 0.5000 = ctr 0.3000 + l2 0.2000'
    """
    terms = {name: value for name, value in logs.items() if name not in _NOT_A_TERM and not name.startswith("val_")}
    return f"loss {logs['loss']:.4f} = " + " + ".join(f"{name} {value:.4f}" for name, value in terms.items())


def epoch_text(epoch: int, logs: Mapping[str, float], best: bool) -> str:
    """One epoch in one line.

    >>> logs = {"loss": 0.5, "ctr": 0.5, "val_log_loss": 0.6, "val_auc": 0.7, "learning_rate": 0.001}
    >>> logs |= {"seconds": 2.0, "rows_per_second": 5e3}
    >>> epoch_text(3, logs, best=True)
    'epoch   3    2.0 s      5,000 rows/s  loss 0.5000 = ctr 0.5000  valid auc 0.70000 log loss 0.60000  lr 0.001  best'
    """
    speed = f"{logs['seconds']:6.1f} s {logs['rows_per_second']:10,.0f} rows/s"
    valid = f"valid auc {logs['val_auc']:.5f} log loss {logs['val_log_loss']:.5f}"
    parts = [
        f"epoch {epoch:3d} {speed}",
        loss_text(logs),
        valid,
        f"lr {logs['learning_rate']:.3g}",
        *(["best"] if best else []),
    ]
    return "  ".join(parts)
