"""Protocol cards: how a benchmark is measured, fixed by name, so that two figures of one name can be compared.

A card decides everything that moves a figure: which data, the words around a question, the pixel budget, the sampling,
the rule of scoring, and which figures are reported. Its settings win over those of a recipe. What a run does otherwise
(fewer problems, fewer samples) is a departure, which the summary names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from mm_agrae.config.load import explain, parse_yaml
from mm_agrae.config.schema import (
    DataSource,
    EvalSource,
    EvaluateConfig,
    ImageConfig,
    PromptConfig,
    RunConfig,
    TrialConfig,
)
from mm_agrae.config.section import NonNegativeFloat, PositiveInt, Section
from mm_agrae.errors import ConfigError


class ProtocolData(Section):
    """Which problems a card is about."""

    processor: str = Field(description="Data processor that converts the set.")
    hub_id: str = Field(description="Where the set is published; empty for a set that is not on the hub.")
    split: str = Field(description="Split of the converted set.")
    num_problems: PositiveInt | None = Field(
        default=None, description="Problems that the whole split has after conversion; null where that is not known."
    )
    revision: str | None = Field(
        default=None, description="Commit of the hub's repository; null takes any and records which it was."
    )
    sha256: str | None = Field(
        default=None, description="Hash of the converted split's file; null takes any and records it."
    )


class ProtocolSampling(Section):
    """How completions are drawn."""

    num_samples: PositiveInt = Field(description="Sampled completions per problem.")
    temperature: NonNegativeFloat = Field(description="0 takes the most probable token, which allows one sample.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="Nucleus of the sampled completions.")
    max_prompt_tokens: PositiveInt = Field(description="A problem with a longer prompt is refused, counted and named.")
    max_completion_tokens: PositiveInt = Field(description="Bound on the tokens of a completion.")
    greedy: bool = Field(default=False, description="Also measure the most probable completion of every problem.")


class Protocol(Section):
    """A protocol card."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", description="Name of the card; its file is called so.")
    title: str = Field(description="What is measured, in words.")
    data: ProtocolData
    prompt: PromptConfig
    sampling: ProtocolSampling
    images: ImageConfig | None = Field(default=None, description="Pixel budget; null for a set without images.")
    profile: str = Field(description="Scoring profile.")
    ks: tuple[PositiveInt, ...] = Field(default=(1,), description="pass@k, and above 1 maj@k, are reported for these.")
    g_pass_ks: tuple[PositiveInt, ...] = Field(default=(), description="G-Pass@k is reported for these k.")
    aggregate: str | None = Field(default=None, description="Score over groups of problems; null where there is none.")
    categories: tuple[str, ...] = Field(default=(), description="Metadata keys; figures are tabulated by their values.")

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        # The section of a recipe that says the same knows what contradicts itself.
        evaluate_section(self, EvaluateConfig())
        for name, ks in (("ks", self.ks), ("g_pass_ks", self.g_pass_ks)):
            if len(set(ks)) < len(ks) or (name == "ks" and not ks):
                raise ValueError(f"{name} is {list(ks)}, but must name each k once, and ks one or more. Mend the list.")
        return self


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one evaluation set is measured.

    Attributes:
        name: Name of the set.
        source: Where its problems come from.
        config: The recipe with the card's settings in place of its own.
        card: The card; None where the recipe decides.
        departures: What is done otherwise than the card says, in words.
    """

    name: str
    source: DataSource
    config: RunConfig
    card: Protocol | None
    departures: tuple[str, ...]

    @property
    def aggregate(self) -> str | None:
        return self.card.aggregate if self.card else None

    @property
    def categories(self) -> tuple[str, ...]:
        return self.card.categories if self.card else ()


def load_protocol(name_or_path: str) -> Protocol:
    """A card by its name, or from a YAML file of one's own.

    Raises:
        ConfigError: There is no such card (the nearest name is told), or a key or a value does not fit.
    """
    is_file = Path(name_or_path).suffix in (".yaml", ".yml")
    if not is_file and name_or_path not in protocol_names():
        nearest = get_close_matches(name_or_path, protocol_names(), n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"protocol is {name_or_path!r}, but must be the path of a YAML file or one of "
            f"{', '.join(protocol_names())}. The nearest is {nearest!r}."
        )
    origin = f"protocol card {name_or_path}"
    try:
        text = (Path(name_or_path) if is_file else _cards() / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{origin} cannot be read: {reason}. Give the path of a YAML file in UTF-8.") from error
    values = parse_yaml(text, origin)
    if not isinstance(values, dict):
        raise ConfigError(f"{origin} holds {type(values).__name__}, but must hold keys and values. Copy another card.")
    try:
        card = Protocol.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, origin, Protocol))) from error
    if is_file and card.name != Path(name_or_path).stem:
        raise ConfigError(
            f"{origin} has the name {card.name!r}, but a card is called like its file. Rename the file or the card."
        )
    return card


def protocol_names() -> tuple[str, ...]:
    """Names of the cards that come with the package."""
    return tuple(sorted(item.name.removesuffix(".yaml") for item in _cards().iterdir() if item.name.endswith(".yaml")))


def protocol_hash(card: Protocol) -> str:
    """Hash of everything that a card decides; its title does not count."""
    decides = card.model_dump(mode="json", exclude={"title"})
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def plan_sets(config: RunConfig) -> tuple[Plan, ...]:
    """How every set of data.eval is measured.

    Raises:
        ConfigError: A card does not exist or contradicts the source, or a trial would cut nothing.
    """
    plans = tuple(_plan(config, name, source) for name, source in config.data.eval.items())
    if config.evaluate.trial and not any(plan.card for plan in plans):
        raise ConfigError(
            "evaluate.trial cuts protocol cards, but no set of data.eval names one. Lower evaluate.num_samples and "
            "images.max_pixels themselves, or give a set its protocol."
        )
    return plans


def evaluate_section(card: Protocol, base: EvaluateConfig) -> EvaluateConfig:
    """The evaluate section of a recipe that says what the card says."""
    sampling = card.sampling
    return EvaluateConfig(
        num_samples=sampling.num_samples,
        ks=card.ks,
        g_pass_ks=card.g_pass_ks,
        greedy=sampling.greedy,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_completion_tokens=sampling.max_completion_tokens,
        every=base.every,
    )


def _plan(config: RunConfig, name: str, source: EvalSource) -> Plan:
    own = {field: value for field, value in source if field != "protocol"}
    if source.protocol is None:
        return Plan(name=name, source=DataSource(**own), config=config, card=None, departures=())
    card = load_protocol(source.protocol)
    if "split" in source.model_fields_set and source.split != card.data.split:
        raise ConfigError(
            f"data.eval.{name}.split is {source.split!r}, but its protocol {card.name} measures {card.data.split!r}. "
            "Leave the split out, or drop the protocol."
        )
    if source.format not in ("canonical", card.data.processor):
        raise ConfigError(
            f"data.eval.{name}.format is {source.format!r}, but its protocol {card.name} measures what the processor "
            f"{card.data.processor!r} reads. Set the format to that, or to canonical for a converted set."
        )
    cut, departures = _cut(card, config.evaluate.trial or TrialConfig())
    settings = {
        "prompt": cut.prompt,
        "images": cut.images or config.images,
        "evaluate": evaluate_section(cut, config.evaluate),
        "verifier": config.verifier.model_copy(update={"profile": cut.profile}),
        "rollout": config.rollout.model_copy(update={"max_prompt_tokens": cut.sampling.max_prompt_tokens}),
    }
    return Plan(
        name=name,
        source=DataSource(**{**own, "split": card.data.split}),
        config=config.model_copy(update=settings),
        card=card,
        departures=(*departures, *_left_out(source)),
    )


def _cut(card: Protocol, trial: TrialConfig) -> tuple[Protocol, tuple[str, ...]]:
    """The card as a trial affords it, and what was cut."""
    departures: list[str] = []

    def lowered(what: str, value: int, bound: int | None) -> int:
        if bound is None or bound >= value:
            return value
        departures.append(f"{what} {bound} instead of {value}")
        return bound

    num_samples = lowered("num_samples", card.sampling.num_samples, trial.num_samples)
    length = lowered("max_completion_tokens", card.sampling.max_completion_tokens, trial.max_completion_tokens)
    images = card.images
    if images:
        pixels = lowered("max_pixels", images.max_pixels, trial.max_pixels)
        images = ImageConfig(min_pixels=lowered("min_pixels", images.min_pixels, trial.max_pixels), max_pixels=pixels)
    changes = {
        "sampling": card.sampling.model_copy(update={"num_samples": num_samples, "max_completion_tokens": length}),
        "images": images,
        "ks": tuple(k for k in card.ks if k <= num_samples),
        "g_pass_ks": tuple(k for k in card.g_pass_ks if k <= num_samples),
    }
    return card.model_copy(update=changes), tuple(departures)


def _left_out(source: EvalSource) -> Iterator[str]:
    """What a source keeps of the whole split; whether its limit cuts anything is known when the problems are read."""
    if source.families:
        yield f"families {', '.join(source.families)} only"
    if source.difficulties:
        yield f"difficulties {', '.join(map(str, source.difficulties))} only"


def _cards() -> Traversable:
    return files("mm_agrae.config") / "protocols"
