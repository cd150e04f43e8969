"""Rollouts, G completions per prompt: the embedded engine beside transformers' generate.

    python scripts/bench_rollout.py                 the table, about 4 minutes on two idle cores
    python scripts/bench_rollout.py --quick         two small points
    python scripts/bench_rollout.py --json          the table as JSON, and nothing else, on standard output

Three ways of sampling the same number of tokens from the same weights, fp32, all prompts in one batch:

    repeated        generate with G input rows per prompt, each with its picture
    generate        generate with num_return_sequences=G: pictures encoded once, prompts prefilled G times
    ours            the embedded engine

Before anything is timed, greedy tokens and their log-probabilities are compared with those of generate on G rows, and
the log-probabilities of sampled tokens with those that training computes, on prompts of uneven length.

With "ends" one of so many ids ends a completion, so lengths are uneven, as they are in training; otherwise every
completion has exactly C tokens. A ratio is one of tokens per second. Every way is measured in turns with the others;
a rate is the median over rounds. "theory" counts operations, prefill and decoding of the lengths that ours samples: how
many times more "repeated" takes than ours ("theory_to_peer": "generate").
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_equality as equality
import bench_inputs
import numpy as np
import torch
from bench_inputs import Point
from bench_runs import arguments

from mm_agrae.config.schema import ModelConfig
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.policy.flops import Cost, forward_cost, model_shape, shape_of
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.hugging_face import transformers
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.records import Completion, RenderedPrompt, Sampling

SMALL = Point(visual=16, text=24, completion=12, group=3, prompts=3)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A point and how completions end: one of `ends` ids ends them, 0 lets none end before its last token."""

    point: Point
    ends: int = 0


POINTS = (
    Case(point=Point(visual=256, text=64, completion=64, group=8, prompts=4)),
    Case(point=Point(visual=256, text=64, completion=64, group=16, prompts=2)),
    Case(point=Point(visual=64, text=64, completion=64, group=8, prompts=4)),
    Case(point=Point(visual=64, text=64, completion=256, group=8, prompts=2)),
    Case(point=Point(visual=0, text=256, completion=64, group=8, prompts=4)),
    Case(point=Point(visual=0, text=64, completion=256, group=8, prompts=2)),
    Case(point=Point(visual=256, text=64, completion=128, group=8, prompts=4), ends=32),
    Case(point=Point(visual=64, text=64, completion=256, group=8, prompts=4), ends=64),
)
QUICK = (
    Case(point=Point(visual=64, text=64, completion=32, group=8, prompts=2)),
    Case(point=Point(visual=256, text=64, completion=32, group=8, prompts=2)),
)


def main() -> int:
    parser = arguments(__doc__, quick="two small points, 2 rounds")
    parser.add_argument("--architecture", default="qwen2_5_vl", help="qwen2_vl, qwen2_5_vl or qwen3_vl")
    parser.add_argument("--size", default="toy", help="tiny or toy")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    report = (lambda line: None) if chosen.json else partial(print, flush=True)
    folder = bench_inputs.build(bench_inputs.temporary_folder(), architecture=chosen.architecture, size=chosen.size)
    entries = check_equality(folder, SMALL)
    for line in equality.lines_of(entries):
        report(line)
    equal = equality.equal(entries)
    if not equal:
        report("The ways do not compute the same, so timings would mean nothing.")
    table = []
    for case in (QUICK if chosen.quick else POINTS) if equal else ():
        table.append(measure(folder, case, rounds=2 if chosen.quick else 3))
        report(line_of(table[-1]))
    if chosen.json:
        names = {"repeated": "generate, G rows", "peer": "generate"}
        print(json.dumps({"equal": equal, "equality": entries, "threads": chosen.threads, **names, "points": table}))
    return 0 if equal else 1


def never_ending(policy: Policy, ends: int = 0) -> Policy:
    """The policy with other ids that end a completion: one of `ends`, or none that it can draw."""
    size = policy.inner.config.get_text_config().vocab_size
    return replace(policy, eos_token_ids=tuple(range(0, size, ends)) if ends else (size,))


def prompts_of(policy: Policy, point: Point, *, ragged: bool = False) -> list[RenderedPrompt]:
    rng = np.random.default_rng(0)
    longer = [replace(point, text=point.text + 5 * number * ragged) for number in range(point.prompts)]
    samples = [bench_inputs.make_sample(policy, one, number, rng) for number, one in enumerate(longer)]
    return [bench_inputs.rendered(policy, sample) for sample in samples]


class Peer:
    """transformers' own model of a folder and its generate."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        )
        self.pad = policy.tokenizer.pad_token_id
        last = policy.inner.config.get_text_config().vocab_size
        self.ends = [token for token in policy.eos_token_ids if token < last]

    def generate(self, prompts: Sequence[RenderedPrompt], *, rows: int, returned: int, **settings: Any) -> Any:
        """Rows of prompts, `rows` of each, with `returned` completions of every row."""
        repeated = [prompt for prompt in prompts for _ in range(rows)]
        width = max(len(prompt.token_ids) for prompt in repeated)
        ids = torch.full((len(repeated), width), self.pad)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        for number, prompt in enumerate(repeated):
            start = width - len(prompt.token_ids)
            ids[number, start:] = torch.tensor(prompt.token_ids)
            mask[number, start:] = 1
            if prompt.mm_token_type_ids is not None:
                types[number, start:] = prompt.mm_token_type_ids
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types}
        pixels = [prompt.pixel_values for prompt in repeated if prompt.pixel_values is not None]
        if pixels:
            grids = [prompt.image_grid_thw for prompt in repeated if prompt.image_grid_thw is not None]
            inputs |= {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.cat(grids)}
        generation = transformers.GenerationConfig(
            num_return_sequences=returned, eos_token_id=self.ends or None, pad_token_id=self.pad, **settings
        )
        self.model.generation_config = transformers.GenerationConfig()  # nothing of the folder's own is mixed in
        with torch.no_grad():
            return self.model.generate(**inputs, generation_config=generation), width

    def sample(self, prompts: Sequence[RenderedPrompt], length: int, *, rows: int, returned: int) -> int:
        """Sample, and count the tokens up to every end."""
        found, width = self.generate(
            prompts, rows=rows, returned=returned, max_new_tokens=length, do_sample=True, top_k=0, top_p=1.0
        )
        return num_tokens(found[:, width:], self.ends)


def num_tokens(ids: torch.Tensor, ends: Sequence[int]) -> int:
    """Tokens of completions padded on the right, each with its end where it has one."""
    ended = torch.isin(ids, torch.tensor(ends, dtype=ids.dtype)).cumsum(dim=1)
    return int((ended == 0).sum() + (ended[:, -1] > 0).sum())


def ours(policy: Policy, prompts: Sequence[RenderedPrompt], sampling: Sampling) -> list[list[Completion]]:
    group = sampling.num_completions
    engine = TransformersEngine(policy, batch_rows=group * len(prompts))
    seeds = [[number * group + place for place in range(group)] for number in range(len(prompts))]
    return engine.generate(prompts, sampling, seeds)


def check_equality(folder: Path, point: Point) -> equality.Entries:
    """Tokens that differ, and the largest differences of log-probabilities."""
    # Placeholders are banned here: training could not score a completion that holds one.
    policy = never_ending(load_policy(ModelConfig(path=str(folder), device="cpu")))
    prompts = prompts_of(policy, point, ragged=True)
    greedy = Sampling(num_completions=point.group, max_new_tokens=point.completion, temperature=0.0)
    groups = ours(policy, prompts, greedy)
    found, width = Peer(folder, policy).generate(
        prompts, rows=point.group, returned=1, max_new_tokens=point.completion, do_sample=False,
        suppress_tokens=list(policy.banned_token_ids), output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    picked = found.sequences[:, width:]
    expected = torch.stack(found.scores, dim=1).log_softmax(-1).gather(2, picked[..., None])[..., 0]
    completions = [completion for group in groups for completion in group]
    ids = torch.tensor([completion.token_ids for completion in completions])
    logprobs = torch.tensor([completion.logprobs for completion in completions])
    sampled = ours(policy, prompts, replace(greedy, temperature=0.8))
    rows = [
        Row(prompt=prompt, completions=tuple(completion.token_ids for completion in group))
        for prompt, group in zip(prompts, sampled, strict=True)
    ]
    with torch.no_grad():
        scored = score(policy, lay_out(policy, rows), temperature=0.8).logprobs
    reported = torch.tensor([logprob for group in sampled for completion in group for logprob in completion.logprobs])
    return {
        "greedy tokens unlike generate's": {"value": float((ids != picked).sum()), "limit": 0.0},
        "logprobs, generate": {"value": float((logprobs - expected).abs().max()), "limit": 1e-5},
        "logprobs, training": {"value": float((reported - scored).abs().max()), "limit": 1e-5},
    }


def measure(folder: Path, case: Case, *, rounds: int) -> dict[str, Any]:
    """Tokens per second of every way, taken in turns; the row of the table."""
    point = case.point
    policy = never_ending(bench_inputs.policy_of(folder), case.ends)
    prompts = prompts_of(policy, point)
    peer = Peer(folder, policy)
    sampling = Sampling(num_completions=point.group, max_new_tokens=point.completion)
    ways: dict[str, Callable[[], int]] = {
        "ours": lambda: sum(len(one.token_ids) for group in ours(policy, prompts, sampling) for one in group),
        "repeated": lambda: peer.sample(prompts, point.completion, rows=point.group, returned=1),
        "generate": lambda: peer.sample(prompts, point.completion, rows=1, returned=point.group),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    sampled = ours(policy, prompts, sampling)
    peer.sample(prompts, 4, rows=1, returned=point.group)  # warms up, as the line above does
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            tokens = run()
            rates[name].append(tokens / (time.perf_counter() - started))
    rate = {name: statistics.median(found) for name, found in rates.items()}
    model = model_shape(policy)
    shapes = [
        shape_of(prompt, [one.token_ids for one in group]) for prompt, group in zip(prompts, sampled, strict=True)
    ]
    repeated, shared = (
        sum((forward_cost(model, shape, shared=way) for shape in shapes), Cost()) for way in (False, True)
    )
    return {
        "P": point.visual + point.text,
        "visual": point.visual,
        "C": point.completion,
        "G": point.group,
        "prompts": point.prompts,
        "ends": case.ends,
        "theory": repeated.total / shared.total,
        "theory_to_peer": (repeated.total - repeated.vision + shared.vision) / shared.total,
        "tokens_per_s": rate,
        "ratio_to_repeated": rate["ours"] / rate["repeated"],
        "ratio_to_peer": rate["ours"] / rate["generate"],
    }


def line_of(row: dict[str, Any]) -> str:
    rates = "  ".join(f"{name} {rate:.0f}" for name, rate in row["tokens_per_s"].items())
    sizes = f"P {row['P']:4} ({row['visual']} visual)  C {row['C']:3}  G {row['G']:2}  prompts {row['prompts']}"
    ends = f"  ends 1/{row['ends']}" if row["ends"] else ""
    return (
        f"{sizes}{ends}  to repeated {row['ratio_to_repeated']:.2f} (theory {row['theory']:.2f})"
        f"  to generate {row['ratio_to_peer']:.2f} (theory {row['theory_to_peer']:.2f})\n  tokens/s: {rates}"
    )


if __name__ == "__main__":
    sys.exit(main())
