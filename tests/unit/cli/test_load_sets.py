import io
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from mm_agrae.cli.load_sets import load_tasks
from mm_agrae.config import parse_config
from mm_agrae.config.protocol import load_protocol
from mm_agrae.data.dataset import write_dataset
from mm_agrae.errors import ConfigError, DataError
from mm_agrae.records import Sample

TEXTS = [Sample(id=f"s{number}", question="?", target="1", family="ab"[number % 2]) for number in range(6)]


def tasks(folder: Path, *, card: dict[str, object], source: dict[str, object], samples: list[Sample] | None = None):
    """The tasks of one set that is measured by a card of its own, made of the card math500."""
    write_dataset({"test": samples or TEXTS}, folder / "data", source="test", seed=0)
    values = load_protocol("math500").model_dump(mode="json") | {"name": "own"}
    values["data"] |= {"processor": "", "num_problems": 6}
    values["data"] |= card.pop("data", {})
    (folder / "own.yaml").write_text(yaml.safe_dump(values | card), encoding="utf-8")
    own = {"path": str(folder / "data"), "protocol": str(folder / "own.yaml"), **source}
    recipe = {"name": "own", "model": {"path": "model"}, "data": {"eval": {"own": own}}}
    return load_tasks(parse_config(yaml.safe_dump(recipe)))


@pytest.mark.parametrize(
    ("whole", "source", "num_samples", "departures"),
    [
        (6, {}, 6, ()),
        (6, {"limit": 6}, 6, ()),
        (6, {"limit": 9}, 6, ()),
        (6, {"limit": 2}, 2, ("the first 2 problems only",)),
        (8, {"limit": 8}, 6, ("6 problems instead of 8",)),
        (8, {"limit": 2}, 2, ("6 problems instead of 8", "the first 2 problems only")),
        (6, {"families": ["a"]}, 3, ("families a only", "3 problems instead of 6")),
        (None, {"limit": 2}, 2, ("the first 2 problems only",)),
    ],
)
def test_a_limit_hides_no_missing_problem(tmp_path, whole, source, num_samples, departures):
    (task,) = tasks(tmp_path, card={"data": {"num_problems": whole}}, source=source)
    assert len(task.samples) == num_samples
    assert task.plan.departures == departures


@pytest.mark.parametrize("source", [{"limit": 5}, {"families": ["a"]}, {"difficulties": [1]}])
@pytest.mark.parametrize("aggregate", ["dynamath", "we_math", "hallusionbench"])
def test_a_part_of_what_is_scored_together_is_refused(tmp_path, aggregate, source):
    with pytest.raises(ConfigError, match=f"data.eval.own has {next(iter(source))} set, but protocol own scores"):
        tasks(tmp_path, card={"aggregate": aggregate}, source=source)


def test_a_part_of_single_problems_is_measured(tmp_path):
    (task,) = tasks(tmp_path, card={"aggregate": "chartqa"}, source={"limit": 5})
    assert len(task.samples) == 5


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"profile": "generik"}, 'profile is "generik".*nearest is "generic"'),
        ({"aggregate": "dynamat"}, "aggregate is 'dynamat'.*nearest is 'dynamath'"),
        ({"data": {"processor": "mathvist"}}, "'mathvist'. Did you mean 'mathvista'"),
        ({"data": {"processor": "mathvista", "split": "testmin"}}, "the split 'testmin', .* nearest is 'testmini'"),
    ],
)
def test_names_that_do_not_exist_are_told_before_a_set_is_read(tmp_path, card, message):
    with pytest.raises(ConfigError, match=message):
        tasks(tmp_path, card=card, source={"path": "no/such/folder"})


def test_pictures_need_a_pixel_budget(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, format="PNG")
    samples = [*TEXTS[:5], replace(TEXTS[5], question="<image>?", images=(stream.getvalue(),))]
    with pytest.raises(DataError, match="set 'own' has pictures, but protocol own gives no pixel budget"):
        tasks(tmp_path, card={}, source={}, samples=samples)
