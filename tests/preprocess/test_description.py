"""Descriptions of a preprocessing, and the sidecars they are read from."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
from preprocess_images import IMAGENET

from s2mlp_deploy.errors import PreprocessingError
from s2mlp_deploy.preprocess import Preprocessing, load_sidecar


class TestDescription:
    def test_reads_a_timm_pretrained_cfg(self) -> None:
        description = Preprocessing.from_dict(
            {
                "url": "",
                "num_classes": 1000,
                "input_size": [3, 224, 256],
                "test_input_size": [3, 288, 288],
                "min_input_size": [3, 32, 32],
                "pool_size": None,
                "crop_pct": 0.9,
                "crop_mode": "squash",
                "interpolation": "bilinear",
                "mean": list(IMAGENET["mean"]),
                "std": list(IMAGENET["std"]),
                "classifier": "head",
            }
        )
        assert description == Preprocessing(
            (224, 256), **IMAGENET, interpolation="bilinear", crop_pct=0.9, crop_mode="squash"
        )

    def test_one_channel_of_timm_means_luma(self) -> None:
        assert Preprocessing.from_dict({"input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}).color == "L"

    def test_nulls_count_as_absent(self) -> None:
        description = Preprocessing.from_dict({"size": 8, **IMAGENET, "crop_mode": None, "crop_pct": None})
        assert description == Preprocessing((8, 8), **IMAGENET)

    @pytest.mark.parametrize("size", [32, [32, 32], (32, 32)])
    @pytest.mark.parametrize("key", ["size", "image_size"])
    def test_sizes(self, key: str, size: object) -> None:
        assert Preprocessing.from_dict({key: size, **IMAGENET}).size == (32, 32)

    @pytest.mark.parametrize(
        "description",
        [
            Preprocessing((224, 192), **IMAGENET, interpolation="lanczos", crop_pct=0.875, crop_mode="border"),
            Preprocessing((8, 8), (0.5,), (0.25,), color="L", interpolation="none"),
            Preprocessing((8, 8), (103.94, 116.78, 123.68), (1, 1, 1), color="BGR", scale=1),
        ],
    )
    def test_round_trip_through_json(self, description: Preprocessing) -> None:
        assert Preprocessing.from_dict(json.loads(json.dumps(description.to_dict()))) == description

    @pytest.mark.parametrize(
        ("change", "field", "fix"),
        [
            ({"size": [32]}, "size", "[height, width]"),
            ({"size": [32, 32, 32]}, "size", "[height, width]"),
            ({"size": [32, 0]}, "size", "above 0"),
            ({"size": [32.5, 32]}, "size", "whole"),
            ({"size": True}, "size", "whole"),
            ({"size": "32"}, "size", "whole"),
            ({"size": [10**6, 10**6]}, "size", "pixels"),
            ({"image_size": 48}, "size and image_size", "keep one"),
            ({"input_size": [3, 32]}, "input_size", "[channels, height, width]"),
            ({"input_size": [4, 32, 32]}, "input_size", "3 channels"),
            ({"std": [0.2, 0, 0.2]}, "std", "above 0"),
            ({"std": [0.2, -1, 0.2]}, "std", "above 0"),
            ({"std": [0.2, math.nan, 0.2]}, "std", "finite"),
            ({"mean": [0.5, 0.5]}, "mean", "3"),
            ({"mean": [0.5]}, "mean", "3"),
            ({"mean": 0.5}, "mean", "list of 3"),
            ({"mean": [0.5, "0.5", 0.5]}, "mean", "number"),
            ({"mean": [123.7, 116.3, 103.5]}, "mean", "scale to 1"),
            ({"color": "L"}, "mean", "one for each channel of L"),
            ({"color": "rgba"}, "color", "RGB, BGR, L"),
            ({"interpolation": "cubic"}, "interpolation", "bicubic"),
            ({"interpolation": 3}, "interpolation", "bicubic"),
            ({"interpolation": "none", "crop_pct": 0.9}, "interpolation", "drop one"),
            ({"crop_mode": "middle"}, "crop_mode", "center"),
            ({"crop_pct": 0}, "crop_pct", "above 0"),
            ({"crop_pct": 1.1}, "crop_pct", "at most 1"),
            ({"crop_pct": "0.9"}, "crop_pct", "number"),
            ({"scale": 0}, "scale", "1/255"),
            ({"interpolaton": "bicubic"}, "interpolaton", "did you mean 'interpolation'"),
            ({"img_size": 32}, "img_size", "did you mean 'image_size'"),
        ],
    )
    def test_bad_values_name_the_field_and_the_fix(self, change: dict[str, object], field: str, fix: str) -> None:
        with pytest.raises(PreprocessingError) as caught:
            Preprocessing.from_dict({"size": [32, 32], **IMAGENET, **change})
        assert caught.value.where == field
        assert fix in str(caught.value.fix)

    @pytest.mark.parametrize("field", ["size", "mean", "std"])
    def test_what_has_no_default_is_asked_for(self, field: str) -> None:
        values = {"size": 8, **IMAGENET}
        del values[field]
        with pytest.raises(PreprocessingError, match=f"{field} is missing"):
            Preprocessing.from_dict(values)


class TestSidecar:
    def write(self, folder: Path, content: object) -> Path:
        path = folder / "model.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    def test_all_parts(self, tmp_path: Path) -> None:
        content = {
            "architecture": "net",
            "config": {"image_size": 48},
            "mean": [0.4914, 0.4822, 0.4465],
            "std": [0.247, 0.2435, 0.2616],
            "image_size": [32, 32],
            "interpolation": "none (already 32x32)",
            "color": "RGB",
            "classes": ["cat", "dog"],
            "test_accuracy": 0.8,
            "test_images": 10000,
        }
        sidecar = load_sidecar(self.write(tmp_path, content))
        assert sidecar.architecture == "net"
        assert sidecar.config == {"image_size": 48}
        assert sidecar.classes == ("cat", "dog")
        wanted = Preprocessing((32, 32), (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), interpolation="none")
        assert sidecar.preprocessing == wanted

    @pytest.mark.parametrize("key", ["pretrained_cfg", "preprocessing"])
    def test_nested_preprocessing(self, tmp_path: Path, key: str) -> None:
        content = {"architecture": "net", key: {"input_size": [3, 8, 8], **IMAGENET}}
        assert load_sidecar(self.write(tmp_path, content)).preprocessing == Preprocessing((8, 8), **IMAGENET)

    def test_silence_about_preprocessing_is_none(self, tmp_path: Path) -> None:
        sidecar = load_sidecar(self.write(tmp_path, {"config": {"depth": 3}}))
        assert sidecar.preprocessing is None
        assert sidecar.classes is None
        assert sidecar.architecture is None

    def test_facts_of_timm_that_are_like_ours_are_no_slips(self, tmp_path: Path) -> None:
        cfg = {"input_size": [3, 8, 8], "test_input_size": [3, 9, 9], "pool_size": [7, 7], "num_classes": 2, **IMAGENET}
        content = {"architecture": "net", "num_classes": 2, "num_features": 8, "global_pool": "", "pretrained_cfg": cfg}
        sidecar = load_sidecar(self.write(tmp_path, content | {"label_names": ["n01", "n02"]}))
        assert sidecar.preprocessing == Preprocessing((8, 8), **IMAGENET)
        assert sidecar.classes == ("n01", "n02")

    def test_byte_order_mark(self, tmp_path: Path) -> None:
        assert load_sidecar(self.write(tmp_path, b'\xef\xbb\xbf{"architecture": "net"}')).architecture == "net"

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "not JSON"),
            (b"{'mean': 1}", "not JSON"),
            (b"\xff\xfe\x00", "not JSON"),
            ([1, 2], "no JSON object"),
            ({"architecture": 3}, "architecture"),
            ({"config": [1]}, "config"),
            ({"classes": 10}, "classes"),
            ({"classes": []}, "classes"),
            ({"classes": ["a", 1]}, "classes"),
            ({"pretrained_cfg": "default"}, "preprocessing"),
            ({"class_names": ["cat", "dog"]}, "did you mean 'classes'?"),
            ({"labels": ["cat", "dog"]}, "did you mean 'classes'?"),
            ({"Classes": ["cat", "dog"]}, "did you mean 'classes'?"),
            ({"architectur": "net"}, "did you mean 'architecture'?"),
            ({"size": 8, "image_mean": [0, 0, 0], "std": [1, 1, 1]}, "did you mean 'mean'?"),
            ({"size": 8, "means": [0, 0, 0], "std": [1, 1, 1]}, "did you mean 'mean'?"),
            ({"size": 8, **IMAGENET, "colour": "BGR"}, "did you mean 'color'?"),
            ({"size": 8, **IMAGENET, "crop_percent": 0.9}, "did you mean 'crop_pct'?"),
            ({"preprocessing": {"size": 8, **IMAGENET, "gamma": 2.2}}, "known are size"),
            ({"image_size": 32}, "mean is missing"),
            ({"image_size": 32, "mean": [0, 0, 0], "std": [1, 0, 1]}, "std"),
        ],
    )
    def test_bad_files_are_named(self, tmp_path: Path, content: object, says: str) -> None:
        path = self.write(tmp_path, content)
        with pytest.raises(PreprocessingError) as caught:
            load_sidecar(path)
        assert says in str(caught.value)
        assert str(path) in str(caught.value.where)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(PreprocessingError, match="cannot be read"):
            load_sidecar(tmp_path / "absent.json")


@pytest.mark.parametrize("field", ["crop_pct", "scale", "mean", "std"])
@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e305"])
def test_a_number_that_is_too_large_for_a_float_is_refused(tmp_path, field, number):
    value = f"[{number}, 0.5, 0.5]" if field in ("mean", "std") else number
    fields = {"size": "8", "mean": "[0, 0, 0]", "std": "[1, 1, 1]"} | {field: value}
    (tmp_path / "a.json").write_text("{" + ", ".join(f'"{name}": {text}' for name, text in fields.items()) + "}")
    with pytest.raises(PreprocessingError, match=field):
        load_sidecar(tmp_path / "a.json")


def test_a_hundred_thousand_keys_are_not_looked_through(tmp_path):
    keys = ", ".join(f'"mea{number}": 0' for number in range(60_000))
    (tmp_path / "a.json").write_text(f"{{{keys}}}")
    start = time.process_time()
    with pytest.raises(PreprocessingError, match="60,000 keys"):
        load_sidecar(tmp_path / "a.json")
    assert time.process_time() - start < 2
