"""What two ONNX files say of themselves: inputs, outputs, opsets, metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from s2mlp_deploy.artifact import METADATA_KEY, TensorInfo
from s2mlp_deploy.difference.graphs import shape_of
from s2mlp_deploy.evidence.difference import Change
from s2mlp_deploy.files import from_json
from s2mlp_deploy.graph.modules import number_name

_LONGEST = 200
"""Characters of an entry that are kept."""

_DEEPEST = 6
_NONE = "none"


def tensor_infos(values: Sequence[ir.Value]) -> tuple[TensorInfo, ...]:
    """Names, types and shapes of inputs or outputs; what a file does not say is ``?``."""
    return tuple(
        TensorInfo(str(value.name or "?"), number_name(value.dtype) if value.dtype else "?", shape_of(value) or ("?",))
        for value in values
    )


def interface_changes(before: ir.Model, after: ir.Model) -> Iterator[Change]:
    """What differs of inputs, outputs, opsets and format."""
    for kind, one, other in (
        ("input", before.graph.inputs, after.graph.inputs),
        ("output", before.graph.outputs, after.graph.outputs),
    ):
        yield from _of_tensors(kind, tensor_infos(one), tensor_infos(other))
    for domain in dict.fromkeys((*before.opset_imports, *after.opset_imports)):
        versions = [str(model.opset_imports.get(domain, _NONE)) for model in (before, after)]
        if versions[0] != versions[1]:
            yield Change(f"opset of {domain}" if domain else "opset", *versions)
    if before.ir_version != after.ir_version:
        yield Change("IR version", str(before.ir_version), str(after.ir_version))
    if producer(before) != producer(after):
        yield Change("producer", producer(before), producer(after))


def producer(model: ir.Model) -> str:
    """Who wrote a file."""
    return f"{model.producer_name or 'unknown'} {model.producer_version or ''}".strip()


def _of_tensors(kind: str, before: Sequence[TensorInfo], after: Sequence[TensorInfo]) -> Iterator[Change]:
    newer = {info.name: info for info in after}
    older = {info.name for info in before}
    fresh = [info for info in after if info.name not in older]
    for info in before:
        # One of another name is taken for the first that is new.
        other = newer.get(info.name) or (fresh.pop(0) if fresh else None)
        if other is None:
            yield Change(f"{kind} {info.name}", _text(info), _NONE)
        elif info.name != other.name:
            yield Change(kind, f"{info.name}: {_text(info)}", f"{other.name}: {_text(other)}")
        elif info != other:
            yield Change(f"{kind} {info.name}", _text(info), _text(other))
    for info in fresh:
        yield Change(f"{kind} {info.name}", _NONE, _text(info))


def _text(info: TensorInfo) -> str:
    return f"{info.dtype} {'x'.join(map(str, info.shape)) or 'scalar'}"


def metadata_changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Change]:
    """What differs of the metadata; of this package's own entry part by part, equal changes of a list as one."""
    found: Counter[Change] = Counter()
    for key in dict.fromkeys((*before, *after)):
        sides = [_parsed(values.get(key)) if key == METADATA_KEY else values.get(key) for values in (before, after)]
        name = "" if key == METADATA_KEY and all(isinstance(side, dict) for side in sides) else key
        found.update(_differing(name, sides[0], sides[1], 0))
    for change, times in found.items():
        yield replace(change, what=f"{change.what} ({times} times)") if times > 1 else change


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else from_json(text)
    except ValueError:
        return text


def _differing(path: str, one: Any, other: Any, depth: int) -> Iterator[Change]:
    if one == other:
        return
    if depth < _DEEPEST and isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            yield from _differing(f"{path}.{name}" if path else str(name), one.get(name), other.get(name), depth + 1)
    elif depth < _DEEPEST and isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for before, after in zip(one, other, strict=True):
            yield from _differing(f"{path}.*", before, after, depth + 1)
    else:
        yield Change(path, _told(one), _told(other))


def _told(value: Any) -> str:
    if value is None:
        return _NONE
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return f"list of {len(value)}"
    if isinstance(value, dict):
        return _short(", ".join(f"{name}: {_told(item)}" for name, item in value.items()))
    if isinstance(value, list):
        return _short(f"[{', '.join(map(str, value))}]")
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"
