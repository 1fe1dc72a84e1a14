"""What TensorRT's EngineInspector tells of a built engine, in the JSON of 10.x and of 11.x.

Written from its documentation and from files that others have published: none was made here. What is not known is told,
and never a reason to refuse an engine.
"""

from __future__ import annotations

import collections
import logging
import re
from collections.abc import Iterator
from typing import Any

from s2mlp_deploy.engines.tensorrt.layer_names import nodes_in
from s2mlp_deploy.evidence.build import Contents, MatrixOp
from s2mlp_deploy.files import from_json
from s2mlp_deploy.text import join_names

_LOG = logging.getLogger(__name__)

UNKNOWN, OTHER = "unknown", "other"
_LAYER_KEYS = ("Layers", "layers", "LayerInfo", "layerInfo")
# Types as they stand in formats of 10.x ("Row major linear FP16 format", "Half") and in the type field of 11.x. The
# order decides: BFloat16 holds Float16, which holds Float.
_TYPES = tuple(
    (re.compile(words), precision)
    for words, precision in (
        (r"bf16|bfloat16", "bf16"),
        (r"fp16|float16|half", "fp16"),
        (r"fp8|float8|e4m3|e5m2", "fp8"),
        (r"fp4|float4|e2m1", "fp4"),
        (r"uint8|bool|int32|int64|e8m0", OTHER),
        (r"int8", "int8"),
        (r"int4", "int4"),
        (r"fp32|float32|\bfloat\b", "fp32"),
    )
)
_MATRIX = re.compile(r"gemm|matmul|matrix_?multiply|conv", re.IGNORECASE)
# Of kernels that the compiler inside of TensorRT has fused: __myl_MulFcAdd_myl0_7.
_FUSED_MATRIX = re.compile(r"__myl_\w*?(Fc|MatMul|Gemm|Conv)")
_METADATA = "[ONNX Layer: "
_SEPARATORS = re.compile(r"[\x1e\x1f]|(?<=\])(?=\[ONNX Layer: )")


def inspected(text: str) -> Contents | None:
    """What an engine holds; None, with a warning, where the text cannot be read.

    Args:
        text: What ``EngineInspector.get_engine_information(JSON)`` returns.
    """
    try:
        return contents_of_engine(from_json(text))
    except ValueError as error:
        _LOG.warning("what the inspector says of the engine cannot be read: %s", error)
        return None


def layers_in(document: Any) -> list[Any]:
    """The layers of a document: a list, or what stands under one of several keys.

    Raises:
        ValueError: There are none.
    """
    found = document
    if isinstance(document, dict):
        found = next((document[key] for key in _LAYER_KEYS if key in document), None)
    if not isinstance(found, list):
        raise ValueError("it has no list of layers")
    return found


def contents_of_engine(document: Any) -> Contents:
    """Reads the layers of an engine.

    Raises:
        ValueError: The document has none.
    """
    entries = layers_in(document)
    layers = [layer for layer in entries if isinstance(layer, dict)]
    types = collections.Counter(str(layer.get("LayerType", "?")) for layer in layers)
    formats = collections.Counter(text for layer in layers for text in texts_of(layer, "Outputs"))
    dtypes: collections.Counter[str] = collections.Counter()
    for text, count in formats.items():
        dtypes[type_of(text)] += count
    matrix_ops = tuple(
        MatrixOp(" + ".join(onnx_names(layer)) or str(layer.get("Name", "?")), _precision(layer))
        for layer in layers
        if is_matrix(layer)
    )
    return Contents(
        "engine",
        len(entries),
        dict(types.most_common()),
        dict(sorted(dtypes.items())),
        dict(formats.most_common()),
        sum(is_reformat(layer) for layer in layers),
        matrix_ops,
        tuple(unclear_in(entries, layers)),
    )


def onnx_names(layer: dict[str, Any]) -> tuple[str, ...]:
    """The ONNX nodes that a layer was made of; empty where it does not tell."""
    metadata = layer.get("Metadata")
    if isinstance(metadata, str) and _METADATA in metadata:
        parts = (part.strip() for part in _SEPARATORS.split(metadata))
        named = (part.removeprefix(_METADATA).removesuffix("]") for part in parts if part.startswith(_METADATA))
        # Behind the name stand the local functions that the node is of.
        return tuple(dict.fromkeys(name.partition(" | ")[0] for name in named))
    return nodes_in(str(layer.get("Name", "")))


def type_of(text: str) -> str:
    """The precision in a format or a type: ``fp16`` of ``Row major linear FP16 format``; ``unknown`` where none is."""
    lower = text.lower()
    return next((precision for pattern, precision in _TYPES if pattern.search(lower)), UNKNOWN)


def texts_of(layer: dict[str, Any], side: str) -> Iterator[str]:
    """The format and type of each tensor on a side of a layer, ``Inputs`` or ``Outputs``."""
    tensors = layer.get(side)
    for tensor in tensors if isinstance(tensors, list) else ():
        if isinstance(tensor, dict):
            yield text_of(tensor)


def text_of(tensor: dict[str, Any]) -> str:
    """The format and type of a tensor."""
    # 10.x: both in one text. 11.x: apart.
    both = tensor.get("Format/Datatype")
    parts = [both] if both is not None else [tensor.get(key) for key in ("Format", "DataType", "Datatype")]
    return " ".join(str(part) for part in parts if part is not None) or "?"


def _precision(layer: dict[str, Any]) -> str:
    return type_of(next(texts_of(layer, "Inputs"), ""))


def is_matrix(layer: dict[str, Any]) -> bool:
    """Whether a layer is told to multiply matrices or to convolve."""
    if _MATRIX.search(f"{layer.get('LayerType')} {layer.get('TacticName')}"):
        return not is_reformat(layer)
    return _FUSED_MATRIX.match(str(layer.get("Name", ""))) is not None


def is_reformat(layer: dict[str, Any]) -> bool:
    """Whether a layer only changes a format or a type."""
    return "reformat" in str(layer.get("LayerType", "")).lower()


def unclear_in(entries: list[Any], layers: list[dict[str, Any]]) -> Iterator[str]:
    """What of the layers is not known here, in words."""
    if len(layers) < len(entries):
        yield (
            f"{len(entries) - len(layers)} of {len(entries)} layers are given by name alone, without types: "
            "--profiling-verbosity detailed keeps them"
        )
    texts = dict.fromkeys(text for layer in layers for side in ("Inputs", "Outputs") for text in texts_of(layer, side))
    if strange := [text for text in texts if type_of(text) == UNKNOWN]:
        yield f"types that are not known here: {join_names(map(repr, strange))}"
    if nameless := [str(layer.get("Name", "?")) for layer in layers if is_matrix(layer) and not onnx_names(layer)]:
        yield f"GEMMs and convolutions without the names of their nodes: {join_names(nameless)}"
