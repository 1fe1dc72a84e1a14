"""Artifacts in the form that other servers and platforms take: Triton, Docker, KServe."""
