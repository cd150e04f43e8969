"""The matrix file of a comparison: algorithms x seeds of one recipe, and what of it to report."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from mm_agrae.config.load import parse_yaml
from mm_agrae.config.section import NonNegativeInt, Section
from mm_agrae.errors import ConfigError
from mm_agrae.metrics.catalogue import UncataloguedMetricError, lookup

# A name is a folder of the comparison and a row of its table: "Dr.GRPO+A-GRAE".
AlgorithmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
Settings = dict[str, Any]

SEED_MARK = "{seed}"


class Matrix(Section):
    """One comparison.

    Settings are what `mm-agrae train RECIPE key=value` takes: a dotted key names one setting, and `algorithm` with a
    mapping replaces the recipe's whole algorithm, so that nothing of it stays behind unseen.
    """

    title: str = Field(description="Heading of the table.")
    recipe: str = Field(description="Recipe that every cell runs.")
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1, description="One run of every algorithm for each.")
    baseline: AlgorithmName = Field(description="Algorithm that all others are compared with.")
    common: Settings = Field(
        default_factory=dict, description="Settings of every cell; {seed} in a text stands for its seed."
    )
    algorithms: dict[AlgorithmName, Settings] = Field(min_length=1, description="Settings of each algorithm, by name.")
    metrics: tuple[str, ...] = Field(min_length=1, description="Evaluation metrics to report: eval/<set>/<figure>.")
    pairs: tuple[tuple[AlgorithmName, AlgorithmName], ...] = Field(
        default=(), description="Further pairs to compare, the first against the second."
    )
    notes: tuple[str, ...] = Field(default=(), description="What a reader of the table must know; shown with it.")

    @model_validator(mode="after")
    def _consistent(self) -> Matrix:
        problem = next(self._problems(), None)
        if problem:
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        known = ", ".join(self.algorithms)
        for name in (self.baseline, *(name for pair in self.pairs for name in pair)):
            if name not in self.algorithms:
                yield f"{name!r} is none of the algorithms ({known}). Name one of them."
        for name, other in self.pairs:
            if name == other:
                yield f"the pair [{name}, {other}] compares an algorithm with itself. Name two."
        if len({name.lower() for name in self.algorithms}) < len(self.algorithms):
            yield "two algorithms differ in capitals only, but each is a folder. Rename one."
        if len(set(self.seeds)) < len(self.seeds):
            yield f"seeds {list(self.seeds)} hold one twice. Each seed runs once."
        for metric in self.metrics:
            yield from _metric_problem(metric)
        for settings in (self.common, *self.algorithms.values()):
            yield from _settings_problems(settings)


def load_matrix(path: Path) -> Matrix:
    """Read a matrix file.

    Raises:
        ConfigError: The file cannot be read, a key is unknown (the nearest name is told), or a value does not fit.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"matrix {path} cannot be read: {reason}. Give the path of a YAML file in UTF-8.") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}, but must hold keys and values.")
    try:
        return Matrix.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, str(path)))) from error


def overrides(matrix: Matrix, algorithm: str, seed: int) -> list[str]:
    """The overrides of one cell, as the command line takes them; an algorithm's win over the common ones.

    Whole sections come first: one that came later would undo the single settings inside it.
    """
    merged = {**matrix.common, **matrix.algorithms[algorithm]}
    settings = dict(sorted(merged.items(), key=lambda setting: "." in setting[0]))
    lines = [f"{key}={json.dumps(_with_seed(value, seed), ensure_ascii=False)}" for key, value in settings.items()]
    return [f"seed={seed}", *lines]


def comparisons(matrix: Matrix) -> list[tuple[str, str]]:
    """The pairs to look at, each once: those asked for, then every other algorithm against the baseline."""
    against_baseline = [(name, matrix.baseline) for name in matrix.algorithms if name != matrix.baseline]
    return list(dict.fromkeys([*matrix.pairs, *against_baseline]))


def _with_seed(value: Any, seed: int) -> Any:
    if isinstance(value, str):
        return value.replace(SEED_MARK, str(seed))
    if isinstance(value, Mapping):
        return {key: _with_seed(inner, seed) for key, inner in value.items()}
    return [_with_seed(inner, seed) for inner in value] if isinstance(value, list) else value


def _metric_problem(metric: str) -> Iterator[str]:
    if metric.count("/") != 2 or not metric.startswith("eval/"):
        yield f"metric {metric!r} is no evaluation metric. Name one such as eval/held_out/pass@1."
        return
    try:
        lookup(metric)
    except UncataloguedMetricError as error:
        yield str(error)


def _settings_problems(settings: Settings) -> Iterator[str]:
    for key, value in settings.items():
        if key == "seed":
            yield "a cell's seed comes from seeds. Take the setting `seed` away."
        # Meant as a whole: an algorithm, and the sets to measure on.
        if isinstance(value, Mapping) and key.partition(".")[0] != "algorithm" and key != "data.eval":
            inner = next(iter(value), "key")
            yield (
                f"{key!r} with a mapping would put every other key of that section back to its default. "
                f"Name its keys one by one: {key}.{inner}."
            )


def _explain(error: ValidationError, origin: str) -> Iterator[str]:
    for problem in error.errors():
        dotted = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = list(Matrix.model_fields)
            near = difflib.get_close_matches(dotted, known, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
            yield f"{origin}: unknown key {dotted!r}. {remedy}"
        elif problem["type"] == "missing":
            yield f"{origin}: key {dotted!r} is missing and has no default. Add it."
        else:
            given = "" if isinstance(problem["input"], dict) else f" is {problem['input']!r}"
            yield f"{origin}: {dotted or 'matrix'}{given}: {problem['msg'].removeprefix('Value error, ')}"
