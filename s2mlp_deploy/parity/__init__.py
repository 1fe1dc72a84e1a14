"""Comparing engines: metrics over batches, tolerances, saved reports."""
