"""What learns, as one flat state: packed for a checkpoint, taken back with a clear word if it does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wpt_bench.protocol import ACTION_PAD, STATE_PAD, AgentContext, Units, UserError
from wpt_bench.world_model.config import WorldModelSize
from wpt_bench.world_model.model import WorldModel
from wpt_bench.world_model.optimizer import Optimizer


def padded(state: NDArray[np.float32], units: Units) -> NDArray[np.float32]:
    """States ``(N, state_dim)`` in their units, zero-padded: float32 ``(N, STATE_PAD)``."""
    seen = np.zeros((len(state), STATE_PAD), np.float32)
    seen[:, : state.shape[1]] = units.apply(state)
    return seen


Parts = Mapping[str, nn.Module | Optimizer]


def pack(parts: Parts) -> dict[str, Any]:
    """The state of all parts, ``<part>/<name>``."""
    return {f"{part}/{key}": value for part, owner in parts.items() for key, value in owner.state_dict().items()}


def unpack(parts: Parts, state: Mapping[str, Any]) -> None:
    """Takes back what ``pack`` gave, from a state that may hold more; UserError if it is of another size."""
    for part, owner in parts.items():
        prefix = f"{part}/"
        load_weights(owner, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, part)


def load_weights(owner: nn.Module | Optimizer, state: Mapping[str, Tensor], what: str) -> None:
    """Loads a state dictionary; UserError in one sentence if its names or shapes are of another model."""
    try:
        owner.load_state_dict(state)
    except (RuntimeError, KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"The checkpoint's {what} does not fit this model: it was made with other sizes; "
            "use the profile it was made with or start afresh with another --out."
        ) from error


def world_model(context: AgentContext, size: WorldModelSize) -> WorldModel:
    """A world model for the run's observations, with fresh weights, on its device."""
    model = WorldModel(size, context.observation, STATE_PAD, ACTION_PAD, context.precision)
    return model.to(context.device)


def load_world_model(model: WorldModel, path: Path | None) -> None:
    """Loads pre-trained weights (a safetensors file)."""
    if path is None:
        raise UserError("This method needs a pre-trained world model; run `wpt-bench pretrain` first.")
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as weights ({error}); delete {path.parent} to make them again."
        ) from error
    load_weights(model, weights, "pre-trained world model")
