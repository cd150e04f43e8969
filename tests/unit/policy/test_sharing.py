"""Families that share prompts and families that do not, against their own eager attention of one completion alone."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import REFUSED, REPEATING, SHARING, build_family
from torch import Tensor

from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import ConfigError
from mm_agrae.policy import sharing
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.layout import Row, make_layout, make_padded_layout
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.records import RenderedPrompt

FolderOf = Callable[..., Path]
Rendered = Callable[..., RenderedPrompt]
PolicyOf = Callable[[str], Policy]

REASONS = {
    "mistral": "it has layers of kind sliding_attention.",
    "gemma3_text": "it has layers of kind sliding_attention.",
    "gemma2": "it caps its attention scores.",
    "qwen3_next": "it has layers of kind linear_attention.",
    "lfm2": "it has layers of kind conv.",
    "falcon_h1": "it has layers of kind hybrid.",
    # No word of these in the configuration: scores that have sinks, and layers that do not hand the attention on.
    "gpt_oss": "a shared prompt changes its numbers (hidden states by ",
    "stablelm": "a shared prompt changes its numbers (hidden states by ",
    "gptj": "its code fixes how its layers attend.",
}
CASES = [(family, True) for family in SHARING] + [(family, False) for family in REPEATING]


@pytest.fixture(scope="module")
def folder_of(model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """folder_of(family, shares): a tiny model of that family."""
    root = tmp_path_factory.mktemp("families")

    @functools.cache
    def build(family: str, shares: bool) -> Path:
        settings = (SHARING if shares else REPEATING | REFUSED)[family]
        return build_family(root / f"{family}-{shares}", family, settings, words=model_folder("qwen3"))

    return build


def load(folder: Path, **settings: Any) -> tuple[Policy, list[str]]:
    said: list[str] = []
    config = ModelConfig.model_validate({"path": str(folder), "device": "cpu", **settings})
    return load_policy(config, log=said.append), said


def make_rows(policy: Policy, rendered: Rendered) -> list[Row]:
    return [
        Row(prompt=rendered(policy), completions=((40, 41, 42, 43, 44), (), (45,), (46, 40, 47))),
        Row(prompt=rendered(policy, question="What is two plus two?"), completions=((50, 51), (52, 53, 54))),
    ]


def gradients(model: Any, logprobs: Tensor) -> dict[str, Tensor]:
    (torch.linspace(-1.0, 2.0, len(logprobs)) * logprobs).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def alone(model: Any, rows: list[Row]) -> Tensor:
    """Log-probabilities by the model's own forward, one [prompt | completion] at a time and without padding."""
    pieces = []
    for row in rows:
        for completion in filter(None, row.completions):
            ids = torch.tensor([[*row.prompt.token_ids, *completion]])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt.token_ids) - 1 : -1]
            pieces.append(logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0])
    return torch.cat(pieces)


def assert_equal_to_alone(policy: Policy, folder: Path, rows: list[Row]) -> None:
    """Scores and gradients in float64; ids that are banned here are banned in the plain model too."""
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    for model in (policy.model, plain):
        model.double()
        model.set_experts_implementation("eager")  # products of all experts at once take no float64
    plain.get_output_embeddings().register_forward_hook(
        lambda _module, _inputs, logits: logits.index_fill(-1, torch.tensor(policy.banned_token_ids), float("-inf"))
    )
    expected = alone(plain, rows)
    found = score(policy, lay_out(policy, rows)).logprobs
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    mine, theirs = gradients(policy.model, found), gradients(plain, expected)
    # The recurrence of Qwen3-Next is computed in fp32 whatever the model is in, and padding cuts it elsewhere.
    tolerance = 1e-3 if policy.inner.config.model_type == "qwen3_next" else 1e-5
    assert mine.keys() == theirs.keys()
    total = torch.stack([gradient.norm() for gradient in theirs.values()]).norm()
    for name, gradient in theirs.items():
        scale = max(float(gradient.norm()), 1e-5 * float(total))
        assert float((mine[name] - gradient).norm()) <= tolerance * scale, name


@pytest.mark.parametrize(("family", "shares"), CASES)
def test_every_family_has_the_numbers_of_a_completion_alone(
    folder_of: FolderOf, rendered: Rendered, family: str, shares: bool
) -> None:
    policy, said = load(folder_of(family, shares))
    assert policy.shares_prompts == shares
    if shares:
        assert said == []
    else:
        (line,) = said
        assert line.startswith(
            f"the completions of a group cannot share their prompt in a model of type {family!r}: {REASONS[family]}"
        )
        assert "a copy of the prompt and its images: the same numbers, for up to G times the work." in line
    rows = make_rows(policy, rendered)
    assert lay_out(policy, rows).input_ids.shape[0] == (1 if shares else 6)
    assert_equal_to_alone(policy, folder_of(family, shares), rows)


def test_linear_biases_in_place_of_positions_are_a_reason() -> None:
    """Such a bias counts tokens of the row, which are more than those of [prompt | completion]."""
    assert sharing.reason_in_config(transformers.FalconConfig(alibi=True)) == "it has no positions of its own (alibi)"
    assert sharing.reason_in_config(transformers.FalconConfig(alibi=False)) is None


def test_without_a_listener_the_reason_is_a_warning(folder_of: FolderOf) -> None:
    with pytest.warns(UserWarning, match="layers of kind sliding_attention"):
        load_policy(ModelConfig(path=str(folder_of("mistral", False)), device="cpu"))


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_what_the_configuration_does_not_say_is_measured(
    folder_of: FolderOf, rendered: Rendered, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(sharing, "reason_in_config", lambda config: None)
    policy, (line,) = load(folder_of(family, False))
    assert not policy.shares_prompts
    assert ": a completion changes the one beside it" in line or ": a shared prompt changes its numbers" in line
    assert_equal_to_alone(policy, folder_of(family, False), make_rows(policy, rendered))


@pytest.mark.parametrize("family", ["qwen3_next", "falcon_h1", "lfm2"])
def test_trap_06_a_state_that_runs_on_from_one_completion_into_the_next_is_found(
    folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """A recurrent layer reads a row as one sequence, whatever the positions say, and raises no error."""
    monkeypatch.setattr(sharing, "reason_in_config", lambda config: None)
    policy, (line,) = load(folder_of(family, False))
    assert not policy.shares_prompts
    assert ": a completion changes the one beside it (hidden states by " in line


def test_trap_07_a_recurrent_model_is_trained_without_its_cache(folder_of: FolderOf, rendered: Rendered) -> None:
    """A stock recurrent cache overwrites the state that the backward pass needs; no pass with gradient has one."""
    policy, _ = load(folder_of("qwen3_next", False), gradient_checkpointing=True)
    caches: list[Any] = []
    policy.backbone.register_forward_pre_hook(
        lambda _module, _inputs, keywords: caches.append((keywords["use_cache"], keywords.get("past_key_values"))),
        with_kwargs=True,
    )
    rows = make_rows(policy, rendered)
    found = gradients(policy.model, score(policy, lay_out(policy, rows)).logprobs)
    assert caches == [(False, None)]
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_trap_22_experts_get_the_gradient_of_the_scores_alone(folder_of: FolderOf, rendered: Rendered) -> None:
    """A load-balancing loss would weigh a shared prompt once and a repeated one G times; none is ever added."""
    policy, said = load(folder_of("qwen3_moe", True))
    assert said == []
    assert policy.inner.config.output_router_logits
    assert policy.inner.config.router_aux_loss_coef == 1.0
    rows = make_rows(policy, rendered)
    assert_equal_to_alone(policy, folder_of("qwen3_moe", True), rows)
    routers = [p.grad for name, p in policy.model.named_parameters() if name.endswith("mlp.gate.weight")]
    assert len(routers) == 2
    assert all(float(gradient.norm()) > 0 for gradient in routers)


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2_5_vl"])
def test_trap_21_dropout_stays_off(
    model_folder: Callable[[str], Path], policy_of: PolicyOf, rendered: Rendered, architecture: str
) -> None:
    """One mask over a shared prompt is not G masks over its copies, so sharing is exact without dropout only."""
    said: list[str] = []
    config = ModelConfig(path=str(model_folder(architecture)), device="cpu")
    policy = load_policy(config, log=said.append)
    text = policy.inner.config.get_text_config()
    text.attention_dropout = 0.5
    for module in policy.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    rows = make_rows(policy, rendered)
    expected = score(policy_of(architecture), lay_out(policy, rows)).logprobs
    for one in (policy, replace(policy, shares_prompts=False)):
        torch.testing.assert_close(score(one, lay_out(one, rows)).logprobs, expected, rtol=1e-5, atol=2e-5)


def test_trap_21_dropout_that_recomputing_would_switch_on_is_refused(
    model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Layers are recomputed in training mode only, and some apply their dropout themselves."""
    folder = build_family(
        tmp_path / "opt", "opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}, words=model_folder("qwen3"), dropout=0.25
    )
    policy, said = load(folder)
    assert policy.shares_prompts
    assert said == []
    with pytest.raises(ConfigError, match=r"'opt' has dropout=0\.25, which gradient checkpointing can switch on"):
        load(folder, gradient_checkpointing=True)
    frozen = ModelConfig(path=str(folder), device="cpu", gradient_checkpointing=True)  # nothing is recomputed in it
    assert load_policy(frozen, trained=False).trainable() == []


def test_trap_25_a_gradient_that_is_rounding_has_no_relative_error(
    model_folder: Callable[[str], Path], rendered: Rendered, tmp_path: Path
) -> None:
    """Without rotary positions a bias of the keys shifts all scores of a query alike, so its gradient is exactly 0."""
    settings = {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0}
    policy, _ = load(build_family(tmp_path / "opt", "opt", settings, words=model_folder("qwen3")))
    rows = make_rows(policy, rendered)
    found = []
    for make in (make_layout, make_padded_layout):
        found.append(gradients(policy.model, score(policy, make(rows)).logprobs))
        policy.model.zero_grad(set_to_none=True)
    shared, repeated = found
    total = float(torch.stack([gradient.norm() for gradient in repeated.values()]).norm())
    errors = {name: float((shared[name] - gradient).norm()) for name, gradient in repeated.items()}
    assert max(errors.values()) <= 1e-5 * total
    for name in (name for name in repeated if name.endswith("k_proj.bias")):
        assert float(repeated[name].norm()) <= 1e-5 * total
        assert errors[name] > 1e-2 * float(repeated[name].norm())


def test_families_without_hidden_states_are_refused(folder_of: FolderOf) -> None:
    with pytest.raises(ConfigError, match=r"'llama4_text' does not compute hidden states from ids, positions and a ma"):
        load(folder_of("llama4_text", False))


@pytest.mark.parametrize("family", ["mamba", "mamba2", "falcon_mamba"])
def test_a_state_that_decoding_would_lose_is_refused(folder_of: FolderOf, family: str) -> None:
    """These take no past_key_values and say nothing, so that every token would be computed as if it were the first."""
    with pytest.raises(ConfigError, match=rf"'{family}' computes other numbers when it decodes token by token"):
        load(folder_of(family, False))


def test_a_cache_that_the_model_does_not_take_is_refused(folder_of: FolderOf) -> None:
    policy, _ = load(folder_of("mistral", False))

    def refuse(_module: Any, _inputs: Any, keywords: dict[str, Any]) -> None:
        if keywords["use_cache"]:
            raise TypeError("no cache here")

    policy.backbone.register_forward_pre_hook(refuse, with_kwargs=True)
    with pytest.raises(
        ConfigError, match=r"'mistral' does not decode with a cache of keys .* \(TypeError: no cache he"
    ):
        sharing.with_layout(policy, lambda line: None)


def test_lines_that_change_each_other_are_refused(folder_of: FolderOf) -> None:
    policy, _ = load(folder_of("mistral", False))
    policy.backbone.embed_tokens.register_forward_hook(lambda _module, _inputs, out: out + out.mean(dim=(0, 1)))
    with pytest.raises(ConfigError, match=r"'mistral' computes other numbers beside a longer line"):
        sharing.with_layout(policy, lambda line: None)


def test_a_window_over_pictures_is_repeated_with_them(
    model_folder: Callable[[str], Path], rendered: Rendered, tmp_path: Path
) -> None:
    """The prompt is longer than the window, so positions, mask and pictures must all be those of the line."""
    folder = tmp_path / "windowed"
    model = transformers.AutoModelForImageTextToText.from_pretrained(model_folder("qwen2_5_vl"))
    model.config.text_config.layer_types = ["sliding_attention", "full_attention"]
    model.config.text_config.sliding_window = 8
    model.config.text_config.use_sliding_window = True
    model.save_pretrained(folder)
    transformers.AutoProcessor.from_pretrained(model_folder("qwen2_5_vl")).save_pretrained(folder)
    policy, (line,) = load(folder)
    assert "'qwen2_5_vl': it has layers of kind sliding_attention" in line
    prompt = rendered(policy, (64, 48))
    found = score(policy, lay_out(policy, [Row(prompt=prompt, completions=((40, 41, 42), (43,)))])).logprobs
    plain = transformers.AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    expected = []
    for completion in ((40, 41, 42), (43,)):
        types = torch.cat([prompt.mm_token_type_ids, torch.zeros(len(completion), dtype=torch.long)])
        logits = plain(
            input_ids=torch.tensor([[*prompt.token_ids, *completion]]),
            mm_token_type_ids=types[None],
            pixel_values=prompt.pixel_values,
            image_grid_thw=prompt.image_grid_thw,
        ).logits[0, len(prompt.token_ids) - 1 : -1]
        logits = logits.index_fill(-1, torch.tensor(policy.banned_token_ids), float("-inf"))
        expected.append(logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0])
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)
