"""Classifying images with an artifact: what `predict` and the server run. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.artifact import MANIFEST, check_onnx, read_manifest, verify_precision
from s2mlp_deploy.engines.onnxruntime import CPU, OnnxRuntimeEngine
from s2mlp_deploy.errors import ArtifactError, CheckFailedError
from s2mlp_deploy.metrics import top_k
from s2mlp_deploy.preprocess import Preprocessing, preprocess, raw_pixels


@dataclass(frozen=True)
class Prediction:
    """What an artifact says of one image.

    Attributes:
        image: Its path.
        classes: Names (or indices as text) of the best classes, best first.
        probabilities: Their softmax probabilities.
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


class Predictor:
    """Classifies images with an artifact, through ONNX Runtime; needs no torch.

    Args:
        directory: The artifact.
        precision: Which of its files.
        provider: ONNX Runtime's execution provider.
        threads: Threads within an operator; 0 lets ONNX Runtime choose.

    Raises:
        ArtifactError: The artifact is damaged, or has no such file or no preprocessing.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        precision: str = "fp32",
        provider: str = CPU,
        threads: int = 0,
    ) -> None:
        root = Path(directory)
        self.manifest = read_manifest(root)
        path = verify_precision(root, self.manifest, precision)
        check_onnx(path)
        if self.manifest.preprocessing is None:
            raise ArtifactError(
                "the artifact does not say how an image becomes its input",
                where=str(root / MANIFEST),
                fix="export again with --preprocess FILE.json",
            )
        self.preprocessing = Preprocessing.from_dict(self.manifest.preprocessing)
        self.engine = OnnxRuntimeEngine(path, provider=provider, threads=threads)

    def predict(self, images: Sequence[str | Path], *, top: int = 5, batch: int = 8) -> list[Prediction]:
        """Classifies image files.

        Raises:
            ImageError: A file is no image.
            CheckFailedError: The scores of an image are not finite.
        """
        predictions = []
        for start in range(0, len(images), batch):
            chosen = [Path(image) for image in images[start : start + batch]]
            scores = self._scores(chosen)
            predictions += [
                self._best(str(path), row, top) for path, row in zip(chosen, scores.astype(np.float64), strict=True)
            ]
        return predictions

    def _scores(self, paths: Sequence[Path]) -> NDArray[np.floating[Any]]:
        info, output = self.engine.inputs[0], self.engine.outputs[0].name
        if not self.manifest.preprocessing_in_graph:
            images = preprocess(paths, self.preprocessing).astype(info.dtype, copy=False)
            return self.engine.run({info.name: images})[output]
        # One image a run: they differ in size. Where the batch is fixed, it is the same image throughout.
        copies = info.shape[0] if isinstance(info.shape[0], int) else 1
        return np.concatenate([self.engine.run({info.name: raw_pixels(path, copies)})[output][:1] for path in paths])

    def _best(self, image: str, scores: NDArray[np.float64], top: int) -> Prediction:
        if not np.isfinite(scores.max()):  # A NaN anywhere makes the largest one NaN.
            raise CheckFailedError(
                "the scores are NaN or infinite, which names no class",
                where=image,
                fix="compare the file with its source by `s2mlp-deploy parity`, or use the fp32 file",
            )
        weights = np.exp(scores - scores.max())
        probabilities = weights / weights.sum()
        best = top_k(scores[None], top)[0]
        names = self.manifest.classes
        return Prediction(
            image,
            tuple(names[index] if names and index < len(names) else str(index) for index in best),
            tuple(float(probabilities[index]) for index in best),
        )
