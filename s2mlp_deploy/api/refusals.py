"""Refusing what arguments and files show to be wrong: in a second, before torch is imported and a model is captured.

Imports neither torch nor onnx. What only a loaded model can tell is in :mod:`.checking`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from s2mlp_deploy.api.places import place_of, why_not
from s2mlp_deploy.artifact import MANIFEST, Manifest, check_output, model_file, read_manifest
from s2mlp_deploy.choices import MIN_SAMPLES
from s2mlp_deploy.data.archive import is_archive
from s2mlp_deploy.data.collect import collect, split_path
from s2mlp_deploy.data.dataset import open_data
from s2mlp_deploy.data.feeds import ModelInputs
from s2mlp_deploy.data.huggingface import is_dataset
from s2mlp_deploy.data.images import some_images
from s2mlp_deploy.data.layout import EXTENSIONS_FIX
from s2mlp_deploy.data.samples import Sample
from s2mlp_deploy.errors import ArtifactError, DataError, ImageError, InputError
from s2mlp_deploy.graph.opsets import DEFAULT_OPSET, check_opset
from s2mlp_deploy.precision.options import PrecisionOptions
from s2mlp_deploy.precision.options import check_opset as check_precisions
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.sources.reference import check_source as check_source
from s2mlp_deploy.text import command_line, join_names


def refuse_repair(source: str) -> None:
    """Refuses to repair the smears of a source that is no ONNX file.

    Raises:
        InputError: Always.
    """
    raise InputError(
        "smears are what a tracer left in an ONNX file; of PyTorch code the functional meaning is exported anyway",
        where=f"{source}: --repair-smear",
        fix="leave --repair-smear out, or name the ONNX file",
    )


def check_data(data: object, *, minimum: int, seed: int = 0) -> None:
    """Refuses data that is not there, or too little of it.

    Of an archive, whose listing may take as long as unpacking it, only whether it is there; of a Python object nothing.

    Args:
        data: What the user named.
        minimum: Fewest samples.
        seed: Chooses samples.

    Raises:
        DataError: There is no such data, none that can be used, or too little of it.
        MissingDependencyError: It was saved by ``datasets``, which is not installed.
    """
    path = _path_of(data)
    if path is None:
        return
    folder = _is_folder_of_images(path)
    found = len(some_images(path, minimum) if folder else collect(path, limit=minimum, seed=seed))
    if not found:
        raise DataError("There is no image", where=str(path), fix=EXTENSIONS_FIX)
    if found < minimum:
        raise DataError(
            f"There are only {found} samples, at least {minimum} are needed",
            where=str(data),
            fix="give more; some hundreds that look like the model's work are best",
        )


def _check_fits(data: object, manifest: Manifest, seed: int) -> None:
    """Refuses data whose first sample is no input of an artifact's model."""
    path = _path_of(data)
    if path is None:
        return
    described = manifest.preprocessing
    preprocessing = Preprocessing.from_dict(described) if described is not None else None
    if _is_folder_of_images(path):
        (first,) = some_images(path, 1)
        with contextlib.suppress(ImageError):  # It is skipped, or raised, when its turn comes.
            ModelInputs(manifest.inputs, preprocessing).load(Sample(first, first, None))
    else:
        open_data(path, inputs=manifest.inputs, preprocessing=preprocessing, classes=manifest.classes, seed=seed)


def _path_of(data: object) -> Path | None:
    """The file or folder, unless it is an archive; None for a Python object.

    Raises:
        DataError: There is no such file or folder.
    """
    if not isinstance(data, (str, Path)):
        return None
    path = Path(data)
    return None if is_archive(split_path(path)[0].name) else path


def _is_folder_of_images(path: Path) -> bool:
    return path.is_dir() and not is_dataset(path)


def check_export(
    output: str | Path,
    *,
    force: bool,
    opset: int | None = None,
    precision: PrecisionOptions | None = None,
    base: str = "fp32",
) -> tuple[str, ...]:
    """Refuses what no export could do: an output that is not to be written, data that is not there, and so on.

    Args:
        output: The directory to write.
        force: Whether an artifact that is there may be replaced.
        opset: Of the files; None for the default.
        precision: Which files to make beside float32.
        base: The precision of the first file: an ONNX file may have another one.

    Returns:
        The names of the ONNX files to write.

    Raises:
        ExportError: The opset cannot be written.
        InputError: An option has a value that cannot be used, or nothing that is wanted uses it.
        DataError: Data is missing, or too little.
        OutputError: The directory cannot be written, or holds an artifact.
    """
    opset = DEFAULT_OPSET if opset is None else opset
    check_opset(opset)
    files: tuple[str, ...] = ()
    if precision is not None:
        precision.check()
        _check_speedup(precision)
        files = precision.files
        check_precisions(files, opset)
    names = tuple(model_file(name) for name in (base, *files))
    check_output(Path(output), force=force, files=names)
    if precision is not None and files:
        for data in (precision.data, precision.eval_data):
            check_data(data, minimum=MIN_SAMPLES, seed=precision.seed)
    return names


def _check_speedup(options: PrecisionOptions) -> None:
    """Refuses a floor of speed that nothing here could measure."""
    if options.min_speedup is None:
        return
    reasons = {model_file(name): why_not(place_of(name)) for name in options.files}
    if reasons and all(reasons.values()):
        other = "int8" not in options.files and not why_not(place_of("int8"))
        raise InputError(
            "; ".join(f"{name} cannot be measured: {why}" for name, why in reasons.items()),
            where="--min-speedup",
            fix="leave it out, or add --precision int8, which runs on a processor"
            if other
            else "leave it out, or install what is missing: `s2mlp-deploy doctor` shows what",
        )


def check_quantize(directory: str | Path, options: PrecisionOptions) -> Manifest:
    """Refuses what no quantization of an artifact could do.

    Returns:
        The artifact's manifest.

    Raises:
        ArtifactError: There is no artifact, or it has no float32 file.
        InputError: Nothing is asked for, or an option has a value that cannot be used.
        DataError: The data cannot be used, or does not fit the model.
        PreprocessingError: The data is images, and no preprocessing is configured, or they cannot be an input.
    """
    _check_wanted(options)
    manifest = read_manifest(Path(directory))
    kinds = [record.precision for record in manifest.files]
    if "fp32" not in kinds:
        raise ArtifactError(
            f"the artifact was made from a file that computes in {join_names(dict.fromkeys(kinds))}, and other "
            "precisions are made from float32",
            where=str(directory),
            fix="export the float32 file that it came from, and quantize that",
        )
    check_precisions(options.files, manifest.opset)
    for data in (options.data, options.eval_data):
        check_data(data, minimum=MIN_SAMPLES, seed=options.seed)
        _check_fits(data, manifest, options.seed)
    return manifest


def _check_wanted(options: PrecisionOptions) -> None:
    if not options.files:
        raise InputError("fp32 is there already", fix="ask for fp16, int8 or fp8")
    if options.data is None:
        raise DataError("there is no data to measure on", fix="--data PATH")
    options.check()
    _check_speedup(options)


def check_quantize_file(
    file: str | Path,
    output: str | Path | None,
    options: PrecisionOptions,
    *,
    preprocess: str | Path | None,
    force: bool,
) -> Path:
    """Refuses what no quantization of an ONNX file could do, by the arguments alone.

    Returns:
        Where the artifact goes.

    Raises:
        SourceError: There is no such file.
        InputError: No output is named, or an option has a value that cannot be used.
        DataError: Data is missing, or too little.
        PreprocessingError: The description is wrong.
        OutputError: The output cannot be written, or holds an artifact.
    """
    _check_wanted(options)
    check_source(str(file), preprocess=preprocess)
    if output is None:
        folder = Path(file).parent
        inside = (folder / MANIFEST).is_file()
        raise InputError(
            "the quantized files of an ONNX file become an artifact, and no place for it is named",
            where=str(file),
            fix=f"{command_line('quantize', folder)} is for the artifact that it lies in" if inside else "--output DIR",
        )
    check_export(output, force=force, precision=options)
    return Path(output)


def check_parity(files: Sequence[str | Path], data: object = None) -> None:
    """Refuses a comparison of nothing, of files that are not there, or on data that is not there.

    Raises:
        InputError: No files are named.
        ArtifactError: There is no such file.
        DataError: There is no such data.
    """
    if not files:
        raise InputError("no files to compare", fix="name at least one .onnx file")
    for file in map(Path, files):
        if not file.exists():
            raise ArtifactError("no such file", where=str(file), fix="check the path")
    check_data(data, minimum=1)
