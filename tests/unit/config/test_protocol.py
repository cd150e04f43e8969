from pathlib import Path

import pytest
import yaml

from data_processors import PROCESSORS
from mm_agrae.config import load_config, parse_config
from mm_agrae.config.protocol import load_protocol, plan_sets, protocol_hash, protocol_names
from mm_agrae.errors import ConfigError
from mm_agrae.metrics.group_scores import aggregate_named
from mm_agrae.prompts.texts import INSTRUCTIONS
from mm_agrae.verify.profiles import profile_named

ROOT = Path(__file__).parents[3]
BENCHMARKS = {
    *("mathvista", "mathvision", "mathverse", "geometry3k", "geometry3k_choice", "geoqa", "we_math", "dynamath"),
    *("logicvista", "chartqa", "charxiv", "hallusionbench", "mmmu", "mmmu_pro", "medical_vqa"),
    *("math", "math500", "aime24", "aime25", "amc23", "minerva", "olympiadbench", "gsm8k"),
}
RECIPE = """\
name: measure
seed: 3
model: {path: model}
data:
  train: {path: data}
  eval:
    pictures: {path: data/mathvista, protocol: mathvista}
    own: {path: data, split: test}
images: {min_pixels: 1024, max_pixels: 4096}
evaluate: {num_samples: 8, ks: [1, 8], every: 5}
rollout: {max_prompt_tokens: 64}
"""


def plans(*overrides):
    return {plan.name: plan for plan in plan_sets(parse_config(RECIPE, overrides))}


def test_every_benchmark_has_a_card() -> None:
    assert set(protocol_names()) >= BENCHMARKS


@pytest.mark.parametrize("name", protocol_names())
def test_a_card_names_what_there_is(name: str) -> None:
    card = load_protocol(name)
    described = PROCESSORS[card.data.processor].description
    assert card.name == name
    assert card.data.split in described.splits
    assert card.data.hub_id == described.hub_id
    assert "benchmark" in described.uses
    assert card.profile == described.profile
    profile_named(card.profile)
    if card.aggregate:
        aggregate_named(card.aggregate)
    assert card.prompt.instruction in INSTRUCTIONS


@pytest.mark.parametrize("name", protocol_names())
def test_a_card_tells_where_it_departs_and_what_may_be_compared(name: str) -> None:
    text = (ROOT / "mm_agrae" / "config" / "protocols" / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\nname: ")].splitlines()
    assert all(line.startswith("# ") for line in header)
    for words in (("# Official: ", "# Protocol: "), "# Departures: ", "# Compare with: "):
        assert any(line.startswith(words) for line in header), words


@pytest.mark.parametrize("name", ["math", "aime25", "amc23"])
def test_the_text_protocol_of_a_grae(name: str) -> None:
    card = load_protocol(name)
    sampling = card.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_completion_tokens) == (0.6, 0.95, 4096)
    assert (sampling.num_samples, card.ks) == (256, (1, 2, 4, 8, 16, 32, 64, 128, 256))


def test_the_suite_names_every_card_once() -> None:
    sets = load_config(ROOT / "configs" / "benchmarks.yaml").data.eval
    assert sorted(source.protocol or "" for source in sets.values()) == sorted(protocol_names())


def test_a_card_replaces_the_recipe_for_its_set_alone() -> None:
    found = plans()
    card, config = load_protocol("mathvista"), found["pictures"].config
    assert config.evaluate.num_samples == 1
    assert (config.evaluate.temperature, config.evaluate.ks, config.evaluate.every) == (0, (1,), 5)
    assert config.prompt == card.prompt
    assert config.images == card.images
    assert config.verifier.profile == "mathvista"
    assert config.rollout.max_prompt_tokens == card.sampling.max_prompt_tokens
    assert found["pictures"].source.split == "testmini"
    assert config.seed == 3
    assert found["own"].config == parse_config(RECIPE)
    assert (found["own"].card, found["own"].source.split) == (None, "test")


def test_a_trial_cuts_cards_and_says_what() -> None:
    trial = [
        "evaluate.trial.max_completion_tokens=16",
        "evaluate.trial.num_samples=4",
        "evaluate.trial.max_pixels=2000",
    ]
    plan = plans(*trial, "data.eval.pictures.families=[charts]")["pictures"]
    assert plan.departures == (
        "max_completion_tokens 16 instead of 4096",
        "max_pixels 2000 instead of 1003520",
        "min_pixels 2000 instead of 3136",
        "families charts only",
    )
    assert plan.config.evaluate.max_completion_tokens == 16
    assert (plan.config.images.min_pixels, plan.config.images.max_pixels) == (2000, 2000)
    cut = plans("data.eval.pictures.protocol=aime25", "evaluate.trial.num_samples=20")["pictures"]
    assert (cut.config.evaluate.ks, cut.config.evaluate.g_pass_ks) == ((1, 2, 4, 8, 16), (16,))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.eval.pictures.protocol=mathvist"], "protocol is 'mathvist'.*The nearest is 'mathvista'"),
        (["data.eval.pictures.split=test"], "split is 'test', but its protocol mathvista measures 'testmini'"),
        (["data.eval.pictures.format=geoqa"], "format is 'geoqa', but its protocol mathvista .* 'mathvista' reads"),
        (["data.eval.pictures.protocol=null", "evaluate.trial.num_samples=1"], "evaluate.trial cuts protocol cards"),
        (["data.eval.pictures.protocol=no/such.yaml"], "no/such.yaml cannot be read"),
        (["evaluate.temperature=0"], "temperature is 0 with num_samples 8"),
        (["evaluate.g_pass_ks=[16]"], r"g_pass_ks asks for G-Pass@16, but num_samples is 8"),
    ],
)
def test_refusals(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plans(*overrides)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("profil", "generic", "unknown key 'profil'. Did you mean 'profile'"),
        ("ks", [1, 64], "ks asks for pass@64, but num_samples is 1"),
        ("ks", [], r"ks is \[\], but must name each k once, and ks one or more"),
        ("ks", [1, 1], r"ks is \[1, 1\], but must name each k once"),
        ("name", "mathvista", "has the name 'mathvista', but a card is called like its file"),
        ("sampling", {"num_samples": 2, "temperature": 0, "max_prompt_tokens": 9, "max_completion_tokens": 9},
         "temperature is 0 with num_samples 2"),
    ],
)  # fmt: skip
def test_a_card_of_ones_own_is_checked(tmp_path: Path, key: str, value: object, message: str) -> None:
    values = load_protocol("mathvista").model_dump(mode="json") | {key: value}
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_protocol(str(path))


def test_the_hash_is_of_what_decides_figures() -> None:
    card = load_protocol("mathvista")
    assert protocol_hash(card) == protocol_hash(card.model_copy(update={"title": "another"}))
    assert protocol_hash(card) != protocol_hash(card.model_copy(update={"profile": "generic"}))
