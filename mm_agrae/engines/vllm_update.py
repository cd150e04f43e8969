"""One update of a server's weights, as the calls that it takes.

pause, weights, forget what the old ones computed, label, resume, probe. Where something fails before the label the
server stays paused under the old one, and nothing is sampled from half an update. The label comes before the server
resumes, because completions under way go on with it; so one with the right label may still be paused, or unprobed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mm_agrae.engines.vllm_contract import BACKEND, MATCH, RECEIVED, check_version
from mm_agrae.engines.vllm_http import Server, ServerFailedError
from mm_agrae.engines.vllm_requests import GENERATE
from mm_agrae.engines.vllm_sync import WeightFile, caches_to_reset, check_match, check_received, weight_shapes
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy

T = TypeVar("T")

# Requests that are under way compute their keys and values anew too.
RESET_ROUTES = {"prefix": "/reset_prefix_cache?reset_running_requests=true", "encoder": "/reset_encoder_cache"}
# Log-probability of the only token that may be sampled: 0, unless it is told from before the choice was narrowed.
PROBE_TOLERANCE = 1e-3


def label_of(server: Server) -> str:
    """The label of the weights that a server holds."""
    return part_of(server, "/weight_info", server.get("/weight_info"), "weight_version", kind=str)


def part_of(server: Server, path: str, reply: Any, *keys: str | int, kind: type[T]) -> T:
    """What stands in a server's reply under keys, one within the other.

    Raises:
        EngineError: Nothing of that kind does.
    """
    part = reply
    with contextlib.suppress(KeyError, IndexError, TypeError):
        for key in keys:
            part = part[key]
        if isinstance(part, kind):
            return part
    raise EngineError(
        f"server {server.base_url} answers {path} without {'.'.join(map(str, keys))}: {str(reply)[:200]}. Name a "
        "server that runs scripts/serve_vllm.sh."
    )


def check_serves(server: Server, policy: Policy, *, backend: str = BACKEND) -> None:
    """See that a server that may hold any weights, even those of another model, can take the policy's.

    Args:
        server: Which.
        policy: Whose weights are coming.
        backend: By which they will come.

    Raises:
        EngineError: Its vLLM is not known, does not serve the policy's model, or was started otherwise than it must be.
    """
    check_version(part_of(server, "/version", server.get("/version"), "version", kind=str))
    with _refusing(server, "Start it by scripts/serve_vllm.sh, which gives its workers what is called here."):
        replies = _on_workers(server, MATCH, {"shapes": weight_shapes(policy)})
    check_match(replies, backend=backend)


def pause(server: Server, *, forgets: bool) -> None:
    """Let requests under way wait for new weights.

    Args:
        server: Which.
        forgets: Whether it forgets at once what the old weights computed. Without, features of pictures that are not
            stale are kept, and the rest must be reset before the new weights get their label; weights between GPUs get
            it with their last piece.
    """
    server.post(f"/pause?mode=keep&clear_cache={str(forgets).lower()}")


def load_files(server: Server, files: Sequence[WeightFile]) -> None:
    """Let a paused server load files.

    Raises:
        EngineError: It refuses them, or loaded others.
    """
    try:
        server.post("/start_weight_update")
    except ServerFailedError:  # an update that was cut off is still open
        server.post("/finish_weight_update")
        server.post("/start_weight_update")
    for file in files:
        advice = f"Does it see {file.path}? If not, set engine.sync_folder. Does it serve the model of this run?"
        with _refusing(server, advice):
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
    resume(server, policy)


def resume(server: Server, policy: Policy) -> None:
    """Let a server with the right weights sample; no harm where it does so already.

    Raises:
        EngineError: Its log-probabilities are not of what it samples from.
    """
    server.post("/resume")
    _check_logprobs(server, policy)


@contextlib.contextmanager
def _refusing(server: Server, advice: str) -> Iterator[None]:
    """A server that fails at this and lives on will fail again: do not wait for it.

    Raises:
        EngineError: It lives.
    """
    try:
        yield
    except ServerFailedError as error:
        label_of(server)
        raise EngineError(f"{error} It lives on, and would refuse again. {advice}") from error


def _on_workers(server: Server, method: str, arguments: Mapping[str, Any]) -> list[Any]:
    path = "/collective_rpc"
    return part_of(server, path, server.post(path, {"method": method, "kwargs": arguments}), "results", kind=list)


def _check_logprobs(server: Server, policy: Policy) -> None:
    """See that of the only token allowed the log-probability is 0."""
    token = policy.eos_token_ids[0]
    params = {"max_tokens": 1, "logprobs": 0, "allowed_token_ids": [token], "ignore_eos": True, "detokenize": False}
    reply = server.post(GENERATE, {"token_ids": [token], "sampling_params": params})
    found = part_of(server, GENERATE, reply, "choices", 0, "logprobs", "content", 0, "logprob", kind=float)
    if abs(found) > PROBE_TOLERANCE:
        raise EngineError(
            f"server {server.base_url} gives the log-probability {found:.3g} to the only token that it may sample, "
            "which must be 0: its log-probabilities are those before temperature and bans. Start it with "
            "--logprobs-mode processed_logprobs."
        )
