"""Recipe file + dotted overrides -> RunConfig, or an error that names the key, the value and the remedy."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from mm_agrae.config.schema import RunConfig
from mm_agrae.errors import ConfigError

# What a run may be resumed with another value of. How much is computed at a time decides no more than rounding.
DECIDES_NO_NUMBER: dict[str, Any] = {
    "supervision": True,
    "model": {"vision_cache_gib", "gradient_checkpointing"},
    "rollout": {"batch_rows"},
    "train": {
        "micro_batch_tokens",
        "micro_batch_targets",
        "recompute_above_tokens",
        "sharding",
        "reshard_after_forward",
        "keep_best",
        "keep_checkpoints",
        "checkpoint_every",
        "rollout_log_every",
    },
    "engine": {
        "base_urls",
        "api_key_variable",
        "sync",
        "sync_folder",
        "request_timeout_s",
        "recover_timeout_s",
        "memory_fraction",
        "sleeps",
        "on_mismatch",
        "max_logprob_gap_nats",
    },
}


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-6 as a number (YAML 1.1 takes it for text) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"key {key!r} is given twice{node.start_mark}. Keep one of them.")
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe and apply overrides such as "train.optim.lr=1e-5".

    Args:
        path: YAML file.
        overrides: "dotted.key=value"; the value is read as YAML.

    Raises:
        ConfigError: The file cannot be read, a key is unknown (the nearest name is told), or a value does not fit.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"recipe {path} cannot be read: {reason}. Give the path of a YAML file in UTF-8.") from error
    return parse_config(text, overrides, origin=str(path))


def parse_config(text: str, overrides: Sequence[str] = (), *, origin: str = "recipe") -> RunConfig:
    """The same from YAML text; `origin` names it in errors."""
    values = parse_yaml(text, origin)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{origin} holds {type(values).__name__}, but must hold keys and values. Start from a file in configs/."
        )
    for override in overrides:
        _apply(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, origin, RunConfig))) from error


def numbers_hash(config: RunConfig) -> str:
    """Hash of everything that decides the numbers of a run.

    Where it is written, how it is watched, how it is spread over processes and how much memory it takes do not. Two
    configurations compare if this version has read both: a setting that one was saved without has its default then.
    """
    return config_hash(config.model_dump(mode="json", exclude=DECIDES_NO_NUMBER))


def config_hash(values: Mapping[str, Any]) -> str:
    """Hash of a configuration by the keys that it was saved with, in whatever version; the mark of a run's checkpoints.

    It stays the same when a later version adds settings.
    """
    decides = {key: value for key, value in values.items() if key not in ("output_dir", "tracker")}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def parse_yaml(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        # What YAML says of the place stands on several lines, so the remedy goes before it.
        raise ConfigError(f"{origin} is no valid YAML; mend it at the place named here: {error}") from error


def _apply(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {override!r} must have the form dotted.key=value, for example train.num_steps=10.")
    *parents, last = key.strip().split(".")
    target = values
    for parent in parents:
        child = {} if target.get(parent) is None else target[parent]
        if not isinstance(child, dict):
            raise ConfigError(
                f"override {override!r}: {parent!r} holds {child!r}, which has no keys below it. "
                f"Override {parent!r} itself."
            )
        # A copy: sections that share a YAML anchor are one object, and only the one that is named may change.
        target[parent] = dict(child)
        target = target[parent]
    target[last] = parse_yaml(text, f"the value of override {override!r}")


def explain(error: ValidationError, origin: str, model: type[BaseModel]) -> Iterator[str]:
    """What does not fit the model, in words; `origin` names the file."""
    for problem in error.errors():
        dotted = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _keys_at(model, problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else f"Known keys here: {', '.join(known)}."
            yield f"{origin}: unknown key {dotted!r}. {remedy}"
        elif problem["type"] == "missing":
            yield f"{origin}: key {dotted!r} is missing and has no default. Add it."
        else:
            message = problem["msg"].removeprefix("Value error, ")
            # An address may hold a password.
            hidden = isinstance(problem["input"], dict) or "@" in str(problem["input"])
            given = "" if hidden else f" is {problem['input']!r}"
            yield f"{origin}: {dotted or 'recipe'}{given}: {message}"


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Names of the keys of the section at a dotted location."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:  # the name of an entry in a mapping of sections, such as data.eval.<name>
            continue
        sections = [a for a in (field.annotation, *_flatten(field.annotation)) if _is_section(a)]
        if sections:
            model = sections[0]
    return list(model.model_fields)


def _flatten(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        yield argument
        yield from _flatten(argument)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
