"""What a worker serves: a predictor, asked for several requests at a time."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2mlp_deploy.artifact import fitting_batch
from s2mlp_deploy.data.noise import noise
from s2mlp_deploy.engines.base import Arrays
from s2mlp_deploy.errors import ArtifactError, ImageError, S2MLPDeployError
from s2mlp_deploy.evidence.machine import this_machine
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.preprocess import FORMATS
from s2mlp_deploy.serving.images import NamedImage
from s2mlp_deploy.serving.inputs import takes_image
from s2mlp_deploy.serving.predictor import Predictor
from s2mlp_deploy.serving.service.messages import Fault, Item, Opened, Outcome, Setup, digest_of, packed
from s2mlp_deploy.serving.service.protocol import NAMES

Prepared: TypeAlias = Arrays | NDArray[Any] | Fault
"""A request's tensors, with the batch axis; an image's input, without it; or why there are none."""

_IMAGE = "the image"


class ServedModel:
    """An artifact that is open.

    Args:
        setup: Which, and with what.

    Raises:
        S2MLPDeployError: It is damaged, or cannot run here.
    """

    def __init__(self, setup: Setup) -> None:
        self._predictor = Predictor(
            setup.directory,
            precision=setup.precision,
            engine=setup.engine,
            threads=_threads(setup),
            spin=setup.spin,
            flush_denormals=setup.flush_denormals or None,
            allow_unproven=setup.allow_unproven,
            warn=False,
        )
        plan = self._predictor.plan
        built = f" {sha256_of(plan.path)}" if plan.is_built else ""
        self._state = f"{digest_of(self._predictor.manifest)} {plan.file}{built}"
        if setup.state not in ("", self._state) or not self._state.startswith(setup.manifest):
            raise ArtifactError(
                "its files were replaced by others since it was loaded",
                fix="wait until the service takes the new ones, or start it again",
            )
        self._max_pixels = setup.max_pixels
        for info in (*self._predictor.inputs, *self._predictor.outputs):
            if info.dtype not in NAMES:
                raise ArtifactError(f"{info.name} is {info.dtype}, which is not served", fix="serve numbers")
        sizes = range(setup.max_batch, 1, -1) if self._predictor.batches else ()
        rules = [rule for rule in self._predictor.limits if rule.axis == 0]
        self._most = next((size for size in sizes if all(rule.allows(size) for rule in rules)), 1)

    @property
    def why_no_classes(self) -> str:
        """Why it classifies no images; empty where it does."""
        if not takes_image(self._predictor.inputs):
            return "the model does not take one image"
        if not self._predictor.takes_images:
            return "the artifact does not say how an image becomes its input"
        return "" if self._predictor.output is not None else "no output of the model is a list of scores"

    def opened(self, seconds: float) -> Opened:
        """What the service is told of it.

        Args:
            seconds: That opening and warming took.
        """
        plan = self._predictor.plan
        return Opened(
            self._predictor.engine_name,
            plan.file,
            plan.precision,
            plan.why,
            (*plan.notes, *(f"{item.problem}: {item.fix}" for item in self._predictor.hindrances)),
            self._predictor.inputs,
            self._predictor.outputs,
            self._predictor.limits,
            self._most,
            self.why_no_classes,
            seconds,
            self._state,
        )

    def warm_up(self) -> None:
        """Runs noise, one sample and as many as will come: engines compile and allocate at first use."""
        inputs, generator = self._predictor.inputs, np.random.default_rng(0)
        # Free sizes other than the batch's are known only from a request.
        if not all(isinstance(side, int) for info in inputs for side in info.shape[1:]):
            return
        for size in sorted({1, self._most}):
            rows = fitting_batch(self._predictor.limits, size)[0]
            shapes = [tuple(side if isinstance(side, int) else rows for side in info.shape) for info in inputs]
            self._predictor.run(
                {info.name: noise(shape, info.dtype, generator) for info, shape in zip(inputs, shapes, strict=True)}
            )

    def prepare(self, item: Item) -> Prepared:
        """A request's arrays; an image is decoded and becomes the input."""
        if item.feeds is not None:
            return {name: tensor.array() for name, tensor in item.feeds.items()}
        assert item.image is not None
        data = bytes(item.image)
        try:
            self._check_pixels(data)
            return self._predictor.load(NamedImage(_IMAGE, data))
        except S2MLPDeployError as error:
            return Fault("too_large" if isinstance(error, _TooManyPixelsError) else "invalid", error.problem, error.fix)

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
        """The result of each request; those of equal shapes share a run where the model allows it."""
        outcomes: dict[int, Outcome] = {}
        images: dict[int, NDArray[Any]] = {}
        tensors: dict[Any, dict[int, Arrays]] = {}
        for index, (_, made) in enumerate(requests):
            if isinstance(made, Fault):
                outcomes[index] = Outcome(fault=made)
            elif isinstance(made, dict):
                shapes = tuple((name, array.shape[1:]) for name, array in made.items())
                tensors.setdefault(shapes if self._predictor.batches else index, {})[index] = made
            else:
                images[index] = made
        for group in tensors.values():
            for index, found in zip(group, self._outputs(list(group.values())), strict=True):
                outcomes[index] = found if isinstance(found, Outcome) else _chosen(requests[index][0], found)
        for index, found in zip(images, self._outputs_of_images(list(images.values())), strict=True):
            top = requests[index][0].top
            outcomes[index] = found if isinstance(found, Outcome) else self._classes(found, top)
        return [outcomes[index] for index in range(len(requests))]

    def _outputs(self, requests: Sequence[Arrays]) -> list[Arrays | Outcome]:
        """The outputs of requests that fit together; a failure of all is looked for in each."""
        try:
            if len(requests) == 1:
                return [self._predictor.run(requests[0])]
            rows = [len(next(iter(arrays.values()))) for arrays in requests]
            found = self._predictor.run(
                {name: np.concatenate([arrays[name] for arrays in requests]) for name in requests[0]}
            )
            ends = np.cumsum(rows)
            if all(array.ndim and len(array) == ends[-1] for array in found.values()):
                return [
                    {name: array[end - count : end] for name, array in found.items()}
                    for end, count in zip(ends, rows, strict=True)
                ]
            self._predictor.batches = False  # A free first axis that is not the samples', as that of found boxes.
        except S2MLPDeployError as error:
            if len(requests) == 1:
                return [_broken(error)]
        return [outcome for arrays in requests for outcome in self._outputs([arrays])]

    def _outputs_of_images(self, images: Sequence[NDArray[Any]]) -> list[Arrays | Outcome]:
        try:
            return list(self._predictor.run_samples(images))
        except S2MLPDeployError as error:
            if len(images) == 1:
                return [_broken(error)]
        return [outcome for image in images for outcome in self._outputs_of_images([image])]

    def _classes(self, outputs: Arrays, top: int) -> Outcome:
        found = self._predictor.judge(_IMAGE, outputs, top=top)
        if found.error is not None:
            return Outcome(fault=Fault("broken", found.error.problem, found.error.fix))
        return Outcome(None, found.classes, found.probabilities)


def _threads(setup: Setup) -> int | None:
    """Of one process: several share the cores, unless it was said otherwise."""
    if setup.threads is not None or setup.instances == 1:
        return setup.threads
    return max(1, int((this_machine().usable_cores or 1) // setup.instances))


def _chosen(item: Item, outputs: Arrays) -> Outcome:
    return Outcome(outputs={name: packed(outputs[name]) for name in item.outputs})


def _broken(error: S2MLPDeployError) -> Outcome:
    return Outcome(fault=Fault("broken", error.problem, error.fix))


class _TooManyPixelsError(ImageError):
    """An image above the service's own limit."""
