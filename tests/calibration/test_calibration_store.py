"""Statistics on disk."""

from __future__ import annotations

import json
import os
import random
import zipfile

import numpy as np
import pytest

pytest.importorskip("onnx_ir")
from s2mlp_deploy.calibration import store
from s2mlp_deploy.calibration.histogram import Histogram
from s2mlp_deploy.calibration.observe import Statistics
from s2mlp_deploy.calibration.store import Key, load, save
from s2mlp_deploy.errors import OutputError, QuantizationError

KEY = Key("graph" * 12, "data" * 16, '{"size":[4,4]}')


def some_statistics() -> Statistics:
    histograms = {}
    for index, name in enumerate(("a/Gelu.out", "ü")):
        histograms[name] = Histogram()
        histograms[name].update(np.random.default_rng(index).normal(0, 3**index, 500).astype(np.float32))
    return Statistics(histograms, {"a/Gelu.out": 3.25, "b": 1e30, "c": 0.0}, {"ü": 12}, samples=17, skipped=3)


def assert_equal(one: Statistics, other: Statistics) -> None:
    assert (one.magnitudes, one.samples, one.skipped) == (other.magnitudes, other.samples, other.skipped)
    assert one.subnormal == other.subnormal
    assert list(one.histograms) == list(other.histograms)
    for name, histogram in one.histograms.items():
        np.testing.assert_array_equal(histogram.counts, other.histograms[name].counts)
        found = other.histograms[name]
        assert (histogram.limit, histogram.minimum, histogram.maximum) == (found.limit, found.minimum, found.maximum)


@pytest.mark.parametrize("complete", [True, False])
def test_what_was_saved_is_read(tmp_path, complete):
    save(tmp_path / "c.npz", KEY, some_statistics(), complete=complete)
    found, whole = load(tmp_path / "c.npz", KEY)
    assert whole is complete
    assert_equal(found, some_statistics())


def test_what_is_read_can_grow_further(tmp_path):
    save(tmp_path / "c.npz", KEY, some_statistics(), complete=False)
    found, _ = load(tmp_path / "c.npz", KEY)
    more = np.float32([100.0, -7.0])
    expected = some_statistics().histograms["ü"]
    expected.update(more)
    found.histograms["ü"].update(more)
    np.testing.assert_array_equal(found.histograms["ü"].counts, expected.counts)


def test_no_file_and_no_histograms_are_no_error(tmp_path):
    assert load(tmp_path / "nothing.npz", KEY) is None
    only = Statistics(magnitudes={"x": 1.0}, samples=4)
    save(tmp_path / "c.npz", KEY, only, complete=True)
    assert_equal(load(tmp_path / "c.npz", KEY)[0], only)


@pytest.mark.parametrize("key", [Key(KEY.graph, "other", KEY.preprocessing), Key(KEY.graph, KEY.data, "")])
def test_other_data_or_preprocessing_is_measured_anew(tmp_path, key):
    save(tmp_path / "c.npz", KEY, some_statistics(), complete=True)
    assert load(tmp_path / "c.npz", key) is None
    with pytest.raises(QuantizationError, match="other data or preprocessing"):
        load(tmp_path / "c.npz", key, foreign="refuse")
    assert load(tmp_path / "c.npz", key, foreign="ignore") is None


def test_another_graph_is_refused_or_ignored_as_told(tmp_path):
    save(tmp_path / "c.npz", KEY, some_statistics(), complete=True)
    other = Key("other", KEY.data, KEY.preprocessing)
    with pytest.raises(QuantizationError, match="another graph") as caught:
        load(tmp_path / "c.npz", other)
    assert "--calibration-cache" in str(caught.value)
    assert load(tmp_path / "c.npz", other, foreign="ignore") is None


def refused(path) -> None:
    with pytest.raises(QuantizationError) as caught:
        load(path, KEY)
    assert str(path) in str(caught.value)
    assert caught.value.fix


def test_what_is_no_cache_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    for content in (b"", b"no cache", b"PK\x03\x04 nearly", bytes(5000)):
        path.write_bytes(content)
        refused(path)
    np.savez(path, other=np.zeros(3))
    refused(path)
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    refused(path)
    np.savez(path, described=np.array({"a": 1}, dtype=object))
    refused(path)
    np.savez(path, described=np.array(json.dumps([1, 2])))
    refused(path)


def test_damage_anywhere_is_refused_or_changes_nothing(tmp_path):
    path, chance = tmp_path / "c.npz", random.Random(0)
    save(path, KEY, some_statistics(), complete=True)
    whole = path.read_bytes()
    refusals = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged if chance.random() < 0.7 else whole[: chance.randrange(len(whole))])
        try:
            found = load(path, KEY)
        except QuantizationError:
            refusals += 1
            continue
        assert found is not None
        assert_equal(found[0], some_statistics())
    assert refusals > 100


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save(tmp_path / "file" / "c.npz", KEY, some_statistics(), complete=True)


def edited(path, **changes) -> None:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files} | changes
    np.savez_compressed(path, **arrays)


CHANGES = {
    "nan": lambda bounds: bounds * np.nan,
    "tiny": lambda bounds: bounds * 1e-6,
    "turned": lambda bounds: bounds[:, [0, 2, 1]],
    "one": lambda bounds: bounds + np.eye(*bounds.shape),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("foreign", ["refuse", "refuse graph", "ignore"])
def test_a_cache_that_was_edited_is_refused(tmp_path, change, foreign):
    path = tmp_path / "c.npz"
    save(path, KEY, some_statistics(), complete=True)
    with np.load(path) as stored:
        bounds = stored["bounds"]
    edited(path, bounds=CHANGES[change](bounds))
    with pytest.raises(QuantizationError, match="changed since it was written"):
        load(path, KEY, foreign=foreign)


@pytest.mark.parametrize("change", ["nan", "turned"])
def test_ranges_that_no_run_has_measured_are_refused_also_with_a_right_hash(tmp_path, monkeypatch, change):
    path = tmp_path / "c.npz"
    save(path, KEY, some_statistics(), complete=True)
    monkeypatch.setattr(store, "_digest", lambda arrays: "same")
    save(path, KEY, some_statistics(), complete=True)
    assert load(path, KEY) is not None
    with np.load(path) as stored:
        bounds = stored["bounds"]
    edited(path, bounds=CHANGES[change](bounds))
    with pytest.raises(QuantizationError, match=r"NaN|do not fit together"):
        load(path, KEY)


def test_a_cache_of_an_earlier_version_is_replaced_unless_it_was_named(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    with monkeypatch.context() as patch:
        patch.setattr(store, "_VERSION", 1)
        save(path, KEY, some_statistics(), complete=True)
    assert load(path, KEY) is None
    with pytest.raises(QuantizationError):
        load(path, KEY, foreign="refuse")


def test_what_unpacks_to_gigabytes_or_is_a_pipe_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    save(path, KEY, some_statistics(), complete=True)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("big.npy", "w") as stream:
        for _ in range(1100):
            stream.write(bytes(2**20))
    refused(path)
    os.mkfifo(tmp_path / "pipe.npz")
    refused(tmp_path / "pipe.npz")
