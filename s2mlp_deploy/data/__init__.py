"""Folders, archives, arrays, saved data sets and Python iterables as batches of a model's inputs."""
