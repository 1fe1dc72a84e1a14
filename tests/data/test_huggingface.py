"""Directories saved by Hugging Face's datasets."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import put
from PIL import Image

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.data import huggingface
from s2mlp_deploy.data.collect import collect
from s2mlp_deploy.data.dataset import open_data
from s2mlp_deploy.errors import DataError, ImageError, MissingDependencyError
from s2mlp_deploy.preprocess import Preprocessing

PLAIN = Preprocessing((4, 4), (0, 0, 0), (1, 1, 1), scale=1)
IMAGE = TensorInfo("input", "float32", ("batch", 3, 4, 4))


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"s2mlp-deploy\[datasets\]"):
        collect(tmp_path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "link.png", "loop.png", "a\0b"])
def test_a_row_names_no_file_outside_of_the_data_set(tmp_path: Path, name: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "secret.png").write_bytes(b"mine")
    (tmp_path / "set" / "link.png").symlink_to("../secret.png")
    (tmp_path / "set" / "loop.png").symlink_to("loop.png")
    found = huggingface._image({"path": name, "bytes": None}, tmp_path / "set", 3)
    assert isinstance(found, ImageError)
    assert "outside of the data set" in str(found)
    assert found.where == str(tmp_path / "set" / "3")


def test_a_row_may_name_a_file_of_the_data_set(tmp_path: Path) -> None:
    for name in ("a.png", str(tmp_path / "a.png"), "below/a.png"):
        assert huggingface._image({"path": name, "bytes": None}, tmp_path, 0) == tmp_path / name
    assert huggingface._image({"path": "/etc/passwd", "bytes": b"image"}, tmp_path, 0) == b"image"


class TestSaved:
    @pytest.fixture(autouse=True)
    def _package(self) -> None:
        self.datasets = pytest.importorskip("datasets")

    def images(self, count: int, names: list[str] | None = None) -> object:
        def encoded(value: int) -> bytes:
            stream = io.BytesIO()
            Image.new("RGB", (4, 4), (value, 0, 0)).save(stream, "PNG")
            return stream.getvalue()

        columns = {"image": [{"bytes": encoded(i), "path": None} for i in range(count)]}
        features = {"image": self.datasets.Image()}
        if names is not None:
            columns["label"] = [i % len(names) for i in range(count)]
            features["label"] = self.datasets.ClassLabel(names=names)
        return self.datasets.Dataset.from_dict(columns, features=self.datasets.Features(features))

    def test_images_and_class_labels(self, tmp_path: Path) -> None:
        self.images(10, ["cat", "dog"]).save_to_disk(tmp_path / "set")
        data = open_data(tmp_path / "set", inputs=[IMAGE], preprocessing=PLAIN, batch=4)
        assert data.class_names == ("cat", "dog")
        assert data.described == "10 images of set"
        found = list(data)
        assert np.concatenate([f["input"][:, 0, 0, 0] for f, _ in found]).tolist() == list(range(10))
        assert np.concatenate([labels for _, labels in found]).tolist() == [0, 1] * 5
        # Files, not pixels, are hashed: nothing is decoded, and a folder of the same files has the same hash.
        flat = tmp_path / "flat"
        self.images(10).save_to_disk(tmp_path / "bare")
        flat.mkdir()
        for index, sample in enumerate(collect(tmp_path / "bare")):
            (flat / f"{index:02}.png").write_bytes(sample.source)
        hashes = {open_data(p, inputs=[IMAGE], preprocessing=PLAIN).content_hash for p in (flat, tmp_path / "bare")}
        assert len(hashes) == 1

    def test_the_models_classes_are_matched_by_name(self, tmp_path: Path) -> None:
        self.images(4, ["cat", "dog"]).save_to_disk(tmp_path / "set")
        found = collect(tmp_path / "set", classes=["horse", "dog", "cat"])
        assert [sample.label for sample in found] == [2, 1, 2, 1]
        with pytest.raises(DataError, match="no class of the model: dog"):
            collect(tmp_path / "set", classes=["horse", "cat"])

    def test_samples_are_balanced(self, tmp_path: Path) -> None:
        self.images(30, ["cat", "dog", "cow"]).save_to_disk(tmp_path / "set")
        assert sorted(sample.label for sample in collect(tmp_path / "set", limit=6)) == [0, 0, 1, 1, 2, 2]

    def test_parts_are_named(self, tmp_path: Path) -> None:
        parts = self.datasets.DatasetDict({"train": self.images(8), "test": self.images(9)})
        parts.save_to_disk(tmp_path / "set")
        with pytest.raises(DataError, match="has parts: train, test") as caught:
            collect(tmp_path / "set")
        assert str(tmp_path / "set" / "train") in str(caught.value.fix)
        assert len(collect(tmp_path / "set" / "test")) == 9

    def test_arrays(self, tmp_path: Path) -> None:
        left = np.random.default_rng(0).standard_normal((9, 2, 3)).astype(np.float32)
        features = {
            "left": self.datasets.Array2D((2, 3), "float32"),
            "right": self.datasets.Value("int64"),
            "label": self.datasets.Value("int64"),
        }
        columns = {"left": left, "right": range(9), "label": [0, 1, 2] * 3}
        table = self.datasets.Dataset.from_dict(columns, features=self.datasets.Features(features))
        table.save_to_disk(tmp_path / "set")
        inputs = [TensorInfo("left", "float32", ("batch", 2, 3)), TensorInfo("right", "int64", ("batch",))]
        ((feeds, labels),) = open_data(tmp_path / "set", inputs=inputs, batch=9)
        np.testing.assert_array_equal(feeds["left"], left)
        assert feeds["right"].tolist() == list(range(9))
        assert labels is not None
        assert labels.tolist() == [0, 1, 2] * 3

    def test_a_data_set_in_memory_is_an_iterable(self) -> None:
        data = open_data(self.images(9, ["a", "b", "c"]), inputs=[IMAGE], preprocessing=PLAIN)
        ((feeds, labels), _) = data
        assert feeds["input"][:, 0, 0, 0].tolist() == list(range(8))
        assert labels is not None
        assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]

    def test_a_row_without_a_image_is_skipped(self, tmp_path: Path) -> None:
        table = self.images(9)
        rows = [*table.cast_column("image", self.datasets.Image(decode=False))["image"], None]
        features = self.datasets.Features({"image": self.datasets.Image()})
        self.datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(tmp_path / "set")
        data = open_data(tmp_path / "set", inputs=[IMAGE], preprocessing=PLAIN)
        assert sum(len(feeds["input"]) for feeds, _ in data) == 9
        assert data.skipped.count == 1

    def test_damage(self, tmp_path: Path) -> None:
        self.images(9).save_to_disk(tmp_path / "set")
        (tmp_path / "set" / "state.json").write_text("{")
        with pytest.raises(DataError, match="cannot be read"):
            collect(tmp_path / "set")
