"""One update of a server's weights, as the calls that it takes.

pause, weights, forget what the old ones computed, label, resume. The label comes last, because it says that all of this
is done: where something fails midway the server stays paused under the old label, and nothing is sampled from half an
update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mm_agrae.engines.vllm_contract import MATCH, RECEIVED, check_version
from mm_agrae.engines.vllm_http import Server, ServerGoneError
from mm_agrae.engines.vllm_requests import GENERATE
from mm_agrae.engines.vllm_sync import WeightFile, caches_to_reset, check_match, check_received, weight_shapes
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy

# Requests that are under way compute their keys and values anew too.
RESET_ROUTES = {"prefix": "/reset_prefix_cache?reset_running_requests=true", "encoder": "/reset_encoder_cache"}
# Log-probability of the only token that may be sampled: 0, unless it is told from before the choice was narrowed.
PROBE_TOLERANCE = 1e-3


def label_of(server: Server) -> str:
    """The label of the weights that a server holds."""
    return server.get("/weight_info")["weight_version"]


def begin_update(server: Server, policy: Policy, *, whole: bool) -> None:
    """Pause a server; requests under way wait.

    Args:
        server: Which.
        policy: Whose weights are coming.
        whole: Whether it may hold any weights, even those of another model.

    Raises:
        EngineError: Its vLLM is not known, or it does not serve the policy's model.
    """
    check_version(server.get("/version")["version"])
    server.post("/pause?mode=keep")
    if whole:
        check_match(_on_workers(server, MATCH, {"shapes": weight_shapes(policy)}))


def load_files(server: Server, files: Sequence[WeightFile]) -> None:
    """Let a paused server load files.

    Raises:
        EngineError: It loaded others.
    """
    try:
        server.post("/start_weight_update")
    except ServerGoneError:  # an update that was cut off is still open
        server.post("/finish_weight_update")
        server.post("/start_weight_update")
    for file in files:
        server.post("/update_weights", {"update_info": file.update_info()})
    server.post("/finish_weight_update")
    check_received(files, _on_workers(server, RECEIVED, {}))


def end_update(server: Server, policy: Policy, *, label: str, whole: bool) -> None:
    """Let a server forget what the old weights computed, name the new ones, and resume.

    Raises:
        EngineError: Its log-probabilities are not of what it samples from.
    """
    for cache in caches_to_reset(policy, "all" if whole else "trained"):
        server.post(RESET_ROUTES[cache])
    server.post("/update_weight_version", {"new_version": label})
    server.post("/resume")
    if whole:
        _check_logprobs(server, policy)


def _on_workers(server: Server, method: str, arguments: Mapping[str, Any]) -> Any:
    return server.post("/collective_rpc", {"method": method, "kwargs": arguments})["results"]


def _check_logprobs(server: Server, policy: Policy) -> None:
    """See that of the only token allowed the log-probability is 0."""
    token = policy.eos_token_ids[0]
    params = {"max_tokens": 1, "logprobs": 0, "allowed_token_ids": [token], "ignore_eos": True, "detokenize": False}
    reply = server.post(GENERATE, {"token_ids": [token], "sampling_params": params})
    found = reply["choices"][0]["logprobs"]["content"][0]["logprob"]
    if abs(found) > PROBE_TOLERANCE:
        raise EngineError(
            f"server {server.base_url} gives the log-probability {found:.3g} to the only token that it may sample, "
            "which must be 0: its log-probabilities are those before temperature and bans. Start it with "
            "--logprobs-mode processed_logprobs."
        )
