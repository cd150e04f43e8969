import re

import pytest

from mm_agrae.metrics.catalogue import CATALOGUE, UncataloguedMetricError, check_keys, lookup

UNITS_BY_SUFFIX = {
    "_s": {"s", "tokens/s", "FLOP/s"},
    "_frac": {"fraction"},
    "_nats": {"nats"},
    "_bytes": {"bytes"},
    "_tokens": {"tokens"},
    "_samples": {"samples"},
}


def test_every_entry_is_complete_and_named_by_one_scheme():
    for key, metric in CATALOGUE.items():
        assert key == metric.name
        assert re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(@k)?", key), key
        assert metric.meaning, key
        assert metric.direction in ("up", "down", "none"), key
        for suffix, units in UNITS_BY_SUFFIX.items():
            if key.endswith(suffix):
                assert metric.unit in units, key


def test_known_keys_pass():
    check_keys({"reward/mean": 0.5, "time/update_s": 1.0})
    check_keys([])


@pytest.mark.parametrize("key", ["eval/pass@1", "eval/pass@256", "eval/geometry/pass@4"])
def test_evaluation_keys_share_an_entry_over_sets_and_sample_counts(key):
    assert lookup(key) is CATALOGUE["eval/pass@k"]
    assert lookup("eval/geometry/greedy") is CATALOGUE["eval/greedy"]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("reward/means", "reward/mean"),
        ("polcy/entropy_nats", "policy/entropy_nats"),
        ("eval/pass@0", "eval/pass@k"),
        ("eval/pass@k", "eval/pass@k"),
        ("eval/geometry/gredy", "eval/greedy"),
    ],
)
def test_other_keys_are_refused_with_the_nearest(key, nearest):
    with pytest.raises(UncataloguedMetricError) as caught:
        check_keys({key: 1.0})
    assert str(caught.value).startswith(f'metric "{key}" is not in the catalogue; the nearest is "{nearest}".')
    assert isinstance(caught.value, KeyError)


def test_a_key_like_nothing_is_refused_too():
    with pytest.raises(UncataloguedMetricError, match="the nearest is"):
        lookup("")
