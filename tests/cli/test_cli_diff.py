"""``diff``: what it says, where it writes, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_graphs import FLOAT, constant, model, node, save, value
from tiny_artifact import add_tiny, write_tiny

PRECISIONS = ("fp32", "fp16")


def content(op: str = "Relu", scale: float = 1.0, **options) -> bytes:
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32) * scale
    made = model(
        [
            node("MatMul", ["x", "fc.weight_t"], ["h"], "blocks.0.fc/MatMul"),
            node(op, ["h"], ["y"], f"blocks.0.act/{op}"),
        ],
        [value("x", FLOAT, ["n", 8])],
        [value("y", FLOAT, ["n", 8])],
        [constant("fc.weight_t", weight)],
        **options,
    )
    return onnx.shape_inference.infer_shapes(made).SerializeToString()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
    paths[0].write_bytes(content())
    paths[1].write_bytes(content("Elu", 1.5, opset=21))
    return paths


@pytest.mark.parametrize("width", ["60", "80", ""])
def test_two_files(cli, files, monkeypatch, width) -> None:
    if width:
        monkeypatch.setenv("COLUMNS", width)
    result = cli("diff", *files, "--module", "act")
    assert result.code == 0, result.err
    text = result.told
    assert "1 node changed, 1 weight differs" in text
    assert "blocks.0" in text
    assert "~ Elu blocks.0.act/Elu: operator Relu > Elu" in text
    assert "fc.weight_t" in text
    if width:
        listed = [line for line in result.out.splitlines() if "/" not in line]
        assert max(map(len, listed)) <= int(width)


def test_exit_code_is_1_where_asked_for_and_different(cli, files) -> None:
    assert cli("diff", *files, "--exit-code").code == 1
    same = cli("diff", files[0], files[0], "--exit-code")
    assert (same.code, "identical" in same.out, "the same file" in same.out) == (0, True, True)
    copy = files[0].with_name("copy.onnx")
    shutil.copy(files[0], copy)
    assert "the same file" not in cli("diff", files[0], copy).out


def test_json_holds_everything(cli, files) -> None:
    result = cli("diff", *files, "--json")
    found = json.loads(result.out)["files"][0]
    assert [item["op"] for item in found["nodes"]] == ["Elu"]
    assert found["weights"][0]["max_abs"] > 0
    assert found["interface"] == [{"what": "opset", "before": "20", "after": "21"}]
    assert found["modules"][0]["path"] == "blocks.0.fc"


def test_the_page_is_self_contained_and_escaped(cli, files, tmp_path) -> None:
    from report_samples import Page

    graph = onnx.load(files[1])
    graph.graph.node[1].name = "blocks.0.<script>alert(1)</script>act/Elu"
    onnx.helper.set_model_props(graph, {"<b>": "<img src=x>"})
    save(graph, files[1])
    page = tmp_path / "diff.html"
    assert cli("diff", *files, "--html", page).code == 0
    text = page.read_text()
    read = Page(text)
    assert read.mistakes == []
    assert not {"script", "img", "link"} & {tag for tag, _ in read.elements}
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http://www.w3.org", "")
    # It may be replaced, for it is ours; another's page may not.
    assert cli("diff", *files, "--html", page).code == 0
    page.write_text("<html>mine</html>")
    refused = cli("diff", *files, "--html", page)
    assert (refused.code, page.read_text()) == (2, "<html>mine</html>")


def test_two_artifacts_are_compared_file_by_file(cli, tmp_path) -> None:
    older, newer = tmp_path / "older", tmp_path / "newer"
    write_tiny(older, content())
    write_tiny(newer, content("Elu"))
    add_tiny(newer, {"model.fp16.onnx": content()})
    found = json.loads(cli("diff", older, newer, "--json").out)
    assert [Path(item["after"]["file"]).name for item in found["files"]] == ["model.fp32.onnx"]
    assert (found["only_before"], found["only_after"]) == ([], ["model.fp16.onnx"])
    assert "only in B: model.fp16.onnx" in cli("diff", older, newer).out
    assert json.loads(cli("diff", older, newer, "--precision", "fp32", "--json").out)["only_after"] == []
    one = newer / "model.fp16.onnx"
    assert cli("diff", one, newer, "--precision", "fp16").code == 0


def test_what_is_refused(cli, refused, files, tmp_path) -> None:
    a, b = files
    artifact = tmp_path / "artifact"
    write_tiny(artifact, content())
    add_tiny(artifact, {"model.fp16.onnx": content()})
    assert "--precision NAME" in refused("diff", a, artifact)
    assert "no int8 file" in refused("diff", a, artifact, "--precision", "int8")
    assert "neither is one" in refused("diff", a, b, "--precision", "fp32")
    assert "no such file or artifact" in refused("diff", a, tmp_path / "nothing.onnx")
    assert "not an artifact" in refused("diff", a, tmp_path)
    assert "regular expression" in refused("diff", a, b, "--module", "(")
    unused = cli("diff", a, b, "--json", "--depth", "2")
    assert (unused.code, "leave --depth out" in unused.text) == (2, True)
    assert "folder" in refused("diff", a, b, "--html", tmp_path)
    for name in ("model.engine", "model.plan", "layers.json"):
        (tmp_path / name).write_bytes(b"{}")
        assert "ONNX files that the engines were built from" in refused("diff", a, tmp_path / name)
    (tmp_path / "text.onnx").write_text("no graph")
    assert "not an ONNX file" in refused("diff", tmp_path / "text.onnx", b)
    (tmp_path / "cut.onnx").write_bytes(a.read_bytes()[:-40])
    assert "ONNX" in refused("diff", a, tmp_path / "cut.onnx")
    beside = onnx.load(a)
    onnx.save(beside, tmp_path / "beside.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    assert cli("diff", a, tmp_path / "beside.onnx", "--exit-code").code in (0, 1)
    (tmp_path / "w.data").unlink()
    assert "missing: w.data" in refused("diff", a, tmp_path / "beside.onnx")
