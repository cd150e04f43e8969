"""What counts as a checkpoint that a kill left half written."""

from __future__ import annotations

from pathlib import Path

from kill_test import half_written

from mm_agrae.store.checkpoint import save_checkpoint


def test_half_written_is_not_half_removed(tmp_path: Path) -> None:
    assert half_written(tmp_path) == set()
    root = tmp_path / "checkpoints"
    save_checkpoint(root, 4, write=lambda folder: None, state={})
    (root / ".step_000002.tmp").mkdir()  # a removal that was cut short
    (root / "step_000003").mkdir()
    assert half_written(tmp_path) == set()
    (root / ".step_000006.tmp").mkdir()
    (root / "step_000008").mkdir()
    assert {name for name, _ in half_written(tmp_path)} == {".step_000006.tmp", "step_000008"}
