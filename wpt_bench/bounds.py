"""Numbers that profiles and settings may hold: what nothing can be made of is refused before a run."""

from __future__ import annotations

from typing import Annotated

import msgspec

Size = Annotated[int, msgspec.Meta(ge=1)]
"""Of a layer, a batch, a search: none of it is nothing."""
Count = Annotated[int, msgspec.Meta(ge=0)]
"""Of what may be left out."""
Positive = Annotated[float, msgspec.Meta(gt=0)]
"""A step size, or what something is divided by."""
Weight = Annotated[float, msgspec.Meta(ge=0)]
"""Of a term, or a pace: with 0 it is switched off."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""Of a whole."""
