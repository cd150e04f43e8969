"""The engine over HTTP against a stand-in: deaths, other weights, several servers, and weights on their way."""

import copy
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mm_agrae.config.engine import EngineConfig
from mm_agrae.engines.vllm_requests import GENERATE
from mm_agrae.engines.vllm_server import VllmServerEngine
from mm_agrae.errors import ConfigError, EngineError
from tests.unit.engines.fake_vllm import FakeVllm, RefusedError
from tests.unit.engines.serving import KEY, SAMPLING, Setup, Shared, asked


def test_weights_go_out_before_the_first_completion(setup: Setup) -> None:
    engine = setup.engine()
    assert setup.fake.paths() == [
        "/weight_info",
        "/version",
        "/collective_rpc",
        "/pause?mode=keep&clear_cache=false",
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
        "/collective_rpc",
        "/reset_prefix_cache?reset_running_requests=true",
        "/reset_encoder_cache",
        "/update_weight_version",
        "/resume",
        GENERATE,
    ]
    names = dict(setup.policy.inner.named_parameters())
    assert setup.fake.received["num_weights"] == len(names)
    assert setup.fake.label.endswith(".0")
    assert engine.weights_version == 0


def test_every_prompt_is_asked_once_for_all_its_completions(setup: Setup) -> None:
    engine = setup.engine()
    completions = setup.generate(engine)
    bodies = {tuple(body["token_ids"]): body for body in asked(setup.fake)}
    assert set(bodies) == {prompt.token_ids for prompt in setup.prompts}
    assert len(asked(setup.fake)) == 4
    assert [len(group) for group in completions] == [2] * 4
    assert {completion.stop_reason for group in completions for completion in group} == {"eos"}
    assert setup.generate(setup.engine())[0][0].text  # another engine, other weights' label


def test_an_update_resets_what_depends_on_the_weights(setup: Setup) -> None:
    engine = setup.engine()
    before = setup.generate(engine)
    setup.fake.seen.clear()
    engine.sync_weights(setup.policy, version=1)
    assert "/reset_encoder_cache" in setup.fake.paths()
    assert setup.fake.label == f"{engine.run}.1"
    assert engine.weights_version == 1
    assert setup.generate(engine) != before


def test_a_frozen_tower_keeps_its_features_and_is_not_sent_again(setup: Setup) -> None:
    policy = replace(setup.policy, model=copy.deepcopy(setup.policy.model))
    policy.backbone.visual.requires_grad_(False)
    setup.policy = policy
    engine = setup.engine()
    whole = setup.fake.received
    assert whole["num_weights"] == len(dict(policy.inner.named_parameters()))
    assert len(whole["digests"]) == 2
    setup.fake.seen.clear()
    engine.sync_weights(policy, version=1)
    assert "/reset_encoder_cache" not in setup.fake.paths()
    assert 0 < setup.fake.received["num_weights"] < whole["num_weights"]


def test_a_server_that_was_started_anew_gets_all_weights_and_is_asked_again(setup: Setup) -> None:
    policy = replace(setup.policy, model=copy.deepcopy(setup.policy.model))
    policy.backbone.visual.requires_grad_(False)
    setup.policy = policy
    engine = setup.engine()
    engine.sync_weights(policy, version=1)
    expected = setup.generate(engine)
    setup.fake.stop()
    setup.fake.start()  # between two rollouts: nobody saw it go
    setup.fake.seen.clear()
    assert setup.generate(engine) == expected
    files = [Path(body["update_info"]["path"]).name for path, body in setup.fake.seen if path == "/update_weights"]
    assert files == [f"frozen-{engine.run}.0.safetensors", f"trained-{engine.run}.1.safetensors"]
    assert setup.fake.label == f"{engine.run}.1"
    assert any("other weights than this run's (default)" in line for line in setup.told)


def test_an_update_of_a_server_that_was_started_anew_is_whole(setup: Setup) -> None:
    engine = setup.engine()
    setup.fake.stop()
    setup.fake.start()
    setup.fake.seen.clear()
    engine.sync_weights(setup.policy, version=1)
    assert GENERATE in setup.fake.paths()  # its log-probabilities are looked at again
    assert "/reset_encoder_cache" in setup.fake.paths()


def test_a_dead_server_is_named_once_and_waited_for(setup: Setup) -> None:
    engine = setup.engine()
    expected = setup.generate(engine)
    setup.fake.stop()
    setup.on_log = lambda line: setup.fake.start() if "waited for" in line else None
    assert setup.generate(engine) == expected
    assert len([line for line in setup.told if "cannot be reached" in line]) == 1
    assert setup.told[-1] == f"server {setup.fake.url} answers again."


def test_a_server_that_dies_with_requests_under_way_is_asked_again(setup: Setup) -> None:
    engine = setup.engine()
    expected = setup.generate(engine)

    def die(path: str, body: dict) -> None:
        if path == GENERATE:
            setup.fake.before = lambda path, body: None
            setup.fake.stop()
            setup.fake.start()
            raise ConnectionResetError

    setup.fake.before = die
    assert setup.generate(engine) == expected


def test_a_server_that_stays_dead_ends_the_run(setup: Setup) -> None:
    engine = setup.engine(recover_timeout_s=0.05)
    setup.fake.stop()
    with pytest.raises(EngineError, match=r"cannot be reached.*waited for for 0\.05 s.*no other server is left"):
        setup.generate(engine)
    setup.fake.start()


def test_no_waiting_where_none_is_wanted(setup: Setup) -> None:
    engine = setup.engine(recover_timeout_s=0)
    setup.fake.stop()
    with pytest.raises(EngineError, match="no other server is left"):
        setup.generate(engine)
    assert setup.told == []
    setup.fake.start()


def test_prompts_are_dealt_out_and_a_dead_server_is_given_up(setup: Setup) -> None:
    setup.fakes.append(FakeVllm(key=KEY))
    engine = setup.engine(recover_timeout_s=0.05)
    expected = setup.generate(engine)
    assert [len(asked(fake)) for fake in setup.fakes] == [2, 2]
    setup.fakes[1].stop()
    assert setup.generate(engine) == expected
    assert len(asked(setup.fakes[0])) == 6
    given_up = [line for line in setup.told if "given up" in line]
    assert len(given_up) == 1
    assert "goes on with 1 other" in given_up[0]
    engine.sync_weights(setup.policy, version=1)
    assert setup.fakes[0].label == f"{engine.run}.1"
    setup.fakes[1].start()


def test_a_refused_request_is_not_tried_again(setup: Setup) -> None:
    engine = setup.engine()

    def before(path: str, body: dict) -> None:
        if path == GENERATE:
            raise RefusedError(400, "prompt is longer than max_model_len")

    setup.fake.before = before
    setup.fake.seen.clear()
    with pytest.raises(EngineError, match=r"status 400: .*longer than max_model_len"):
        setup.generate(engine)
    assert asked(setup.fake) == []


def test_a_hanging_server_is_left_when_another_request_fails(setup: Setup) -> None:
    engine = setup.engine(request_timeout_s=600)
    forever = threading.Event()
    refused = setup.prompts[3].token_ids

    def before(path: str, body: dict) -> None:
        if path == GENERATE and tuple(body["token_ids"]) == refused:
            raise RefusedError(400, "no")
        forever.wait()

    setup.fake.before = before
    with pytest.raises(EngineError, match="status 400"):
        setup.generate(engine)
    forever.set()


def test_an_answer_to_another_prompt_fails_loudly(setup: Setup) -> None:
    engine = setup.engine()

    def expand_again(path: str, body: dict, answer: Any) -> Any:
        if path == GENERATE:
            pad = setup.policy.image_token_id
            at = answer["prompt_token_ids"].index(pad)
            answer["prompt_token_ids"][at:at] = [pad] * 11
        return answer

    setup.fake.spoil = expand_again
    with pytest.raises(EngineError, match=r"sample 'noise-\d'.*expanded twice"):
        setup.generate(engine)


def test_an_answer_that_was_cut_off_is_asked_for_again(setup: Setup) -> None:
    engine = setup.engine()
    expected = setup.generate(engine)
    cut: list[str] = []

    def spoil(path: str, body: dict, answer: Any) -> Any:
        if path == GENERATE and not cut:
            cut.append(path)
            answer["choices"][0]["finish_reason"] = "abort"
        return answer

    setup.fake.spoil = spoil
    assert setup.generate(engine) == expected
    assert cut


def test_weights_that_were_sent_on_the_way_are_told_by_token(setup: Setup) -> None:
    engine = setup.engine()

    def sync_midway(path: str, body: dict, answer: Any) -> Any:
        if path == GENERATE and engine.weights_version == 0:
            setup.fake.spoil = lambda path, body, answer: answer
            engine.sync_weights(setup.policy, version=1)
            for choice in answer["choices"]:
                labels = [f"{engine.run}.0", f"{engine.run}.1"]
                spans = [(labels[0], 0, 1), (labels[1], 1, len(choice["token_ids"]))]
                choice["weight_versions"] = [{"version": v, "start": s, "end": e} for v, s, e in spans]
        return answer

    setup.fake.spoil = sync_midway
    (group,) = engine.generate(setup.prompts[:1], SAMPLING, [[0, 1]])
    assert group[0].weights_versions == (0, 1, 1)


def test_raw_log_probabilities_are_refused_at_the_start(setup: Setup) -> None:
    setup.fake.logprobs_mode = "raw_logprobs"
    with pytest.raises(EngineError, match=r"log-probability -6 to the only token.*--logprobs-mode processed_logprobs"):
        setup.engine()


def test_a_model_with_other_weights_is_refused_at_the_start(setup: Setup) -> None:
    setup.fake.match["unknown"] = ["model.layers.9.mlp.weight"]
    with pytest.raises(EngineError, match=r"has no place for model\.layers\.9\.mlp\.weight"):
        setup.engine()


def test_an_unknown_release_is_refused(setup: Setup) -> None:
    setup.fake.spoil = lambda path, body, answer: {"version": "0.17.1"} if path == "/version" else answer
    with pytest.raises(EngineError, match=r"version 0\.17\.1"):
        setup.engine()


def test_an_update_that_was_cut_off_is_finished_first(setup: Setup) -> None:
    setup.fake.updating = True  # a trainer died between start and finish
    engine = setup.engine()
    assert setup.fake.label == f"{engine.run}.0"


def test_a_server_is_not_resumed_with_half_an_update(setup: Setup) -> None:
    engine = setup.engine(recover_timeout_s=0)

    def before(path: str, body: dict) -> None:
        if path == "/update_weights":
            raise RefusedError(500, "disk")

    setup.fake.before = before
    with pytest.raises(EngineError, match="disk"):
        engine.sync_weights(setup.policy, version=1)
    assert setup.fake.paused
    assert setup.fake.label == f"{engine.run}.0"
    assert engine.weights_version == 0


def test_a_key_that_no_header_takes_is_refused_without_being_shown(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MM_AGRAE_VLLM_API_KEY", "sk-sécret")
    with pytest.raises(ConfigError, match="MM_AGRAE_VLLM_API_KEY") as caught:
        setup.engine()
    assert "cret" not in str(caught.value)


def test_the_key_is_in_no_file_and_no_line(setup: Setup) -> None:
    engine = setup.engine()
    setup.fake.stop()
    setup.on_log = lambda line: setup.fake.start() if "waited for" in line else None
    setup.generate(engine)
    assert setup.told
    assert not any(KEY in line for line in setup.told)
    assert KEY not in json.dumps([body for _, body in setup.fake.seen])


def test_closing_removes_what_was_handed_over(setup: Setup) -> None:
    engine = setup.engine()
    engine.sync_weights(setup.policy, version=1)
    engine.sync_weights(setup.policy, version=2)
    assert [file.name for file in (setup.folder / engine.run).glob("*.safetensors")] == [
        f"trained-{engine.run}.2.safetensors"
    ]
    engine.close()
    assert not (setup.folder / engine.run).exists()


def test_one_process_sends_and_all_fail_together(setup: Setup) -> None:
    settings = EngineConfig(kind="vllm_server", base_urls=(setup.fake.url,), recover_timeout_s=0)
    said: list[Any] = []
    main = VllmServerEngine(settings, setup.policy, folder=setup.folder, ranks=Shared(said, rank=0), log=setup.log)
    setup.fake.seen.clear()
    other = VllmServerEngine(settings, setup.policy, folder=setup.folder, ranks=Shared(said, rank=1), log=setup.log)
    assert setup.fake.seen == []
    assert other.handed == main.handed
    assert setup.generate(other) == setup.generate(main)

    setup.fake.stop()
    with pytest.raises(EngineError, match="cannot be reached"):
        main.sync_weights(setup.policy, version=1)
    with pytest.raises(EngineError, match="cannot be reached"):
        other.sync_weights(setup.policy, version=1)
    setup.fake.start()


def test_another_process_sends_again_too(setup: Setup) -> None:
    settings = EngineConfig(kind="vllm_server", base_urls=(setup.fake.url,), recover_timeout_s=30)
    said: list[Any] = []
    main = VllmServerEngine(settings, setup.policy, folder=setup.folder, ranks=Shared(said, rank=0), log=setup.log)
    other = VllmServerEngine(settings, setup.policy, folder=setup.folder, ranks=Shared(said, rank=1), log=setup.log)
    expected = setup.generate(main)
    setup.fake.stop()
    setup.fake.start()
    assert setup.generate(other) == expected
    assert setup.fake.label == f"{main.run}.0"


def test_the_policy_that_is_sent_is_the_one_that_was_given_last(setup: Setup) -> None:
    engine = setup.engine()
    policy = replace(setup.policy, model=copy.deepcopy(setup.policy.model))
    with torch.no_grad():
        next(policy.model.parameters()).mul_(2)
    before = engine.handed.trained
    engine.sync_weights(policy, version=1)
    assert engine.handed.trained.digest != before.digest
    assert engine.policy is policy
