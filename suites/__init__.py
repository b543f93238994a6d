"""Suites: DMControl and Meta-World, their simulators, data collectors and labels."""
