"""Classifying images with an artifact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from s2mlp_deploy.artifact import MANIFEST, read_manifest
from s2mlp_deploy.errors import DataError, InputError
from s2mlp_deploy.serving.images import Images, named_images
from s2mlp_deploy.serving.inputs import check_takes_images
from s2mlp_deploy.serving.predictor import Prediction, Predictor
from s2mlp_deploy.serving.saving import check_target, save_outputs


def predict(
    directory: str | Path,
    images: Images,
    *,
    precision: str | None = None,
    output: str | None = None,
    top: int = 5,
    save: str | Path | None = None,
    engine: str | None = None,
    threads: int | None = None,
    spin: bool | None = None,
    flush_denormals: bool | None = None,
    allow_unproven: bool = False,
) -> list[Prediction]:
    """Classifies images with an artifact; see :class:`~s2mlp_deploy.serving.predictor.Predictor`.

    Args:
        directory: The artifact.
        images: See :meth:`~s2mlp_deploy.serving.predictor.Predictor.predict`.
        precision: Which of its files; default: what ``tune`` chose, else the fastest that was measured, of those whose
            parity holds (:func:`~s2mlp_deploy.serving.plan.plan_run`).
        output: The output that is the classifier; default: the one that looks like it.
        top: How many classes to name.
        save: An ``.npz`` file for all outputs of the images that could be used
            (:func:`~s2mlp_deploy.serving.saving.save_outputs`).
        engine: What runs it: ``onnxruntime[:PROVIDER]``, ``openvino[:DEVICE]``, or what an engine was built with;
            default: as for ``precision``.
        threads: See :class:`~s2mlp_deploy.serving.predictor.Predictor`.
        spin: See there.
        flush_denormals: See there.
        allow_unproven: See there.

    Returns:
        One prediction an image; that of an image that cannot be used says why (``error``).

    Raises:
        DataError: No images were named, or a folder has none.
        ArtifactError: The artifact is damaged, has no such file or no preprocessing, or none whose parity holds, or its
            model takes no image.
        InputError: Something is given that is no image, or there is no such output.
        OutputError: The file to save to is somebody else's or cannot be written.
    """
    if top < 1:
        raise InputError(f"top is {top}", fix="give at least 1")
    target = None if save is None else Path(save)
    if target is not None:
        check_target(target)
    if not isinstance(images, Iterator):  # Before a model is loaded; what comes one by one is not kept in memory.
        images = list(named_images(images))
    # What the manifest tells is refused before weights are read.
    manifest = read_manifest(Path(directory))
    check_takes_images(manifest, manifest.inputs, Path(directory) / MANIFEST)
    predictions, kept = [], []
    with Predictor(
        directory,
        precision=precision,
        output=output,
        engine=engine,
        threads=threads,
        spin=spin,
        flush_denormals=flush_denormals,
        allow_unproven=allow_unproven,
        warn=False,  # What makes a service slow is nothing to a command that ends.
    ) as predictor:
        for prediction, outputs in predictor.stream(images, top=top):
            predictions.append(prediction)
            if target is not None and outputs:
                kept.append((prediction.image, outputs))
    if not predictions:
        raise DataError("no images to classify", fix="name at least one image file")
    if target is not None:
        save_outputs(target, [name for name, _ in kept], [outputs for _, outputs in kept])
    return predictions
