"""What a plan becomes in the builder's configuration: of TensorRT-RTX for real, of TensorRT on a stand-in."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("onnx_ir")
from s2mlp_deploy.engines.tensorrt import library, timing_cache
from s2mlp_deploy.engines.tensorrt.config import configure, flags_of
from s2mlp_deploy.engines.tensorrt.flavours import flavour
from s2mlp_deploy.engines.tensorrt.options import BuildOptions
from s2mlp_deploy.engines.tensorrt.progress import Interrupt, monitor_of
from s2mlp_deploy.errors import ArtifactError


@pytest.fixture(scope="module")
def trt():
    return pytest.importorskip("tensorrt_rtx")


@pytest.fixture
def config_of(trt):
    builder = trt.Builder(library.logger_of(trt))

    def make(**options):
        chosen = flavour("tensorrt-rtx")
        plan = SimpleNamespace(options=BuildOptions(**options), flavour=chosen, targets=("sm86", "sm89"), profiles=())
        return configure(trt, builder, plan)

    return make


def test_tf32_which_the_library_turns_on_is_off_unless_asked_for(trt, config_of):
    assert "TF32" in flags_of(trt, trt.Builder(library.logger_of(trt)).create_builder_config())
    assert flags_of(trt, config_of()) == ()
    assert flags_of(trt, config_of(tf32=True)) == ("TF32",)


def test_every_option_reaches_the_configuration(trt, config_of):
    config = config_of(
        sparsity=True,
        refit=True,
        strip_plan=True,
        max_aux_streams=0,
        builder_optimization_level=5,
        workspace=2**28,
        tactic_sources="-JIT_CONVOLUTIONS",
        profiling_verbosity="layer_names_only",
    )
    assert set(flags_of(trt, config)) >= {"SPARSE_WEIGHTS", "REFIT", "STRIP_PLAN"}
    assert config.max_aux_streams == 0
    assert config.builder_optimization_level == 5
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 2**28
    assert config.get_tactic_sources() == 1 << int(trt.TacticSource.EDGE_MASK_CONVOLUTIONS)
    assert config.profiling_verbosity == trt.ProfilingVerbosity.LAYER_NAMES_ONLY
    assert config_of().profiling_verbosity == trt.ProfilingVerbosity.DETAILED


# Timing caches: TensorRT alone has them.


class Cache:
    def __init__(self, kernels: set[str]) -> None:
        self.kernels = kernels

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.kernels |= other.kernels
        return True

    def serialize(self) -> bytes:
        return ",".join(sorted(self.kernels)).encode()


class Config:
    """As the library's, for caches of which `other` is of another version."""

    def create_timing_cache(self, raw: bytes) -> Cache | None:
        return None if raw == b"other" else Cache(set(raw.decode().split(",")) - {""})

    def set_timing_cache(self, cache: Cache, _: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache:
        return self.cache


def test_builds_that_overlap_lose_nothing_of_what_either_measured(tmp_path):
    path = tmp_path / "kernels.bin"
    first, second = Config(), Config()
    for config, kernel in ((first, "a"), (second, "b")):
        timing_cache.load_into(config, path)
        config.cache.kernels.add(kernel)
    assert timing_cache.save_from(first, path) != timing_cache.save_from(second, path)
    assert path.read_bytes() == b"a,b"
    assert list(tmp_path.iterdir()) == [path]


def test_many_builds_add_to_a_cache_at_once(tmp_path):
    path = tmp_path / "kernels.bin"

    def build(kernel: str) -> None:
        config = Config()
        timing_cache.load_into(config, path)
        config.cache.kernels.add(kernel)
        timing_cache.save_from(config, path)

    threads = [threading.Thread(target=build, args=(kernel,)) for kernel in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"a,b,c,d,e,f"


def test_a_cache_that_cannot_be_written_costs_no_engine(tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    config = Config()
    config.set_timing_cache(Cache({"a"}), False)
    assert timing_cache.save_from(config, tmp_path / "file" / "kernels.bin") is None
    assert "what was measured is not kept" in caplog.text


def test_a_cache_of_another_version_or_gpu_is_refused_and_left(tmp_path):
    path = tmp_path / "kernels.bin"
    path.write_bytes(b"other")
    with pytest.raises(ArtifactError, match="another version or GPU"):
        timing_cache.load_into(Config(), path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        timing_cache.load_into(Config(), tmp_path)
    assert path.read_bytes() == b"other"


# What a library says, and what its callbacks raise


@pytest.fixture
def logger(trt):
    made = library.logger_of(trt)
    made.begin()
    return made


def test_warnings_are_always_shown_and_errors_become_the_reason(trt, logger, caplog):
    severity = trt.ILogger
    caplog.set_level("DEBUG", logger="s2mlp_deploy")
    for kind in (severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING, severity.INFO, severity.VERBOSE):
        logger.log(kind, f"a {kind}")
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING", "INFO", "DEBUG"]
    assert len(logger.errors) == 2
    assert "INTERNAL_ERROR" in logger.reason()
    caplog.clear()
    logger.tell_rest()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    logger.begin(verbose=True)
    assert logger.reason() == "it gave no reason"
    caplog.clear()
    logger.log(severity.VERBOSE, "all of it")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_errors_are_bounded(trt, logger):
    for number in range(10_000):
        logger.log(trt.ILogger.ERROR, f"error {number}")
    assert len(logger.errors) == library._MOST_ERRORS
    assert "error 9999" in logger.reason()


def test_plugins_are_registered_with_the_logger_before_anything_else():
    calls = []

    class Library:
        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def init_libnvinfer_plugins(self, logger, namespace):
            calls.append((logger, namespace))
            return True

    fake = Library()
    made = library.logger_of(fake)
    assert library.logger_of(fake) is made
    assert calls == [(made, "")]


@pytest.mark.parametrize("error", [RuntimeError("the bar broke"), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_callback_raises_is_raised_after_the_build(trt, error):
    def report(what: str, done: int, total: int | None) -> None:
        raise error

    answers = []

    def build() -> None:
        interrupt = Interrupt()
        with interrupt.held():
            monitor = monitor_of(trt, report, interrupt)
            monitor.phase_start("Building", None, 3)
            answers.append(monitor.step_complete("Building", 0))
            monitor.phase_finish("Building")

    with pytest.raises(type(error)) as caught:
        build()
    assert caught.value is error
    assert answers == [False]
