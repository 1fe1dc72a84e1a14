"""Writes the files that fuzzing begins with: ``python tests/fuzz/make_corpus.py``. Those named ``fault-`` stay.

They are made by the writers of this package and of the libraries that it reads with, so a newer version of one of them
may write other bytes: the files are kept, and made anew where a format changes.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parents[1])]

from fuzzing import CORPUS, FAMILIES  # noqa: E402 - Found by the line above.


def main() -> None:
    """Writes them."""
    for name in FAMILIES:
        for reader, files in importlib.import_module(f"readers_{name}").seeds().items():
            folder = CORPUS / reader
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.iterdir():
                if not old.name.startswith("fault-"):
                    old.unlink()
            for label, data in files.items():
                (folder / label).write_bytes(data)
    print(f"{sum(path.stat().st_size for path in CORPUS.rglob('*') if path.is_file()):,} bytes")


if __name__ == "__main__":
    main()
