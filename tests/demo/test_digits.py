"""The demo's images go into a folder of their own."""

from __future__ import annotations

import nano_artifact
import numpy as np
import pytest

from s2mlp_deploy.demo.digits import Digits, write_pngs
from s2mlp_deploy.errors import OutputError

DIGITS = Digits(np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2), np.array([0, 1, 0]))


def test_images_are_written_by_label_and_again(tmp_path):
    write_pngs(DIGITS, tmp_path / "images")
    before = nano_artifact.snapshot(tmp_path)
    assert set(before) == {"images/0/0000.png", "images/1/0001.png", "images/0/0002.png"}
    (tmp_path / "images/1/0001.png").unlink()
    write_pngs(DIGITS, tmp_path / "images")
    assert nano_artifact.snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["0/0000.png", "0/0003.png", "holiday.png", "a/b/c.txt"])
def test_a_folder_with_anything_else_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(OutputError, match="the demo's images"):
        write_pngs(DIGITS, tmp_path)
    assert nano_artifact.snapshot(tmp_path) == {name: b"mine"}
