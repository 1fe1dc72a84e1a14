"""The table of flavours, the options, and what cannot be had without a GPU."""

from __future__ import annotations

import contextlib
import signal

import pytest

from s2mlp_deploy.engines.tensorrt import library
from s2mlp_deploy.engines.tensorrt.flavours import check_targets, flavour
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, check_options, check_version, chosen_sources, parse_size
from s2mlp_deploy.errors import BuildError, InputError, TargetError
from s2mlp_deploy.gpu import Gpu, gpus

RTX, TENSORRT = flavour("tensorrt-rtx"), flavour("tensorrt")
without_gpu = pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")


def test_the_listed_targets_are_those_of_the_library():
    library = pytest.importorskip("tensorrt_rtx")
    known = {name.lower() for name in library.ComputeCapability.__members__ if name.startswith("SM")}
    assert set(RTX.targets) == known


def test_the_operators_it_cannot_parse_are_those_of_the_library():
    library = pytest.importorskip("tensorrt_rtx")
    onnx = pytest.importorskip("onnx")
    from s2mlp_deploy.engines.tensorrt.library import logger_of

    logger = logger_of(library)
    parser = library.OnnxParser(library.Builder(logger).create_network(0), logger)
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    refused = {name for name in names if not parser.supports_operator(name)}
    assert len(refused) > 30
    # The table is of the newest onnx; an older one does not know all of it.
    assert RTX.no_importer & names == refused


@pytest.mark.parametrize(
    ("name", "given", "version"),
    [
        ("tensorrt", "10", (10, 99)),
        ("tensorrt", "10.2", (10, 2)),
        ("tensorrt", "11.4.0.106", (11, 4, 0, 106)),
        ("tensorrt", "10.14.1.48.post1", (10, 14, 1, 48)),
        ("tensorrt", "10.0.0b6", (10, 0, 0)),
    ],
)
def test_versions_are_read(name, given, version):
    assert flavour(name, given).version == version


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("tensorrt", "11.x"),
        ("tensorrt", "8.6"),
        ("tensorrt", "12"),
        ("tensorrt", "new"),
        ("tensorrt", ""),
        ("tensorrt-rtx", "10"),
        ("tensorrt-rtx", "1.1.1.26"),
    ],
)
def test_a_version_nobody_knows_says_which_are_known(name, version):
    with pytest.raises(TargetError, match=r"is not known here\n.*give a version"):
        flavour(name, version)


def test_an_engine_nobody_knows_lists_those_that_are():
    with pytest.raises(TargetError, match=r"'openvino'[\s\S]*tensorrt, tensorrt-rtx"):
        flavour("openvino")


@pytest.mark.parametrize("targets", [("sm99",), ("sm89", "ada"), (), ("SM 89",), ("",)])
def test_a_target_that_does_not_exist_lists_those_that_do(targets):
    with pytest.raises(TargetError) as caught:
        check_targets(RTX, targets)
    assert all(target in str(caught.value) for target in RTX.targets)
    assert ("there is none" in str(caught.value)) == (targets == ())


def test_a_version_of_rtx_has_the_targets_that_it_had():
    assert set(RTX.targets) - set(flavour("tensorrt-rtx", "1.4.0.76").targets) == {"sm121"}
    assert flavour("tensorrt-rtx", "1.5").targets == flavour("tensorrt-rtx", "1").targets == RTX.targets


@pytest.mark.parametrize(("version", "available"), [("1.4.0.76", True), ("1.1.1.26", False), ("2.0", False)])
def test_the_status_of_rtx_is_that_of_its_version(monkeypatch, version, available):
    monkeypatch.setattr(library, "version_of", lambda _: version)
    monkeypatch.setattr(library, "gpus", tuple)
    found = library.rtx_status()
    assert (found.available, "sm121" in found.detail, "not known here" in found.missing) == (
        available,
        False,
        not available,
    )


@pytest.mark.parametrize("targets", [("ada",), ("sm86", "sm89"), ("sm",)])
def test_tensorrt_builds_for_the_gpu_at_hand_alone(targets):
    check_targets(TENSORRT, ("sm90",))
    with pytest.raises(TargetError, match="GPU of the building machine"):
        check_targets(TENSORRT, targets)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1073741824", 2**30), ("2G", 2**31), ("512M", 2**29), ("512MiB", 2**29), ("1.5g", 3 * 2**29), ("8 kB", 8192)],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "0", "lots", "2T", "1e9", "9" * 30])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="is not a size"):
        parse_size(text)


@without_gpu
@pytest.mark.parametrize("option", ["refit", "strip_plan"])
def test_what_fails_without_a_gpu_is_refused_before_the_build(option):
    with pytest.raises(TargetError, match=rf"--{option.replace('_', '-')} needs .*GPU"):
        check_options(BuildOptions(**{option: True}), RTX, gpu=False)
    check_options(BuildOptions(**{option: True}), RTX, gpu=True)


@pytest.mark.parametrize("status", [library.tensorrt_status, library.rtx_status])
def test_where_a_gpu_is_what_runs_engines_must_be_too(monkeypatch, status):
    versions = {"tensorrt": "11.4.0", "tensorrt-rtx": "1.7.1"}
    monkeypatch.setattr(library, "version_of", versions.get)
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(library, "gpus", lambda: (Gpu("NVIDIA L4", "sm89", "580", 1),))
    found = status()
    assert (found.available, found.install_hint) == (True, "pip install 's2mlp-deploy[cuda]'")
    assert "cuda-bindings" in found.missing
    versions["cuda-bindings"] = "13.0"
    assert status().missing == ""


@pytest.mark.slow
@without_gpu
@pytest.mark.parametrize("flag", ["REFIT", "STRIP_PLAN"])
def test_they_do_fail_there(flag, tmp_path):
    library = pytest.importorskip("tensorrt_rtx")
    import nano_artifact

    from s2mlp_deploy.engines.tensorrt.library import logger_of

    logger = logger_of(library)
    builder = library.Builder(logger)
    network = builder.create_network(0)
    assert library.OnnxParser(network, logger).parse_from_file(str(nano_artifact.read_only() / "model.fp32.onnx"))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    config.num_compute_capabilities = 1
    config.set_compute_capability(library.ComputeCapability.SM89, 0)
    profile.set_shape("input", *3 * ((1, 3, 32, 32),))
    config.add_optimization_profile(profile)
    config.set_flag(getattr(library.BuilderFlag, flag))
    assert builder.build_serialized_network(network, config) is None


@pytest.mark.parametrize(
    ("options", "found", "says"),
    [
        (BuildOptions(hardware_compatible="ampere+"), RTX, "name every GPU with --target"),
        (BuildOptions(hardware_compatible="hopper+"), TENSORRT, "ampere[+], same-compute-capability"),
        (BuildOptions(builder_optimization_level=6), TENSORRT, "choose 0 to 5"),
        (BuildOptions(builder_optimization_level=-1), RTX, "choose 0 to 5"),
        (BuildOptions(timing_cache="cache"), RTX, "leave --timing-cache out"),
        (BuildOptions(version_compatible=True), RTX, "its engines load in no other release"),
        (BuildOptions(build_route="-knob=on"), RTX, "has no --build-route"),
        (BuildOptions(build_route="knob"), TENSORRT, "'knob' is no part of a build route"),
        (BuildOptions(build_route="-knob=[on|off]"), TENSORRT, "--tuneBuildRoutes"),
        (BuildOptions(build_route=" "), TENSORRT, "the build route is empty"),
        (BuildOptions(max_aux_streams=-1), TENSORRT, "0 or more"),
        (BuildOptions(device=-1), TENSORRT, "from 0"),
    ],
)
def test_options_of_another_flavour_are_refused(options, found, says):
    with pytest.raises((InputError, TargetError), match=says):
        check_options(options, found, gpu=True)


def test_a_gpu_that_nothing_would_use_is_refused():
    with pytest.raises(TargetError, match="builds on no GPU") as caught:
        check_options(BuildOptions(device=3), RTX, gpu=False)
    assert "leave --device out" in caught.value.fix
    check_options(BuildOptions(device=3), RTX, gpu=True)


@pytest.mark.parametrize(
    ("options", "version", "says"),
    [
        (BuildOptions(tactic_sources="-CUDNN"), "11.4", "has no tactic source CUDNN"),
        (BuildOptions(tactic_sources="CUDNN"), "10.16", "write [+]NAME or -NAME"),
        (BuildOptions(tactic_sources="-"), "10.16", "write [+]NAME or -NAME"),
        (BuildOptions(build_route="-knob=on"), "11.0", "came with TensorRT 11.1"),
        (BuildOptions(build_route="-knob=on"), "10.16", "came with TensorRT 11.1"),
        # Its release notes: "Added a new hardware compatibility level, kSAME_COMPUTE_CAPABILITY".
        (BuildOptions(hardware_compatible="same-compute-capability"), "10.8", "TensorRT 10.8 has no hardware compat"),
    ],
)
def test_options_that_a_version_has_not_are_refused(options, version, says):
    check_options(options, TENSORRT, gpu=True)
    with pytest.raises((InputError, TargetError), match=says):
        check_version(options, flavour("tensorrt", version))


def test_options_that_a_version_has_are_taken():
    check_version(BuildOptions(build_route="-knob=on other=3"), flavour("tensorrt", "11.1"))
    for version in ("10.9", "10", "11.4"):
        check_version(BuildOptions(hardware_compatible="same-compute-capability"), flavour("tensorrt", version))
    ten = flavour("tensorrt", "10.16")
    assert chosen_sources("-CUBLAS,-cudnn,+JIT_CONVOLUTIONS", ten) == (
        "EDGE_MASK_CONVOLUTIONS",
        "CUBLAS_LT",
        "JIT_CONVOLUTIONS",
    )


@pytest.mark.parametrize(
    ("name", "compatible", "built", "here", "loads"),
    [
        ("tensorrt", False, "10.3.0", "10.16.1", False),
        ("tensorrt", True, "10.3.0", "10.16.1", True),
        ("tensorrt", True, "10.16.1", "10.3.0", False),
        ("tensorrt", True, "10.16.1", "11.4.0", True),
        ("tensorrt", True, "11.1.0", "11.4.0", True),
        ("tensorrt", True, "11.4.0", "10.16.1", False),
        ("tensorrt", False, "10.16.1", "11.4.0", False),
        ("tensorrt-rtx", True, "1.6.0.1", "1.7.1.116", False),
        ("tensorrt-rtx", False, "1.7.1.116", "1.7.1.116", True),
        ("tensorrt", True, "unknown", "11.4.0", False),
        ("tensorrt", False, "10.14.1.48.post1", "10.14.1.48", True),
        ("tensorrt", False, "10.14.1.48", "10.14.1.48.post1", True),
        ("tensorrt", False, "10.14.1.48.post1", "10.14.1.49", False),
        ("tensorrt", False, "unknown", "other", False),
    ],
)
def test_versions_load_each_others_engines_as_nvidia_documents(name, compatible, built, here, loads):
    assert flavour(name).loads(built, here, version_compatible=compatible) == loads


def test_tensorrt_itself_cannot_build_without_a_gpu_and_says_what_can():
    with pytest.raises(TargetError, match=r"builds on the GPU[\s\S]*tensorrt-rtx[\s\S]*--dry-run"):
        check_options(BuildOptions(), TENSORRT, gpu=False)


def test_the_arguments_of_options_are_those_that_differ():
    assert BuildOptions().arguments() == []
    options = BuildOptions(workspace=2**30, refit=True, hardware_compatible="ampere+", verbose=True)
    assert options.arguments() == ["--workspace", str(2**30), "--hardware-compatible", "ampere+", "--refit"]
    assert BuildOptions(
        tf32=True, sparsity=True, max_aux_streams=0, tactic_sources="-JIT_CONVOLUTIONS"
    ).arguments() == [
        "--tf32",
        "--sparsity",
        "--max-aux-streams",
        "0",
        "--tactic-sources=-JIT_CONVOLUTIONS",
    ]


def test_ctrl_c_while_a_library_loads_is_not_lost_in_it(monkeypatch):
    """A library's own initialisation may swallow the exception, or turn it into an ImportError."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def loading(_):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ImportError("initialization failed")

    monkeypatch.setattr(library.importlib, "import_module", loading)
    try:
        with pytest.raises(KeyboardInterrupt):
            library.load(flavour("tensorrt-rtx"))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_library_that_is_there_and_fails_to_load_is_not_called_missing(monkeypatch):
    pytest.importorskip("tensorrt_rtx")

    def broken(_):
        raise ImportError("libnvinfer.so.1: cannot open shared object file")

    monkeypatch.setattr(library.importlib, "import_module", broken)
    with pytest.raises(BuildError, match=r"is installed and cannot be imported: libnvinfer\.so\.1"):
        library.load(flavour("tensorrt-rtx"))
