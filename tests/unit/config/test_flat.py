"""Settings by their dotted names."""

from __future__ import annotations

from mm_agrae.config.flat import changed_settings, flat


def test_sections_become_dotted_names_in_their_order() -> None:
    values = {"train": {"seed": 1, "optim": {"lr": 0.1}}, "name": None, "data": {}}
    assert list(flat(values).items()) == [("train.seed", 1), ("train.optim.lr", 0.1), ("name", None), ("data", {})]


def test_changes_are_told_by_name() -> None:
    saved = {"name": "a", "train": {"seed": 1, "lr": 0.1, "freeze": ["vision"]}, "data": {}}
    now = {"train": {"freeze": [], "seed": 1, "lr": 0.2}, "name": "a", "data": {"eval": {"on": True}}}
    assert changed_settings(saved, now) == [
        "data.eval.on: not set -> true",
        'train.freeze: ["vision"] -> []',
        "train.lr: 0.1 -> 0.2",
    ]
    assert changed_settings(saved, saved) == []


def test_a_setting_that_is_empty_is_not_one_that_is_absent() -> None:
    assert changed_settings({"path": None}, {}) == ["path: null -> not set"]
