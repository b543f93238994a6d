"""Checkpoints: whole or not there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from wpt_bench.running import checkpoint

STATE = {"weights": torch.arange(6.0).reshape(2, 3), "step": 7, "names": ["a", "b"], "odd": torch.tensor(True)}


def _equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) if torch.is_tensor(one[key]) else one[key] == other[key] for key in one
    )


def _load(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    return checkpoint.load(folder, lambda state: None)


def _save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, STATE | {"step": step})


def damage(path: Path, how: str) -> None:
    """Flips one bit of a file, cuts it in half, empties it, or puts a folder in its place."""
    raw = bytearray(path.read_bytes())
    if how == "folder":
        path.unlink()
        path.mkdir()
        return
    raw[len(raw) * 2 // 3] ^= how == "flip"
    path.write_bytes(raw[: {"truncate": len(raw) // 2, "empty": 0}.get(how, len(raw))])


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, STATE)
    loaded, problems = _load(tmp_path)
    assert loaded is not None and _equal(loaded, STATE) and problems == []


def test_the_newest_counts_and_the_one_before_is_kept(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2, 10)
    assert _load(tmp_path)[0]["step"] == 10  # type: ignore[index]
    assert len(list(tmp_path.iterdir())) == checkpoint.KEEP


@pytest.mark.parametrize("how", ["truncate", "flip", "empty", "folder"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, how: str) -> None:
    _save(tmp_path, 1, 2)
    newest = max(tmp_path.iterdir())
    damage(newest, how)
    state, (problem,) = _load(tmp_path)
    assert state is not None and state["step"] == 1
    assert problem.startswith(f"{newest} is damaged")


def test_a_damaged_one_does_not_push_out_those_that_are_written_after_it(tmp_path: Path) -> None:
    _save(tmp_path, 100, 200)
    for path in tmp_path.iterdir():
        damage(path, "truncate")
    state, problems = _load(tmp_path)
    assert state is None and len(problems) == 2
    _save(tmp_path, 1)
    assert _load(tmp_path)[0]["step"] == 1  # type: ignore[index]


def test_one_that_lacks_what_it_needs_falls_back_too(tmp_path: Path) -> None:
    _save(tmp_path, 1, 2)

    def check(state: dict[str, Any]) -> None:
        if state["step"] == 2:
            raise checkpoint.Damaged("a file of its replay is missing")

    state, problems = checkpoint.load(tmp_path, check)
    assert state is not None and state["step"] == 1 and problems == ["a file of its replay is missing"]
    (note,) = checkpoint.note(problems, found=True)
    assert note == "a file of its replay is missing: it goes on from the checkpoint before."


def test_none_is_none(tmp_path: Path) -> None:
    assert _load(tmp_path) == (None, []) and checkpoint.note([], found=False) == []
