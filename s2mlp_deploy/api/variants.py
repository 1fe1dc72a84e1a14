"""The same network in other files: another inner layout, other forms of its shifts, with graph passes and without.

Another form is made from the artifact's own file alone (:mod:`s2mlp_deploy.export.relower`). Another layout is another
program of the same network: the zoo builds it, with the artifact's weights, and torch must be there. Its quantized file
gets the ranges of the artifact's own one, layer by layer: a layout moves numbers and changes none. Passes that a graph
lacks (of an ONNX file, say) run on the artifact's own file; to leave them out the zoo builds the network again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import msgspec
import onnx_ir as ir

from s2mlp_deploy.api.artifacts import known_of
from s2mlp_deploy.artifact import (
    METADATA_KEY,
    FileRecord,
    Manifest,
    PrecisionException,
    ShiftRecord,
    data_file,
    read_description,
    tuned_file,
)
from s2mlp_deploy.errors import ArtifactError, ExportError, QuantizationError
from s2mlp_deploy.evidence.tune import GraphPasses, graph_in_words
from s2mlp_deploy.export.faster import make_faster
from s2mlp_deploy.export.forms import FORMS, ShiftForm, find_form
from s2mlp_deploy.export.lower import lower_shifts
from s2mlp_deploy.export.relower import lift, lower_again, relower
from s2mlp_deploy.export.write import file_metadata, save_model, tensor_infos
from s2mlp_deploy.files import sha256_of
from s2mlp_deploy.graph.loading import load_graph
from s2mlp_deploy.graph.subnormals import flush_weights, subnormal_weights
from s2mlp_deploy.models.registry import MODELS
from s2mlp_deploy.precision.carried import derive_as
from s2mlp_deploy.preprocess import Preprocessing
from s2mlp_deploy.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from s2mlp_deploy.export.analysis import Analysis

LAYOUTS = ("channels-last", "channels-first")
PRECISIONS = ("fp32", "int8", "int8-trt")
"""Of files that a processor runs faster than others: float16 is computed in float32 there, and fp8 is for GPUs."""
_PASSES = "graph_passes"
"""What a file says of itself whose graph passes are not those of its export."""


@dataclass(frozen=True)
class Variant:
    """A file.

    Attributes:
        precision: ``fp32``, ``int8``, ``int8-trt``.
        layout: Inner layout of the network; ``as-is`` where that is the source's own.
        form: How its shifts are written: a form, ``mixed`` or ``none``.
        place: Its path, as text: it is saved.
        sha256: Its hash.
        nodes: Of its graph.
        shifts: With their forms.
        file: Its name in the artifact; empty where it is not part of one.
        exceptions: Layers that it computes in higher precision.
        passes: Which graph passes it has had.
    """

    precision: str
    layout: str
    form: str
    place: str
    sha256: str
    nodes: int
    shifts: tuple[ShiftRecord, ...] = ()
    file: str = ""
    exceptions: tuple[PrecisionException, ...] = ()
    passes: GraphPasses = "as exported"

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"{self.precision}, {self.layout}, {graph_in_words(self.form, self.passes)}"

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.place)


def form_of(shifts: Sequence[ShiftRecord]) -> str:
    """The form of all shifts; ``mixed`` where they differ, ``none`` where there are none."""
    forms = {shift.form for shift in shifts if shift.nodes}
    return forms.pop() if len(forms) == 1 else "mixed" if forms else "none"


class Variants:
    """Makes files of an artifact's network.

    Args:
        root: The artifact.
        manifest: Of it.
        work: Where files go; they stay there.
        progress: Told what is being done.
    """

    def __init__(self, root: Path, manifest: Manifest, work: Path, *, progress: ProgressCallback = no_progress) -> None:
        self._root, self._manifest, self._work = root, manifest, work
        self._progress = progress
        self._captured: dict[str, Analysis] = {}
        self._canonical: dict[tuple[str, bool], ir.Model] = {}

    def release(self, keep: Collection[str] = ()) -> None:
        """Forgets the programs and graphs of other layouts than these: each holds the network's weights."""
        self._captured = {layout: found for layout, found in self._captured.items() if layout in keep}
        self._canonical.clear()

    @functools.cached_property
    def own(self) -> tuple[Variant, ...]:
        """The artifact's own files that may be the fastest, those of the export before those that were tuned."""
        found = [
            self._own(record)
            for record in self._manifest.files
            if record.precision in PRECISIONS and record.path.endswith(".onnx")
        ]
        return tuple(sorted(found, key=lambda item: item.file == tuned_file(item.precision)))

    def other_layouts(self) -> tuple[str, ...]:
        """The layouts that the network can be built in besides its own.

        Raises:
            ExportError: There are none; says why.
        """
        source = self._manifest.source
        if not self._is_zoo:
            raise ExportError("other layouts are the zoo's: the layout of other networks is in their code")
        if not _has_torch():
            raise ExportError("another layout is built by torch, which is not installed here")
        return tuple(name for name in LAYOUTS if name != source.config["layout"])

    def of_layout(self, layout: str) -> tuple[tuple[Variant, ...], tuple[str, ...]]:
        """The network in another layout, in every precision that the artifact has.

        Returns:
            The files, float32 first, and what could not be made, with the reason.

        Raises:
            S2MLPDeployError: The network cannot be built, or its weights are not found.
        """
        model, shifts = self._built(layout, None)
        files, notes = [], []
        for precision in PRECISIONS:
            if not any(record.precision == precision for record in self._manifest.files):
                continue
            try:
                files.append(self._in_precision(model, shifts, precision, layout))
            except ArtifactError as error:
                notes.append(f"{precision} in {layout} was not tried: {error.problem}")
            except QuantizationError as error:
                notes.append(
                    f"{precision} in {layout} was not tried: {error.problem}; "
                    f"`export --layout {layout} --precision int8` with the calibration data makes it"
                )
        return tuple(files), tuple(notes)

    def of_form(self, variant: Variant, form: str) -> Variant:
        """A file with its shifts in another form.

        Args:
            variant: The file.
            form: A name of the forms.

        Raises:
            ExportError: A shift cannot take that form, or is not where the manifest says.
        """
        model, shifts = relower(load_graph(variant.path).model, variant.shifts, find_form(form))
        return self._write(model, variant.precision, variant.layout, shifts, variant.exceptions, variant.passes)

    def of_passes(self, variant: Variant) -> Variant:
        """A file with the graph passes that it lacks, or, where it has had them all, with none.

        Args:
            variant: As exported; of either layout.

        Returns:
            The file, in the same precision, layout and form.

        Raises:
            ExportError: It cannot be made; says why.
            QuantizationError: The ranges that are needed were not measured, or are not there.
            S2MLPDeployError: The network cannot be built, or its weights are not found.
        """
        form = find_form(variant.form) if variant.form in FORMS else None
        own = next(item for item in self.own if item.precision == "fp32")
        if variant.layout == own.layout:
            canonical = lift(load_graph(own.path).model, own.shifts)
            if make_faster(canonical):
                model, shifts = lower_again(canonical, own.shifts, form)
                return self._in_precision(model, shifts, variant.precision, variant.layout, "all")
        if not self._is_zoo:
            raise ExportError("it has had every graph pass that applies, and without them only the zoo's are built")
        if not _has_torch():
            raise ExportError("a graph without passes is built by torch, which is not installed here")
        if not make_faster(self._translated(variant.layout, faster=False).clone()):
            raise ExportError("no graph pass applies")
        model, shifts = self._built(variant.layout, form, faster=False)
        return self._in_precision(model, shifts, variant.precision, variant.layout, "none")

    def adopted(self, variant: Variant, staging: Path) -> dict[str, tuple[str, int]]:
        """Copies a file into an artifact's staging, by the name that it has there.

        Returns:
            What the writer wants to know of each file.
        """
        name = tuned_file(variant.precision)
        facts: dict[str, tuple[str, int]] = {}
        for own, nodes in ((name, variant.nodes), (data_file(name), 0)):
            if (variant.path.parent / own).exists():
                shutil.copyfile(variant.path.parent / own, staging / own)
                facts[own] = (variant.precision, nodes)
        return facts

    def _own(self, record: FileRecord) -> Variant:
        path = self._root / record.path
        # What the file says of itself: one that was tuned is of another layout or form than the manifest tells of.
        text = ir.load(path, format="protobuf").metadata_props.get(METADATA_KEY)
        told = read_description(text, path)
        shifts = msgspec.convert(told["shifts"], tuple[ShiftRecord, ...]) if "shifts" in told else self._manifest.shifts
        layout = (told.get("source") or {}).get("config", {}).get("layout", "as-is")
        exceptions = tuple(item for item in self._manifest.precision_exceptions if item.file == record.path)
        passes = told.get(_PASSES, "as exported")
        return Variant(
            record.precision,
            layout if layout in LAYOUTS else "as-is",
            form_of(shifts),
            str(path),
            record.sha256,
            record.nodes,
            shifts,
            record.path,
            exceptions,
            passes if passes in get_args(GraphPasses) else "as exported",
        )

    def _write(
        self,
        model: ir.Model,
        precision: str,
        layout: str,
        shifts: tuple[ShiftRecord, ...],
        exceptions: tuple[PrecisionException, ...] = (),
        passes: GraphPasses = "as exported",
    ) -> Variant:
        form, name = form_of(shifts), tuned_file(precision)
        folder = self._work / f"{precision}.{layout}.{form}.{passes.replace(' ', '-')}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        manifest, source = self._manifest, self._manifest.source
        if layout in LAYOUTS:
            source = replace(source, config=source.config | {"layout": layout})
        described = replace(
            manifest,
            source=source,
            shifts=shifts,
            inputs=tensor_infos(model.graph.inputs),
            outputs=tensor_infos(model.graph.outputs),
        )
        model.metadata_props.clear()
        own = {} if passes == "as exported" else {_PASSES: passes}
        model.metadata_props.update(file_metadata(described, precision, **own))
        save_model(model, folder / name)
        nodes, path = len(model.graph), folder / name
        named = tuple(replace(item, file=name) for item in exceptions)
        return Variant(precision, layout, form, str(path), sha256_of(path), nodes, shifts, "", named, passes)

    @property
    def _is_zoo(self) -> bool:
        source = self._manifest.source
        return source.reference in MODELS and "layout" in source.config

    def _in_precision(
        self,
        model: ir.Model,
        shifts: tuple[ShiftRecord, ...],
        precision: str,
        layout: str,
        passes: GraphPasses = "as exported",
    ) -> Variant:
        """A float32 graph as a file, quantized as the artifact's own one where that is wanted."""
        if precision == "fp32":
            return self._write(model, precision, layout, shifts, passes=passes)
        self._progress(f"converting to {precision}", 0, None)
        made = derive_as(model, precision, manifest=self._manifest, home=self._root)
        return self._write(made.model, precision, layout, shifts, made.exceptions, passes)

    def _built(
        self, layout: str, form: ShiftForm | None, *, faster: bool = True
    ) -> tuple[ir.Model, tuple[ShiftRecord, ...]]:
        """A network of the zoo in float32, with preprocessing and subnormal weights where the artifact has them."""
        model, shifts = lower_shifts(self._translated(layout, faster=faster), form)
        described = self._manifest.preprocessing
        if self._manifest.preprocessing_in_graph and described is not None:
            from s2mlp_deploy.export.preprocessing import add_preprocessing

            model = add_preprocessing(model, Preprocessing.from_dict(described))
        if not self._has_subnormals:
            flush_weights(model)
        return model, shifts

    @functools.cached_property
    def _has_subnormals(self) -> bool:
        return bool(subnormal_weights(load_graph(self._root / self._manifest.file("fp32").path).model))

    def _translated(self, layout: str, *, faster: bool) -> ir.Model:
        from s2mlp_deploy.export.canonical import to_canonical

        known = self._canonical.get((layout, faster))
        if known is None:
            captured = self._capture(layout).captured
            self._progress("translating to ONNX", 0, None)
            known = self._canonical[layout, faster] = to_canonical(captured, opset=self._manifest.opset, faster=faster)
        return known

    def _capture(self, layout: str) -> Analysis:
        # torch is not everywhere, and takes seconds to import.
        from s2mlp_deploy.api.capturing import analyze
        from s2mlp_deploy.export.analysis import Analysis
        from s2mlp_deploy.sources.load import load_source

        if layout not in self._captured:
            manifest, told = self._manifest, self._manifest.source
            self._progress(f"building the network in {layout}", 0, None)
            known = known_of(told.reference, [self._root / manifest.file("fp32").path], checkpoint=None)
            with _quiet():
                source = load_source(
                    told.reference,
                    checkpoint=known.checkpoint,
                    overrides=known.overrides | {"layout": layout},
                    described=known.description,
                    seed=known.seed or 0,
                )
                shape = manifest.inputs[0].shape
                axes = ("batch",) if manifest.preprocessing_in_graph else ("batch", None, "height", "width")
                free = [name for name, size in zip(axes, shape, strict=False) if name and not isinstance(size, int)]
                found = analyze(source, dynamic=free)  # type: ignore[arg-type]
                assert isinstance(found, Analysis), "the zoo's are modules"
                self._captured[layout] = found
        return self._captured[layout]


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What is said of a source was said when it was exported."""
    logger = logging.getLogger("s2mlp_deploy.sources")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
