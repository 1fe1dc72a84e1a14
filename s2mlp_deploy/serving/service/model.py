"""What a worker serves: one file of an artifact in an engine, asked for several requests at a time."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2mlp_deploy.artifact import check_onnx, fitting_batch, read_manifest, verify_precision
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.data.feeds import ModelInputs
from s2mlp_deploy.data.noise import noise
from s2mlp_deploy.data.samples import Sample
from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.engines.registry import open_to_serve
from s2mlp_deploy.errors import ArtifactError, ImageError, S2MLPDeployError
from s2mlp_deploy.preprocess import FORMATS, Preprocessing
from s2mlp_deploy.serving.outputs import best_classes, find_scores
from s2mlp_deploy.serving.service.messages import Fault, Item, Opened, Outcome, Setup, packed
from s2mlp_deploy.serving.service.protocol import NAMES

LOG = logging.getLogger(__name__)

Prepared = Arrays | Fault
"""A request's arrays, with the batch axis, or why there are none."""


class ServedModel:
    """An artifact that is open.

    Args:
        setup: Which, and with what.

    Raises:
        S2MLPDeployError: It is damaged, or cannot run here.
    """

    def __init__(self, setup: Setup) -> None:
        root = Path(setup.directory)
        manifest = read_manifest(root)
        self._precision = setup.precision or "fp32"
        path = verify_precision(root, manifest, self._precision)
        check_onnx(path)
        self._engine = open_to_serve(
            path, setup.engine or GRAPH_ENGINE, threads=setup.threads or 0, flush_denormals=setup.flush_denormals
        )
        self._file, self._reason = path.name, "the file of the precision that was asked for"
        self._max_pixels = setup.max_pixels
        for info in (*self._engine.inputs, *self._engine.outputs):
            if info.dtype not in NAMES:
                raise ArtifactError(f"{info.name} is {info.dtype}, which is not served", fix="serve numbers")
        self._classes = manifest.classes
        about = manifest.preprocessing
        self._inputs = ModelInputs(self._engine.inputs, None if about is None else Preprocessing.from_dict(about))
        self._scores = find_scores(self._engine.outputs, manifest.classes, None)
        self._copies = self._copies_of_an_image()
        self.joins = self._can_join()

    def _can_join(self) -> bool:
        """Whether samples of several requests may share a run: each axis 0 is free and one row a sample."""
        shapes = [info.shape for info in (*self._engine.inputs, *self._engine.outputs)]
        free = all(shape and isinstance(shape[0], str) for shape in shapes)
        return free and not any(rule.axis == 0 and (rule.multiple > 1 or rule.min > 1) for rule in self._engine.limits)

    def _copies_of_an_image(self) -> int:
        """How often an image is repeated for a model that takes no batch of one."""
        size = self._engine.inputs[0].shape[:1]
        return size[0] if size and isinstance(size[0], int) else fitting_batch(self._engine.limits, 1)[0]

    @property
    def why_no_classes(self) -> str:
        """Why it classifies no images; empty where it does."""
        inputs = self._engine.inputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            return "the model does not take one image"
        if self._inputs.preprocessing is None and not self._inputs.takes_pixels:
            return "the artifact does not say how an image becomes its input"
        return "" if self._scores is not None else "no output of the model is a list of scores"

    def opened(self, seconds: float) -> Opened:
        """What the service is told of it.

        Args:
            seconds: That opening and warming took.
        """
        return Opened(
            self._engine.name,
            self._file,
            self._precision,
            self._reason,
            self._engine.inputs,
            self._engine.outputs,
            self._engine.limits,
            self.joins,
            self.why_no_classes,
            seconds,
        )

    def warm_up(self, batch: int) -> None:
        """Runs noise once for each size of batch at the ends: engines compile and allocate at first use.

        Args:
            batch: The largest that will come.
        """
        inputs, generator = self._engine.inputs, np.random.default_rng(0)
        # Free sizes other than the batch's are known only from a request.
        if not all(isinstance(side, int) for info in inputs for side in info.shape[1:]):
            return
        for size in sorted({1, batch} if self.joins else {1}):
            rows = fitting_batch(self._engine.limits, size)[0]
            shapes = [tuple(side if isinstance(side, int) else rows for side in info.shape) for info in inputs]
            self._engine.run(
                {info.name: noise(shape, info.dtype, generator) for info, shape in zip(inputs, shapes, strict=True)}
            )

    def prepare(self, item: Item) -> Prepared:
        """A request's arrays; an image is decoded and becomes the input."""
        if item.feeds is not None:
            return {name: tensor.array() for name, tensor in item.feeds.items()}
        assert item.image is not None
        if self.why_no_classes:
            return Fault("unsupported", self.why_no_classes, "send tensors to .../infer")
        data = bytes(item.image)
        try:
            self._check_pixels(data)
            loaded = self._inputs.load(Sample(Path("the image"), data, None))
        except S2MLPDeployError as error:
            return Fault("too_large" if isinstance(error, _TooManyPixelsError) else "invalid", error.problem, error.fix)
        return {name: np.repeat(array[None], self._copies, axis=0) for name, array in loaded.items()}

    def _check_pixels(self, data: bytes) -> None:
        """Refuses an image by its header, before anything is decoded."""
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                pixels, told = image.width * image.height, f"{image.width * image.height:,}"
        except Image.DecompressionBombError:
            pixels, told = sys.maxsize, "hundreds of millions of"
        except Exception:  # Told by whoever decodes it, who knows more.
            return
        if pixels > self._max_pixels:
            raise _TooManyPixelsError(
                f"the image has {told} pixels, and up to {self._max_pixels:,} are taken", fix="make it smaller"
            )

    def run(self, requests: Sequence[tuple[Item, Prepared]]) -> list[Outcome]:
        """The result of each request, those of equal shapes from one run."""
        outcomes: list[Outcome | None] = [
            Outcome(fault=made) if isinstance(made, Fault) else None for _, made in requests
        ]
        groups: dict[Any, list[int]] = {}
        for index, (_, made) in enumerate(requests):
            if not isinstance(made, Fault):
                key = tuple((name, array.shape[1:]) for name, array in made.items()) if self.joins else index
                groups.setdefault(key, []).append(index)
        for indices in groups.values():
            arrays = [made for index in indices if not isinstance(made := requests[index][1], Fault)]
            for index, found in zip(indices, self._outputs(arrays), strict=True):
                outcomes[index] = found if isinstance(found, Outcome) else self._outcome(requests[index][0], found)
        return [outcome for outcome in outcomes if outcome is not None]

    def _outputs(self, requests: Sequence[Arrays]) -> list[Arrays | Outcome]:
        """The outputs of requests that fit together; a failure of all is looked for in each."""
        if len(requests) == 1:
            try:
                return [self._engine.run(requests[0])]
            except S2MLPDeployError as error:
                return [Outcome(fault=Fault("broken", error.problem, error.fix))]
        rows = [len(next(iter(arrays.values()))) for arrays in requests]
        ends = np.cumsum(rows)
        joined = {name: np.concatenate([arrays[name] for arrays in requests]) for name in requests[0]}
        try:
            found = self._engine.run(joined)
        except S2MLPDeployError:
            return [outcome for arrays in requests for outcome in self._outputs([arrays])]
        if any(array.ndim == 0 or len(array) != ends[-1] for array in found.values()):
            self.joins = False  # A free first axis that is not the samples', as that of found boxes.
            return [outcome for arrays in requests for outcome in self._outputs([arrays])]
        return [
            {name: array[end - count : end] for name, array in found.items()}
            for end, count in zip(ends, rows, strict=True)
        ]

    def _outcome(self, item: Item, outputs: Arrays) -> Outcome:
        if item.feeds is not None:
            return Outcome(outputs={name: packed(outputs[name]) for name in item.outputs})
        assert self._scores is not None
        scores: NDArray[Any] = outputs[self._scores][0].astype(np.float64).reshape(-1)
        if not np.isfinite(scores.max()):  # A NaN anywhere makes the largest one NaN.
            return Outcome(fault=Fault("broken", "the scores are NaN or infinite, which names no class", None))
        return Outcome(None, *best_classes(scores, item.top, self._classes))


class _TooManyPixelsError(ImageError):
    """An image above the service's own limit."""
