import pytest

from mm_agrae.errors import ConfigError
from mm_agrae.records import Sample
from mm_agrae.verify import PROFILES, Question, profile_named


def test_an_unknown_profile_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r'scoring profile is "chart_qa".*nearest is "chartqa"'):
        profile_named("chart_qa")
    with pytest.raises(ConfigError, match='nearest is "generic"'):
        Question(target="5", profile="genric")


def test_a_question_carries_its_profile():
    sample = Sample(id="1", question="?", target="5")
    assert Question.of(sample).profile == "generic"
    assert Question.of(sample, profile="mmmu").profile == "mmmu"
    assert profile_named("mmmu") is PROFILES["mmmu"]
