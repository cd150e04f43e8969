"""The house keeps its shape: floors, doors, sizes, and one default per setting."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import mm_agrae
from mm_agrae.algorithms import ADVANTAGES, ANCHORS, LOSSES, TRUST_REGIONS, WEIGHTINGS
from mm_agrae.algorithms.importance import importance_weights
from mm_agrae.config.algorithm import (
    AblationConfig,
    AgraeConfig,
    AlgorithmConfig,
    ElasticConfig,
    HadwConfig,
    SapoConfig,
)
from mm_agrae.config.schema import RewardConfig
from mm_agrae.rewards import reward

PACKAGE = Path(mm_agrae.__file__).parent
ROOT = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROCESSORS = sorted((ROOT / "data_processors").rglob("*.py"))

# From the ground up. A room imports from lower floors only; rooms on one floor do not know each other.
FLOORS = (
    {"records", "errors", "seeding"},
    {"config", "prompts", "verify", "rewards", "algorithms", "metrics"},
    {"estimator"},
    {"data"},
    {"store"},
    {"policy"},
    {"engines"},
    {"rollout"},
    {"train", "evaluate", "report"},
    {"lab", "preflight"},
    {"cli"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Heavy library -> the only places that import it.
DOORS = {
    "wandb": {"store/tracker.py"},
    "matplotlib": {"report/plots.py"},
    "accelerate": {"train/distributed.py"},
    "torch.distributed": {"train/distributed.py", "policy/fsdp.py"},
    "transformers": {"policy/", "engines/transformers_engine.py"},
    "peft": {"policy/"},
    "qwen_vl_utils": {"policy/"},
    "math_verify": {"verify/"},
    "sympy": {"verify/"},
    "datasets": {"data/"},
    "vllm": {"engines/vllm_"},
    "typer": {"cli/"},
    "jinja2": {"report/"},
}

# Called by another library, which decides the keywords and adds new ones.
FOREIGN_SIGNATURES = {"language_attention", "vision_attention", "noting_loader"}


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("mm_agrae.")}


def test_every_room_has_a_floor() -> None:
    rooms = {place(path).split("/")[0].removesuffix(".py") for path in SOURCES} - {"__init__"}
    assert rooms == set(FLOOR_OF)


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_imports_go_down(path: Path) -> None:
    room = place(path).split("/")[0].removesuffix(".py")
    if room == "__init__":
        assert not rooms_imported(path)
        return
    upward = {other for other in rooms_imported(path) - {room} if FLOOR_OF.get(other, -1) >= FLOOR_OF[room]}
    assert not upward, f"{place(path)} on floor {FLOOR_OF[room]} imports {upward}"


def test_the_ground_floor_rooms_do_not_know_each_other() -> None:
    assert {path.stem: rooms_imported(path) for path in SOURCES if path.stem in FLOORS[0]} == {
        "records": set(),
        "errors": set(),
        "seeding": set(),
    }


@pytest.mark.parametrize("library", DOORS)
def test_heavy_libraries_have_one_door(library: str) -> None:
    users = {
        place(path)
        for path in SOURCES
        if any(name == library or name.startswith(f"{library}.") for name in imports(path))
    }
    strangers = {user for user in users if not any(user.startswith(door) for door in DOORS[library])}
    assert not strangers
    assert users, f"nobody imports {library}: remove its door"


@pytest.mark.parametrize("path", PROCESSORS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_data_processors_know_the_ground_floor_and_data(path: Path) -> None:
    assert rooms_imported(path) <= {*FLOORS[0], "data", "__version__"}


def test_only_the_command_line_knows_the_data_processors() -> None:
    users = {place(path) for path in SOURCES if any(name.split(".")[0] == "data_processors" for name in imports(path))}
    assert {user.split("/")[0] for user in users} == {"cli"}


def parameters(function: object) -> dict[str, object]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()  # type: ignore[arg-type]
        if parameter.default is not inspect.Parameter.empty
    }


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (reward, RewardConfig()),
        *[(function, AgraeConfig()) for name, function in WEIGHTINGS.items() if name.startswith("agrae")],
        *[(function, AblationConfig()) for function in WEIGHTINGS.values()],
        (WEIGHTINGS["hadw"], HadwConfig()),
        *[(function, HadwConfig()) for function in ANCHORS.values()],
        *[(function, AlgorithmConfig.model_validate({})) for function in (*TRUST_REGIONS.values(), *LOSSES.values())],
        (TRUST_REGIONS["elastic"], ElasticConfig()),
        (LOSSES["sapo"], SapoConfig()),
        (ADVANTAGES["group"], AlgorithmConfig.model_validate({})),
        (ADVANTAGES["leave_one_out"], AlgorithmConfig.model_validate({"preset": "rloo"})),
        (ADVANTAGES["none"], AlgorithmConfig.model_validate({"baseline": "none"})),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_functions_and_config_agree_on_defaults(function: object, settings: object) -> None:
    shared = {name: value for name, value in parameters(function).items() if hasattr(settings, name)}
    assert shared == {name: getattr(settings, name) for name in shared}


def test_the_comparison_of_defaults_sees_every_shared_setting() -> None:
    assert {"alpha", "variant"} <= set(parameters(WEIGHTINGS["agrae"]))
    assert {"scale"} == set(parameters(WEIGHTINGS["hadw"]))
    assert {"window", "include_current"} == set(parameters(ANCHORS["window"]))
    assert {"eta", "eta_min", "memory"} == set(parameters(ANCHORS["soft"]))
    assert {"clip_low", "clip_high", "micro", "macro"} == set(parameters(TRUST_REGIONS["elastic"]))
    assert {"std", "std_eps"} == set(parameters(ADVANTAGES["group"]))
    assert {"correct_weight", "format_weight"} <= set(parameters(reward))


def test_the_correction_agrees_with_its_settings() -> None:
    settings = AlgorithmConfig.model_validate({})
    expected = {"level": settings.correction_level, "cap": settings.correction_cap}
    assert {name: parameters(importance_weights)[name] for name in expected} == expected


@pytest.mark.parametrize("path", [*SOURCES, *PROCESSORS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sizes_and_names(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    assert path.stem not in ("utils", "helpers", "manager", "misc", "common")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
        if isinstance(node, ast.FunctionDef):
            allowed = node.name in FOREIGN_SIGNATURES
            assert allowed or node.args.kwarg is None, f"{node.name} takes arbitrary keywords"
            assert node.end_lineno - node.lineno < 100, f"{node.name} is too long"
