import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from mm_agrae.config.model import LoraConfig, ModelConfig
from mm_agrae.errors import ConfigError
from mm_agrae.policy.forward import score
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.policy.load import Policy, load_policy, pick_device, pick_precision
from mm_agrae.policy.snapshot import save_weights
from mm_agrae.records import RenderedPrompt

ModelFolder = Callable[[str], Path]
VISION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def logprobs(policy: Policy, prompt: RenderedPrompt) -> torch.Tensor:
    row = Row(prompt=prompt, completions=((40, 41, 42), (43,)))
    return score(policy, make_layout([row])).logprobs


def changed_config(folder: Path, out: Path, **changes: object) -> str:
    shutil.copytree(folder, out)
    values = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(values | changes))
    return str(out)


@pytest.mark.parametrize("part", ["vision", "connector", "language"])
@pytest.mark.parametrize("architecture", VISION)
def test_frozen_parts_get_no_gradient_and_the_others_do(
    model_folder: ModelFolder, rendered: Callable[..., RenderedPrompt], architecture: str, part: str
) -> None:
    config = ModelConfig.model_validate({"path": str(model_folder(architecture)), "device": "cpu", "freeze": [part]})
    policy = load_policy(config)
    logprobs(policy, rendered(policy, (64, 48))).sum().backward()
    frozen = {name for name, p in policy.model.named_parameters() if p.grad is None}
    expected = {
        name
        for name, _ in policy.model.named_parameters()
        if (("merger" in name) if part == "connector" else ("visual" in name and "merger" not in name))
        or (part == "language" and "visual" not in name)
    }
    if part == "language":
        expected = {name for name, _ in policy.model.named_parameters() if "visual" not in name}
    assert frozen == expected
    assert frozen
    assert len(policy.trainable()) == len(list(policy.model.parameters())) - len(frozen)


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl", "qwen3"])
def test_adapters_alone_are_trained_and_can_be_left_out(
    model_folder: ModelFolder,
    policy_of: Callable[[str], Policy],
    rendered: Callable[..., RenderedPrompt],
    tmp_path: Path,
    architecture: str,
) -> None:
    path = str(model_folder(architecture))
    config = ModelConfig(path=path, device="cpu", lora=LoraConfig(rank=4, alpha=8.0))
    policy = load_policy(config)
    prompt = rendered(policy, (64, 48)) if policy.sees else rendered(policy)
    base = logprobs(policy_of(architecture), prompt).detach()
    trained = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name and "visual" not in name for name in trained)
    assert {name.split(".lora_")[0].split(".")[-1] for name in trained} == set(LoraConfig().target_modules)
    torch.testing.assert_close(logprobs(policy, prompt).detach(), base)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.05)
    moved = logprobs(policy, prompt).detach()
    assert float((moved - base).abs().max()) > 1e-2
    with policy.without_adapters():
        torch.testing.assert_close(logprobs(policy, prompt).detach(), base)
    save_weights(policy, tmp_path / "adapter")
    again = load_policy(config, weights=tmp_path / "adapter")
    torch.testing.assert_close(logprobs(again, prompt).detach(), moved)
    assert len(again.trainable()) == len(policy.trainable())


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3"])
def test_adapters_are_a_start_like_any_other(
    model_folder: ModelFolder, rendered: Callable[..., RenderedPrompt], tmp_path: Path, architecture: str
) -> None:
    config = ModelConfig(path=str(model_folder(architecture)), device="cpu", lora=LoraConfig(rank=4, alpha=8.0))
    policy = load_policy(config)
    prompt = rendered(policy, (64, 48)) if policy.sees else rendered(policy)
    base = logprobs(policy, prompt).detach()
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.05)
    moved = logprobs(policy, prompt).detach()
    assert float((moved - base).abs().max()) > 1e-2
    save_weights(policy, tmp_path / "adapters")
    start = ModelConfig(path=str(tmp_path / "adapters"), device="cpu")
    merged = load_policy(start)
    torch.testing.assert_close(logprobs(merged, prompt).detach(), moved, atol=1e-5, rtol=0)
    assert all(parameter.requires_grad for parameter in merged.model.parameters())
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    # What was trained further is a whole model, and replaces the merged one when the run resumes.
    with torch.no_grad():
        merged.inner.get_input_embeddings().weight.mul_(0.5)
    save_weights(merged, tmp_path / "whole")
    further = logprobs(merged, prompt).detach()
    assert float((further - moved).abs().max()) > 1e-3
    resumed = load_policy(start, weights=tmp_path / "whole")
    torch.testing.assert_close(logprobs(resumed, prompt).detach(), further)


def test_adapters_upon_adapters_keep_both(
    model_folder: ModelFolder, rendered: Callable[..., RenderedPrompt], tmp_path: Path
) -> None:
    path = str(model_folder("qwen3"))
    for name in ("first", "second"):
        policy = load_policy(ModelConfig(path=path, device="cpu", lora=LoraConfig(rank=4, alpha=8.0)))
        with torch.no_grad():
            for parameter in policy.trainable():
                parameter.add_(0.05)
        save_weights(policy, tmp_path / name)
        path = str(tmp_path / name)
    prompt = rendered(policy)
    both = load_policy(ModelConfig(path=path, device="cpu"))
    torch.testing.assert_close(logprobs(both, prompt).detach(), logprobs(policy, prompt).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", [*VISION, "qwen3"])
def test_saved_weights_load_again_as_a_whole_model(
    model_folder: ModelFolder, rendered: Callable[..., RenderedPrompt], tmp_path: Path, architecture: str
) -> None:
    config = ModelConfig(path=str(model_folder(architecture)), device="cpu")
    policy = load_policy(config)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.01 * torch.randn_like(parameter))
    save_weights(policy, tmp_path / "saved")
    alone = load_policy(ModelConfig(path=str(tmp_path / "saved"), device="cpu"))
    replaced = load_policy(config, weights=tmp_path / "saved")
    for other in (alone, replaced):
        expected = policy.model.state_dict()
        assert other.model.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in other.model.state_dict().items())
        sizes = ((64, 48),) if policy.sees else ()
        assert rendered(other, *sizes).content_hash == rendered(policy, *sizes).content_hash
    assert alone.banned_token_ids == policy.banned_token_ids
    assert alone.eos_token_ids == policy.eos_token_ids


def test_what_a_policy_knows(policy_of: Callable[[str], Policy]) -> None:
    policy = policy_of("qwen2_5_vl")
    tokens = policy.tokenizer.convert_ids_to_tokens(policy.banned_token_ids)
    assert set(tokens) == {
        f"<|{name}|>" for name in ("image_pad", "video_pad", "vision_pad", "vision_start", "vision_end")
    }
    assert policy.tokenizer.convert_ids_to_tokens(policy.eos_token_ids) == ["<|im_end|>"]
    assert policy.sees
    assert not policy_of("qwen2").sees
    assert not any(module.training for module in policy.model.modules())
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}


def test_devices_and_precisions_that_do_not_fit_are_refused() -> None:
    cpu = torch.device("cpu")
    assert pick_precision("auto", cpu) == "fp32"
    assert pick_precision("auto", torch.device("cuda")) == "bf16"
    assert pick_precision("bf16", cpu) == "bf16"
    assert pick_device("cpu") == cpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda_is_refused() -> None:
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"torch sees no CUDA device"):
        pick_device("cuda")


def refuse(path: str, match: str, **settings: object) -> None:
    with pytest.raises(ConfigError, match=match):
        load_policy(ModelConfig.model_validate({"path": path, "device": "cpu", **settings}))


def test_folders_that_hold_no_model_are_refused(model_folder: ModelFolder, tmp_path: Path) -> None:
    refuse(str(tmp_path / "nowhere"), "is no model that can be loaded")
    refuse("nobody/no-such-model", "is no model that can be loaded")
    for name, file, message in (
        ("weights", "model.safetensors", "no model that can be loaded"),
        ("words", "tokenizer.json", "no tokenizer that can be loaded"),
        ("template", "chat_template.jinja", "has no chat template"),
    ):
        shutil.copytree(model_folder("qwen3"), tmp_path / name)
        (tmp_path / name / file).unlink()
        if name == "words":
            (tmp_path / name / "tokenizer_config.json").unlink()
        refuse(str(tmp_path / name), message)
    shutil.copytree(model_folder("qwen3_vl"), tmp_path / "eyes")
    for file in (tmp_path / "eyes").glob("*processor*"):
        file.unlink()
    refuse(str(tmp_path / "eyes"), "has no processor|has no chat template")


def test_families_that_cannot_be_served_are_refused(model_folder: ModelFolder, tmp_path: Path) -> None:
    transformers.LlavaConfig().save_pretrained(tmp_path / "llava")
    refuse(str(tmp_path / "llava"), "'llava', but images are supported for qwen2_vl")
    path = changed_config(model_folder("qwen3"), tmp_path / "capped", final_logit_softcapping=30.0)
    refuse(path, "changes its logits")


def test_settings_that_do_not_fit_the_model_are_refused(model_folder: ModelFolder) -> None:
    text, vision = str(model_folder("qwen3")), str(model_folder("qwen2_5_vl"))
    refuse(text, "a text model has no vision part", freeze=["vision"])
    refuse(text, "leaves nothing to train", freeze=["language"])
    refuse(vision, "leaves nothing to train", freeze=["vision", "connector", "language"])
    refuse(vision, "Drop one of them", freeze=["language"], lora={})
    refuse(vision, "has no such layers", lora={"target_modules": ["nothing"]})
