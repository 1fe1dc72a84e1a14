"""What tests of the service and of packages share."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def kserve_python(tmp_path_factory) -> str:
    """A Python that has KServe's client, which wants an older protobuf: in a venv of its own unless one is named."""
    named = os.environ.get("S2MLP_KSERVE_PYTHON")
    if named is not None:
        return named
    home = tmp_path_factory.mktemp("kserve")
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = str(home / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "kserve", "numpy"]
    if subprocess.run(install, check=False, capture_output=True, timeout=250).returncode:
        pytest.skip("kserve cannot be installed here")
    return python
