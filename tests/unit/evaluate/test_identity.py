from collections.abc import Callable
from pathlib import Path

import torch

from mm_agrae.config.schema import ModelConfig
from mm_agrae.evaluate.identity import model_digest
from mm_agrae.policy.load import load_policy


def test_what_makes_a_model_another_one(model_folder: Callable[[str], Path]) -> None:
    config = ModelConfig.model_validate({"path": str(model_folder("qwen2_5_vl")), "device": "cpu"})
    policy = load_policy(config)
    digest = model_digest(policy)
    assert model_digest(load_policy(config)) == digest
    with torch.no_grad():
        weight = next(policy.model.parameters())
        weight.view(-1)[-1] += 1e-3
    others = {model_digest(policy)}
    again = load_policy(config)
    again.tokenizer.add_tokens(["<one more>"])
    others.add(model_digest(again))
    template = load_policy(config)
    template.processor.chat_template = "{{ messages }}"
    others.add(model_digest(template))
    assert len(others | {digest}) == 4
