"""One line per step, in fixed columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Heading, metric, format.
COLUMNS = (
    ("reward", "reward/mean", "7.3f"),
    ("correct", "reward/batch_accuracy", "8.3f"),
    ("mixed", "group/mixed_frac", "6.2f"),
    ("entropy", "policy/entropy_nats", "8.3f"),
    ("tokens", "rollout/length_mean_tokens", "7.1f"),
    ("gap", "rollout/logprob_gap_mean_nats", "8.1e"),
    ("grad", "policy/grad_norm", "7.2f"),
    ("sec", "time/step_s", "7.2f"),
)
REPEAT_HEADING = 25


class Progress:
    """Prints to `log`; the heading comes again every few lines."""

    def __init__(self, log: Callable[[str], None], num_steps: int) -> None:
        self.log = log
        self.num_steps = num_steps
        self.shown = 0

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        width = max(len("step"), 2 * len(str(self.num_steps)) + 1)
        if self.shown % REPEAT_HEADING == 0:
            widths = [int(form.split(".")[0]) for _, _, form in COLUMNS]
            names = [name.rjust(size) for (name, _, _), size in zip(COLUMNS, widths, strict=True)]
            self.log(" ".join(["step".rjust(width), *names]))
        cells = [format(metrics.get(key, float("nan")), form) for _, key, form in COLUMNS]
        self.log(" ".join([f"{step}/{self.num_steps}".rjust(width), *cells]))
        self.shown += 1
