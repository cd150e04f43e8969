"""Which weights are sent to vLLM, the files that carry them, and what is judged when they have arrived."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mm_agrae.config.model import LoraConfig, ModelConfig
from mm_agrae.engines.vllm_contract import check_version, file_digest
from mm_agrae.engines.vllm_sync import (
    WeightFile,
    caches_to_reset,
    check_match,
    check_received,
    remove_older,
    weight_shapes,
    weights_of,
    write_weights,
)
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy, load_policy
from tests.unit.engines.fake_vllm import MATCH

Folders = Callable[[str], Path]


def load(folder: Path, **settings: Any) -> Policy:
    return load_policy(ModelConfig(path=str(folder), device="cpu", **settings))


def test_a_policy_that_trains_everything_sends_everything_every_time(policy_of: Callable[[str], Policy]) -> None:
    policy = policy_of("qwen2_5_vl")
    every = dict(policy.model.named_parameters())
    assert list(weight_shapes(policy)) == list(weight_shapes(policy, "trained")) == list(every)
    assert weight_shapes(policy, "frozen") == {}
    assert all(torch.equal(tensor, every[name]) for name, tensor in weights_of(policy))


def test_frozen_parts_are_sent_apart_and_blocks_stay_whole(model_folder: Folders) -> None:
    policy = load(model_folder("qwen2_5_vl"), freeze=["vision"])
    trained, frozen = weight_shapes(policy, "trained"), weight_shapes(policy, "frozen")
    assert {name.split(".")[1] for name in trained} == {"visual", "language_model"}
    assert all("merger" in name for name in trained if ".visual." in name)
    assert all(".visual." in name and "merger" not in name for name in frozen)
    assert trained.keys() | frozen.keys() == weight_shapes(policy).keys()
    assert not trained.keys() & frozen.keys()

    # One free weight in a decoder layer takes the others of that layer along: vLLM loads fused weights whole.
    policy.model.requires_grad_(False)
    policy.model.get_parameter("model.language_model.layers.1.self_attn.k_proj.weight").requires_grad_(True)
    layer = [name for name in weight_shapes(policy) if ".layers.1." in name and "language_model" in name]
    assert list(weight_shapes(policy, "trained")) == layer


def test_adapters_are_sent_within_the_weights_that_they_adapt(model_folder: Folders) -> None:
    folder = model_folder("qwen3_vl")
    base = dict(load(folder).model.named_parameters())
    policy = load(folder, lora=LoraConfig(rank=2, alpha=6.0, target_modules=("q_proj",)))
    layer = policy.inner.get_submodule("model.language_model.layers.0.self_attn.q_proj")
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(up)
    assert weight_shapes(policy) == {name: tuple(weight.shape) for name, weight in base.items()}
    sent = dict(weights_of(policy, "trained"))
    assert all("language_model.layers" in name for name in sent)
    adapted = "model.language_model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(sent[adapted], base[adapted] + 6.0 / 2 * up @ down)
    beside = "model.language_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(sent[beside], base[beside])


def test_a_bf16_policy_sends_bf16(model_folder: Folders) -> None:
    policy = load(model_folder("qwen3"), precision="bf16", stored_weights="bf16_with_fp32_masters")
    for name, tensor in weights_of(policy):
        assert torch.equal(tensor, policy.model.get_parameter(name))
        assert tensor.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("freeze", "part", "expected"),
    [
        ((), "trained", ("prefix", "encoder")),
        (("vision",), "trained", ("prefix", "encoder")),  # the merger has changed
        (("vision", "connector"), "trained", ("prefix",)),
        (("vision", "connector"), "all", ("prefix", "encoder")),  # the engine may know another run's features
    ],
)
def test_features_of_pictures_are_forgotten_where_the_tower_has_changed(
    freeze: tuple[str, ...], part: Any, expected: tuple[str, ...], model_folder: Folders
) -> None:
    assert caches_to_reset(load(model_folder("qwen2_5_vl"), freeze=freeze), part) == expected
    assert caches_to_reset(load(model_folder("qwen3")), part) == ("prefix",)


def test_a_file_holds_its_part_under_its_label(model_folder: Folders, tmp_path: Path) -> None:
    policy = load(model_folder("qwen2_5_vl"), freeze=["vision"])
    file = write_weights(policy, tmp_path / "new", part="trained", label="ab12.3", is_main=True)
    assert file is not None
    assert file.path == tmp_path / "new" / "trained-ab12.3.safetensors"
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]
    assert file.digest == file_digest(file.path)
    assert file.update_info() == {"path": str(file.path), "digest": file.digest}
    content = load_file(file.path)
    assert len(content) == file.num_weights
    assert content.keys() == weight_shapes(policy, "trained").keys()
    assert all(torch.equal(content[name], tensor) for name, tensor in weights_of(policy, "trained"))


def test_only_the_main_process_writes_and_an_empty_part_is_none(
    policy_of: Callable[[str], Policy], tmp_path: Path
) -> None:
    policy = policy_of("qwen3")
    assert write_weights(policy, tmp_path, part="trained", label="a.0", is_main=False) is None
    assert write_weights(policy, tmp_path, part="frozen", label="a.0", is_main=True) is None
    assert list(tmp_path.iterdir()) == []


def test_older_files_of_the_same_run_and_part_are_removed(policy_of: Callable[[str], Policy], tmp_path: Path) -> None:
    others = [tmp_path / f"{name}.safetensors" for name in ("frozen-ab.0", "trained-ab12.0", "trained-cd.0")]
    for path in [*others, tmp_path / "trained-ab.0.safetensors"]:
        path.touch()
    present = write_weights(policy_of("qwen3"), tmp_path, part="trained", label="ab.1", is_main=True)
    assert present is not None
    remove_older(present)
    assert sorted(tmp_path.iterdir()) == sorted([*others, present.path])


def test_a_full_disk_leaves_nothing_behind(policy_of: Callable[[str], Policy], tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(EngineError, match=r"(?s)new weights cannot be written to .*engine\.sync_folder"):
            write_weights(policy_of("qwen3"), tmp_path, part="all", label="a.0", is_main=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("differences", "told"),
    [
        ([{"unknown": ["c", "b", "a"]}, {"unknown": ["a", "b"]}], r"has no place for a, b\. Serve the"),
        ([{"missing": ["lm_head.weight"]}], r"has weights that the policy does not send: lm_head\.weight\."),
        ([{}, {"cut": ["mlp.weight"]}], r"would cut the weights that go to its smaller mlp\.weight\. Serve the"),
        ([{}, {"misfit": ["q"]}, {"misfit": ["k"]}], r"has layers of other sizes than the policy's: k, q\. Serve the"),
        ([{"backend": None}], r"was started to take weights by None, .* by mm_agrae\. .*serve_vllm\.sh does"),
        ([{"tokens_needed": 0}, {"tokens_needed": 512}], r"may cut a prompt in two.*--max-num-batched-tokens 512,"),
        ([{"normalizes": True}], r"would normalise pictures.* --no-mm-device-do-normalize"),
    ],
)
def test_what_an_engine_cannot_serve_is_told(differences: list[dict[str, Any]], told: str) -> None:
    check_match([MATCH for _ in differences])
    with pytest.raises(EngineError, match=f"vLLM {told}"):
        check_match([MATCH | difference for difference in differences])


def test_a_stage_need_not_have_a_place_for_the_layers_of_another() -> None:
    check_match([MATCH | {"unknown": ["layers.0.weight"]}, MATCH | {"unknown": ["layers.1.weight"]}])


@pytest.mark.parametrize(
    ("backend", "advice"),
    [("nccl", r'\{"backend": "nccl"\}'), ("ipc", r'\{"backend": "ipc"\}.*VLLM_ALLOW_INSECURE_SERIALIZATION=1')],
)
def test_a_server_that_waits_for_another_backend_is_told_how_to_start(backend: str, advice: str) -> None:
    check_match([MATCH | {"backend": backend}], backend=backend)
    with pytest.raises(EngineError, match=rf"by mm_agrae, but engine\.sync sends them by {backend}\. .*{advice}"):
        check_match([MATCH], backend=backend)


@pytest.mark.parametrize("replies", [[], [MATCH, {"unknown": [], "missing": []}]])
def test_workers_of_another_version_are_refused(replies: list[dict[str, Any]]) -> None:
    with pytest.raises(EngineError, match=r"must say backend, cut, .*Serve with this version of mm-agrae"):
        check_match(replies)


def test_every_worker_must_have_loaded_what_was_sent(tmp_path: Path) -> None:
    sent = [
        WeightFile(path=tmp_path / "frozen-a.0.safetensors", digest="f0", num_weights=2),
        WeightFile(path=tmp_path / "trained-a.0.safetensors", digest="7a", num_weights=3),
    ]
    right = {"digests": ["f0", "7a"], "num_weights": 5}
    check_received(sent, [right, right])
    for wrong in ({"digests": ["7a"], "num_weights": 5}, {"digests": ["f0", "7a"], "num_weights": 4}):
        with pytest.raises(EngineError, match=r"but 5 from \['f0', '7a'\] were sent"):
            check_received(sent, [right, wrong])


def test_a_vllm_outside_the_table_is_refused_by_its_version() -> None:
    for version in ("0.32.0", "0.32.0+cpu", "0.32.1"):
        check_version(version)
    for version in ("0.31.0", "0.33.0", "1.0", "0.3"):
        with pytest.raises(EngineError, match=f"version {version}, but must be of 0.32"):
            check_version(version)
