"""Parity with an ONNX file as the reference: outputs and layers of other files against it. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2mlp_deploy.api.bisecting import as_computed
from s2mlp_deploy.api.file_reference import Given, named_graph, prepare_against
from s2mlp_deploy.api.layer_reports import refuse_engines, run_layers
from s2mlp_deploy.api.output_reports import Told, report_outputs, try_besides
from s2mlp_deploy.api.saved_folder import check_place
from s2mlp_deploy.choices import GRAPH_ENGINE
from s2mlp_deploy.engines.base import Engine
from s2mlp_deploy.errors import InputError
from s2mlp_deploy.evidence.layers import LayersReport
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
from s2mlp_deploy.parity.compare import compare
from s2mlp_deploy.parity.graph_taps import TappedGraph
from s2mlp_deploy.parity.layers import MEMORY
from s2mlp_deploy.parity.tolerances import Limit
from s2mlp_deploy.progress import ProgressCallback, no_progress

_ORIGINAL = "the reference as it is"
_REPAIRED = " with its smears repaired"


def parity_against_file(
    reference: str | Path,
    files: Sequence[str | Path],
    *,
    preprocess: str | Path | None = None,
    data: str | Path | Iterable[Any] | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    atol: Limit = None,
    rtol: Limit = None,
    engine: str = GRAPH_ENGINE,
    seed: int | None = None,
    progress: ProgressCallback = no_progress,
) -> tuple[ParityReport, ...]:
    """Compares ONNX or engine files with another ONNX file, which is right; needs no torch.

    Files whose smears were repaired (``export --repair-smear``) compute something else than their source by design:
    they are compared with the source whose smears are repaired too, for which torch is needed, and the reports say so
    and how far the source itself is from that.

    Args:
        reference: The ONNX file that is right.
        files: What is compared with it, as for :func:`~s2mlp_deploy.api.parity`.
        preprocess: See there; without it what an artifact of the files, or the file itself, says.
        data: See there, as for the rest.
        samples: See there.
        batch: See there.
        tolerances: See there.
        atol: See there.
        rtol: See there.
        engine: See there; of the compared files, the reference runs on ONNX Runtime's CPU.
        seed: See there.
        progress: See there.

    Raises:
        InputError: The files have other inputs or outputs than the reference, or as for
            :func:`~s2mlp_deploy.api.parity`.
    """
    given = Given(reference, files, preprocess, data, samples, batch, tolerances, atol, rtol, engine, seed)
    ready, weights, original = prepare_against(given, progress)
    engines: dict[str, Engine] = {**ready.sessions} | ({_ORIGINAL: original} if original is not None else {})
    done = 0

    def on_batch(size: int) -> None:
        nonlocal done
        done += size
        progress("comparing", done, ready.inputs.count)

    measured = compare(ready.reference, engines, ready.inputs, on_batch=on_batch)
    notes = measured.notes
    if original is not None:
        apart = max(output.metrics.max_abs or 0.0 for output in measured.figures[_ORIGINAL])
        notes = (*notes, f"{Path(reference).name} itself differs from that by up to {apart:.3g}, as it is meant to")
    tried = try_besides(ready, progress)
    told = Told(
        f"{ready.reference.name}, {reference}{'' if original is None else _REPAIRED}",
        weights,
        {key: session.name for key, session in ready.sessions.items()},
        notes,
    )
    return report_outputs(ready, measured, tried, told)


def layers_against_file(
    reference: str | Path,
    files: Sequence[str | Path],
    *,
    preprocess: str | Path | None = None,
    data: str | Path | Iterable[Any] | None = None,
    samples: int | None = None,
    batch: int = 8,
    tolerances: Tolerances | None = None,
    atol: Limit = None,
    rtol: Limit = None,
    engine: str = GRAPH_ENGINE,
    seed: int | None = None,
    memory: int = MEMORY,
    save: str | Path | None = None,
    bisect: bool = False,
    progress: ProgressCallback = no_progress,
) -> tuple[LayersReport, ...]:
    """Compares what leaves each module in ONNX files with what leaves it in another one; needs no torch.

    Modules are those that the reference's nodes are named after. Where they are named after none, every value that is
    not mere movement is compared with the value of the same name.

    Args:
        reference: The ONNX file that is right.
        files: ONNX files, or artifacts for all of theirs.
        preprocess: See :func:`parity_against_file`.
        data: See :func:`~s2mlp_deploy.api.parity_per_layer`, as for the rest.
        samples: See there.
        batch: See there.
        tolerances: See there.
        atol: See there.
        rtol: See there.
        engine: See there.
        seed: See there.
        memory: See there.
        save: See there.
        bisect: See there; a shift has no other form, for want of the model.
        progress: See there.

    Raises:
        InputError: As for :func:`parity_against_file`; or a file is an engine.
    """
    if save is not None:
        check_place(Path(save))
    refuse_engines(files, engine)
    given = Given(reference, files, preprocess, data, samples, batch, tolerances, atol, rtol, engine, seed)
    ready, weights, original = prepare_against(given, progress)
    if original is not None:
        raise InputError(
            "layers of files whose smears were repaired are others than those of their source",
            where=str(reference),
            fix="leave --per-layer out, or compare with the float32 file of the artifact",
        )
    model, rounds = as_computed(named_graph(Path(reference)), GRAPH_ENGINE)
    program = TappedGraph(model)
    told = f"{program.name}{', results rounded to float16' if rounds else ''}, {reference}"
    return run_layers(
        ready,
        program,
        program,
        told,
        weights,
        memory=memory,
        save=save,
        bisect=bisect,
        data=data,
        engine=engine,
        other_form=None,
        progress=progress,
    )


def refuse_of_file(checkpoint: object, overrides: Mapping[str, Any] | None) -> None:
    """Refuses what an ONNX file has in it already.

    Raises:
        InputError: Weights or settings are given.
    """
    given = [name for name, value in (("--checkpoint", checkpoint), ("--set", overrides)) if value]
    if given:
        raise InputError(
            f"{' and '.join(given)}: an ONNX file has its weights and sizes in it",
            fix=f"leave out {' and '.join(given)}, or name the model as SOURCE",
        )
