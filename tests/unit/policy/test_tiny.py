import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mm_agrae.data.dataset import open_dataset
from mm_agrae.errors import ConfigError
from mm_agrae.policy.tiny import ARCHITECTURES, SPECIAL_TOKENS, build_model_folder

CORPUS = ["How many circles are there? 12 of them: \\boxed{12}", "Die Höhe ist √2."]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folders_are_ordinary(model_folder: Callable[[str], Path], architecture: str) -> None:
    folder = model_folder(architecture)
    multimodal = architecture.endswith("_vl")
    auto = transformers.AutoModelForImageTextToText if multimodal else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder)
    assert model.config.model_type == architecture == json.loads((folder / "config.json").read_text())["model_type"]
    assert 300_000 < sum(p.numel() for p in model.parameters()) < 1_500_000
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    loaded = transformers.AutoProcessor.from_pretrained(folder) if multimodal else None
    tokenizer = loaded.tokenizer if loaded else transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) <= model.config.get_text_config().vocab_size
    assert all(len(tokenizer.encode(token)) == 1 for token in SPECIAL_TOKENS)
    if loaded:
        assert model.config.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")
        assert (loaded.image_processor.patch_size, loaded.image_processor.merge_size) == (8, 2)


def test_every_text_survives_and_corpus_words_are_single_tokens(
    model_folder: Callable[[str], Path], gym_folder: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder("qwen3"))
    for sample in open_dataset(gym_folder, "test"):
        for text in (sample.question, sample.solution or ""):
            assert tokenizer.decode(tokenizer.encode(text)) == text
    for text in ("naïve ½ ∠ABC = 37°", "x\n\n  y\t", "日本 🙂"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("2026")) == 4
    words = {word for sample in open_dataset(gym_folder, "train") for word in sample.question.split() if word.isalpha()}
    assert len(words) > 5
    assert all(len(tokenizer.encode(f" {word}")) == 1 for word in words)


def test_the_seed_decides_the_weights_and_leaves_the_callers_stream(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_model_folder(tmp_path / name, architecture="qwen2_5_vl", size="tiny", corpus=CORPUS, seed=seed)
    assert torch.equal(torch.rand(1), expected)
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()


def test_the_number_of_parameters_is_told(tmp_path: Path) -> None:
    count = build_model_folder(tmp_path / "m", architecture="qwen3", size="tiny", corpus=CORPUS, seed=0)
    assert count == sum(tensor.numel() for tensor in load_file(tmp_path / "m" / "model.safetensors").values())


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    def build(out: Path, *, architecture: str = "qwen3", size: str = "tiny") -> None:
        build_model_folder(out, architecture=architecture, size=size, corpus=CORPUS, seed=0)

    with pytest.raises(ConfigError, match="architecture is 'gpt', but must be one of qwen2_vl"):
        build(tmp_path / "m", architecture="gpt")
    with pytest.raises(ConfigError, match="size is 'huge', but must be one of tiny"):
        build(tmp_path / "m", size="huge")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("taken", "file"):
        with pytest.raises(ConfigError, match="exists and is not empty"):
            build(tmp_path / name)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]
