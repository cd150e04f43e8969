"""GeoQA test: school geometry in machine-translated English.

Two layouts: images, problem and answer; or a JSON-lines file of prompts (image_path, question, ground_truth), as R1-V
tests, beside the images of Geo170K. Answers are degrees ("145°"), bare numbers, or numbers with a unit and roots in a
mixed writing ("2√{15}米", "9πcm^{2}"), which become LaTeX. Two questions stand there twice with other images. Angles
are written "80.0" and spaces are doubled.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import MISSING_IMAGE, image_of, images_of, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, Sample

DESCRIPTION = Description(
    name="geoqa",
    title="GeoQA test",
    hub_id="leonardPKU/GEOQA_8K_R1V",
    licence="unknown",
    splits={"test": (Part(split="test", files=("**/test*.parquet", "**/geoqa_test_prompts.jsonl")),)},
    uses=("benchmark",),
    profile="math_verify",
    rows="test 754",
    required=(),
    archives=("*.zip",),
    note="A local folder may hold geoqa_test_prompts.jsonl of R1-V beside images.zip of Luckyjhg/Geo170K instead.",
)


def convert(row: Row) -> Sample | Drop:
    """One row of either layout as an open question with an answer in LaTeX."""
    values = row.values
    raw = text_of(values.get("answer") or values.get("ground_truth"))
    question = text_of(values.get("problem") or values.get("question")).replace(IMAGE_MARK, "")
    if not raw or not question:
        return Drop("no question or no answer")
    images = images_of(values.get("images"), row) or _image(text_of(values.get("image_path")), row)
    if len(images) != 1:
        return Drop("not one image")
    target = latex_roots(raw)
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=IMAGE_MARK + re.sub(r" {2,}", " ", question),
        target=target,
        images=images,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={"answer_raw": raw} if raw != target else {},
    )


def latex_roots(text: str) -> str:
    """ "2√{15}", "2√15" and "√(15)" with the root as LaTeX, and π as a command."""
    text = re.sub(r"√\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(\d+|[a-z]))", lambda m: f"\\sqrt{{{m[1] or m[2] or m[3]}}}", text)
    return text.replace("π", "\\pi ").strip()


def _image(path: str, row: Row) -> tuple[bytes, ...]:
    """The image of a path that may begin with folders which a copy does not have ("./Geo170K/images/test/1.png")."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for start in range(len(parts)):
        image = image_of("/".join(parts[start:]), row)
        if image is not None and image != MISSING_IMAGE:
            return (image,)
    return (MISSING_IMAGE,) if parts else ()
