"""What a dry run prints."""

from __future__ import annotations

import io

from rich.console import Console

from s2mlp_deploy.cli.engine_tables import print_preflight
from s2mlp_deploy.engines.tensorrt.preflight import Preflight
from s2mlp_deploy.engines.tensorrt.quantized import Quantization


def test_gemms_of_a_dry_run_add_up() -> None:
    """Those that are quantized, those that are exceptions, and those that are told to be slow."""
    advice = ("1 of 4 GEMMs and convolutions are not quantized (c)",)
    quantization = Quantization(("int8",), 1, 4, 1, ("c",), ("d", "e"), (), (), ("float16",), advice)
    report = Preflight("m.onnx", "tensorrt", "10.16", (), "int8", 18, 9, (), quantization, ())
    out = io.StringIO()
    print_preflight(Console(file=out, width=100), report)
    assert "1 of 4 read quantized values, 2 precision exceptions" in out.getvalue()
    assert "1 of 4 GEMMs and convolutions are not quantized" in out.getvalue()
