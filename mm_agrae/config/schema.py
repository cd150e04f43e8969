"""Every setting of a run: its type, its range, its default and its meaning. Unknown keys are refused.

Importing this module imports no torch. Defaults are the vetted setting; a recipe states what differs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.engine import EngineConfig
from mm_agrae.config.model import ImageConfig, ModelConfig
from mm_agrae.config.section import Decay, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section
from mm_agrae.config.supervision import SupervisionConfig

# A set names files and metric keys; a dot would let one set write the files of another (x and x.greedy).
SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]

Instruction = Literal[
    "none", "own", "boxed", "think_boxed", "boxed_letter", "boxed_letter_decimals", "boxed_short", "boxed_yes_no",
    "hashes",
]  # fmt: skip


class DataSource(Section):
    """Where problems come from."""

    format: str = Field(
        default="canonical",
        description="canonical: a folder written by this project; otherwise the name of the data processor that reads "
        "the set, see `mm-agrae data list`.",
    )
    path: str = Field(
        description="Folder, file or hub id. A hub id takes the newest revision: convert the set to pin one."
    )
    split: str = Field(default="train", description="Split to read.")
    limit: PositiveInt | None = Field(default=None, description="Use the first so many problems; null uses all.")
    families: tuple[str, ...] = Field(
        default=(),
        description="Keep these families only; a group such as charts names all of its families. Empty keeps all.",
    )
    difficulties: tuple[int, ...] = Field(default=(), description="Keep these levels only; empty keeps all.")


class EvalSource(DataSource):
    """Where the problems of an evaluation set come from, and by which protocol they are measured."""

    protocol: str | None = Field(
        default=None,
        description="Protocol card: a name in config/protocols, or a YAML file. It decides the split, the prompt, the "
        "pixel budget, the sampling and the scoring of this set; null leaves them to the recipe.",
    )


class DataConfig(Section):
    """Training and evaluation problems."""

    train: DataSource | None = Field(default=None, description="Problems to learn from; an evaluation needs none.")
    eval: dict[SetName, EvalSource] = Field(
        default_factory=dict, description="Problems to measure on, by the name of the set."
    )


class PromptConfig(Section):
    """How a problem becomes chat messages."""

    system: Literal["none", "assistant"] = Field(
        default="none", description="Named system message; see prompts/texts.py."
    )
    instruction: Instruction = Field(
        default="boxed",
        description="Named instruction after the question, see prompts/texts.py; own takes the data set's own wording "
        "instead of question and instruction.",
    )


class RolloutConfig(Section):
    """How completions are sampled during training.

    Evaluation obeys max_prompt_tokens and batch_rows too, the warm start max_prompt_tokens.
    """

    num_prompts: PositiveInt = Field(default=32, description="Prompts per step, over all processes.")
    group_size: int = Field(default=8, description="Completions per prompt (G); at least 2.")
    max_prompt_tokens: PositiveInt = Field(
        default=2048, description="A sample with a longer prompt, image tokens included, is refused, counted and named."
    )
    max_completion_tokens: PositiveInt = Field(default=1024, description="Bound on the tokens of a completion.")
    temperature: PositiveFloat = Field(
        default=1.0, description="Sampling temperature; also divides logits in training."
    )
    batch_rows: PositiveInt = Field(
        default=256,
        description="Completions decoded at a time, per process; changes speed and memory, and completions by rounding "
        "only.",
    )

    @model_validator(mode="after")
    def _grouped(self) -> RolloutConfig:
        if self.group_size < 2:
            raise ValueError(
                f"group_size is {self.group_size}, but a group-relative advantage needs at least 2 completions per "
                "prompt. Set rollout.group_size to 2 or more."
            )
        return self


class VerifierConfig(Section):
    """The one verifier that scores training and evaluation."""

    num_workers: PositiveInt = Field(default=2, description="Worker processes for symbolic comparison, per process.")
    timeout_s: PositiveFloat = Field(
        default=5.0, description="Seconds after which a comparison is killed and not correct."
    )
    profile: str = Field(
        default="generic",
        description="Scoring profile of training and of evaluation sets without a protocol card; see "
        "verify/profiles.py.",
    )


class RewardConfig(Section):
    """reward = correct_weight * correct + format_weight * formatted, in [0, correct_weight + format_weight]."""

    correct_weight: NonNegativeFloat = Field(default=0.9, description="Reward of a correct answer.")
    format_weight: NonNegativeFloat = Field(default=0.1, description="Reward of the boxed form that was asked for.")


class OptimConfig(Section):
    """AdamW with a warm-up and a schedule."""

    lr: PositiveFloat = Field(default=1e-6, description="Peak learning rate.")
    weight_decay: NonNegativeFloat = Field(default=0.0, description="Decoupled weight decay.")
    betas: tuple[Decay, Decay] = Field(default=(0.9, 0.999), description="AdamW moment decays.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="Shape after the warm-up."
    )
    warmup_steps: NonNegativeInt = Field(default=0, description="Optimiser steps of linear warm-up.")
    max_grad_norm: PositiveFloat = Field(default=1.0, description="Gradients are scaled down to this global norm.")


class TrainConfig(Section):
    """The reinforcement-learning loop.

    The warm start obeys micro_batch_*, recompute_above_tokens, checkpoint_every and keep_checkpoints too.
    """

    num_steps: PositiveInt = Field(default=100, description="Rollout batches to learn from.")
    updates_per_rollout: PositiveInt = Field(
        default=1, description="Optimiser steps per rollout batch, on disjoint groups."
    )
    micro_batch_tokens: PositiveInt = Field(
        default=16384,
        description="Tokens of one forward pass, a prompt counted once for all of its completions; a larger group is "
        "computed in pieces. Changes memory and speed only.",
    )
    micro_batch_targets: PositiveInt | None = Field(
        default=None,
        description="Completion tokens of one forward pass, a second bound beside micro_batch_tokens; null has none. "
        "Changes memory and speed only.",
    )
    recompute_above_tokens: NonNegativeInt = Field(
        default=0,
        description="Forward passes of at most so many tokens keep their activations although "
        "model.gradient_checkpointing is on. Changes memory and speed only.",
    )
    share_prompts: bool = Field(
        default=True,
        description="Compute a prompt and its images once per update for all completions of a group; false repeats "
        "them, for comparison: the same numbers for up to G times the work. Rollouts share them either way.",
    )
    checkpoint_every: NonNegativeInt = Field(
        default=50, description="Steps between checkpoints; 0 saves only at the end."
    )
    keep_checkpoints: PositiveInt = Field(default=2, description="Newest checkpoints kept.")
    keep_best: str | None = Field(
        default=None,
        description="Also keep the checkpoint that measured best by this metric, such as eval/held_out/pass@1; null "
        "keeps the newest alone.",
    )
    sharding: Literal["none", "fsdp2"] = Field(
        default="none",
        description="How several processes hold weights, gradients and moments. none: each holds all of them whole. "
        "fsdp2: each holds a piece of every layer (torch fully_shard); a group over micro_batch_tokens then computes "
        "its prompt once per piece. Changes memory and speed only, and a resumed run may change it.",
    )
    reshard_after_forward: bool = Field(
        default=True,
        description="Under fsdp2: let go of a layer's gathered weights as soon as it has computed, which is what "
        "DeepSpeed calls ZeRO stage 3. false gathers all weights once per update and keeps them until its end, which "
        "is ZeRO stage 2: gradients and moments in pieces, fewer messages; log-probabilities of the reference and of "
        "earlier weights still go layer by layer. Changes memory and speed only.",
    )
    rollout_log_every: PositiveInt = Field(
        default=10, description="Steps between saved rollouts; the first and last always are."
    )
    optim: OptimConfig = Field(default=OptimConfig(), description="Optimiser of the reinforcement-learning loop.")

    @model_validator(mode="after")
    def _reshards_something(self) -> TrainConfig:
        if not self.reshard_after_forward and self.sharding == "none":
            raise ValueError(
                "reshard_after_forward is false, but sharding is none, so every process holds whole weights anyway. "
                "Set sharding: fsdp2, or remove reshard_after_forward."
            )
        return self


class SftConfig(Section):
    """Warm start by supervised fine-tuning on worked solutions."""

    num_steps: PositiveInt = Field(default=100, description="Optimiser steps.")
    batch_size: PositiveInt = Field(default=64, description="Samples per optimiser step, over all processes.")
    optim: OptimConfig = Field(
        default=OptimConfig(lr=1e-5, schedule="cosine"), description="Optimiser of the warm start."
    )


class TrialConfig(Section):
    """Cuts protocol cards down to what a trial can afford. Every cut is a departure that the summary names."""

    num_samples: PositiveInt | None = Field(
        default=None, description="At most so many sampled completions per problem, and only the k that they allow."
    )
    max_completion_tokens: PositiveInt | None = Field(
        default=None, description="At most so many tokens of a completion."
    )
    max_pixels: PositiveInt | None = Field(default=None, description="Reduce images to at most so many pixels.")


class EvaluateConfig(Section):
    """How sets are measured: num_samples sampled completions per problem, and optionally one greedy one.

    A set with a protocol card obeys the card; of this section, only trial and every reach it.
    """

    num_samples: PositiveInt = Field(default=4, description="Sampled completions per problem.")
    ks: tuple[PositiveInt, ...] = Field(
        default=(1, 4), description="pass@k, and above 1 the vote maj@k, are reported for these k."
    )
    g_pass_ks: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(), description="G-Pass@k (a share of k samples correct) is reported for these k."
    )
    greedy: bool = Field(default=True, description="Also measure the most probable completion of every problem.")
    temperature: NonNegativeFloat = Field(
        default=1.0, description="Sampling temperature; 0 takes the most probable token, which allows one sample."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="Nucleus of the sampled completions.")
    max_completion_tokens: PositiveInt | None = Field(
        default=None, description="Bound on the tokens of a completion; null takes rollout.max_completion_tokens."
    )
    every: NonNegativeInt = Field(default=0, description="Steps between evaluations; 0 measures only before and after.")
    trial: TrialConfig | None = Field(
        default=None, description="Cut protocol cards down to a trial; null keeps them whole."
    )

    @model_validator(mode="after")
    def _enough_samples(self) -> EvaluateConfig:
        for name, figure, ks in (("ks", "pass", self.ks), ("g_pass_ks", "G-Pass", self.g_pass_ks)):
            if ks and max(ks) > self.num_samples:
                raise ValueError(
                    f"{name} asks for {figure}@{max(ks)}, but num_samples is {self.num_samples}. "
                    "Raise evaluate.num_samples or drop the larger k."
                )
        if self.temperature == 0 and (self.num_samples > 1 or self.greedy):
            raise ValueError(
                f"temperature is 0 with num_samples {self.num_samples} and greedy {self.greedy}, but the most probable "
                "completion is always the same. Set num_samples: 1 and greedy: false, or raise the temperature."
            )
        return self


class TrackerConfig(Section):
    """Where metrics go besides metrics.jsonl."""

    wandb: Literal["off", "offline", "online"] = Field(default="off", description="Weights & Biases logging.")
    project: str = Field(default="mm-agrae", description="Weights & Biases project.")


class RunConfig(Section):
    """One runnable thing."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the recipe; names its run folders.")
    seed: NonNegativeInt = Field(default=0, description="Decides every random choice of the run.")
    output_dir: str = Field(default="runs", description="Run folders are made below it.")
    model: ModelConfig
    data: DataConfig
    images: ImageConfig = ImageConfig()
    prompt: PromptConfig = PromptConfig()
    rollout: RolloutConfig = RolloutConfig()
    engine: EngineConfig = EngineConfig()
    verifier: VerifierConfig = VerifierConfig()
    reward: RewardConfig = RewardConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig.model_validate({})
    train: TrainConfig = TrainConfig()
    sft: SftConfig = SftConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    tracker: TrackerConfig = TrackerConfig()
    supervision: SupervisionConfig = SupervisionConfig()

    def warnings(self) -> list[str]:
        """What this run does not do although its settings read as if it did; each in one sentence."""
        found = self.algorithm.idle_settings()
        if self.train.updates_per_rollout == 1 and self.algorithm.trust_region == "elastic":
            found.append(
                "algorithm.trust_region is elastic, but with train.updates_per_rollout 1 every ratio is 1 and no bound "
                "acts: this equals fixed. Take 2 or more updates per rollout."
            )
        if self.train.updates_per_rollout > 1 and self.algorithm.loss == "reinforce":
            found.append(
                "algorithm.loss is reinforce, which ignores how far the policy has moved, but "
                f"train.updates_per_rollout is {self.train.updates_per_rollout}: the later updates are off-policy."
            )
        tokens, targets = self.train.micro_batch_tokens, self.train.micro_batch_targets
        if self.model.gradient_checkpointing and self.train.recompute_above_tokens >= tokens:
            found.append(
                "model.gradient_checkpointing is on, but train.recompute_above_tokens "
                f"{self.train.recompute_above_tokens} is not below train.micro_batch_tokens {tokens}: no forward pass "
                "within the budget is recomputed. Lower it."
            )
        if targets is not None and targets >= tokens:
            found.append(
                f"train.micro_batch_targets {targets} is not below train.micro_batch_tokens {tokens}, which counts "
                "completions too: it never binds. Lower it, or leave it out."
            )
        return found

    @model_validator(mode="after")
    def _recomputes_something(self) -> RunConfig:
        if self.train.recompute_above_tokens and not self.model.gradient_checkpointing:
            raise ValueError(
                f"train.recompute_above_tokens is {self.train.recompute_above_tokens}, but nothing is recomputed: "
                "model.gradient_checkpointing is off. Switch it on, or remove recompute_above_tokens."
            )
        return self

    @model_validator(mode="after")
    def _splits_evenly(self) -> RunConfig:
        if self.rollout.num_prompts % self.train.updates_per_rollout:
            raise ValueError(
                f"rollout.num_prompts is {self.rollout.num_prompts}, which train.updates_per_rollout "
                f"{self.train.updates_per_rollout} does not divide: every update needs as many groups. Change either."
            )
        return self
