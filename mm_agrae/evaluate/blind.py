"""The same problems without their pictures: how much of a score needs the image?

"grey" replaces every picture by a grey one of the same size. "swap" gives every problem the pictures of another one
that has as many and shares none with it; pictures are one when their pixels are. Problems without pictures, and those
for which there are none to swap with, are left out: the comparison is over the problems that were asked both ways.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from random import Random
from typing import Any, Literal

from PIL import Image

from mm_agrae.data.images import encode_png, image_size, open_image
from mm_agrae.evaluate.diff import SetDiff
from mm_agrae.records import Sample
from mm_agrae.seeding import seed_for

Mode = Literal["grey", "swap"]
GREY = (128, 128, 128)

# Index of a problem -> index of the problem whose pictures it is shown in place of its own.
Donors = dict[int, int]


def find_donors(samples: Iterable[Sample], mode: Mode, *, seed: int) -> Donors:
    """Whose pictures every problem is shown; those that cannot be blinded are left out.

    Args:
        samples: The problems of a set.
        mode: "grey" greys a problem's own pictures, so every problem with pictures is its own donor.
        seed: Decides who gets whose pictures.

    Raises:
        DataError: A picture cannot be read.
    """
    if mode == "grey":
        return {index: index for index, sample in enumerate(samples) if sample.images}
    # Equal pictures move together: one holder stands for all problems that show the same.
    keys = {index: tuple(_pixels(sample)) for index, sample in enumerate(samples) if sample.images}
    holders: dict[int, dict[tuple[str, ...], int]] = defaultdict(dict)
    for index, key in keys.items():
        holders[len(key)].setdefault(key, index)
    donor_of: dict[tuple[str, ...], int] = {}
    for count, by_key in sorted(holders.items()):
        circle = sorted(by_key)
        Random(seed_for(seed, "blind", "swap", count)).shuffle(circle)
        for place, key in enumerate(circle):
            others = (circle[place - step] for step in range(1, len(circle)))
            donor = next((other for other in others if not set(other) & set(key)), None)
            if donor is not None:
                donor_of[key] = by_key[donor]
    return {index: donor_of[key] for index, key in keys.items() if key in donor_of}


def blinded(samples: Iterable[Sample], mode: Mode, donors: Donors) -> list[Sample]:
    """The problems that have a donor, in their order, with its pictures.

    Raises:
        DataError: A picture cannot be read.
    """
    found = list(samples)
    return [
        replace(found[index], images=_greyed(found[donor]) if mode == "grey" else found[donor].images)
        for index, donor in donors.items()
    ]


def _greyed(sample: Sample) -> tuple[bytes, ...]:
    return tuple(encode_png(Image.new("RGB", image_size(data, sample.id), GREY)) for data in sample.images)


def _pixels(sample: Sample) -> Iterator[str]:
    """What its pictures show, whatever they are encoded as."""
    for data in sample.images:
        picture = open_image(data, sample.id)
        digest = hashlib.blake2b(str(picture.size).encode(), digest_size=16)
        digest.update(picture.tobytes())
        yield digest.hexdigest()


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
        if share is None:
            worth = "nothing was right with pictures"
        elif share < 0:
            worth = "the score is higher without the pictures"
        else:
            worth = f"{100 * share:.0f} % of the score needs the image"
        change = row["difference"]
        lines.append(
            f"blind ({mode}) {name} {metric}: {row['seen']:.3f} with pictures, {row['blind']:.3f} without, difference "
            f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}], p = {row['p_value']:.3g}: {worth} "
            f"({row['num_problems']} problems)"
        )
    return lines
