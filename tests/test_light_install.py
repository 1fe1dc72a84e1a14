"""A venv of what a service installs: the core and one runtime, no torch and no onnx."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import venv
from pathlib import Path

import pytest
from image_artifact import picture, write_image_artifact
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
IMPORT_SECONDS = 0.5

pytestmark = pytest.mark.slow


def installed(extra: str) -> Path:
    """The Python of a venv with the core and an extra; made once for each version of what it installs."""
    wanted = b"".join((REPOSITORY / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    home = REPOSITORY / "build" / f"light-{extra}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / ".whole").exists():
        venv.create(home, clear=True, with_pip=True)
        constraints = ("-c", str(REPOSITORY / "constraints.txt"))
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *constraints)
        subprocess.run([*pip, "-e", f"{REPOSITORY}[{extra}]"], check=True)
        (home / ".whole").touch()
    return python


def run(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *map(str, arguments)], env=alone, cwd=python.parent, capture_output=True, text=True, timeout=120
    )


_IMPORT = """
import time
start = time.process_time()
from s2mlp_deploy.api import Predictor
print(time.process_time() - start)
"""

_USE = """
import importlib.util, json, sys
from concurrent.futures import ThreadPoolExecutor
from s2mlp_deploy import api
missing = [name for name in ("torch", "onnx", "onnx_ir", "pyarrow", "fastapi") if importlib.util.find_spec(name)]
with api.Predictor(sys.argv[1]) as predictor, ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda _: predictor(sys.argv[2], top=1)[0].classes[0], range(8)))
    print(json.dumps([missing, predictor.plan.engine, found]))
"""


@pytest.mark.parametrize(("extra", "engine"), [("cpu", "onnxruntime"), ("openvino", "openvino")])
def test_the_core_and_a_runtime_are_enough(tmp_path, extra, engine):
    python = installed(extra)
    write_image_artifact(tmp_path / "a")
    Image.fromarray(picture("green")).save(tmp_path / "green.png")
    # Of the processor, and the best of several: the machine may be busy.
    seconds = min(float(run(python, "-c", _IMPORT).stdout) for _ in range(5))
    print(f"import in {seconds:.3f} s")
    assert seconds < IMPORT_SECONDS
    used = run(python, "-c", _USE, tmp_path / "a", tmp_path / "green.png")
    assert used.returncode == 0, used.stderr
    assert json.loads(used.stdout) == [[], engine, ["green"] * 8]
    command = (python, "-m", "s2mlp_deploy")
    told = run(*command, "predict", tmp_path / "a", tmp_path / "green.png", "--top", 1)
    assert (told.returncode, told.stdout.split()[-1]) == (0, "green"), told.stderr
    health = json.loads(run(*command, "doctor", tmp_path / "a", "--json").stdout)
    assert health["artifact"]["plan"]["engine"] == engine
    refused = run(*command, "batch", tmp_path, "-m", tmp_path / "a", "-o", tmp_path / "out")
    assert (refused.returncode, "s2mlp-deploy[batch]" in refused.stderr) == (2, True)
