"""Sequences cut the plain way, number by number, to hold the fast sampler against."""

import numpy as np


def reference_sample(episodes, length, kind, batch, rng):
    """What ``SequenceSampler.sample`` should give: an episode, then a start, then number by number."""
    chosen = [int(index) for index in rng.integers(0, len(episodes), batch)]
    starts = [int(start) for start in rng.integers(0, [len(episodes[index].action) - length + 1 for index in chosen])]
    rows = [cut(episodes[index], start, length, kind) for index, start in zip(chosen, starts, strict=True)]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def cut(episode, start, length, kind):
    result = {
        "action": np.zeros((length, 21), np.float32),
        "action_mask": np.zeros(21, np.float32),
        "reward": np.zeros(length, np.float32),
    }
    for t in range(length):
        for number in range(episode.action_dim):
            result["action"][t, number] = episode.action[start + t][number]
            result["action_mask"][number] = 1
        if getattr(episode, "rewarded", True):
            result["reward"][t] = episode.reward[start + t]
    if kind == "pixels":
        result["observation"] = np.array([episode.observation[start + t] for t in range(length)])
        return result
    result["observation"] = np.zeros((length, 96), np.float32)
    result["observation_mask"] = np.zeros(96, np.float32)
    for t in range(length):
        for number, value in enumerate(episode.observation[start + t]):
            result["observation"][t, number] = (value - episode.units.offset[number]) * episode.units.scale[number]
            result["observation_mask"][number] = 1
    return result
