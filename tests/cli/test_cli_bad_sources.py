"""ONNX files that are no source: status 2, the way out, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_graphs
import pytest
from onnx import TensorProto, helper
from onnx_sources import DYNAMO, parsed

pytest.importorskip("torch")

from s2mlp_deploy.sources import onnx_file


def _truncated(model: onnx.ModelProto, folder: Path) -> bytes:
    whole = model.SerializeToString()
    return whole[: len(whole) // 2]


def _cyclic(model: onnx.ModelProto, folder: Path) -> None:
    model.graph.node[0].input[0] = "y"


def _without_a_constant(model: onnx.ModelProto, folder: Path) -> None:
    del model.graph.initializer[0]


def _unknown(model: onnx.ModelProto, folder: Path) -> None:
    model.graph.node[0].op_type = "Frobnicate"


def _old(model: onnx.ModelProto, folder: Path) -> None:
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.append(onnx_graphs.node("Relu", ["x"], ["y"]))
    model.ir_version, model.opset_import[0].version = 4, 9


def _text(model: onnx.ModelProto, folder: Path) -> None:
    model.graph.node.append(onnx_graphs.node("Cast", ["x"], ["t"], to=TensorProto.STRING))
    model.graph.output.append(onnx_graphs.value("t", TensorProto.STRING, ["N", 6, 5, 4]))


def _sequence(model: onnx.ModelProto, folder: Path) -> None:
    model.graph.node.append(onnx_graphs.node("SequenceConstruct", ["x"], ["s"]))
    model.graph.output.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["N", 6, 5, 4]))


def _as_it_is(model: onnx.ModelProto, folder: Path) -> None:
    pass


def _beside(place: str) -> Callable[[onnx.ModelProto, Path], None]:
    def change(model: onnx.ModelProto, folder: Path) -> None:
        (folder.parent / "elsewhere.bin").write_bytes(bytes(64))
        (folder / "link.bin").symlink_to(folder.parent / "elsewhere.bin")
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.ClearField("int64_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", place.format(parent=folder.parent)

    return change


BAD: dict[str, tuple[Callable[[onnx.ModelProto, Path], bytes | None], str]] = {
    "truncated": (_truncated, "not an ONNX file"),
    "cyclic": (_cyclic, "it has a cycle"),
    "a constant is missing": (_without_a_constant, "'zero'"),
    "no such operator": (_unknown, "Frobnicate"),
    "opset 9": (_old, "export it again for opset 11"),
    "text": (_text, "extract_model"),
    "a sequence": (_sequence, "extract_model"),
    "too many nodes": (_as_it_is, "at most 5 are looked through"),
    "weights that are not there": (_beside("weights.bin"), "weights.bin"),
    "weights outside of the folder": (_beside("../elsewhere.bin"), "outside of its folder"),
    "weights at an absolute place": (_beside("{parent}/elsewhere.bin"), "outside of its folder"),
    "weights behind a link": (_beside("link.bin"), "outside of its folder"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_source_is_refused(refused, tmp_path, monkeypatch, kind):
    change, said = BAD[kind]
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.chdir(folder)
    model = parsed(DYNAMO)
    content = change(model, folder)
    Path("net.onnx").write_bytes(model.SerializeToString() if content is None else content)
    if kind == "too many nodes":
        monkeypatch.setattr(onnx_file, "MOST_NODES", 5)
    before = sorted(folder.iterdir())
    assert said in refused("export", "net.onnx", "--output", "out")
    assert said in refused("export", "net.onnx", "--output", "out", "--precision", "fp16")
    assert sorted(folder.iterdir()) == before
