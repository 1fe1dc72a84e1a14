"""Deployment toolkit for spatial-shift MLP vision models (S2-MLP, S2-MLPv2).

The Python API is :mod:`s2mlp_deploy.api`; importing this package imports nothing heavy.
"""

__version__ = "0.1.0"
