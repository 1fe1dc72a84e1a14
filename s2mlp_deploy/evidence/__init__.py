"""Saved measurements: one record type per kind, one writer and one reader for all."""
