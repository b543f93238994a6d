"""The harness: one interaction loop, the grid, shared stages, checkpoints."""
