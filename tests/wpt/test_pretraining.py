"""What open-loop validation says, and the example it gives, from states and from pictures."""

import numpy as np
import pytest
import torch

from wpt.toy import SIZE, STEPS, episode
from wpt_bench.data.sequences import SequenceSampler
from wpt_bench.data.views import EpisodeView
from wpt_bench.protocol import ACTION_PAD, STATE_PAD
from wpt_bench.world_model.model import WorldModel
from wpt_bench.wpt.pretraining import CONTEXT, HORIZON, Example, open_loop_error

CHUNKS, SEED = 8, 11


def walks(observation: str, count: int, seed: int) -> list[EpisodeView]:
    """Points that are pushed about; their third number never changes. As pictures, a square."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        start, push = rng.normal(size=3), rng.normal(size=(STEPS + 1, 2)).astype(np.float32)
        path = start + 0.1 * np.cumsum(np.pad(push, ((0, 0), (0, 1))), 0)
        seen = path.astype(np.float32) if observation == "state" else np.stack([square(*point[:2]) for point in path])
        made.append(episode(seen, push))
    return made


def square(x: float, y: float) -> np.ndarray:
    frame = np.zeros((64, 64, 3), np.uint8)
    row, column = np.clip(32 + 8 * np.array([x, y]), 4, 59).astype(int)
    frame[row - 4 : row + 4, column - 4 : column + 4] = 200
    return frame


def model(observation: str, precision: str = "fp32") -> WorldModel:
    torch.manual_seed(3)
    return WorldModel(SIZE, observation, STATE_PAD, ACTION_PAD, precision)


def judged(observation: str, seed: int = SEED, precision: str = "fp32") -> tuple[dict, Example]:
    held_out, training = walks(observation, 2, seed=1), walks(observation, 4, seed=2)
    return open_loop_error(model(observation, precision), held_out, training, CHUNKS, seed, "cpu")


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        ("state", {"model": 1.17985, "persistence": 0.0197069, "mean": 0.604964}),
        ("pixels", {"model": 5.43995, "persistence": 0.480607, "mean": 1.11885}),
    ],
)
def test_errors_are_what_stages_on_disk_were_judged_by(observation, expected):
    """Written down with version 3 of pre-training: other numbers are another version."""
    errors, _ = judged(observation)
    assert {name: errors[name] for name in expected} == pytest.approx(expected, rel=1e-3)
    for name, key in (("model", "by_step"), ("persistence", "persistence_by_step"), ("mean", "mean_by_step")):
        assert len(errors[key]) == HORIZON and np.mean(errors[key]) == pytest.approx(errors[name], rel=1e-5)
    assert errors["persistence_by_step"][0] < errors["persistence_by_step"][-1]


def test_what_is_invisible_in_pictures_decides_nothing():
    """Squared bytes over all of a picture against their variance over all of it, by hand; a flicker adds little."""

    def of_persistence(flicker: int) -> float:
        held_out, training = walks("pixels", 2, seed=1), walks("pixels", 4, seed=2)
        for one in (*held_out, *training):
            one.observation[::2, 60:, 60:] += np.uint8(flicker)
        errors, _ = open_loop_error(model("pixels"), held_out, training, CHUNKS, SEED, "cpu")
        rng = np.random.default_rng(SEED)
        seen, known = (
            SequenceSampler(episodes, CONTEXT + HORIZON, "pixels").sample(CHUNKS, rng).observation.astype(float)
            for episodes in (held_out, training)
        )
        squared, variance = (seen[:, CONTEXT - 1 : CONTEXT] - seen[:, CONTEXT:]) ** 2, known.var((0, 1), ddof=1)
        expected = squared.mean((0, 1))[variance > 0].sum() / variance.sum()
        assert errors["persistence"] == pytest.approx(expected, rel=1e-4)
        return errors["persistence"]

    assert of_persistence(1) == pytest.approx(of_persistence(0), rel=1e-3)


@pytest.mark.parametrize("observation", ["state", "pixels"])
def test_the_example_is_the_first_chunk_of_the_seed_and_what_the_model_predicts_of_it(observation):
    _, example = judged(observation)
    one = model(observation)
    held_out, training = walks(observation, 2, seed=1), walks(observation, 4, seed=2)
    rng = np.random.default_rng(SEED)
    samplers = [SequenceSampler(episodes, CONTEXT + HORIZON, observation) for episodes in (held_out, training)]
    batch, known = (sampler.sample(CHUNKS, rng) for sampler in samplers)
    seen = one.prepare(torch.from_numpy(batch.observation).transpose(0, 1))
    action = torch.from_numpy(batch.action).transpose(0, 1)
    predicted = one.open_loop(seen, action, CONTEXT, torch.Generator().manual_seed(SEED))[:, 0]
    if observation == "pixels":
        assert np.array_equal(example.truth, batch.observation[0]) and example.dimension is None
        frames = (predicted.permute(0, 2, 3, 1).numpy() + 0.5) * 255
        assert example.predicted.dtype == np.uint8
        assert np.abs(example.predicted - np.clip(frames, 0, 255)).max() <= 0.5 + 1e-3
    else:
        space = one.prepare(torch.from_numpy(known.observation)).flatten(0, 1)[:, :3]
        for given, expected in ((example.truth, seen[:, 0]), (example.predicted, predicted)):
            assert np.allclose(given, (expected[:, :3] - space.mean(0)) / space.std(0), atol=1e-4)
        assert example.dimension.tolist() == [0, 1, 2]


@pytest.mark.parametrize("observation", ["state", "pixels"])
def test_the_example_is_a_function_of_the_seed(observation):
    one, again, other = (judged(observation, seed)[1] for seed in (SEED, SEED, SEED + 1))
    assert np.array_equal(one.truth, again.truth) and np.array_equal(one.predicted, again.predicted)
    assert not np.array_equal(one.truth, other.truth)


def test_frames_of_a_bfloat16_model_are_shown_as_they_were_recorded():
    _, example = judged("pixels", precision="bf16")
    assert set(np.unique(example.truth)) == {0, 200}


def test_a_state_shows_only_dimensions_that_vary_in_training():
    def still(episodes):
        for one in episodes:
            one.observation[:, 1] = 5.0
        return episodes

    held_out, training = still(walks("state", 2, seed=1)), still(walks("state", 4, seed=2))
    _, example = open_loop_error(model("state"), held_out, training, CHUNKS, SEED, "cpu")
    assert example.dimension.tolist() == [0, 2]
    assert example.truth.shape == (CONTEXT + HORIZON, 2) and example.predicted.shape == (HORIZON, 2)
