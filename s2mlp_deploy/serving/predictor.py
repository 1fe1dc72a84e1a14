"""Running an artifact: images or tensors in, classes or tensors out. What `predict`, `serve` and `batch` run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import Manifest, SizeLimit, TensorInfo, fitting_batch, read_manifest
from s2mlp_deploy.data.feeds import ModelInputs
from s2mlp_deploy.data.samples import Sample
from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.errors import ImageError, InputError
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.serving.hindrances import Hindrance, hindrances, tell_once
from s2mlp_deploy.serving.images import Images, NamedImage, named_images
from s2mlp_deploy.serving.inputs import check_feeds, check_takes_images, takes_image
from s2mlp_deploy.serving.outputs import OutputSummary, best_classes, find_scores, summary_of
from s2mlp_deploy.serving.plan import RunPlan, plan_run
from s2mlp_deploy.serving.sessions import Sessions, open_planned

_UNNAMED = frozenset({"?", "axis0"})
"""What engines call a free first axis without a name."""


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
    """Runs an artifact, through ONNX Runtime, OpenVINO or TensorRT; needs neither torch nor onnx.

    ``predictor(images)`` classifies; ``predictor({"input": array})`` gives all outputs for ready inputs, of models of
    any kind. Any number of threads may use one. Close it, or use it with ``with``.

    Args:
        directory: The artifact.
        precision: Which of its files; default: as :func:`~s2mlp_deploy.serving.plan.plan_run` decides.
        output: The output that is the classifier; default: the one that looks like it
            (:func:`~s2mlp_deploy.serving.outputs.find_scores`), and where none does, the outputs are told of.
        engine: What runs it: ``onnxruntime``, or with another execution provider than the CPU ``onnxruntime:cuda``;
            ``openvino``, or with another device ``openvino:GPU``; ``tensorrt`` or ``tensorrt-rtx``, which run what was
            built. Default: as above.
        threads: Threads within an operator; 0 lets the engine choose. Default: as ``tune`` chose, else 0.
        spin: Whether idle threads of ONNX Runtime spin for work. Default: as ``tune`` chose, else they do.
        flush_denormals: Whether numbers below the smallest normal float32 count as 0, on a CPU: it may be faster.
            Default: as ``tune`` chose, else not.
        sessions: How often the file is opened. ONNX Runtime and OpenVINO run calls of several threads at once in one;
            several are for engines that do not, or for threads that shall not share a pool.
        allow_unproven: Whether a file may run of which no parity was measured, or of which it fails.
        warn: Whether to warn, once in a process, of what makes it slow here (:attr:`hindrances`).
        plan: What was decided before, for processes that share it: the choices above are left aside then.

    Attributes:
        plan: What runs, and why (:class:`~s2mlp_deploy.serving.plan.RunPlan`).
        manifest: Of the artifact.
        preprocessing: How an image becomes the input; None where the artifact does not say it.
        inputs: Of the model, with the batch axis (:class:`~s2mlp_deploy.artifact.TensorInfo`).
        outputs: Of the model.
        limits: What free sizes of the inputs may be.
        output: Name of the output that holds the scores; None where none does.
        batches: Whether several samples can share a run: the batch is free, and every output is one row a sample.

    Raises:
        ArtifactError: The artifact is damaged, has no such file, or none whose parity holds.
        InputError: There is no such output, or it is no list of scores; or a number is below its least.
        TargetError: There is no such engine, or not that part of a machine here.
        MissingDependencyError: The engine is not installed.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        precision: str | None = None,
        output: str | None = None,
        engine: str | None = None,
        threads: int | None = None,
        spin: bool | None = None,
        flush_denormals: bool | None = None,
        sessions: int = 1,
        allow_unproven: bool = False,
        warn: bool = True,
        plan: RunPlan | None = None,
    ) -> None:
        if sessions < 1 or (threads or 0) < 0:
            raise InputError(
                "sessions must be at least 1 and threads at least 0",
                where=f"sessions {sessions}, threads {threads}",
                fix="give larger ones",
            )
        root = Path(directory)
        self.manifest: Manifest = read_manifest(root)
        # What the manifest tells is refused before weights are read.
        if output is not None:
            find_scores(self.manifest.outputs, self.manifest.classes, output)
        self.preprocessing: Preprocessing | None = (
            None if self.manifest.preprocessing is None else Preprocessing.from_dict(self.manifest.preprocessing)
        )
        self.plan: RunPlan = plan or plan_run(
            root,
            precision=precision,
            engine=engine,
            threads=threads,
            spin=spin,
            flush_denormals=flush_denormals,
            allow_unproven=allow_unproven,
        )
        optional = flush_denormals is None and self.plan.basis == "tune"
        opened = [open_planned(self.plan, self.manifest, optional_flush=optional) for _ in range(sessions)]
        self._sessions = Sessions(opened, self.plan.engine)
        self.inputs: tuple[TensorInfo, ...] = self._sessions.inputs
        self.outputs: tuple[TensorInfo, ...] = self._sessions.outputs
        self.limits: tuple[SizeLimit, ...] = self._sessions.limits
        self.output: str | None = find_scores(self.outputs, self.manifest.classes, output)
        self._model_inputs = ModelInputs(self.inputs, self.preprocessing)
        sizes = [info.shape[0] if info.shape else None for info in self.inputs]
        free = all(isinstance(size, str) for size in sizes)
        fixed = next((size for size in sizes if isinstance(size, int)), None)
        self._copies = fixed if fixed is not None else fitting_batch(self.limits, 1)[0]
        self._whole = {item.name for item in self.outputs if not item.shape or (free and item.shape[0] not in sizes)}
        # One sample a run where an output is not one row a sample, and where a model takes no batch of one: what it
        # says of a sample may then depend on those beside it, so it sees only copies. A free axis of another name, or
        # of none, may count what was found in all samples: as many rows as samples are then no proof of whose they are.
        named = len(set(sizes)) == 1 and not _UNNAMED.intersection(sizes)
        self.batches: bool = free and named and self._copies == 1 and not self._whole
        if warn:
            tell_once(self.hindrances)

    @property
    def hindrances(self) -> tuple[Hindrance, ...]:
        """What makes it slow on this machine."""
        return hindrances(self.plan, sessions=len(self._sessions))

    @property
    def engine_name(self) -> str:
        """What runs it, as the engine calls itself: ``onnxruntime (CPU)``."""
        return self._sessions.name

    @property
    def takes_images(self) -> bool:
        """Whether an image can be its input: one input that is an image, and the artifact says how one becomes it."""
        return self.preprocessing is not None and takes_image(self.inputs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for what runs and drops the engines; nothing can be run afterwards. A second time does nothing."""
        self._sessions.close()

    @overload
    def __call__(self, images: Mapping[str, NDArray[Any]]) -> Arrays: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Images, *, top: int = 5, batch: int = 8) -> list[Prediction]: ...
    def __call__(
        self, images: Images | Mapping[str, NDArray[Any]], *, top: int = 5, batch: int = 8
    ) -> list[Prediction] | Arrays:
        """Images: :meth:`predict`. Arrays by input name: :meth:`run`."""
        if isinstance(images, Mapping):
            return self.run(images)
        return self.predict(images, top=top, batch=batch)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """All outputs for ready inputs, as the engine computes them.

        Args:
            feeds: An array for each input by its name, in its type, with the batch axis.

        Returns:
            An array for each output by its name.

        Raises:
            InputError: Names, types or sizes are not those of the model, or it was closed.
        """
        check_feeds(self.inputs, feeds)
        return self._sessions.run(feeds)

    def predict(self, images: Images, *, top: int = 5, batch: int = 8) -> list[Prediction]:
        """Classifies images.

        An image that cannot be used is told in its own prediction (``error``); the others are predicted.

        Args:
            images: One image or several: paths, folders (all images in them, at any depth), bytes of files, Pillow
                images, arrays uint8 [height, width, 3] of decoded ones. A text is one path.
            top: How many classes to name.
            batch: Images per run, where the model takes several.

        Raises:
            ArtifactError: The model takes no image, or the artifact does not say how one becomes its input.
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
            ArtifactError: See there.
            InputError: See there.
            DataError: See there.
        """
        if top < 1 or batch < 1:
            raise InputError(
                "top and batch must be at least 1", where=f"top {top}, batch {batch}", fix="give larger ones"
            )
        check_takes_images(self.manifest, self.inputs, self.plan.path)
        # Images that are not resized here differ in size.
        size = fitting_batch(self.limits, batch)[0] if self.batches and not self._model_inputs.takes_pixels else 1
        waiting: list[tuple[str, NDArray[Any] | PredictionFailure]] = []
        loaded = 0
        for image in named_images(images):
            waiting.append((image.name, self._loaded(image)))
            loaded += isinstance(waiting[-1][1], np.ndarray)
            if loaded == size:
                yield from self._predicted(waiting, top)
                waiting, loaded = [], 0
        yield from self._predicted(waiting, top)

    def load(self, image: NamedImage) -> NDArray[Any]:
        """What an image becomes: the model's input, without the batch axis, in the input's type.

        Raises:
            ArtifactError: The model takes no image.
            ImageError: The image cannot be used.
        """
        check_takes_images(self.manifest, self.inputs, self.plan.path)
        (array,) = self._model_inputs.load(Sample(Path(image.name), image.source, None)).values()
        return array

    def run_samples(self, samples: Sequence[NDArray[Any]]) -> list[Arrays]:
        """All outputs for each of several samples of a model with one input, without the batch axis.

        They share a run where the model allows it and all have one shape (:attr:`batches`).

        Args:
            samples: As :meth:`load` makes them.

        Raises:
            InputError: See :meth:`run`.
        """
        if not self.batches or len({sample.shape for sample in samples}) > 1:
            return [self._one(sample) for sample in samples]
        if not samples:
            return []
        size, _ = fitting_batch(self.limits, len(samples))
        filled = [*samples, *[samples[-1]] * (size - len(samples))]
        found = self.run({self.inputs[0].name: np.stack(filled)})
        if any(array.ndim == 0 or len(array) != len(filled) for array in found.values()):
            self.batches = False  # A free first axis that is not the samples', as that of found boxes.
            return self.run_samples(samples)
        return [{name: array[index] for name, array in found.items()} for index in range(len(samples))]

    def judge(self, image: str, arrays: Arrays, *, top: int = 5) -> Prediction:
        """What the outputs for one image say.

        Args:
            image: Its name.
            arrays: All outputs for it, as :meth:`run_samples` gives them.
            top: How many classes to name.
        """
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

    def _loaded(self, image: NamedImage) -> NDArray[Any] | PredictionFailure:
        try:
            return self.load(image)
        except ImageError as error:
            return PredictionFailure("image", error.problem, error.fix or "")

    def _predicted(
        self, waiting: Sequence[tuple[str, NDArray[Any] | PredictionFailure]], top: int
    ) -> Iterator[tuple[Prediction, Arrays]]:
        outputs = iter(self.run_samples([item for _, item in waiting if isinstance(item, np.ndarray)]))
        for name, item in waiting:
            if isinstance(item, np.ndarray):
                arrays = next(outputs)
                yield self.judge(name, arrays, top=top), arrays
            else:
                yield Prediction(name, error=item), {}

    def _one(self, image: NDArray[Any]) -> Arrays:
        found = self.run({self.inputs[0].name: np.repeat(image[None], self._copies, axis=0)})
        return {
            name: array[0] if array.ndim and len(array) == self._copies and name not in self._whole else array
            for name, array in found.items()
        }
