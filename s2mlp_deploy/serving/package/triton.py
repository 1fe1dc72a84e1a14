"""A model repository for Triton Inference Server.

Source: Triton's ``docs/user_guide/model_repository.md`` and ``model_configuration.md``; the parameters of its backends
are those that the backends' own documents name (onnxruntime_backend, openvino_backend, tensorrt_backend).
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.artifact import Manifest, SizeLimit, TensorInfo, data_file, fitting_batch, verify_graph
from s2mlp_deploy.artifact.directories import new_directory
from s2mlp_deploy.engines.record import read_engine
from s2mlp_deploy.engines.registry import kind_of
from s2mlp_deploy.errors import InputError, OutputError, TargetError
from s2mlp_deploy.evidence.build import Profile
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.serving.outputs import find_scores
from s2mlp_deploy.serving.package.protobuf_text import Message, Name, text_of
from s2mlp_deploy.serving.package.result import Package, PackageOptions
from s2mlp_deploy.serving.package.writing import check_free
from s2mlp_deploy.serving.plan import RunPlan

_CONFIG, _LABELS = "config.pbtxt", "labels.txt"
_GRAPH, _PLAN = "model.onnx", "model.plan"
_DTYPES = {
    "bool": "TYPE_BOOL",
    **{f"{sign}int{bits}": f"TYPE_{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
}


@dataclass(frozen=True)
class _Backend:
    """How Triton names what runs a file.

    Attributes:
        name: Of the backend.
        file: What the backend calls a model's file in the folder of a version.
        on_gpu: Whether its instances are on GPUs.
    """

    name: str
    file: str
    on_gpu: bool


_BACKENDS = {
    "onnxruntime": _Backend("onnxruntime", _GRAPH, False),
    "onnxruntime:cuda": _Backend("onnxruntime", _GRAPH, True),
    "openvino": _Backend("openvino", _GRAPH, False),
    "openvino:CPU": _Backend("openvino", _GRAPH, False),
    "tensorrt": _Backend("tensorrt", _PLAN, True),
}


def write_triton(output: Path, manifest: Manifest, plan: RunPlan, options: PackageOptions) -> Package:
    """Writes a model of a repository, or a further version of one that is there.

    Args:
        output: The repository; other models in it stay.
        manifest: Of the artifact.
        plan: Which file, and what runs it.
        options: See there.

    Raises:
        TargetError: Triton has no backend for what runs it.
        InputError: An element type has no name in Triton, or the engine has no weights.
        OutputError: The version is there, or the model with another configuration.
        ArtifactError: The file is not the one that was exported or built.
    """
    backend = _backend_of(plan)
    profile, command = None, shlex.join(["tritonserver", f"--model-repository={output}"])
    path = plan.path
    if plan.is_built:
        record = read_engine(path)
        if record.flags.get("strip_plan"):
            raise InputError(
                "the engine has no weights (--strip-plan), and Triton gives it none",
                where=str(path),
                fix="build it without --strip-plan",
            )
        if record.flags.get("version_compatible"):
            # It holds a runtime of its own, which is code: the backend loads that only where it is told to.
            command += " --backend-config=tensorrt,version-compatible=true"
        profile = record.profiles[0] if record.profiles else None
    else:
        path = verify_graph(plan.directory, manifest, plan.file)
    config, notes = _configuration(manifest, plan, backend, profile, options)
    home = output / manifest.name
    files = {_CONFIG: text_of(config)}
    if manifest.classes is not None and any("label_filename" in item for item in _messages(config["output"])):
        files[_LABELS] = "".join(f"{' '.join(name.splitlines())}\n" for name in manifest.classes)
    beside = plan.directory / data_file(plan.file)
    copies = {backend.file: path} | ({beside.name: beside} if not plan.is_built and beside.is_file() else {})
    version = home / str(options.version)
    if (home / _CONFIG).is_file():
        _check_same(home, files)
        check_free(version)
        with new_directory(version) as staging:
            _copy(copies, staging)
        written = [f"{version.relative_to(output)}/{name}" for name in copies]
    else:
        check_free(home)
        with new_directory(home) as staging:
            for name, text in files.items():
                (staging / name).write_text(text, encoding="utf-8")
            (staging / str(options.version)).mkdir()
            _copy(copies, staging / str(options.version))
        written = [f"{manifest.name}/{name}" for name in files]
        written += [f"{version.relative_to(output)}/{name}" for name in copies]
    return Package(
        "triton",
        output,
        tuple(written),
        manifest.name,
        plan.file,
        plan.engine,
        plan.why,
        tuple(notes),
        (command,),
    )


def _copy(files: dict[str, Path], directory: Path) -> None:
    for name, path in files.items():
        shutil.copyfile(path, directory / name)


def _check_same(home: Path, files: dict[str, str]) -> None:
    """Refuses a version of another interface: all versions of a model share one configuration.

    Raises:
        OutputError: The configuration that is there is another one, or the labels are.
    """
    for name, text in files.items():
        there = home / name
        if not there.is_file() or there.read_bytes() != text.encode():
            raise OutputError(
                f"the model that is there has another {name}, which all its versions share",
                where=str(there),
                fix="package into another repository, or move the model away",
            )


def _backend_of(plan: RunPlan) -> _Backend:
    if plan.engine in _BACKENDS:
        return _BACKENDS[plan.engine]
    if kind_of(plan.engine) == "tensorrt-rtx":
        problem, fix = "Triton's TensorRT backend runs no engines of TensorRT-RTX", "build one with --engine tensorrt"
    else:
        problem, fix = f"Triton runs nothing on {plan.engine}", f"choose --engine {' or '.join(_BACKENDS)}"
    raise TargetError(problem, where=plan.file, fix=fix)


def _configuration(
    manifest: Manifest, plan: RunPlan, backend: _Backend, profile: Profile | None, options: PackageOptions
) -> tuple[Message, list[str]]:
    notes: list[str] = []
    batch = _largest_batch(manifest, profile, options.max_batch, notes)
    scores = find_scores(manifest.outputs, manifest.classes, None) if manifest.classes else None
    config: Message = {"name": manifest.name, "backend": backend.name}
    if backend.name == "openvino":
        # The backend looks for model.xml unless it is told otherwise.
        config["default_model_filename"] = backend.file
    config["max_batch_size"] = batch
    config["input"] = [_tensor(info, batch) for info in manifest.inputs]
    config["output"] = [
        _tensor(info, batch) | ({"label_filename": _LABELS} if info.name == scores else {}) for info in manifest.outputs
    ]
    kind = Name("KIND_GPU" if backend.on_gpu else "KIND_CPU")
    group: Message = {"kind": kind, "count": options.instances}
    config["instance_group"] = group | ({"profile": ["0"]} if profile is not None else {})
    if batch > 1:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": round(options.max_delay * 1e6)}
    parameters = list(_parameters(plan, backend, notes))
    if parameters:
        config["parameters"] = [{"key": key, "value": {"string_value": text}} for key, text in parameters]
    # Engines make buffers, and choose kernels, at the first run of a shape: before the model is told to be ready. Of a
    # model without batches Triton wants 1 here (model_config.proto).
    warmup = [
        {"name": f"batch-{size}", "batch_size": size, **_warm_inputs(manifest, batch, profile)}
        for size in (sorted({1, batch}) if batch else (1,))
    ]
    config["model_warmup"] = warmup
    return config, notes


def _largest_batch(manifest: Manifest, profile: Profile | None, wanted: int, notes: list[str]) -> int:
    """Samples in a run; 0, Triton's word for models that take no batch, where an axis of samples is not free.

    Triton takes a model for one of batches only where the first axis of every input and output is free
    (server issue 1105), and refuses to load an engine whose profile holds fewer samples (issues 3032, 5328).
    """
    infos = (*manifest.inputs, *manifest.outputs)
    if not all(info.shape and isinstance(info.shape[0], str) for info in infos):
        notes.append("the batch of the model is fixed: every request is one run of that size")
        return 0
    # Cut among requests by numbers of samples, what was found in all of them would go to whoever's turn it is.
    sizes = {info.shape[0] for info in infos}
    if len(sizes) > 1 or "?" in sizes:  # An axis without a name may be another, too.
        notes.append("the first axis of an input or output may count other things than samples: requests share no run")
        return 0
    rules = [limit for limit in manifest.limits if limit.axis == 0]
    least, most = 1, wanted
    if profile:
        least = max(ranges.min[0] for ranges in profile.values())
        most = min(most, *(ranges.max[0] for ranges in profile.values()))
    most = min([most, *(rule.max for rule in rules if rule.max is not None)])
    if least > 1 or fitting_batch(rules, 1)[0] > 1 or any(rule.multiple > 1 for rule in rules):
        notes.append("the model does not take every number of samples: Triton forms no batches, requests must fit")
        return 0
    if most < wanted:
        notes.append(f"at most {most} samples in a run, which is what {'the engine' if profile else 'the model'} takes")
    return most


def _tensor(info: TensorInfo, batch: int) -> Message:
    if info.dtype not in _DTYPES:
        raise InputError(
            f"Triton has no element type for {info.dtype}",
            where=info.name,
            fix="use the command serve, which has it, or export without --half-io",
        )
    shape = info.shape[1:] if batch else info.shape
    dims = [-1 if isinstance(size, str) else size for size in shape]
    if not info.shape:
        raise InputError(
            "Triton takes no tensor without an axis",
            where=info.name,
            fix="use the command serve, or export a model whose outputs have an axis",
        )
    # Triton wants one dimension at least; the vector of a batch's labels has none left, so it is reshaped.
    named: Message = {"name": info.name, "data_type": Name(_DTYPES[info.dtype]), "dims": dims or [1]}
    return named if dims else named | {"reshape": {}}


def _parameters(plan: RunPlan, backend: _Backend, notes: list[str]) -> Iterator[tuple[str, str]]:
    settings = plan.settings
    if backend.name == "onnxruntime" and not backend.on_gpu:
        if settings.threads:
            yield "intra_op_thread_count", str(settings.threads)
        if not settings.spin:
            notes.append("Triton's backend cannot keep idle threads of ONNX Runtime from spinning")
    if backend.name == "openvino":
        # On processors with bfloat16 it would compute in that, which the file does not promise.
        yield "HINT_BF16", "NO"
        if settings.threads:
            yield "INFERENCE_NUM_THREADS", str(settings.threads)
    if settings.flush_denormals:
        notes.append("Triton's backends do not take subnormal numbers for 0: export with --flush-denormals")
    if settings.optimize != "all":
        notes.append("Triton optimizes the graph as far as it can, not as `tune` chose")


def _warm_inputs(manifest: Manifest, batch: int, profile: Profile | None) -> Message:
    return {"inputs": [_warm_input(info, manifest, batch, profile) for info in manifest.inputs]}


def _warm_input(info: TensorInfo, manifest: Manifest, batch: int, profile: Profile | None) -> Message:
    sizes = _example_sizes(info, manifest, profile)
    content: Message = {"data_type": Name(_DTYPES[info.dtype]), "dims": sizes[1:] if batch else sizes}
    return {"key": info.name, "value": content | {"zero_data": True}}


def _example_sizes(info: TensorInfo, manifest: Manifest, profile: Profile | None) -> list[int]:
    """A shape that the model takes: an image's own size where it has one, else the least that is allowed."""
    if profile is not None and info.name in profile:
        return list(profile[info.name].opt)
    image = Preprocessing.from_dict(manifest.preprocessing).size if manifest.preprocessing else None
    free = [axis for axis, size in enumerate(info.shape) if isinstance(size, str) and axis]
    named = dict(zip(free, image, strict=True)) if image is not None and len(free) == len(image) else {}
    rules: dict[int, SizeLimit] = {rule.axis: rule for rule in manifest.limits if rule.input == info.name}
    sizes = []
    for axis, size in enumerate(info.shape):
        if isinstance(size, int):
            sizes.append(size)
        else:
            wanted = named.get(axis, 1)
            sizes.append(rules[axis].at_least(wanted) if axis in rules else wanted)
    return sizes


def _messages(value: object) -> list[Message]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
