"""Classifying images with an artifact: what `predict` and the server run. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import (
    MANIFEST,
    TensorInfo,
    check_onnx,
    fitting_batch,
    read_manifest,
    verify_precision,
)
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.data.feeds import ModelInputs
from s2mlp_deploy.data.samples import Sample
from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.engines.registry import open_to_serve
from s2mlp_deploy.errors import ArtifactError, ImageError, InputError
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.serving.images import Images, NamedImage, named_images
from s2mlp_deploy.serving.outputs import OutputSummary, best_classes, find_scores, summary_of


@dataclass(frozen=True)
class PredictionFailure:
    """Why nothing is predicted of an image.

    Attributes:
        kind: ``image``: it cannot be used; ``output``: what the model says of it is NaN or infinite.
        problem: What is wrong.
        fix: What can be done about it.
    """

    kind: Literal["image", "output"]
    problem: str
    fix: str


_NOT_FINITE = "compare the file with its source (`parity`), or use the fp32 file"


@dataclass(frozen=True)
class Prediction:
    """What an artifact says of one image.

    Attributes:
        image: Its path; ``image 3`` for the fourth of those that were given in memory.
        classes: Names (or indices as text) of the best classes, best first; none where no output is a list of scores.
        probabilities: Their softmax probabilities; the scores themselves where these are probabilities already.
        outputs: What the outputs are, where no output is a list of scores.
        error: Why there is no prediction; None where there is one.
    """

    image: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    outputs: tuple[OutputSummary, ...] = ()
    error: PredictionFailure | None = None


class Predictor:
    """Classifies images with an artifact, through ONNX Runtime or OpenVINO; needs no torch.

    Args:
        directory: The artifact.
        precision: Which of its files.
        output: The output that is the classifier; default: the one that looks like it
            (:func:`~s2mlp_deploy.serving.outputs.find_scores`), and where none does, the outputs are told of.
        engine: What runs it: ``onnxruntime``, or with another execution provider than the CPU ``onnxruntime:cuda``;
            ``openvino``, or with another device ``openvino:GPU``.
        threads: Threads within an operator; 0 lets the engine choose.
        flush_denormals: Whether numbers below the smallest normal float32 count as 0, on a CPU: it may be faster.

    Raises:
        ArtifactError: The artifact is damaged, has no such file or no preprocessing, or its model takes no image.
        InputError: There is no such output, or it is no list of scores.
        TargetError: There is no such engine, or not that part of a machine here.
        MissingDependencyError: The engine is not installed.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        precision: str = "fp32",
        output: str | None = None,
        engine: str = GRAPH_ENGINE,
        threads: int = 0,
        flush_denormals: bool = False,
    ) -> None:
        root = Path(directory)
        self.manifest = read_manifest(root)
        # What the manifest tells is refused before weights are read.
        _check_input(self.manifest.inputs, root)
        if self.manifest.preprocessing is None:
            raise ArtifactError(
                "the artifact does not say how an image becomes its input",
                where=str(root / MANIFEST),
                fix="export again with --preprocess FILE.json",
            )
        self.preprocessing = Preprocessing.from_dict(self.manifest.preprocessing)
        if output is not None:
            find_scores(self.manifest.outputs, self.manifest.classes, output)
        path = verify_precision(root, self.manifest, precision)
        check_onnx(path)
        self.engine = open_to_serve(path, engine, threads=threads, flush_denormals=flush_denormals)
        _check_input(self.engine.inputs, path)
        self.output = find_scores(self.engine.outputs, self.manifest.classes, output)
        self._inputs = ModelInputs(self.engine.inputs, self.preprocessing)
        (info,) = self.engine.inputs
        self._copies = info.shape[0] if isinstance(info.shape[0], int) else fitting_batch(self.engine.limits, 1)[0]
        free = not isinstance(info.shape[0], int)
        self._whole = {
            item.name for item in self.engine.outputs if not item.shape or (free and isinstance(item.shape[0], int))
        }
        # One image a run where images differ in size, where an output is not one row an image, and where a model takes
        # no batch of one: what it says of an image may then depend on those beside it, so it sees only copies.
        self._alone = self._inputs.takes_pixels or not free or self._copies > 1 or bool(self._whole)

    def predict(self, images: Images, *, top: int = 5, batch: int = 8) -> list[Prediction]:
        """Classifies images.

        An image that cannot be used is told in its own prediction (``error``); the others are predicted.

        Args:
            images: One image or several: paths, folders (all images in them, at any depth), bytes of files, Pillow
                images, arrays uint8 [height, width, 3] of decoded ones. A text is one path.
            top: How many classes to name.
            batch: Images per run, where the model takes several.

        Raises:
            InputError: Something is given that is no image, or an option has a value that cannot be used.
            DataError: There is no image in a folder.
        """
        return [prediction for prediction, _ in self.stream(images, top=top, batch=batch)]

    def stream(self, images: Images, *, top: int = 5, batch: int = 8) -> Iterator[tuple[Prediction, Arrays]]:
        """Each image's prediction with all outputs of the model for it, without the batch axis; none of a failed image.

        Args:
            images: See :meth:`predict`.
            top: See there.
            batch: See there.

        Raises:
            InputError: See there.
            DataError: See there.
        """
        if top < 1 or batch < 1:
            raise InputError(
                "top and batch must be at least 1", where=f"top {top}, batch {batch}", fix="give larger ones"
            )
        size = 1 if self._alone else fitting_batch(self.engine.limits, batch)[0]
        waiting: list[tuple[str, NDArray[Any] | PredictionFailure]] = []
        loaded = 0
        for image in named_images(images):
            waiting.append((image.name, self._load(image)))
            loaded += isinstance(waiting[-1][1], np.ndarray)
            if loaded == size:
                yield from self._predicted(waiting, top)
                waiting, loaded = [], 0
        yield from self._predicted(waiting, top)

    def _load(self, image: NamedImage) -> NDArray[Any] | PredictionFailure:
        """The model's input for an image, without the batch axis."""
        try:
            (array,) = self._inputs.load(Sample(Path(image.name), image.source, None)).values()
        except ImageError as error:
            return PredictionFailure("image", error.problem, error.fix or "")
        return array

    def _predicted(
        self, waiting: Sequence[tuple[str, NDArray[Any] | PredictionFailure]], top: int
    ) -> Iterator[tuple[Prediction, Arrays]]:
        outputs = iter(self._run([item for _, item in waiting if isinstance(item, np.ndarray)]))
        for name, item in waiting:
            if isinstance(item, np.ndarray):
                arrays = next(outputs)
                yield self._prediction(name, arrays, top), arrays
            else:
                yield Prediction(name, error=item), {}

    def _run(self, images: Sequence[NDArray[Any]]) -> list[Arrays]:
        """The outputs of each image."""
        if self._alone:
            return [self._one(image) for image in images]
        if not images:
            return []
        found = self.engine.run({self.engine.inputs[0].name: np.stack(images)})
        if any(array.ndim == 0 or len(array) != len(images) for array in found.values()):
            self._alone = True  # A free first axis that is not the images', as that of found boxes.
            return self._run(images)
        return [{name: array[index] for name, array in found.items()} for index in range(len(images))]

    def _one(self, image: NDArray[Any]) -> Arrays:
        found = self.engine.run({self.engine.inputs[0].name: np.repeat(image[None], self._copies, axis=0)})
        return {
            name: array[0] if array.ndim and len(array) == self._copies and name not in self._whole else array
            for name, array in found.items()
        }

    def _prediction(self, image: str, arrays: Arrays, top: int) -> Prediction:
        if self.output is None:
            told = tuple(summary_of(name, array) for name, array in arrays.items())
            broken = next((item for item in told if item.not_finite), None)
            error = None
            if broken is not None:
                problem = f"{broken.not_finite} values of the output {broken.name} are NaN or infinite"
                error = PredictionFailure("output", problem, _NOT_FINITE)
            return Prediction(image, outputs=told, error=error)
        scores = arrays[self.output].astype(np.float64).reshape(-1)
        if not np.isfinite(scores.max()):  # A NaN anywhere makes the largest one NaN.
            problem = "the scores are NaN or infinite, which names no class"
            return Prediction(image, error=PredictionFailure("output", problem, _NOT_FINITE))
        return Prediction(image, *best_classes(scores, top, self.manifest.classes))


def _check_input(inputs: Sequence[TensorInfo], where: Path) -> None:
    """Refuses a model that does not take an image, and nothing else.

    Raises:
        ArtifactError: Says what it takes.
    """
    taken = ", ".join(f"{info.name} {info.dtype} {'x'.join(map(str, info.shape))}" for info in inputs)
    images = all(
        len(info.shape) == 4 and (info.dtype.startswith("float") or (info.dtype, info.shape[3]) == ("uint8", 3))
        for info in inputs
    )
    if len(inputs) != 1 or not images:
        problem = f"has {len(inputs)} inputs" if len(inputs) != 1 else "takes no image"
        raise ArtifactError(
            f"the model {problem}, and images are predicted by models that take one image: {taken}",
            where=str(where),
            fix="run it on arrays with the engine's own package; `parity` compares it on arrays: --data FILE.npz",
        )
