"""Classifying more images than fit a moment: in chunks, by several processes or Ray, into a Parquet data set."""
