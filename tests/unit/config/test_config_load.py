import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from mm_agrae.config import RunConfig, load_config, numbers_hash, parse_config
from mm_agrae.errors import ConfigError

TEXT = """
name: small
model: {path: somewhere}
data:
  train: {path: problems}
  eval: {held_out: {path: problems, split: test}}
"""


def refuse(match: str, *overrides: str, text: str = TEXT) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_config(text, overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sed=1", r"unknown key 'sed'. Did you mean 'seed'\?"),
        ("rollot.group_size=4", r"unknown key 'rollot'. Did you mean 'rollout'\?"),
        ("train.num_step=4", r"unknown key 'train.num_step'. Did you mean 'num_steps'\?"),
        ("train.optim.learning=4", r"unknown key 'train.optim.learning'. Known keys here: lr, weight_decay"),
        ("sft.optim.beta=[0.9, 0.9]", r"unknown key 'sft.optim.beta'. Did you mean 'betas'\?"),
        ("model.lora.rnk=4", r"unknown key 'model.lora.rnk'. Did you mean 'rank'\?"),
        ("data.eval.held_out.splt=x", r"unknown key 'data.eval.held_out.splt'. Did you mean 'split'\?"),
        ("algorithm.agrae.alhpa=1", r"unknown key 'algorithm.agrae.alhpa'. Did you mean 'alpha'\?"),
    ],
)
def test_unknown_keys_are_told_with_the_nearest_name(override: str, message: str) -> None:
    refuse(message, override)


def test_overrides_are_read_as_yaml() -> None:
    config = parse_config(
        TEXT,
        [
            "train.optim.lr=1e-6",
            "sft.optim.lr=2E-3",
            "evaluate.ks=[1, 2]",
            "model.lora.rank=8",
            "evaluate.max_completion_tokens=null",
            "data.train.families=[charts]",
            "name=a=b".replace("=b", "-b"),
        ],
    )
    assert (config.train.optim.lr, config.sft.optim.lr, config.evaluate.ks) == (1e-6, 2e-3, (1, 2))
    assert config.model.lora is not None
    assert (config.model.lora.rank, config.model.lora.alpha) == (8, 32.0)
    assert config.evaluate.max_completion_tokens is None
    assert config.data.train.families == ("charts",)
    assert config.name == "a-b"
    assert parse_config(TEXT + "  # end\n", ["model.lora.rank=8", "model.lora=null"]).model.lora is None
    later = parse_config(TEXT, ["train.num_steps=3", "train.num_steps=5"])
    assert later.train.num_steps == 5


def test_an_override_leaves_the_twin_of_its_section_alone() -> None:
    text = TEXT.replace("train: {path: problems}", "train: &set {path: problems}").replace(
        "{held_out: {path: problems, split: test}}", "{held_out: *set}"
    )
    config = parse_config(text, ["data.train.limit=5"])
    assert (config.data.train.limit, config.data.eval["held_out"].limit) == (5, None)


def test_overrides_without_a_form_are_refused() -> None:
    refuse("must have the form dotted.key=value", "train.num_steps")
    refuse("must have the form dotted.key=value", "=3")
    refuse("'name' holds 'small', which has no keys below it. Override 'name' itself.", "name.first=3")
    refuse("is no valid YAML", "name=[")


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(TEXT.replace("small", "caf\u00e9").encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml cannot be read: 'utf-8' codec can't decode .* in UTF-8"):
        load_config(tmp_path / "latin.yaml")
    refuse("must hold keys and values. Start from a file in configs/", text="- a\n")
    refuse("holds NoneType", text="")
    refuse("recipe is no valid YAML; mend it at the place named here", text="a: [")
    refuse("key 'seed' is given twice", text=f"seed: 1\n{TEXT}seed: 2\n")
    refuse("key 'path' is given twice", text=TEXT.replace("somewhere", "a, path: b"))
    refuse("key 'model' is missing", text="name: x\ndata: {train: {path: y}}\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.num_steps=0", "train.num_steps is 0"),
        ("train.num_steps=many", "train.num_steps is 'many'"),
        ("seed=-1", "seed is -1"),
        ("rollout.temperature=0", "rollout.temperature is 0"),
        ("train.optim.lr=.inf", "train.optim.lr is inf"),
        ("train.optim.betas=[0.9, 1.0]", "less than 1"),
        ("algorithm.clip_low=1.0", "algorithm.clip_low is 1.0"),
        ("algorithm.preset=[grpo]", "algorithm.preset"),
        ("model.precision=fp16", "model.precision is 'fp16'.*'bf16'"),
        ("name=a/b", "name is 'a/b'"),
        ("images.min_pixels=700000", "min_pixels is 700000, above max_pixels 602112"),
        ("evaluate.ks=[1, 8]", "ks asks for pass@8, but num_samples is 4"),
        ("train.updates_per_rollout=5", "num_prompts is 32, which train.updates_per_rollout 5 does not divide"),
        ("train.recompute_above_tokens=9", "recompute_above_tokens is 9, but nothing is recomputed"),
        ("train.reshard_after_forward=false", "reshard_after_forward is false, but sharding is none"),
        ("train.micro_batch_targets=0", "micro_batch_targets is 0"),
        ("evaluate.top_p=1.5", "evaluate.top_p is 1.5"),
        ("algorithm.weighting=[agrae, agrae]", r"weighting is \['agrae', 'agrae'\], but a weighting acts once"),
    ],
)
def test_values_out_of_range_are_told(override: str, message: str) -> None:
    refuse(message, override)


@pytest.mark.parametrize("name", ["a/b", "x.greedy", "..", '""'])
def test_a_set_is_named_so_that_it_can_name_files(name: str) -> None:
    refuse("data.eval.* should match pattern", text=TEXT.replace("held_out", name))
    assert list(parse_config(TEXT.replace("held_out", "MATH-500_v2")).data.eval) == ["MATH-500_v2"]


def test_a_group_of_one_is_refused() -> None:
    refuse(
        "group_size is 1, but a group-relative advantage needs at least 2 completions per prompt. "
        "Set rollout.group_size to 2 or more.",
        "rollout.group_size=1",
    )
    assert parse_config(TEXT, ["rollout.group_size=2"]).rollout.group_size == 2


def test_presets_fill_only_what_is_left_out() -> None:
    grpo = parse_config(TEXT).algorithm
    assert (grpo.baseline, grpo.std, grpo.aggregation, grpo.clip_high) == ("group", "biased", "sequence_mean", 0.2)
    doctor = parse_config(TEXT, ["algorithm.preset=dr_grpo", "algorithm.clip_high=0.28"]).algorithm
    assert (doctor.baseline, doctor.std, doctor.aggregation, doctor.clip_high) == ("group", "none", "token_sum", 0.28)
    with pytest.raises(ConfigError) as refused:
        parse_config(TEXT, ["algorithm.preset=ppo"])
    assert "algorithm.preset is 'ppo'" in str(refused.value)
    assert "missing" not in str(refused.value)


def test_the_hash_leaves_out_what_decides_no_number() -> None:
    first = numbers_hash(parse_config(TEXT))
    for override in (
        *("output_dir=elsewhere", "tracker.wandb=offline", "tracker.project=other", "model.vision_cache_gib=0"),
        *("train.micro_batch_tokens=99", "train.micro_batch_targets=9", "rollout.batch_rows=3"),
        *("model.gradient_checkpointing=true", "train.keep_checkpoints=9"),
        "model.stored_weights=auto",  # the default
    ):
        assert numbers_hash(parse_config(TEXT, [override])) == first
    assert numbers_hash(parse_config(TEXT, ["algorithm.preset=grpo", "seed=0"])) == first
    changes = ("seed=1", "train.optim.lr=1e-5", "model.path=other", "name=other", "data.train.limit=3")
    assert len({first, *(numbers_hash(parse_config(TEXT, [change])) for change in changes)}) == 1 + len(changes)


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield f"{path}{name}", field
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                assert kind.__doc__, kind
                yield from sections(kind, f"{path}{name}.")


def test_every_setting_is_described() -> None:
    fields = dict(sections(RunConfig))
    assert len(fields) > 60
    for name, field in fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        assert is_section or (field.description and field.description.endswith((".", "]"))), name


@pytest.mark.parametrize("code", ["import mm_agrae.config", "import mm_agrae.cli.main; main(['--help'])"])
def test_reading_a_recipe_and_asking_for_help_import_no_torch(code: str) -> None:
    if "cli" in code:
        code = "import sys\nsys.argv = ['mm-agrae', '--help']\nfrom mm_agrae.cli.main import main\n"
        code += "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
    check = "\nimport sys\nassert 'torch' not in sys.modules and 'transformers' not in sys.modules\nprint('light')"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("light\n")
