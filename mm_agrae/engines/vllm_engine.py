"""vLLM in the trainer's own process: our ids and our patches go in, and new weights are handed over in memory.

Every process of the run has an engine of its own, on its own device, with the whole model; a model that needs several
devices is served by servers instead. Nothing is rendered here by vLLM, and nothing is copied but the weights.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mm_agrae.config import RunConfig
from mm_agrae.engines.base import check_request
from mm_agrae.engines.vllm_contract import BACKEND, MATCH, RECEIVED, WORKER_EXTENSION, check_version
from mm_agrae.engines.vllm_pixels import pictures_of
from mm_agrae.engines.vllm_requests import (
    Choice,
    check_prompt,
    drop_present_versions,
    sampling_params,
    strange_weights,
    to_completions,
    weights_label,
)
from mm_agrae.engines.vllm_sync import Part, caches_to_reset, check_match, engine_dtype, weight_shapes, weights_of
from mm_agrae.errors import ConfigError, EngineError
from mm_agrae.policy.adapters import from_the_base_up
from mm_agrae.policy.load import Policy
from mm_agrae.records import Completion, RenderedPrompt, Sampling

# Pictures of one prompt that vLLM sets memory aside for.
MAX_IMAGES = 16
# Tokens of one forward pass, where no prompt is longer: vLLM's own default.
BATCHED_TOKENS = 8192
# Tokens of all prompts together that may wait at a time on a CPU, where memory is set aside for them in one pass.
CPU_TOKENS = 65536
# Weights are put aside and taken back, never thrown away: frozen ones are not sent again.
SLEEP_LEVEL = 1


class VllmEngine:
    """Rollouts from a vLLM engine in this process."""

    def __init__(
        self, policy: Policy, config: RunConfig, *, context_tokens: int, processes: int, weights_version: int = 0
    ) -> None:
        """Start the engine and give it the policy's weights. Every process of the run does this at the same time.

        Args:
            policy: Whose completions are wanted.
            config: Which model, and the engine's settings.
            context_tokens: The longest prompt and completion together that will be asked for.
            processes: Of the run.
            weights_version: Updates behind the policy's weights.

        Raises:
            ConfigError: vLLM is not installed, or cannot do here what the settings ask for.
            EngineError: It cannot be started, or does not know the policy's weights.
        """
        self.policy = policy
        self.context_tokens = context_tokens
        self.sleeps = config.engine.sleeps
        self.asleep: set[str] = set()
        self.run = secrets.token_hex(4)
        arguments = llm_arguments(policy, config, context_tokens=context_tokens, processes=processes)
        self.vllm = _import_vllm()
        with _telling("starting"):
            self.llm = self.vllm.LLM(**arguments)
            replies = self.llm.collective_rpc(MATCH, args=(weight_shapes(policy),))
        check_match(replies)
        self._send("all", weights_version)

    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        """One request per prompt, for all its completions. See Engine."""
        check_request(prompts, sampling, seeds)
        self._check_lengths(prompts, sampling)
        if not prompts:
            return []
        self._wake("weights", "kv_cache")
        with _telling("sampling"):
            for number, (prompt, row) in enumerate(zip(prompts, seeds, strict=True)):
                self.llm.llm_engine.add_request(str(number), self._input(prompt), self._params(sampling, row))
            answers = self.llm.wait_for_completion(use_tqdm=False)
        if [answer.request_id for answer in answers] != [str(number) for number in range(len(prompts))]:
            raise EngineError(f"vLLM answered {len(answers)} of {len(prompts)} prompts. Resume the run.")
        if self.sleeps:
            self.llm.sleep(level=SLEEP_LEVEL)
            self.asleep = {"weights", "kv_cache"}
        groups = [self._completions(prompt, sampling, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return drop_present_versions(groups, self.weights_version)

    def sync_weights(self, policy: Policy, *, version: int) -> None:
        """Sample from the policy's present weights from now on. Every process takes part."""
        self.policy = policy
        self._send("trained", version)

    def close(self) -> None:
        """Stop the engine and free what it holds on the device."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _send(self, part: Part, version: int) -> None:
        label = weights_label(self.run, version)
        self._wake("weights")
        with _telling("taking new weights"):
            self.llm.start_weight_update()
            self.llm.update_weights({"update_info": {"weights": weights_of(self.policy, part)}})
            self.llm.finish_weight_update(label)
            for cache in caches_to_reset(self.policy, part):
                self._reset(cache)
            (received,) = self.llm.collective_rpc(RECEIVED)
            present = self.llm.get_weight_version()
        expected = len(weight_shapes(self.policy, part))
        if received["num_weights"] != expected or present != label:
            raise EngineError(
                f"vLLM holds weights {present!r} after {received['num_weights']} were loaded, but {expected} of "
                f"{label!r} were sent. Use a vLLM that this engine knows."
            )
        self.weights_version = version

    def _reset(self, cache: str) -> None:
        if cache == "encoder":
            self.llm.llm_engine.reset_encoder_cache()
        elif not self.llm.reset_prefix_cache():
            raise EngineError("vLLM does not forget the keys and values of the old weights: requests are under way.")

    def _wake(self, *tags: str) -> None:
        """Take back what was put aside; nothing when awake."""
        sleeping = [tag for tag in tags if tag in self.asleep]
        if sleeping:
            with _telling("waking up"):
                self.llm.wake_up(tags=sleeping)
            self.asleep -= set(sleeping)

    def _check_lengths(self, prompts: Sequence[RenderedPrompt], sampling: Sampling) -> None:
        for prompt in prompts:
            needed = len(prompt.token_ids) + sampling.max_new_tokens
            if needed > self.context_tokens:
                raise EngineError(
                    f"sample {prompt.sample.id!r} needs {needed} tokens with its completion, but vLLM was started for "
                    f"{self.context_tokens}. Lower rollout.max_prompt_tokens or the completion tokens asked for."
                )

    def _params(self, sampling: Sampling, seeds: Sequence[int]) -> Any:
        return self.vllm.SamplingParams(
            **sampling_params(self.policy, sampling, seeds),
            output_kind=self.vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def _input(self, prompt: RenderedPrompt) -> Any:
        """The prompt as vLLM's renderer would hand it on: expanded ids, and pictures that are processed already."""
        inputs, kinds = self.vllm.inputs, self.vllm.multimodal.inputs
        pictures = pictures_of(self.policy, prompt)
        if prompt.image_grid_thw is None:
            return inputs.tokens_input(list(prompt.token_ids))
        items = kinds.MultiModalKwargsItems.from_hf_inputs(
            {"pixel_values": prompt.pixel_values, "image_grid_thw": prompt.image_grid_thw},
            {
                "pixel_values": kinds.MultiModalFieldConfig.flat_from_sizes("image", prompt.image_grid_thw.prod(-1)),
                "image_grid_thw": kinds.MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            },
        )
        return inputs.mm_input(
            list(prompt.token_ids),
            items,
            {"image": [picture.name for picture in pictures]},
            {"image": [kinds.PlaceholderRange(offset=one.offset, length=one.length) for one in pictures]},
        )

    def _completions(self, prompt: RenderedPrompt, sampling: Sampling, answer: Any) -> list[Completion]:
        check_prompt(self.policy, prompt, answer.prompt_token_ids)
        choices = [_choice(output) for output in sorted(answer.outputs, key=lambda output: output.index)]
        versions = {weights_label(self.run, self.weights_version): self.weights_version}
        strange = strange_weights(choices, versions)
        if strange is not None:
            raise EngineError(
                f"vLLM sampled with weights {strange!r}, but must with {next(iter(versions))!r}. Only this "
                "run may give it weights."
            )
        return to_completions(self.policy, prompt, sampling, choices, versions=versions)


def llm_arguments(policy: Policy, config: RunConfig, *, context_tokens: int, processes: int) -> dict[str, Any]:
    """What vLLM's LLM is made with.

    Raises:
        ConfigError: The engine is to sleep on a CPU, where vLLM frees nothing.
    """
    on_cpu = policy.device.type == "cpu"
    if on_cpu and config.engine.sleeps:
        raise ConfigError(
            "engine.sleeps is true, but on a CPU vLLM gives no memory back. Set engine.sleeps=false, or use CUDA."
        )
    # The encoder takes a picture whole, and a picture is no longer than a prompt. On a CPU no prompt may be cut in two:
    # vLLM cannot take back the number that it draws for one whose end is still to come. So all rows must fit into one
    # pass there; more of them wait.
    rows = config.rollout.batch_rows
    if on_cpu:
        rows = max(1, min(rows, CPU_TOKENS // context_tokens))
    at_once = context_tokens * rows if on_cpu else max(context_tokens, rows)
    side = max(1, int(config.images.max_pixels**0.5))
    pictures = {"image": {"count": MAX_IMAGES, "width": side, "height": side}, "video": 0} if policy.sees else {}
    return {
        # The base below any adapters; what is trained or merged is sent.
        "model": from_the_base_up(config.model.path)[0],
        "dtype": str(engine_dtype(policy)).removeprefix("torch."),
        "max_model_len": context_tokens,
        "max_num_seqs": rows,
        "max_num_batched_tokens": max(BATCHED_TOKENS, at_once),
        "gpu_memory_utilization": config.engine.memory_fraction,
        "enforce_eager": on_cpu,
        "enable_sleep_mode": config.engine.sleeps,
        # One process: no launcher to ask. Several: each is a replica of its own among the launcher's.
        "distributed_executor_backend": "uni" if processes == 1 else "external_launcher",
        "logprobs_mode": "processed_logprobs",
        "limit_mm_per_prompt": pictures,
        "mm_processor_cache_gb": 0,  # pictures come processed,
        "mm_device_do_normalize": False,  # and normalised
        "worker_extension_cls": WORKER_EXTENSION,
        "weight_transfer_config": {"backend": BACKEND},
    }


def _choice(output: Any) -> Choice:
    logprobs = output.logprobs or []
    ids = tuple(output.token_ids)
    return Choice(
        token_ids=ids,
        logprobs=tuple(at[token].logprob for at, token in zip(logprobs, ids, strict=False)),
        finish_reason=output.finish_reason,
        weights=tuple((span.version, span.start, span.end) for span in output.weight_versions or ()),
    )


def _import_vllm() -> Any:
    # Before vLLM reads them. Engine and worker stay in this process: weights and pictures are handed over in memory.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        import vllm
        import vllm.inputs
        import vllm.multimodal.inputs
        import vllm.sampling_params
    except ImportError as error:
        raise ConfigError(
            f"engine.kind is vllm, but vLLM cannot be imported: {error}. Install it: pip install 'mm-agrae[vllm]', or "
            "set engine.kind=embedded."
        ) from error
    check_version(vllm.__version__)
    return vllm


@contextlib.contextmanager
def _telling(doing: str) -> Iterator[None]:
    """Say of any failure that it is vLLM's, and in what."""
    try:
        yield
    except (EngineError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever vLLM raises
        raise EngineError(
            f"vLLM failed while {doing}: {error}\nIts log above says more; engine.kind=embedded does without it."
        ) from error
