"""Checkpoints: whole or not there."""

from pathlib import Path

import pytest
import torch

from wpt_bench.running import checkpoint

STATE = {"weights": torch.arange(6.0).reshape(2, 3), "step": 7, "names": ["a", "b"], "odd": torch.tensor(True)}


def _equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) if torch.is_tensor(one[key]) else one[key] == other[key] for key in one
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, STATE)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None and _equal(loaded, STATE)


def test_the_newest_counts_and_the_one_before_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, STATE | {"step": step})
    assert checkpoint.load(tmp_path)["step"] == 10  # type: ignore[index]
    assert len(list(tmp_path.iterdir())) == checkpoint.KEEP


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, STATE | {"step": step})
    newest = max(tmp_path.iterdir())
    raw = bytearray(newest.read_bytes())
    if damage == "flip":
        raw[-1] ^= 1
    newest.write_bytes(bytes(raw) if damage == "flip" else bytes(raw[: len(raw) // 2 if damage == "truncate" else 0]))
    assert checkpoint.load(tmp_path)["step"] == 1  # type: ignore[index]


def test_none_is_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None


def test_no_pickle_is_written(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, STATE)
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".safetensors" and b"torch._utils" not in file.read_bytes()
