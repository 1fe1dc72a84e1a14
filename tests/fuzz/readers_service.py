"""Requests to a service, by HTTP and gRPC, and the lists and tables of a batch."""

from __future__ import annotations

import contextlib
import io
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import Reader
from google.protobuf.message import DecodeError
from mutating import behind_a_line, json_text, protobuf, some_bytes, words

from s2mlp_deploy.artifact import SizeLimit, TensorInfo
from s2mlp_deploy.errors import S2MLPDeployError
from s2mlp_deploy.preprocess import open_image
from s2mlp_deploy.serving.batch.inputs import open_input
from s2mlp_deploy.serving.batch.output import Counts, _done
from s2mlp_deploy.serving.service.grpc_messages import CLASSES
from s2mlp_deploy.serving.service.grpc_server import decode
from s2mlp_deploy.serving.service.limits import decompress
from s2mlp_deploy.serving.service.protocol import (
    InferRequest,
    check_feeds,
    check_outputs,
    decode_request,
    encode_response,
)

_TAKES = (TensorInfo("x", "float32", ("batch", 2)), TensorInfo("y", "int64", ("batch",)))
_LIMITS = (SizeLimit("x", 0, "batch", 1, 8),)


def _answer(request: InferRequest) -> None:
    check_outputs(_TAKES, request.outputs)
    check_feeds(_TAKES, _LIMITS, request.feeds)
    encode_response("m", "1", request, request.feeds)


def _http(data: bytes, folder: Path) -> None:
    """The header with the length of the JSON in a line, then the body."""
    header, _, body = data.partition(b"\n")
    _answer(decode_request(body, header.decode("latin-1") or None))


def _packed(data: bytes, folder: Path) -> None:
    with contextlib.suppress(S2MLPDeployError):
        decompress(data, "deflate", 1000)
    _answer(decode_request(decompress(data, "gzip", 10**6), None))


def _grpc(data: bytes, folder: Path) -> None:
    for name, kind in CLASSES.items():
        with contextlib.suppress(DecodeError):
            message = kind.FromString(data)
            if name == "ModelInferRequest":
                _answer(decode(message))


def _images(found: object) -> None:
    for chunk in islice(found.chunks, 4):
        for image in islice(chunk.images(), 8):
            with contextlib.suppress(S2MLPDeployError):
                open_image(image.source)


def _table(data: bytes, folder: Path) -> None:
    path = folder / "photos.parquet"
    path.write_bytes(data)
    _images(open_input(path, column=None, size=2))


def _list(data: bytes, folder: Path) -> None:
    path = folder / "photos.txt"
    path.write_bytes(data)
    _images(open_input(path, column=None, size=2))


def _part(data: bytes, folder: Path) -> None:
    (folder / "part-000000.parquet").write_bytes(data)
    dict(_done(folder))


READERS = (
    Reader("service/http", _http, behind_a_line(json_text), leaves=frozenset()),
    Reader("service/gzip", _packed, leaves=frozenset()),
    Reader("service/grpc", _grpc, protobuf, leaves=frozenset()),
    Reader("service/table", _table, some_bytes, leaves=frozenset({"photos.parquet"})),
    Reader("service/list", _list, words(("a.png", "../b.png", "\n", "/etc/passwd")), leaves=frozenset({"photos.txt"})),
    Reader("service/part", _part, some_bytes, leaves=frozenset({"part-000000.parquet"})),
)


def seeds() -> dict[str, dict[str, bytes]]:
    """By reader and name the files to begin with."""
    import gzip

    from s2mlp_deploy.files import to_json
    from s2mlp_deploy.serving.batch.output import _COUNTS

    x = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[0.5, 2]]}
    y = {"name": "y", "shape": [1], "datatype": "INT64", "data": [7]}
    plain = json.dumps({"id": "7", "inputs": [x, y], "outputs": [{"name": "x", "parameters": {"binary_data": True}}]})
    sent = {**x, "parameters": {"binary_data_size": 8}}
    del sent["data"]
    head = json.dumps({"inputs": [sent, y]}).encode()
    request = CLASSES["ModelInferRequest"](model_name="m", id="7")
    raw = CLASSES["ModelInferRequest"](model_name="m")
    for message in (request, raw):
        message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
        message.inputs.add(name="y", datatype="INT64", shape=[1])
    request.inputs[0].contents.fp32_contents.extend([0.5, 2])
    request.inputs[1].contents.int64_contents.append(7)
    raw.raw_input_contents.extend([bytes(8), bytes(8)])
    tables: dict[str, bytes] = {}
    for name, table in {
        "bytes": pa.table({"image": pa.array([b"\x89PNG", None], pa.binary())}),
        "paths": pa.table({"path": ["a.png", "b.png"], "label": ["a", "b"]}),
        "both": pa.table({"image": pa.array([{"bytes": b"P6", "path": "a.ppm"}, {"bytes": None, "path": "b.png"}])}),
    }.items():
        stream = io.BytesIO()
        pq.write_table(table, stream)
        tables[name] = stream.getvalue()
    done = io.BytesIO()
    scores = pa.table({"image": ["a"], "score": [0.5]}).replace_schema_metadata({_COUNTS: to_json(Counts(1))})
    pq.write_table(scores, done)
    return {
        "service/http": {
            "json": b"\n" + plain.encode(),
            "binary": str(len(head)).encode() + b"\n" + head + np.float32([1, 2]).tobytes(),
        },
        "service/gzip": {"whole": gzip.compress(plain.encode(), mtime=0)},
        "service/grpc": {"lists": request.SerializeToString(), "raw": raw.SerializeToString()},
        "service/table": tables,
        "service/list": {"two": b"a.png\n../b.png\n"},
        "service/part": {"one": done.getvalue()},
    }
