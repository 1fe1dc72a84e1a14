"""Preprocessing as a part of the graph: decoded images go in, and the graph resizes, crops and normalises them.

Python's own preprocessing (:mod:`s2mlp_deploy.preprocess`) resizes with Pillow, so this graph computes what Pillow
computes: a weight for each pair of an output and an input position, summed along the rows, rounded to 8 bits, then
summed along the columns and rounded again. Both sums are matrix products whose weights the graph computes from the
image's size. ONNX has Resize with ``antialias`` for this, and it is not used, for three reasons that were measured
(``docs/reference/preprocessing.md``): TensorRT-RTX's parser refuses it; ONNX Runtime's linear mode weighs the image's
border differently (up to 14 of 255 steps) and refuses ``exclude_outside``, which would mend that; and it has no
Lanczos, Hamming or box filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from s2mlp_deploy.artifact import TensorInfo
from s2mlp_deploy.errors import ExportError
from s2mlp_deploy.export.filters import FILTERS, SCOPE, Builder, Part
from s2mlp_deploy.export.graph_builder import END
from s2mlp_deploy.export.write import tensor_infos
from s2mlp_deploy.preprocess import Preprocessing, mean_colour

IMAGE = "image"
"""Name of the graph's input: uint8, [batch, height, width, 3], RGB as decoded."""

_LUMA = np.array([19595, 38470, 7471], np.float32)
"""Pillow's weights of red, green and blue for mode L, in parts of 65536. Sums stay below 2**24: float32 is exact."""


def add_preprocessing(model: ir.Model, preprocessing: Preprocessing) -> ir.Model:
    """Puts the preprocessing in front of a network, in a copy of its graph; weights are shared, not copied.

    Precondition: the graph's only input is a float image of fixed channels, height and width, [batch, C, H, W].
    Postconditions: the only input is :data:`IMAGE`, uint8, [batch, height, width, 3]; height and width are dynamic
    (unless the interpolation is "none"); the images of one batch have one size. All new nodes are named
    ``preprocessing/...``, none is a loop or a branch. What was the input keeps its name, as an inner value.

    Args:
        model: The network; of any precision that takes float16 or float32.
        preprocessing: What :func:`s2mlp_deploy.preprocess.to_array` would do.

    Raises:
        ExportError: The network takes something else than this preprocessing makes.
    """
    model = model.clone()
    graph = model.graph
    check_image_input(tensor_infos(graph.inputs), preprocessing)
    old = graph.inputs[0]
    assert old.shape is not None
    batch = old.shape[0]
    sides = preprocessing.size if preprocessing.interpolation == "none" else ("height", "width")
    image = ir.Value(
        name=IMAGE,
        type=ir.TensorType(ir.DataType.UINT8),
        shape=ir.Shape([batch, *sides, 3]),
    )
    _free_name(graph, old)
    builder = Builder(model.opset_imports[""])
    pixels = _resized(builder, image, preprocessing)
    result = _normalised(builder, pixels, preprocessing, old)
    ir.convenience.replace_all_uses_with(old, result)
    result.name, result.shape = old.name, old.shape
    graph.inputs[0] = image
    first = next(iter(graph), None)
    if first is None:
        graph.extend(builder.nodes)
    else:
        graph.insert_before(first, builder.nodes)
    for value in builder.constants.values():
        graph.register_initializer(value)
    return model


def check_image_input(inputs: Sequence[TensorInfo], preprocessing: Preprocessing) -> None:
    """Refuses inputs that images cannot become.

    Args:
        inputs: Of the model.
        preprocessing: What makes images its input.

    Raises:
        ExportError: There is not one input, or it is no image of the size that the preprocessing makes.
    """
    if len(inputs) != 1:
        raise ExportError(
            f"the model has {len(inputs)} inputs, and an image can only be one",
            where=", ".join(info.name for info in inputs),
            fix="export without --with-preprocessing",
        )
    info = inputs[0]
    made, shape = (preprocessing.channels, *preprocessing.size), info.shape
    if info.dtype not in ("float32", "float16") or len(shape) != 4:
        raise ExportError(
            f"the input {info.name} ({info.dtype}, {_text(shape)}) is no float image, NCHW",
            fix="export without --with-preprocessing",
        )
    if any(not isinstance(size, int) for size in shape[1:]):
        raise ExportError(
            f"the input {info.name} is {_text(shape)}, and the preprocessing makes one size, {_text(made)}",
            fix="leave height and width out of --dynamic; with --with-preprocessing every image size is taken anyway",
        )
    if shape[1:] != made:
        raise ExportError(
            f"the preprocessing makes {_text(made)}, and the input {info.name} takes {_text(shape[1:])}",
            fix="give the size and color that the model takes with --preprocess FILE.json",
        )


def _text(shape: Sequence[object]) -> str:
    return "x".join(str(size.value) if isinstance(size, ir.SymbolicDim) else str(size) for size in shape)


def _free_name(graph: ir.Graph, old: ir.Value) -> None:
    """Renames whatever is called like the new input.

    Raises:
        ExportError: It is an output, whose name users know.
    """
    if old.name == IMAGE:
        old.name = f"{SCOPE}/input"
    for value in graph.outputs:
        if value.name == IMAGE:
            raise ExportError(f"an output is called {IMAGE!r}, as the input would be", fix="rename that output")
    inner = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in inner:
        if value.name == IMAGE:
            value.name = f"{IMAGE}.inner"


def _resized(builder: Builder, image: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    """Whole numbers 0..255 as float32 [batch, C, H, W], in the channels' order that the model wants."""
    build = builder.part("pixels")
    # TensorRT takes a uint8 input only if the first thing done to it is a cast.
    pixels = build("Transpose", build.cast(image, ir.DataType.FLOAT), perm=[0, 3, 1, 2])
    if preprocessing.color == "L":
        # Before the resize, like Pillow: the sum is rounded to 8 bits.
        luma = build("ReduceSum", build("Mul", pixels, _LUMA.reshape(3, 1, 1)), build.index([1]), keepdims=1)
        pixels = build("Floor", build("Div", build("Add", luma, 32768.0), 65536.0))
    if preprocessing.color == "BGR":
        pixels = build("Gather", pixels, build.index([2, 1, 0]), axis=1)
    if preprocessing.interpolation == "none":
        return pixels
    shape = builder.part("sizes")
    sides = shape("Shape", image, start=1, end=3)
    sizes = _sizes(shape, sides, preprocessing)
    rows, columns = (
        _window(builder.part(name), sides, sizes, index, preprocessing)
        for index, name in enumerate(("height", "width"))
    )
    if preprocessing.interpolation == "nearest":
        for axis, name, window in ((2, "height", rows), (3, "width", columns)):
            pixels = builder.part(name)("Gather", pixels, _nearest(builder.part(name), window), axis=axis)
    else:
        pixels = _filtered(builder, pixels, rows, columns, preprocessing.interpolation)
    if preprocessing.crop_mode == "border":
        pixels = _bordered(builder.part("border"), pixels, rows, columns, preprocessing)
    return pixels


def _sizes(build: Part, sides: ir.Value, preprocessing: Preprocessing) -> ir.Value:
    """Height and width of the whole image after the resize; the roundings are those of ``preprocess._fit``."""
    scaled = [math.floor(target / preprocessing.crop_pct) for target in preprocessing.size]
    if preprocessing.crop_mode == "squash":
        return build.index(scaled)
    if preprocessing.crop_mode == "center" and scaled[0] == scaled[1]:
        shortest = build("ReduceMin", sides, build.index([0]), keepdims=1)
        return build("Div", build("Mul", sides, scaled[0]), shortest)
    # Python divides in float64 and rounds halves to even. Where a side comes out at a half, whole-number arithmetic
    # would give another size now and then.
    exact = build.cast(sides, ir.DataType.DOUBLE)
    ratios = build("Div", exact, np.asarray(scaled))
    reduce = "ReduceMax" if preprocessing.crop_mode == "border" else "ReduceMin"
    ratio = build(reduce, ratios, build.index([0]), keepdims=1)
    rounded = build("Round", build("Div", exact, ratio))
    return build("Max", build.cast(rounded, ir.DataType.INT64), 1)


@dataclass(frozen=True)
class _Window:
    """The target's pixels along one axis, as positions in the resized image.

    Attributes:
        side: The image's size before the resize, a scalar.
        size: The same after it.
        first: Position of the first pixel; negative where the target has a border, a scalar.
        length: Number of pixels, known when exporting.
        bordered: Whether some of them may lie outside the resized image.
    """

    side: ir.Value
    size: ir.Value
    first: ir.Value
    length: int
    bordered: bool


def _window(build: Part, sides: ir.Value, sizes: ir.Value, index: int, preprocessing: Preprocessing) -> _Window:
    """Only these pixels are computed: an image of extreme sides makes no huge one in between."""
    position = build.constant(np.asarray(index, np.int64), "index")
    side, size = (build("Gather", value, position, axis=0) for value in (sides, sizes))
    length = preprocessing.size[index]
    surplus = build("Sub", size, length)
    # Round is half to even, as in Python. Half of a whole number below 2**24 is exact in float32.
    half = build("Round", build("Mul", build.cast(surplus, ir.DataType.FLOAT), 0.5))
    first = build("Max", build.cast(half, ir.DataType.INT64), 0)
    bordered = preprocessing.crop_mode == "border"
    if bordered:
        border = build("Div", build("Max", build("Sub", np.asarray(length), size), 0), 2)
        first = build("Sub", first, border)
    return _Window(side, size, first, length, bordered)


def _doubled_positions(build: Part, window: _Window, shape: tuple[int, ...]) -> ir.Value:
    """Twice the middle of each of the window's pixels, in pixels of the resized image: an odd number."""
    pixels = np.arange(window.length).reshape(shape)
    doubled = build("Add", build("Mul", window.first, 2), 2 * pixels + 1)
    if not window.bordered:
        return doubled
    # Pixels in the border are overwritten later; until then they must only not divide by zero.
    return build("Max", build("Min", doubled, build("Sub", build("Mul", window.size, 2), 1)), 1)


def _nearest(build: Part, window: _Window) -> ir.Value:
    """The source pixel of each of the window's pixels."""
    doubled = _doubled_positions(build, window, (-1,))
    return build("Div", build("Mul", doubled, window.side), build("Mul", window.size, 2))


def _filtered(builder: Builder, pixels: ir.Value, rows: _Window, columns: _Window, interpolation: str) -> ir.Value:
    """Both passes, in Pillow's order."""
    build = builder.part("height")
    left = _weights(build, rows, interpolation)
    build = builder.part("width")
    right = build("Transpose", _weights(build, columns, interpolation), perm=[1, 0])
    # Each pass rounds to 8 bits, so their order shows. Pillow 13 (python-pillow/Pillow#9549) begins with the height
    # where it loses more than twice as many pixels as the width, for example in a downscaled image that is more than
    # twice as tall as wide; 926 sizes near that rule's edge agree with it. Older ones always begin with the width.
    # Without a branch in the graph: both orders are there, and one of them gets no images.
    build = builder.part("order")
    lost = [build("Sub", window.side, window.size) for window in (rows, columns)]
    height_first = build("And", build("Greater", lost[0], 0), build("Greater", lost[0], build("Mul", lost[1], 2)))
    images = build("Shape", pixels, start=0, end=1)
    split = build("Mul", build.cast(height_first, ir.DataType.INT64), images)
    zero, end = build.index([0]), build.index([END])
    some, others = build("Slice", pixels, zero, split, zero), build("Slice", pixels, split, end, zero)
    some = _product(builder.part("height-first"), left, some)
    some = _product(builder.part("height-first"), some, right)
    others = _product(builder.part("width-first"), others, right)
    others = _product(builder.part("width-first"), left, others)
    return build("Concat", some, others, axis=0)


def _product(build: Part, left: ir.Value, right: ir.Value) -> ir.Value:
    # Pillow's fixed point rounds halves up, unlike ONNX's Round, and halves are common where a size is halved.
    # Cubic and Lanczos filters overshoot.
    return build("Clip", build("Floor", build("Add", build("MatMul", left, right), 0.5)), 0.0, 255.0)


def _weights(build: Part, window: _Window, interpolation: str) -> ir.Value:
    """What each pixel along an axis adds to each of the window's pixels; float32, [length, side]."""
    # Distances are whole numbers, in units of half an output pixel by half an input pixel: exact however large the
    # image is, where float32 centres would lose a thousandth of a pixel at four thousand pixels.
    doubled = _doubled_positions(build, window, (-1, 1))
    one, two = (build.constant(np.asarray(value, np.int64), "number") for value in (1, 2))
    pixels = build("Range", one, build("Add", build("Mul", window.side, 2), 1), two)
    distance = build("Sub", build("Mul", pixels, window.size), build("Mul", doubled, window.side))
    # Upscaling, a filter is as wide as its pixels in the image; downscaling, as its pixels in the result.
    unit = build("Mul", build("Max", window.side, window.size), 2)
    weights = FILTERS[interpolation](
        build, build("Div", build.cast(distance, ir.DataType.FLOAT), build.cast(unit, ir.DataType.FLOAT))
    )
    weights = build("Div", weights, build("ReduceSum", weights, build.index([1]), keepdims=1))
    # Pillow's weights are fixed point numbers. That decides which way a sum of very nearly a half is rounded.
    return build("Div", build("Floor", build("Add", build("Mul", weights, 2.0**22), 0.5)), 2.0**22)


def _bordered(build: Part, x: ir.Value, rows: _Window, columns: _Window, preprocessing: Preprocessing) -> ir.Value:
    """The mean colour, rounded to 8 bits, where the target has pixels and the resized image has none."""
    inside = []
    for window, shape in ((rows, (-1, 1)), (columns, (1, -1))):
        pixels = build("Add", window.first, np.arange(window.length).reshape(shape))
        inside.append(build("And", build("GreaterOrEqual", pixels, 0), build("Less", pixels, window.size)))
    return build("Where", build("And", *inside), x, np.asarray(mean_colour(preprocessing)).reshape(-1, 1, 1))


def _normalised(builder: Builder, pixels: ir.Value, preprocessing: Preprocessing, old: ir.Value) -> ir.Value:
    """The same three float32 operations as in Python, in the old input's dtype."""
    build = builder.part("normalise")
    x = build("Div", pixels, 1 / preprocessing.scale)
    x = build("Sub", x, np.asarray(preprocessing.mean).reshape(-1, 1, 1))
    x = build("Div", x, np.asarray(preprocessing.std).reshape(-1, 1, 1))
    assert old.dtype is not None
    return build.cast(x, old.dtype)
