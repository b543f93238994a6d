"""Sizes of a world model. Imports no torch, so that profiles can be read without it."""

from __future__ import annotations

import msgspec

from wpt_bench.bounds import Size


class WorldModelSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers that fix every shape of a world model. Defaults: the paper's (Table 6; 281.4M parameters from pixels).

    The paper's table prints ``deter`` and ``hidden`` swapped; its parameter count settles which is which.

    Attributes:
        deter: numbers in the deterministic state.
        hidden: width of the layers inside the recurrent model.
        stoch, classes: the stochastic state is ``stoch`` one-hot vectors of ``classes`` numbers.
        blocks: blocks of the block-diagonal recurrent layers; divides ``deter`` and ``2 * hidden``.
        cnn_depth: channels of the first convolution; the three after it double them.
        units, layers: width and number of hidden layers of the state encoder and decoder.
    """

    deter: Size = 12288
    hidden: Size = 1536
    stoch: Size = 32
    classes: Size = 96
    blocks: Size = 8
    cnn_depth: Size = 96
    units: Size = 1024
    layers: Size = 3

    def __post_init__(self) -> None:
        if self.deter % self.blocks or 2 * self.hidden % self.blocks:
            raise ValueError(f"deter {self.deter} and 2 x hidden {2 * self.hidden} must be multiples of {self.blocks}")

    @property
    def stoch_flat(self) -> int:
        """Numbers in the flattened stochastic state."""
        return self.stoch * self.classes

    @property
    def feature(self) -> int:
        """Numbers in a latent state as heads see it: deterministic and stochastic state, joined."""
        return self.deter + self.stoch_flat
