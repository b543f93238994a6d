"""Data only: scores that others published; read by analysis."""
