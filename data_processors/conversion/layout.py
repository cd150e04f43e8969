"""Which files of a repository hold the rows of a split, told from their names and the data card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from data_processors.conversion.description import Part
from mm_agrae.errors import DataError

README = "README.md"
SUFFIXES = (".parquet", ".jsonl", ".json")

# Globs of files by configuration and split.
Configs = Mapping[str, Mapping[str, tuple[str, ...]]]


def row_files(names: Sequence[str], part: Part, configs: Configs) -> list[str]:
    """The files of a part.

    Its own globs decide; without any, what the data card says; without that, the names: "<split>.parquet",
    "<split>-00000-of-00002.parquet" or "<split>/0000.parquet" on the top, under "data/" or "default/", or under the
    name of the configuration.

    Args:
        names: Paths of all files of the repository, sorted.
        part: What is looked for.
        configs: What the data card says.

    Raises:
        DataError: If there is none; the message says what there is.
    """
    rows = [name for name in names if name.endswith(SUFFIXES)]
    globs = part.files or _card_globs(part, configs)
    found = [name for glob in globs for name in matching(rows, glob)]
    if not found and not part.files:
        found = _named_after(rows, part)
    if found:
        return list(dict.fromkeys(found))
    wanted = " or ".join(part.files) or f"of split {part.split!r}"
    config = f" of configuration {part.config!r}" if part.config else ""
    raise DataError(
        f"there is no file {wanted}{config}; the files of rows are {rows[:20] or 'none'}. Name another split, or "
        "another place."
    )


def matching(names: Sequence[str], glob: str) -> list[str]:
    """The names that a glob means: "*" stays within its folder, "**" is any number of folders, none included."""
    return [name for name in names if _means(glob.split("/"), name.split("/"))]


def _means(glob: Sequence[str], name: Sequence[str]) -> bool:
    if not glob or not name:
        return not glob and not name
    if glob[0] == "**":
        return any(_means(glob[1:] or ["*"], name[start:]) for start in range(len(name)))
    return fnmatchcase(name[0], glob[0]) and _means(glob[1:], name[1:])


def card_configs(readme: Path) -> Configs:
    """The data files that a data card lists in its head; empty when there is no card or it lists none.

    A configuration that is marked as the default one is also under the name "default".
    """
    match = readme.is_file() and re.match(r"---\n(.*?)\n---", readme.read_text("utf-8", "replace"), re.DOTALL)
    try:
        head = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    found: dict[str, Mapping[str, tuple[str, ...]]] = {}
    configs = head.get("configs") if isinstance(head, dict) else None
    for config in configs if isinstance(configs, list) else []:
        if not isinstance(config, dict):
            continue
        splits = _splits(config.get("data_files"), config.get("data_dir"))
        found[str(config.get("config_name", "default"))] = splits
        if config.get("default"):
            found["default"] = splits
    return found


def _splits(files: Any, folder: str | None) -> dict[str, tuple[str, ...]]:
    """Globs by split, of the forms a card may have: a text, a list of texts, or a list of {split, path}."""
    entries = files if isinstance(files, list) else [files] if files else []
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        globs = [paths] if isinstance(paths, str) else paths or []
        rooted = [f"{folder.strip('/')}/{glob}" if folder else glob.removeprefix("./") for glob in globs]
        found[str(split)] = (*found.get(str(split), ()), *rooted)
    return found


def _card_globs(part: Part, configs: Configs) -> tuple[str, ...]:
    names = [part.config] if part.config else ["default", *configs] if len(configs) == 1 else ["default"]
    return next((configs[name][part.split] for name in names if part.split in configs.get(name, {})), ())


def _named_after(rows: Sequence[str], part: Part) -> list[str]:
    """Files that bear the name of the split; "test" does not mean "testmini"."""
    folders = [part.config, f"data/{part.config}", f"{part.config}/data"] if part.config else ["", "data", "default"]
    if part.config == part.split:
        folders.append("")  # a configuration of one split is often one file of this name
    endings = "|".join(re.escape(suffix) for suffix in SUFFIXES)
    name = re.compile(rf"{re.escape(part.split)}(?:[-.][^/]*|_\d+|/[^/]+)?(?:{endings})")
    for folder in folders:
        prefix = f"{folder}/" if folder else ""
        found = [row for row in rows if row.startswith(prefix) and name.fullmatch(row.removeprefix(prefix))]
        if found:
            return found
    return []
