"""Scores, aggregates and their intervals, from records alone. Imports no torch."""
