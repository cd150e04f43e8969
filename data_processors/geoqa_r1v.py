"""GeoQA-8k of R1-V: plane geometry translated by machine from Chinese school books.

Columns: image, problem, and solution ("<answer> 145° </answer>"). About half of the answers carry a degree sign,
others a unit, some in Chinese, and roots are written "√{3}": the target has LaTeX roots and Latin units. Problems
have doubled spaces and often end in "()", the blank to fill in, which stays.
"""

from __future__ import annotations

import re

from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.r1v import REQUIRED, read_tagged
from data_processors.geoqa import latex_roots
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="geoqa_r1v",
    title="GeoQA-8k (R1-V)",
    hub_id="leonardPKU/GEOQA_R1V_Train_8K",
    licence="Apache-2.0",
    splits={"train": (Part(split="train"),)},
    uses=("training",),
    profile="generic",
    rows="train 8,031",
    required=REQUIRED,
    note="MathVerse and MathVista hold problems of GeoQA: check for leaks before you report them.",
)
# Longer names first: "厘米" holds "米". Marked as text, since a bare "m" may be a variable; templates of re.sub.
_UNITS = {
    "平方厘米": r"\\text{ cm}^{2}",
    "平方米": r"\\text{ m}^{2}",
    "厘米": r"\\text{ cm}",
    "千米": r"\\text{ km}",
    "米": r"\\text{ m}",
    "度": "°",
}
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def convert(row: Row) -> Sample | Drop:
    """One row as a free-form question."""
    tagged = read_tagged(row)
    if isinstance(tagged, Drop):
        return tagged
    target = plain_answer(tagged.answer)
    if _CHINESE.search(target):
        return Drop("answer has Chinese words")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=re.sub(r" {2,}", " ", tagged.question),
        target=target,
        images=(tagged.image,),
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={} if target == tagged.answer else {"answer_raw": tagged.answer},
    )


def plain_answer(answer: str) -> str:
    """ "2√{15}米" is "2\\sqrt{15}\\text{ m}"."""
    for name, unit in _UNITS.items():
        answer = re.sub(rf"\s*{name}", unit, answer)
    return latex_roots(answer)
