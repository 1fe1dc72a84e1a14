"""Ranges of tensors: observing them over data, histograms, how a range is chosen, statistics on disk."""
