from pathlib import Path

import pytest

from data_processors.visual_gym import write_gym
from data_processors.visual_gym.families import as_text, make_problem
from mm_agrae.data.columns import content_hash
from mm_agrae.data.dataset import open_dataset
from mm_agrae.errors import DataError

SMALL = ("counting/circles", "counting/colour", "charts/bar_sum")


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    written = [
        write_gym(tmp_path / str(n), num=80, seed=5, families=SMALL, size=64, held_out=20, num_processes=n)
        for n in (1, 2)
    ]
    assert written[0] == written[1]


def test_a_sample_can_be_made_again_from_its_metadata(tmp_path: Path) -> None:
    write_gym(tmp_path / "g", num=20, seed=1, families=["counting"], size=128, held_out=0, num_processes=1)
    for sample in open_dataset(tmp_path / "g", "train"):
        again = make_problem(sample.family, sample.difficulty or 0, sample.metadata["seed"], size=128)
        assert again == sample


def test_families_and_difficulties_are_even_and_splits_disjoint(tmp_path: Path) -> None:
    calls: list[int] = []
    manifest = write_gym(
        tmp_path / "g", num=90, seed=0, families=SMALL, size=64, held_out=30, on_sample=lambda: calls.append(1)
    )
    assert len(calls) == 120
    assert manifest.splits["train"].families == {"charts/bar_sum": 30, "counting/circles": 30, "counting/colour": 30}
    assert manifest.origin.licence == "own work"
    assert set(manifest.splits["test"].difficulties.values()) == {6}
    hashes = [{content_hash(s) for s in open_dataset(tmp_path / "g", split)} for split in ("train", "test")]
    assert (len(hashes[0]), len(hashes[1]), len(hashes[0] & hashes[1])) == (90, 30, manifest.split_overlap)
    assert manifest.split_overlap == 0


def test_the_test_split_does_not_depend_on_the_number_of_training_problems(tmp_path: Path) -> None:
    few, many = (
        write_gym(tmp_path / str(num), num=num, seed=0, families=SMALL, size=64, held_out=20) for num in (3, 60)
    )
    assert few.splits["test"] == many.splits["test"]
    other = write_gym(tmp_path / "other", num=3, seed=1, families=SMALL, size=64, held_out=20)
    assert other.splits["test"].sha256 != few.splits["test"].sha256


def test_text_repeats_leave_their_turn_to_other_levels(tmp_path: Path) -> None:
    # Level 1 of counting/circles has few texts: at most 3 circles and 2 squares.
    options = {"seed": 0, "families": ["counting/circles"], "size": 64, "held_out": 40, "text_only": True}
    manifest = write_gym(tmp_path / "g", num=300, difficulties=(1, 4), **options)  # type: ignore[arg-type]
    counts = manifest.splits["train"].difficulties
    assert counts["1"] < 40 < counts["4"]
    assert manifest.split_overlap == 0
    sample = open_dataset(tmp_path / "g", "train")[0]
    assert sample == as_text(make_problem(sample.family, sample.difficulty or 0, sample.metadata["seed"], size=64))
    with pytest.raises(DataError, match="distinct problems were found and there are no more"):
        write_gym(tmp_path / "none", num=300, difficulties=(1,), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"families": ["geometri"]}, "nearest name is 'geometry'"),
        ({"families": ["geometry"]}, "size is 64 pixels"),
        ({"families": []}, "lists cannot be empty"),
        ({"difficulties": (0,)}, "difficulty is 0"),
        ({"num": -1}, "num is -1"),
    ],
)
def test_impossible_data_sets_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    request = {"num": 5, "seed": 0, "families": SMALL, "size": 64, **change}
    with pytest.raises(DataError, match=words):
        write_gym(tmp_path / "g", **request)  # type: ignore[arg-type]
    assert not (tmp_path / "g").exists()
