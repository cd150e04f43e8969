"""What a model is asked when it is loaded: are its logits those of its head, its states finite, its lines apart?"""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import REPEATING, build_family

from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import ConfigError
from mm_agrae.policy import logits, sharing
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.layout import Row, make_padded_layout
from mm_agrae.policy.load import Policy, load_policy

Build = Callable[..., Path]
IN_BF16 = ("fp32", "bf16_with_fp32_masters")
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "factor": 4.0,
}


@pytest.fixture
def build(model_folder: Callable[[str], Path], tmp_path: Path) -> Build:
    def make(family: str, settings: dict[str, Any]) -> Path:
        return build_family(tmp_path / family, family, settings, words=model_folder("qwen3"))

    return make


def load(folder: Path, **settings: Any) -> tuple[Policy, list[str]]:
    said: list[str] = []
    config = ModelConfig.model_validate({"path": str(folder), "device": "cpu", **settings})
    return load_policy(config, log=said.append), said


def test_multiplied_logits_are_refused(build: Build) -> None:
    folder = build("falcon_h1", REPEATING["falcon_h1"] | {"lm_head_multiplier": 0.05})
    with pytest.raises(ConfigError, match="'falcon_h1' changes its logits after its head, which the log-prob"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda out: 30 * torch.tanh(out.logits / 30), "changes its logits after its head"),
        (lambda out: out.logits.mul_(0.5), "changes its logits after its head"),
        (lambda out: out.logits.index_fill(-1, torch.tensor([3]), -1e9), "changes its logits after its head"),
        (lambda out: out.logits, None),
    ],
)
def test_any_change_of_logits_is_found(build: Build, change: Callable[[Any], torch.Tensor], what: str | None) -> None:
    policy, _ = load(build("llama", {}))

    def changed(_module: Any, _inputs: Any, out: Any) -> Any:
        out.logits = change(out)
        return out

    policy.inner.register_forward_hook(changed)
    row, _ = sharing._probes(policy)
    if what is None:
        logits.check_logits(policy, make_padded_layout([row]))
        return
    with pytest.raises(ConfigError, match=what):
        sharing.with_layout(policy, lambda line: None)


def test_states_that_are_scaled_before_the_head_are_found(build: Build) -> None:
    policy, _ = load(build("llama", {}))
    policy.head.register_forward_pre_hook(lambda _module, inputs: (inputs[0] / 4,))
    row, _ = sharing._probes(policy)
    with pytest.raises(ConfigError, match="'llama' changes the hidden states before its head"):
        logits.check_logits(policy, make_padded_layout([row]))


@pytest.mark.parametrize("stored_weights", IN_BF16)
@pytest.mark.parametrize("family", ["gpt_oss", "stablelm"])
def test_small_differences_are_found_whatever_precision_runs(build: Build, family: str, stored_weights: str) -> None:
    """The sinks of gpt_oss change states by 3e-2, which rounding to bf16 would hide."""
    policy, (line,) = load(build(family, REPEATING[family]), precision="bf16", stored_weights=stored_weights)
    assert not policy.shares_prompts
    assert ": a shared prompt changes its numbers" in line
    assert policy.precision == "bf16"
    assert policy.stored_weights == stored_weights


@pytest.mark.parametrize("family", sorted(REPEATING))
def test_repeating_families_run_with_weights_stored_in_bf16(
    build: Build, rendered: Callable[..., Any], family: str
) -> None:
    folder = build(family, REPEATING[family])
    exact, _ = load(folder)
    policy, _ = load(folder, precision="bf16", stored_weights="bf16_with_fp32_masters")
    rows = [Row(prompt=rendered(exact), completions=((40, 41, 42), (43,)))]
    assert not policy.shares_prompts
    expected, found = (score(one, lay_out(one, rows)).logprobs for one in (exact, policy))
    assert float((found - expected).detach().abs().mean()) < 0.3
    found.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in policy.model.parameters())


def test_a_kernel_that_fails_in_the_precision_of_the_run_is_found(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sharing._states

    def fails(policy: Policy, layout: Any) -> torch.Tensor:
        if policy.precision == "bf16" and len(layout.input_ids) == 1 and "attention" in layout.inputs():
            raise RuntimeError("no kernel for this width")
        return plain(policy, layout)

    monkeypatch.setattr(sharing, "_states", fails)
    policy, (line,) = load(build("mistral", {"sliding_window": None}), precision="bf16")
    assert not policy.shares_prompts
    assert "its layers do not take a shared row (RuntimeError: no kernel for this width)" in line
    with pytest.raises(RuntimeError, match="no kernel for this width"):
        load(build("llama", {}), precision="bf16")


def test_attention_is_restored_when_the_comparison_fails(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, _ = load(build("llama", {}))

    def fails(policy: Policy, layout: Any) -> torch.Tensor:
        raise RuntimeError(sharing._attends_by(policy))

    monkeypatch.setattr(sharing, "_states", fails)
    with pytest.raises(RuntimeError, match="eager"):
        sharing.measured_reason(policy)
    assert sharing._attends_by(policy) == sharing.LANGUAGE_ATTENTION


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_weights_that_are_no_numbers_are_named(build: Build, family: str) -> None:
    folder = build(family, {} if family == "llama" else REPEATING[family])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(
        ConfigError, match=rf"of type '{family}' are not finite: its weights hold .* earlier checkpoint"
    ):
        load(folder)


def test_positions_by_the_longest_line_are_refused(build: Build) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(
        ConfigError, match="'llama' has rope_type 'dynamic', which computes every position by the longest"
    ):
        load(build("llama", {"rope_parameters": rope}))


def test_longrope_stops_beyond_its_original_length(build: Build, rendered: Callable[..., Any]) -> None:
    settings = {"rope_parameters": dict(LONGROPE), "original_max_position_embeddings": 100}
    policy, said = load(build("phi3", settings))
    assert said == []
    prompt = rendered(policy)
    room = 100 - len(prompt.token_ids)
    short = Row(prompt=prompt, completions=((40,) * room,))
    score(policy, lay_out(policy, [short]))
    long = Row(prompt=prompt, completions=((40,) * (room + 1),))
    with pytest.raises(ConfigError, match=r"completion has 101 tokens, but .*'phi3' .* longer than 100"):
        score(policy, lay_out(policy, [short, long]))


def test_longrope_of_one_set_of_factors_goes_on(build: Build, rendered: Callable[..., Any]) -> None:
    rope = LONGROPE | {"long_factor": LONGROPE["short_factor"]}
    policy, _ = load(build("phi3", {"rope_parameters": rope, "original_max_position_embeddings": 100}))
    score(policy, lay_out(policy, [Row(prompt=rendered(policy), completions=((40,) * 100,))]))


@pytest.mark.parametrize("what", ["model", "adapters"])
def test_nothing_is_unpickled(model_folder: Callable[[str], Path], tmp_path: Path, what: str) -> None:
    """A folder of a stranger's may hold anything."""
    folder, fired = tmp_path / what, tmp_path / "fired"
    shutil.copytree(model_folder("qwen3"), folder)
    names = {"model": ("model.safetensors", "pytorch_model.bin"), "adapters": ("-", "adapter_model.bin")}
    (folder / names[what][0]).unlink(missing_ok=True)
    (folder / names[what][1]).write_bytes(pickle.dumps(Trap(fired)))
    if what == "adapters":
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model_folder("qwen3"))}))
    with pytest.raises(ConfigError, match="safetensors"):
        load(folder)
    assert not fired.exists()


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, fired: Path) -> None:
        self.fired = fired

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.fired,)
