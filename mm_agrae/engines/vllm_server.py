"""Rollouts from servers that run vLLM: our ids and our patches go there, new weights too, and every answer is checked.

Weights have labels that no other run uses. Every token comes back with the label of the weights that sampled it, so a
server that was started anew, or that somebody else gave other weights, is found by its answers: they are thrown away,
the weights are sent again, and the prompt is asked again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from mm_agrae.config.engine import EngineConfig
from mm_agrae.engines.base import check_request
from mm_agrae.engines.vllm_fleet import Fleet
from mm_agrae.engines.vllm_folder import HandoverFolder
from mm_agrae.engines.vllm_http import Server, ServerGoneError
from mm_agrae.engines.vllm_requests import (
    GENERATE,
    Choice,
    drop_present_versions,
    read_reply,
    request_body,
    sampling_params,
    strange_weights,
    to_completions,
    weights_label,
)
from mm_agrae.engines.vllm_sync import Part, WeightFile, remove_older, write_weights
from mm_agrae.engines.vllm_transfer import GpuTransfer, Servers
from mm_agrae.engines.vllm_update import check_serves, end_update, label_of, load_files, part_of, pause, resume
from mm_agrae.errors import ConfigError, EngineError
from mm_agrae.policy.load import Policy
from mm_agrae.records import Completion, RenderedPrompt, Sampling

T = TypeVar("T")


class Ranks(Protocol):
    """The processes of the run, as far as an engine must know them."""

    @property
    def rank(self) -> int: ...
    @property
    def is_main(self) -> bool: ...
    def broadcast(self, value: T) -> T: ...


@dataclass(frozen=True, kw_only=True)
class Handed:
    """The weights that servers should hold, in one piece: another thread may read it while the next is made.

    Attributes:
        label: Of the weights.
        frozen: The part that never changes; None where there is none, or no file.
        trained: The part that changes; None where it does not travel by file.
    """

    label: str
    frozen: WeightFile | None = None
    trained: WeightFile | None = None

    def files(self, *, whole: bool) -> list[WeightFile]:
        return [file for file in (self.frozen if whole else None, self.trained) if file is not None]


class VllmServerEngine:
    """Rollouts from servers.

    Attributes:
        weights_version: Updates behind the weights that all servers hold.
    """

    def __init__(
        self,
        settings: EngineConfig,
        policy: Policy,
        *,
        folder: Path,
        ranks: Ranks,
        log: Callable[[str], None],
        weights_version: int = 0,
    ) -> None:
        """Reach the servers and give them the policy's weights. Every process of the run does this at the same time.

        Args:
            settings: Servers, deadlines, and how weights travel.
            policy: Whose completions are wanted.
            folder: Where files are handed over, in a folder of the run's own; trainer and servers see it under the same
                path.
            ranks: The processes of the run.
            log: Is told what happens to servers.
            weights_version: Updates behind the policy's weights.

        Raises:
            ConfigError: The API key is none, or weights cannot travel as the settings say.
            EngineError: A server is none that this engine can use, or none can be reached.
        """
        key = _api_key(settings.api_key_variable)
        servers = [Server(url, api_key=key, timeout_s=settings.request_timeout_s) for url in settings.base_urls]
        self.policy = policy
        self.ranks = ranks
        self.fleet = Fleet(servers, recover_timeout_s=settings.recover_timeout_s, make_ready=self._make_ready, log=log)
        # Servers may hold weights of an earlier run, so labels begin with what no other run has.
        self.run = ranks.broadcast(secrets.token_hex(4))
        self.folder = HandoverFolder(folder, self.run)
        self.weights_version = self.newest_version = weights_version
        self.handed = Handed(label=weights_label(self.run, weights_version))
        self.sync = settings.sync
        self.transfer: GpuTransfer | None = None
        try:
            self._send_first(servers, settings.sync)
        except BaseException:
            self.close()  # nobody else can
            raise

    def _send_first(self, servers: Sequence[Server], sync: Literal["files", "nccl", "ipc"]) -> None:
        if sync == "files":
            self._on_main(self.folder.open)
            self._send_files(self._written("frozen"))
        else:
            self.transfer = self._met(servers, sync)
            self._send_between_gpus(whole=True)

    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        """One request per prompt, for all its completions. See Engine.

        Raises:
            EngineError: A server refused a request, answered what it was not asked, or no server is left.
        """
        check_request(prompts, sampling, seeds)
        ask = partial(self._ask, sampling)
        groups = self.fleet.map(ask, list(zip(prompts, seeds, strict=True)), first=self.ranks.rank)
        return drop_present_versions(groups, self.weights_version)

    def sync_weights(self, policy: Policy, *, version: int) -> None:
        """Send the policy's weights to all servers; completions under way go on with them. Every process takes part.

        Raises:
            EngineError: A server refused them, or no server is left.
        """
        self.policy = policy
        self.newest_version = version
        if self.transfer is None:
            self._send_files(self.handed.frozen)
        else:
            self._send_between_gpus(whole=False)
        self.weights_version = version

    def close(self) -> None:
        """Remove what was handed over; the servers go on."""
        if self.transfer is not None:
            self.transfer.close()
        self.folder.close()

    def _ask(self, sampling: Sampling, server: Server, job: tuple[RenderedPrompt, Sequence[int]]) -> list[Completion]:
        prompt, seeds = job
        policy, oldest = self.policy, self.weights_version
        body = request_body(policy, prompt, sampling_params(policy, sampling, seeds))
        choices = read_reply(policy, prompt, server.post(GENERATE, body))
        # Weights that were sent while the answer was under way are right too.
        versions = {weights_label(self.run, version): version for version in range(oldest, self.newest_version + 1)}
        _check_usable(server, choices, versions)
        return to_completions(policy, prompt, sampling, choices, versions=versions)

    def _send_files(self, frozen: WeightFile | None) -> None:
        """What is trained goes out with every update; what is frozen only to a server that may not have it."""
        trained = self._written("trained")
        self.handed = Handed(label=weights_label(self.run, self.newest_version), frozen=frozen, trained=trained)
        self._on_main(lambda: self.fleet.each(self._send_file_alone))
        if self.ranks.is_main and trained:
            remove_older(trained)

    def _written(self, part: Part) -> WeightFile | None:
        """A part of the weights in a file that every process knows of."""
        label, is_main = weights_label(self.run, self.newest_version), self.ranks.is_main
        folder = self.folder.path
        # Every process gathers.
        return self._agreed(_tried(lambda: write_weights(self.policy, folder, part=part, label=label, is_main=is_main)))

    def _send_file_alone(self, server: Server) -> None:
        with self.folder.alone_with(server.base_url):
            self._send_file(server)

    def _send_file(self, server: Server) -> None:
        handed = self.handed
        # One that was started since, or is new to this run, may hold anything.
        whole = not label_of(server).startswith(f"{self.run}.")
        if whole:
            check_serves(server, self.policy)
        pause(server, forgets=False)
        load_files(server, handed.files(whole=whole))
        end_update(server, self.policy, label=handed.label, whole=whole)

    def _make_ready(self, server: Server) -> None:
        """Give a server its weights where it has lost them, and let it sample."""
        if self.transfer is None:
            with self.folder.alone_with(server.base_url):  # other processes may have found out too
                if label_of(server) == self.handed.label:
                    resume(server, self.policy)
                else:
                    self._send_file(server)
        else:
            self._require_handed(server)
            resume(server, self.policy)

    def _require_handed(self, server: Server) -> None:
        """See that a server still has the weights that it got from this GPU, the frozen ones too.

        Raises:
            EngineError: It has not.
        """
        if label_of(server) != self.handed.label:
            raise EngineError(
                f"server {server.base_url} was started anew and has lost its weights, and engine.sync={self.sync} "
                "cannot send all of them but at the start. Resume the run, or set engine.sync=files, which can."
            )

    def _met(self, servers: Sequence[Server], kind: Literal["nccl", "ipc"]) -> GpuTransfer:
        """The way from this GPU to those of the servers. Where the main process cannot go it, no other waits for it."""
        path, found = "/get_world_size", dict[str, int]()

        def ask(server: Server) -> None:
            # Before the meeting: servers that wait for another backend, or for other weights, never come to it.
            check_serves(server, self.policy, backend=kind)
            found[server.base_url] = part_of(server, path, server.get(path), "world_size", kind=int)

        def meet() -> list[int]:
            self.fleet.each(ask)
            self._require_all()
            return [found[server.base_url] for server in servers]

        sizes = self._on_main(meet)
        made, failure = _tried(
            lambda: GpuTransfer(
                self.policy,
                Servers([server.post for server in servers], sizes),
                kind=kind,
                rank=self.ranks.rank,
                url=servers[0].base_url,
                num_workers=sum(sizes),
            )
        )
        self._agreed(([None], failure))
        return made[0]

    def _send_between_gpus(self, *, whole: bool) -> None:
        """All servers take the weights in one go, so none of them may be missing."""
        transfer, policy, label = self.transfer, self.policy, weights_label(self.run, self.newest_version)
        assert transfer is not None

        def begin_on(server: Server) -> None:
            if not whole:
                self._require_handed(server)
            pause(server, forgets=True)

        def begin() -> None:
            self.fleet.each(begin_on)
            self._require_all()

        self._on_main(begin)
        self.handed = Handed(label=label)
        _, failed = _tried(lambda: transfer.send("all" if whole else "trained", label))

        def end() -> None:
            if failed:
                raise failed
            self.fleet.each(partial(end_update, policy=policy, label=label, whole=whole))

        self._on_main(end)
        if failed:
            raise failed

    def _require_all(self) -> None:
        if len(self.fleet.live) < len(self.fleet.members):
            raise EngineError("a server was given up, and weights reach all servers or none. Start it, and resume.")

    def _on_main(self, action: Callable[[], T]) -> T:
        """What it makes on the main process; where it fails, every process fails, and none waits for it."""
        return self._agreed(_tried(action) if self.ranks.is_main else ([], None))

    def _agreed(self, tried: tuple[list[T], Exception | None]) -> T:
        """What the main process made. Where it failed, every process fails."""
        made, failure = tried
        told = f"{failure or type(failure).__name__}" if failure is not None else None
        told, made = self.ranks.broadcast((told, made))
        if failure is not None:
            raise failure
        if told is not None:
            raise EngineError(told)
        return made[0]


def _tried(action: Callable[[], T]) -> tuple[list[T], Exception | None]:
    """What an action made, alone in a list, or what it failed with."""
    try:
        return [action()], None
    except Exception as error:  # whatever it is: the other processes wait to be told
        return [], error


def _api_key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"the environment variable {variable} holds an API key with characters that no header takes.")
    return key or None


def _check_usable(server: Server, choices: Sequence[Choice], versions: Mapping[str, int]) -> None:
    """Refuse answers that were cut off, and those of other weights: they are asked for again.

    Raises:
        ServerGoneError: They must be asked for again.
    """
    if any(choice.finish_reason == "abort" for choice in choices):
        raise ServerGoneError(f"server {server.base_url} cut an answer off.")
    strange = strange_weights(choices, versions)
    if strange is not None:
        raise ServerGoneError(f"server {server.base_url} answered from other weights than this run's ({strange}).")
