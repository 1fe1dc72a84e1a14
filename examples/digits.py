"""Lays out what the guides work with: handwritten digits, and the checkpoint of a network that was trained on them.

    python examples/digits.py

writes ``build/train`` and ``build/images`` (4,000 and 1,000 digits of MNIST, a folder for each class) and
``build/digits.safetensors`` with its description ``build/digits.json``. Another folder than ``build`` may be named.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from s2mlp_deploy.demo.digits import load_digits, weights_path, write_pngs


def main(place: Path) -> None:
    """Writes images and checkpoint below ``place``; what is there already stays the same."""
    train, held_out = load_digits()
    write_pngs(train, place / "train")
    write_pngs(held_out, place / "images")
    for file in (weights_path(), weights_path().with_suffix(".json")):
        shutil.copyfile(file, place / f"digits{file.suffix}")
    print(f"{place}/train, {place}/images, {place}/digits.safetensors, {place}/digits.json")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build"))
