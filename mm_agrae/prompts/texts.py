"""Named texts around a question. A name, once used in a run, keeps its text: a changed wording gets a new name."""

SYSTEMS: dict[str, str | None] = {
    "none": None,
    "assistant": "You are a helpful assistant.",
}

# "own" is no text of ours: the data set's own wording stands in for question and instruction.
INSTRUCTIONS: dict[str, str | None] = {
    "none": None,
    "own": None,
    "boxed": "Reason step by step, then give one final answer in \\boxed{}.",
    "think_boxed": "First reason between <think> and </think>, then give one final answer in \\boxed{}. "
    "For a multiple-choice question the answer is the letter of the option.",
    "boxed_letter": "Reason step by step, then give one final answer in \\boxed{}: where options are given, the letter "
    "of the right one.",
    "boxed_letter_decimals": "Reason step by step, then give one final answer in \\boxed{}: where options are given, "
    "the letter of the right one; a number that is not whole, with three decimals.",
    "boxed_short": "Reason step by step, then give one final answer in \\boxed{}: a single word, a number or a short "
    "phrase.",
    "boxed_yes_no": "Reason step by step, then answer with \\boxed{yes} or \\boxed{no}.",
    "hashes": "Reason step by step, then end with a line that holds #### and the final number.",
}


def may_ask_for_box(instruction: str) -> bool:
    """Whether a completion can be expected to end in a box; under "none" the question itself may ask for it."""
    return instruction == "none" or "\\boxed" in (INSTRUCTIONS[instruction] or "")
