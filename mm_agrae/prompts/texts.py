"""Named texts around a question. A name, once used in a run, keeps its text: a changed wording gets a new name."""

SYSTEMS: dict[str, str | None] = {
    "none": None,
    "assistant": "You are a helpful assistant.",
}

INSTRUCTIONS: dict[str, str | None] = {
    "none": None,
    "boxed": "Reason step by step, then give one final answer in \\boxed{}.",
    "think_boxed": "First reason between <think> and </think>, then give one final answer in \\boxed{}. "
    "For a multiple-choice question the answer is the letter of the option.",
}
