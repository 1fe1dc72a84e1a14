"""The table of flavours, the options, and what cannot be had without a GPU."""

from __future__ import annotations

import pytest

from s2mlp_deploy.engines.tensorrt import library
from s2mlp_deploy.engines.tensorrt.flavours import check_targets, flavour
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, check_options, parse_size
from s2mlp_deploy.errors import BuildError, InputError, TargetError
from s2mlp_deploy.gpu import gpus

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
    [("tensorrt", "10", (10, 99)), ("tensorrt", "10.2", (10, 2)), ("tensorrt", "11.4.0.106", (11, 4, 0, 106))],
)
def test_versions_are_read(name, given, version):
    assert flavour(name, given).version == version


@pytest.mark.parametrize(
    ("name", "version"),
    [("tensorrt", "8.6"), ("tensorrt", "12"), ("tensorrt", "new"), ("tensorrt", ""), ("tensorrt-rtx", "10")],
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
@pytest.mark.parametrize("option", ["refit", "strip_plan", "version_compatible"])
def test_what_fails_without_a_gpu_is_refused_before_the_build(option):
    with pytest.raises(TargetError, match=rf"--{option.replace('_', '-')} needs .*GPU"):
        check_options(BuildOptions(**{option: True}), RTX, gpu=False)
    check_options(BuildOptions(**{option: True}), RTX, gpu=True)


@pytest.mark.slow
@without_gpu
@pytest.mark.parametrize("flag", ["REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE"])
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
        (BuildOptions(optimization_level=6), TENSORRT, "choose 0 to 5"),
        (BuildOptions(optimization_level=-1), RTX, "choose 0 to 5"),
        (BuildOptions(timing_cache="cache"), RTX, "leave --timing-cache out"),
    ],
)
def test_options_of_another_flavour_are_refused(options, found, says):
    with pytest.raises((InputError, TargetError), match=says):
        check_options(options, found, gpu=True)


def test_tensorrt_itself_cannot_build_without_a_gpu_and_says_what_can():
    with pytest.raises(TargetError, match=r"builds on the GPU[\s\S]*tensorrt-rtx[\s\S]*--dry-run"):
        check_options(BuildOptions(), TENSORRT, gpu=False)


def test_the_arguments_of_options_are_those_that_differ():
    assert BuildOptions().arguments() == []
    options = BuildOptions(workspace=2**30, refit=True, hardware_compatible="ampere+", verbose=True)
    assert options.arguments() == ["--workspace", str(2**30), "--hardware-compatible", "ampere+", "--refit"]


def test_a_library_that_is_there_and_fails_to_load_is_not_called_missing(monkeypatch):
    pytest.importorskip("tensorrt_rtx")

    def broken(_):
        raise ImportError("libnvinfer.so.1: cannot open shared object file")

    monkeypatch.setattr(library.importlib, "import_module", broken)
    with pytest.raises(BuildError, match=r"is installed and cannot be imported: libnvinfer\.so\.1"):
        library.load(flavour("tensorrt-rtx"))
