import pytest

from mm_agrae.errors import CheckpointError
from mm_agrae.evaluate.journal import Entry, Journal


def entry(number, text="x"):
    return Entry(
        sampled={"sample_id": f"s{number}", "text": text}, greedy={"sample_id": f"s{number}"} if number else None
    )


def test_what_was_appended_is_read_back(tmp_path):
    journal = Journal(path=tmp_path / "eval" / "set.partial.jsonl", fingerprint="f")
    assert journal.resume() == 0
    journal.append([entry(0), entry(1, "lone \ud800 and line separator \u2028")])
    journal.append([entry(2)])
    assert journal.resume() == 3
    assert list(journal.entries()) == [entry(0), entry(1, "lone \ud800 and line separator \u2028"), entry(2)]


@pytest.mark.parametrize("kept", range(0, 200, 7))
def test_a_file_cut_anywhere_goes_on_behind_its_last_whole_line(tmp_path, kept):
    path = tmp_path / "set.partial.jsonl"
    journal = Journal(path=path, fingerprint="f")
    journal.resume()
    journal.append([entry(0), entry(1)])
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    lines = whole[:kept].count(b"\n")
    assert journal.resume() == max(0, lines - 1)
    journal.append([entry(number) for number in range(max(0, lines - 1), 2)])
    assert path.read_bytes() == whole


def test_a_journal_of_other_problems_is_refused(tmp_path):
    path = tmp_path / "set.partial.jsonl"
    Journal(path=path, fingerprint="f").begin()
    with pytest.raises(CheckpointError, match="begun with other problems, other settings or another model"):
        Journal(path=path, fingerprint="g").resume()


def test_beginning_anew_forgets(tmp_path):
    journal = Journal(path=tmp_path / "set.partial.jsonl", fingerprint="f")
    journal.begin()
    journal.append([entry(0)])
    journal.begin()
    assert list(journal.entries()) == []


@pytest.mark.parametrize("line", [b"{\x00\x00}\n", b"{}\n", b'{"sampled": {}}\n', b"7\n"])
def test_a_damaged_line_is_named_before_anything_is_sampled(tmp_path, line):
    journal = Journal(path=tmp_path / "set.partial.jsonl", fingerprint="f")
    journal.begin()
    journal.append([entry(0)])
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + line)
    with pytest.raises(CheckpointError, match=r"line 3 of .*set\.partial\.jsonl is damaged .* Remove the file"):
        journal.resume()
    journal.path.write_bytes(line)
    with pytest.raises(CheckpointError):
        journal.resume()
