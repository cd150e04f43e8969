"""The shared readers of cells."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_processors.conversion.cells import (
    LETTERS,
    MISSING_IMAGE,
    answer_tag,
    image_of,
    images_of,
    last_box,
    letter_of,
    lettered_options,
    literal_list,
    numbered_marks,
    one_mark_per_image,
    strip_hint,
    text_of,
    with_options,
)
from data_processors.conversion.description import Part, Row
from data_processors.conversion.files import Files, MemberError
from mm_agrae.errors import DataError
from tests.fixtures.tables import write_zip


def row(files: Files) -> Row:
    return Row(values={}, index=0, split="train", part=Part(split="train"), files=files)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"loose")
    (tmp_path.parent / "secret.png").write_bytes(b"secret")
    write_zip(tmp_path / "pictures.zip", {"pictures/b.png": b"packed", "images/c.png": b"packed too"})
    return Files(root=tmp_path, archives=(tmp_path / "pictures.zip",))


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("images/a.png", b"loose"),
        ("./images/a.png", b"loose"),
        ("/images/a.png", b"loose"),
        ("file:///images/a.png", b"loose"),
        ("images\\a.png", b"loose"),
        ("images/c.png", b"packed too"),
        ("b.png", b"packed"),
        ("pictures/b.png", b"packed"),
        ("../secret.png", None),
        ("images/../../secret.png", None),
        ("images", None),
        ("x" * 5000, None),
        ("gone.png", None),
        ("", None),
    ],
)
def test_files_beside_the_rows(files: Files, path: str, content: bytes | None) -> None:
    assert files.read(path) == content


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.zip is no whole zip archive .*`git lfs pull`"):
        Files(archives=(tmp_path / "a.zip",)).read("a.png")


def test_a_member_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_processors.conversion.files.MAX_MEMBER", 1 << 20)
    write_zip(tmp_path / "a.zip", {"a.png": bytes(1 << 20), "b.png": bytes((1 << 20) + 1)})
    files = Files(archives=(tmp_path / "a.zip",))
    assert files.read("a.png") == bytes(1 << 20)
    with pytest.raises(MemberError, match="larger than 1 MB"):
        files.read("b.png")


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_broken_member_of_an_archive(tmp_path: Path, encrypted: bool) -> None:
    """Its content is another than its checksum says, or it is marked as encrypted."""
    archive = tmp_path / "a.zip"
    write_zip(archive, {"a.png": b"content"})
    data = bytearray(archive.read_bytes())
    if encrypted:
        data[data.index(b"PK\1\2") + 8] |= 1
    else:
        data[data.index(b"content")] += 1
    archive.write_bytes(data)
    with pytest.raises(MemberError, match="cannot be read from its archive"):
        Files(archives=(archive,)).read("a.png")


@pytest.mark.parametrize(
    ("cell", "image"),
    [
        (None, None),
        ("", None),
        (" ", None),
        ({"bytes": None, "path": None}, None),
        ({"bytes": b"x", "path": "gone.png"}, b"x"),
        ({"bytes": None, "path": "images/a.png"}, b"loose"),
        (b"x", b"x"),
        ("images/a.png", b"loose"),
        ("gone.png", MISSING_IMAGE),
        ("data:image/png;base64,eA==", b"x"),
    ],
)
def test_images(files: Files, cell: Any, image: bytes | None) -> None:
    assert image_of(cell, row(files)) == image
    assert images_of(cell, row(files)) == (() if image is None else (image,))


def test_several_images(files: Files) -> None:
    assert images_of([b"x", None, "images/a.png", "gone.png"], row(files)) == (b"x", b"loose", MISSING_IMAGE)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (27.0, "27"),
        (2.5, "2.5"),
        (-1, "-1"),
        (" a\r\nb\rc ", "a\nb\nc"),
        (float("inf"), "inf"),
        (float("nan"), ""),
        ("025", "025"),
    ],
)
def test_texts(cell: Any, text: str) -> None:
    assert text_of(cell) == text


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("['it\\'s', \"<image 2>\"]", ["it's", "<image 2>"]),
        ("[1, 2.0]", ["1", "2"]),
        ("[]", []),
        (["a"], ["a"]),
        (None, None),
        ("B", None),
        ("[unquoted]", None),
        ("['open'", None),
        ("[" * 5000, None),
        ("__import__('os')", None),
    ],
)
def test_literal_lists(cell: Any, items: list[str] | None) -> None:
    assert literal_list(cell) == items


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{a{b}c} x", "a{b}c"),
        ("so \\boxed 5.", "5"),
        ("\\fbox{7}", "7"),
        ("\\boxed{3} and \\boxed{un", "3"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("\\boxed{\\left\\{\\eqalign{a\\right.}", None),
        ("\\boxed{\\begin{matrix}1\\\\{2}\\end{matrix}} x", "\\begin{matrix}1\\\\{2}\\end{matrix}"),
        ("\\boxed 3.5", "3.5"),
        ("\\boxed -12$.", "-12"),
        ("\\boxed \\frac{1}{2}$", "\\frac{1}{2}"),
        ("\\boxed\\dfrac{1}{2}", "\\dfrac{1}{2}"),
        ("\\boxed 3,000", None),
        ("\\boxed 3/4", None),
        ("\\boxed 3.5x", None),
        ("\\boxed \\frac{\\sqrt{2}}{2}", None),
        ("none", None),
    ],
)
def test_boxes(text: str, content: str | None) -> None:
    assert last_box(text) == content


def test_answer_tags() -> None:
    assert answer_tag("<answer> 1 </answer> no, <answer>\n2\n</answer>") == "2"
    assert answer_tag("<answer> 1") is None


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Hint: Please answer.\nQuestion: How many?\nChoices:\n(A) 1", "How many?\nChoices:\n(A) 1"),
        ("Hint: Please answer. Question: How many?", "How many?"),
        ("How many? Hint: count.", "How many? Hint: count."),
    ],
)
def test_hints(text: str, question: str) -> None:
    assert strip_hint(text) == question


def test_numbered_marks() -> None:
    assert numbered_marks("<image 2> or <image1>, not <image_2>?") == ("<image> or <image>, not image 1?", (2, 1))
    assert numbered_marks("none <image>") == ("none <image>", ())


def test_marks_for_images() -> None:
    assert one_mark_per_image("x", 2) == "<image><image>x"
    assert one_mark_per_image("<image>x", 1) == "<image>x"
    assert one_mark_per_image("<image>x", 2) is None
    assert one_mark_per_image("<image>x", 0) is None


@pytest.mark.parametrize(
    ("text", "stem", "options"),
    [
        ("Find L.\nChoices:\nA:40°\nB:50°", "Find L.", ("40°", "50°")),
        ("Is it? Choices: (A) yes (B) no", "Is it?", ("yes", "no")),
        ("A. x;B. y; C. z", "", ("x", "y", "z")),
        ("Point A. Which?\nA. 1\nB. 2", "Point A. Which?", ("1", "2")),
        ("Which?\nA. line I. x\nB. 2", "Which?", ("line I. x", "2")),
        ("Which?\nA、1 B、2", "Which?", ("1", "2")),
        ("plain A. x", "plain A. x", ()),
        ("B. x\nC. y", "B. x\nC. y", ()),
        ("", "", ()),
    ],
)
def test_lettered_options(text: str, stem: str, options: tuple[str, ...]) -> None:
    assert lettered_options(text) == (stem, options)


@given(st.lists(st.text("abcxyz 123", min_size=1).map(str.strip).filter(bool), min_size=2, max_size=len(LETTERS)))
def test_options_that_were_written_are_read(options: list[str]) -> None:
    assert lettered_options(with_options("Which one?", options)) == ("Which one?", tuple(options))


def test_the_letter_of_a_text_is_that_of_its_first_copy() -> None:
    assert letter_of("b", ["a", "b", "b"]) == "B"
    assert letter_of("c", ["a", "b"]) is None
