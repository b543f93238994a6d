"""Figures, tables and the HTML page, from records through analysis."""
