"""The same problems without their pictures: how much of a score needs the image?

"grey" replaces every picture by a grey one of the same size. "swap" gives every problem the pictures of another one
that has as many, and never pictures equal to its own. Problems without pictures, and those for which there are none to
swap with, are left out: the comparison is over the problems that were asked both ways.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from random import Random
from typing import Any, Literal

from PIL import Image

from mm_agrae.data.images import encode_png, image_size
from mm_agrae.errors import DataError
from mm_agrae.evaluate.diff import SetDiff
from mm_agrae.records import Sample
from mm_agrae.seeding import seed_for

Mode = Literal["grey", "swap"]
GREY = (128, 128, 128)

Pictures = tuple[bytes, ...]


def blinded(samples: Sequence[Sample], mode: Mode, *, seed: int) -> list[Sample]:
    """The samples with other pictures, in their order, without those that cannot be blinded.

    Args:
        samples: The problems of a set.
        mode: How the pictures are replaced.
        seed: Decides who gets whose pictures.

    Raises:
        DataError: No sample can be blinded, or a picture cannot be read.
    """
    with_pictures = [sample for sample in samples if sample.images]
    found = _greyed(with_pictures) if mode == "grey" else _swapped(with_pictures, seed)
    if not found:
        what = "has a picture" if mode == "grey" else "can swap its pictures for other ones"
        raise DataError(
            f"none of the {len(samples)} problems {what}, so there is nothing to measure blind. Leave --blind {mode} "
            "out for this set."
        )
    return found


def _greyed(samples: Sequence[Sample]) -> list[Sample]:
    return [
        replace(
            sample,
            images=tuple(encode_png(Image.new("RGB", image_size(data, sample.id), GREY)) for data in sample.images),
        )
        for sample in samples
    ]


def _swapped(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Equal pictures move together, so that nobody is handed the picture that it had."""
    holders: dict[int, dict[str, Pictures]] = defaultdict(dict)
    for sample in samples:
        holders[len(sample.images)].setdefault(_key(sample.images), sample.images)
    partner: dict[str, Pictures] = {}
    for count, by_key in sorted(holders.items()):
        keys = sorted(by_key)
        if len(keys) > 1:
            Random(seed_for(seed, "blind", "swap", count)).shuffle(keys)
            partner |= {key: by_key[keys[place - 1]] for place, key in enumerate(keys)}
    return [replace(sample, images=partner[key]) for sample in samples if (key := _key(sample.images)) in partner]


def _key(pictures: Pictures) -> str:
    return "".join(hashlib.blake2b(picture, digest_size=16).hexdigest() for picture in pictures)


def blind_report(diff: SetDiff) -> dict[str, Any]:
    """What pictures are worth on a set.

    Args:
        diff: From the blind result to the one with pictures.

    Returns:
        JSON values by metric: {"seen", "blind", "difference": interval, "p_value", "needs_image_frac"}, of which the
        last is the share of the score that is gone without the pictures (below 0 where they do harm), None where
        nothing was right with them.
    """
    return {
        name: {
            "num_problems": paired.num_shared,
            "seen": paired.second,
            "blind": paired.first,
            "difference": asdict(paired.difference),
            "p_value": paired.p_value,
            "needs_image_frac": paired.difference.value / paired.second if paired.second else None,
        }
        for name, paired in diff.metrics.items()
    }


def blind_lines(name: str, mode: str, report: Mapping[str, Any]) -> list[str]:
    """The report of a set in words."""
    lines = []
    for metric, row in report.items():
        share = row["needs_image_frac"]
        worth = (
            "nothing was right with pictures" if share is None else f"{100 * share:.0f} % of the score needs the image"
        )
        change = row["difference"]
        lines.append(
            f"blind ({mode}) {name} {metric}: {row['seen']:.3f} with pictures, {row['blind']:.3f} without, difference "
            f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}], p = {row['p_value']:.3g}: {worth} "
            f"({row['num_problems']} problems)"
        )
    return lines
