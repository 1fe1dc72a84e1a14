"""``predict`` on whatever a user has: what is printed, what is saved, how it ends."""

from __future__ import annotations

import json

import numpy as np
import pytest
from image_artifact import picture, write_image_artifact
from PIL import Image

from s2mlp_deploy.api import predicting
from s2mlp_deploy.errors import InputError

pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(tmp_path):
    """Three images of which the second is damaged, the third in a folder below."""
    place = tmp_path / "images"
    (place / "more").mkdir(parents=True)
    Image.fromarray(picture("blue")).save(place / "a.png")
    (place / "b.png").write_bytes(b"no image")
    Image.fromarray(picture("green")).save(place / "more" / "c.png")
    return place


def test_a_damaged_image_is_named_and_the_others_are_printed(cli, tmp_path, folder):
    write_image_artifact(tmp_path / "a")
    result = cli("predict", tmp_path / "a", folder, "--top", 1)
    assert result.code == 2
    lines = [line.strip() for line in result.out.splitlines()]
    assert [line.split()[-1] for line in lines if "%" in line] == ["blue", "green"]
    assert "b.png" not in result.out
    assert "1 of 3 images have no prediction" in result.text
    assert f"{folder / 'b.png'}: The file is not an image" in result.text
    assert "fix:" in result.text
    assert "Traceback" not in result.err


def test_json_holds_the_error_of_that_image(cli, tmp_path, folder):
    write_image_artifact(tmp_path / "a")
    result = cli("predict", tmp_path / "a", folder, "--json")
    assert result.code == 2
    first, second, third = json.loads(result.out)
    assert first["error"] is None
    assert third["classes"][0] == "green"
    assert second["error"]["kind"] == "image"
    assert "not an image" in second["error"]["problem"]


def test_outputs_that_are_no_scores_are_printed_and_saved(cli, tmp_path, folder):
    (folder / "b.png").unlink()
    write_image_artifact(tmp_path / "a", outputs=("features",))
    target = tmp_path / "o.npz"
    result = cli("predict", tmp_path / "a", folder, "--save", target)
    assert result.code == 0, result.err
    assert "features: float32 3x8x8  0.0784314 to 0.941176" in result.out
    assert f"Saved: {target}" in result.out
    with np.load(target) as saved:
        assert saved["features"].shape == (2, 3, 8, 8)
        assert saved["images"].tolist() == [str(folder / "a.png"), str(folder / "more" / "c.png")]


def test_an_output_is_chosen(cli, tmp_path, folder):
    write_image_artifact(tmp_path / "a", classes=None)
    undecided = cli("predict", tmp_path / "a", folder / "a.png")
    assert "means and logits can all be scores" in undecided.text
    assert "logits: float32 4" in undecided.out
    chosen = cli("predict", tmp_path / "a", folder / "a.png", "--output", "logits", "--top", 1)
    assert chosen.out.split()[-1] == "2"
    assert chosen.err == ""


def test_numbers_that_are_not_finite_fail_the_check(cli, tmp_path, folder):
    (folder / "b.png").unlink()
    write_image_artifact(tmp_path / "a", bias=np.float32([np.nan] * 4))
    result = cli("predict", tmp_path / "a", folder)
    assert result.code == 1
    assert "2 of 2 images have no prediction" in result.text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing", "x.png"), "not an artifact"),
        (("a", "empty"), "there is no image in the folder"),
        (("a", "images", "--save", "o.txt"), "saved as .npz"),
        (("a", "images", "--save", "mine.npz"), "there already"),
        (("a", "images", "--output", "logit"), "no output 'logit'"),
        (("a", "images", "--output", "features"), "no list of scores"),
        (("a", "images", "--precision", "int8"), "no int8 file"),
        (("a", "images", "--threads", "1" + "0" * 12), "give a number from 1 to 4096"),
    ],
)
def test_what_cannot_be_is_refused_in_words(refused, tmp_path, folder, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    write_image_artifact(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.npz").write_bytes(b"mine")
    assert says in refused("predict", *arguments)
    assert (tmp_path / "mine.npz").read_bytes() == b"mine"


@pytest.mark.parametrize(("option", "spin"), [((), None), (("--no-spin",), False)])
def test_idle_threads_sleep_where_that_was_asked_for(refused, tmp_path, monkeypatch, folder, option, spin):
    def opened(*_, spin, **__):
        raise InputError(f"spin is {spin}", fix="none")

    monkeypatch.setattr(predicting, "Predictor", opened)
    write_image_artifact(tmp_path / "a")
    assert f"spin is {spin}" in refused("predict", tmp_path / "a", folder, *option)
