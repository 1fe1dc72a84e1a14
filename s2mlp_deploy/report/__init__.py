"""Saved results as pages and tables: reads manifests and evidence files, never engines, graphs or torch."""
