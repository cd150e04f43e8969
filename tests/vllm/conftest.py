"""Real vLLM on the CPU: run by scripts/test_vllm.sh, which makes an environment that has it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from processes import free_port

ROOT = Path(__file__).parents[2]
KEY = "sk-of-the-tests"
START_S = 900.0

if "MM_AGRAE_VLLM_TESTS" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


class RealServer:
    """`vllm serve` as scripts/serve_vllm.sh starts it."""

    def __init__(self, model: Path, log: Path) -> None:
        self.model = model
        self.log = log
        self.times_killed = 0
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, model: Path | None = None) -> None:
        """Begin to start; `wait` until it answers."""
        self.model = model or self.model
        command = ["bash", str(ROOT / "scripts/serve_vllm.sh"), str(self.model), "--port", str(self.port)]
        command += ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager", "--max-num-seqs", "64"]
        command += ["--max-num-batched-tokens", "65536"]
        command += ["--distributed-executor-backend", "uni"]
        environment = os.environ | {"MM_AGRAE_VLLM_API_KEY": KEY}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            try:
                with urlopen(f"{self.url}/health", timeout=5):
                    return
            except (URLError, OSError):
                time.sleep(0.5)
        raise AssertionError(f"no server after {START_S} s: {self.log.read_text()[-4000:]}")

    def tokens_sampled(self) -> int:
        """Since the server was started."""
        with urlopen(f"{self.url}/metrics", timeout=5) as answer:
            found = re.search(rb"^vllm:generation_tokens_total\S* ([\d.e+]+)$", answer.read(), re.MULTILINE)
        assert found
        return int(float(found[1]))

    def kill(self) -> None:
        """-9, with every process that it started."""
        self.times_killed += 1
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], RealServer]]:
    """serve(model folder): a server that answers, started once for all tests."""
    started: dict[Path, RealServer] = {}
    os.environ["MM_AGRAE_VLLM_API_KEY"] = KEY

    def start(model: Path) -> RealServer:
        if model not in started:
            started[model] = RealServer(model, tmp_path_factory.mktemp("server") / "server.log")
            started[model].wait()
        return started[model]

    yield start
    for server in started.values():
        if server.process.poll() is None:
            server.kill()
