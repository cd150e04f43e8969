"""A stand-in for `vllm serve`: the routes that the engine uses, answered as vLLM 0.32 answers them.

tests/golden/vllm_contract.json has requests and answers of a real server; test_vllm_contract.py holds this one to them.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from safetensors import safe_open

from mm_agrae.engines.vllm_contract import BACKEND, file_digest
from mm_agrae.engines.vllm_sync import MISMATCHES

Body = dict[str, Any]
MAX_MODEL_LEN = 1024
PATIENCE_S = 3.0  # that a request waits while the server is paused; vLLM's waits for ever
# Parts of an answer that are empty for requests like ours.
UNUSED = (
    "prompt_logprobs", "prompt_token_id_logprobs", "metrics", "kv_transfer_params", "ec_transfer_params",
)  # fmt: skip

# Of a worker that can take the weights that it is asked for.
MATCH: Body = {
    **{kind: [] for kind in MISMATCHES},
    "normalizes": False,
    "backend": BACKEND,
    "tokens_needed": 0,
}


class Alone:
    """The only process."""

    rank = 0
    is_main = True

    def broadcast(self, value: Any) -> Any:
        return value


class RefusedError(Exception):
    """Answered with this status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeVllm:
    """A server on a port of this machine.

    Attributes:
        label: Of the weights that it holds; "default" after every start.
        seen: (path, body) of every request that was let in.
        keys: The Authorization headers that came.
        match: What its workers say of themselves and of the weights that they are asked for.
        spoil: Changes an answer before it is sent; given path, body and answer, returns the answer.
        before: Called with path and body before a request is answered; may raise RefusedError, or wait.
    """

    def __init__(self, *, key: str | None = None, logprobs_mode: str = "processed_logprobs") -> None:
        self.key = key
        self.match: Body = MATCH | {}
        self.logprobs_mode = logprobs_mode
        self.seen: list[tuple[str, Body]] = []
        self.keys: list[str | None] = []
        self.spoil: Callable[[str, Body, Any], Any] = lambda path, body, answer: answer
        self.before: Callable[[str, Body], None] = lambda path, body: None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to answer, with nothing remembered; on the port of last time."""
        self.label = "default"
        self.updating = False
        self.running = threading.Event()
        self.running.set()
        self.received: Body = {"digests": [], "num_weights": 0}
        self.server = _HttpServer(("127.0.0.1", self.port), _Handler)
        self.server.fake = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Die: nothing answers any more."""
        self.server.shutdown()
        self.server.server_close()

    @property
    def paused(self) -> bool:
        return not self.running.is_set()

    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]

    def answer(self, path: str, body: Body) -> Any:
        route = urlsplit(path).path.strip("/").replace("/", "_").replace("inference_v1_", "")
        if route not in ROUTES:
            raise RefusedError(404, "Not Found")
        return ROUTES[route](self, body)

    def pause(self, body: Body) -> Body:
        self.running.clear()
        return {"status": "paused"}

    def resume(self, body: Body) -> Body:
        self.running.set()
        return {"status": "resumed"}

    def version(self, body: Body) -> Body:
        return {"version": "0.32.0"}

    def weight_info(self, body: Body) -> Body:
        return {"weight_version": self.label}

    def get_world_size(self, body: Body) -> Body:
        return {"world_size": 2}

    def start_weight_update(self, body: Body) -> Body:
        if self.updating:
            raise RefusedError(500, "start_weight_update called while a weight update is already active")
        self.updating = True
        self.received = {"digests": [], "num_weights": 0}
        return {"message": "Weight update started"}

    def update_weights(self, body: Body) -> Body:
        if not self.updating:
            raise RefusedError(500, "start_weight_update must be called before update_weights.")
        path, digest = Path(body["update_info"]["path"]), body["update_info"]["digest"]
        if file_digest(path) != digest:
            self.updating = False
            raise RefusedError(500, "another file")
        self.received["digests"].append(digest)
        with safe_open(path, framework="pt") as file:
            self.received["num_weights"] += len(list(file.keys()))
        return {"message": "Weights updated"}

    def finish_weight_update(self, body: Body) -> Body:
        if not self.updating:
            raise RefusedError(500, "finish_weight_update called without a matching start_weight_update.")
        self.updating = False
        return {"message": "Weight update finished"}

    def update_weight_version(self, body: Body) -> Body:
        self.label = body["new_version"]
        return {"success": True, "new_version": self.label}

    def collective_rpc(self, body: Body) -> Body:
        if body["method"] == "mm_agrae_match":
            return {"results": [self.match]}
        assert body["method"] == "mm_agrae_received"
        return {"results": [self.received]}

    def reset_prefix_cache(self, body: Body) -> Body:
        return {"success": True}

    def reset_encoder_cache(self, body: Body) -> None:
        return None

    def generate(self, body: Body) -> Body:
        """Completions that depend on the seed and on the weights, and end with the first stop id."""
        if not self.running.wait(PATIENCE_S):
            raise RefusedError(503, "nobody resumes this server")
        params, ids = body["sampling_params"], body["token_ids"]
        if len(ids) + params["max_tokens"] > MAX_MODEL_LEN:
            raise RefusedError(400, f"the prompt has {len(ids)} tokens, more than max_model_len")
        features = body.get("features")
        return {
            **dict.fromkeys(UNUSED),
            "request_id": "generate-tokens-fake",
            "created": 0,
            "model": "fake",
            "usage": {
                "prompt_tokens": len(ids),
                "total_tokens": len(ids),
                "completion_tokens": 0,
                "prompt_tokens_details": None,
                "completion_tokens_details": None,
            },
            "output_mode": "tokens",
            "prompt_token_ids": ids if body.get("return_token_ids") else None,
            "mm_placeholders": features["mm_placeholders"] if features and body.get("return_token_ids") else None,
            "choices": [self._choice(index, params) for index in range(params.get("n", 1))],
        }

    def _choice(self, index: int, params: Body) -> Body:
        allowed = params.get("allowed_token_ids")
        if allowed:
            tokens, logprob = allowed[:1], 0.0 if self.logprobs_mode == "processed_logprobs" else -6.0
        else:
            start = params["seed"] + index + sum(map(ord, self.label))
            drawn = [40 + (start + 7 * place) % 50 for place in range(min(2, params["max_tokens"] - 1))]
            tokens, logprob = [*drawn, params["stop_token_ids"][0]], -1.5
        told = [{"token_id": token, "logprob": logprob, "rank": 1} for token in tokens]
        content = [one | {"top_logprobs": [one]} for one in told]
        return {
            "index": index,
            "finish_reason": "stop",
            "stop_reason": None,
            "routed_experts": None,
            "sampling_mask": None,
            "token_ids": tokens,
            "logprobs": {"content": content},
            "weight_versions": [{"version": self.label, "start": 0, "end": len(tokens)}],
        }


ROUTES = {
    name: getattr(FakeVllm, name)
    for name in (
        "pause", "resume", "version", "weight_info", "start_weight_update",
        "update_weights", "finish_weight_update", "update_weight_version", "collective_rpc", "reset_prefix_cache",
        "reset_encoder_cache", "generate", "get_world_size",
    )
}  # fmt: skip


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    fake: FakeVllm

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may go, and the fake may die on purpose; anything else is a mistake of the fake."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self._respond({})

    def do_POST(self) -> None:
        self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _respond(self, body: Body) -> None:
        fake = self.server.fake
        key = self.headers.get("Authorization")
        fake.keys.append(key)
        try:
            if fake.key and self.path.startswith("/inference") and key != f"Bearer {fake.key}":
                raise RefusedError(401, "Unauthorized")
            fake.before(self.path, body)
            fake.seen.append((self.path, body))
            self._send(200, fake.spoil(self.path, body, fake.answer(self.path, body)))
        except RefusedError as refusal:
            self._send(refusal.status, {"error": {"message": str(refusal), "code": refusal.status}})

    def _send(self, status: int, answer: Any) -> None:
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
