"""The builder's configuration: what a plan says, in the library's words."""

from __future__ import annotations

from typing import Any

from s2mlp_deploy.engines.tensorrt import timing_cache
from s2mlp_deploy.engines.tensorrt.options import BuildOptions, chosen_sources
from s2mlp_deploy.engines.tensorrt.plan import Plan

FLAGS = {
    "version_compatible": "VERSION_COMPATIBLE",
    "refit": "REFIT",
    "strip_plan": "STRIP_PLAN",
    "sparsity": "SPARSE_WEIGHTS",
}
"""Options that are flags, by the library's names."""


def configure(trt: Any, builder: Any, plan: Plan) -> Any:
    """The library's ``IBuilderConfig`` of a plan.

    Args:
        trt: The library.
        builder: Its ``Builder``.
        plan: What is to be built.

    Raises:
        ArtifactError: The timing cache is not one of this version and GPU.
    """
    options = plan.options
    config = builder.create_builder_config()
    _set_flags(trt, config, options)
    # Measured on TensorRT-RTX: the nano engine has the same size at every verbosity.
    config.profiling_verbosity = getattr(trt.ProfilingVerbosity, options.profiling_verbosity.upper())
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.builder_optimization_level is not None:
        config.builder_optimization_level = options.builder_optimization_level
    if options.max_aux_streams is not None:
        config.max_aux_streams = options.max_aux_streams
    if options.tactic_sources is not None:
        chosen = chosen_sources(options.tactic_sources, plan.flavour)
        config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in chosen))
    if options.build_route is not None:
        config.build_route = options.build_route
    if options.hardware_compatible != "none":
        level = plan.flavour.hardware_levels[options.hardware_compatible]
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if plan.flavour.targets:
        config.num_compute_capabilities = len(plan.targets)
        for index, target in enumerate(plan.targets):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
    if options.timing_cache is not None:
        timing_cache.load_into(config, options.timing_cache)
    for ranges in plan.profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in ranges.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
    return config


def flags_of(trt: Any, config: Any) -> tuple[str, ...]:
    """The names of the builder flags that are set, as the configuration itself tells."""
    kinds = trt.BuilderFlag
    return tuple(sorted(name for name, flag in kinds.__members__.items() if config.get_flag(flag)))


def _set_flags(trt: Any, config: Any, options: BuildOptions) -> None:
    for option, name in FLAGS.items():
        if getattr(options, option):
            config.set_flag(getattr(trt.BuilderFlag, name))
    # The library sets it unasked, and fp32 GEMMs then round their inputs to 10 bits of mantissa.
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
