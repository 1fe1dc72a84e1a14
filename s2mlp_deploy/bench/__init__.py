"""Timing engines side by side."""
