"""Classifying images with an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s2mlp_deploy.errors import DataError
from s2mlp_deploy.serving.predictor import Prediction, Predictor


def predict(
    directory: str | Path,
    images: Sequence[str | Path],
    *,
    precision: str = "fp32",
    top: int = 5,
    provider: str = "CPUExecutionProvider",
) -> list[Prediction]:
    """Classifies image files with an artifact; see :class:`~s2mlp_deploy.serving.predictor.Predictor`.

    Raises:
        DataError: No images were named.
        ArtifactError: The artifact is damaged, or has no such file or no preprocessing.
        ImageError: A file is no image.
    """
    if not images:
        raise DataError("no images to classify", fix="name at least one image file")
    return Predictor(directory, precision=precision, provider=provider).predict(images, top=top)
