"""What a file is judged by: the caller's limits, its own figures when it was made, or its precision in general."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2mlp_deploy.api.opening import is_engine
from s2mlp_deploy.artifact import MANIFEST
from s2mlp_deploy.engines.record import read_engine
from s2mlp_deploy.evidence.accuracy import AccuracyReport, AccuracyRow
from s2mlp_deploy.evidence.parity import ParityReport, Tolerances
from s2mlp_deploy.evidence.store import read_evidence
from s2mlp_deploy.parity.own_limits import own_limits
from s2mlp_deploy.parity.tolerances import Limit, default_tolerances, tolerances_by_output


@dataclass(frozen=True)
class Judging:
    """How the files of a comparison are judged.

    Attributes:
        outputs: Their outputs.
        tolerances: The caller's, for all files; None for those of each file.
        atol: In place of the tolerances'.
        rtol: Likewise.
    """

    outputs: Sequence[str]
    tolerances: Tolerances | None = None
    atol: Limit = None
    rtol: Limit = None

    @property
    def for_all(self) -> bool:
        """Whether the caller gave limits that are not of one output."""
        given = (limit.get("") if isinstance(limit, Mapping) else limit for limit in (self.atol, self.rtol))
        return self.tolerances is not None or any(limit is not None for limit in given)

    def general(self, precision: str, *, on_pixels: bool, images: int | None = None) -> dict[str, Tolerances]:
        """The limits of a precision, by output.

        Args:
            precision: Of the file.
            on_pixels: Whether it preprocesses images itself.
            images: On how many it is judged, where that is known.

        Raises:
            InputError: A limit is given for an output that does not exist, or is no number of at least 0.
        """
        base = self.tolerances or default_tolerances(precision, on_pixels=on_pixels, images=images)
        return tolerances_by_output(self.outputs, base, atol=self.atol, rtol=self.rtol)

    def of_file(
        self, path: Path, sha256: str, precision: str, *, on_pixels: bool, images: int, on_noise: bool
    ) -> tuple[dict[str, Tolerances], str]:
        """The limits of a file by output, and where they come from, in words.

        Args:
            path: The file, in its artifact.
            sha256: Of its bytes: figures of other bytes are not its own.
            precision: As its types say; a float32 file has the limits of its precision.
            on_pixels: Whether it preprocesses images itself.
            images: On how many it is judged.
            on_noise: Whether those are seeded noise.
        """
        general = self.general(precision, on_pixels=on_pixels, images=images)
        if self.tolerances is not None:
            return general, "the caller's"
        basis = f"those of {precision.partition('-')[0]} in general"
        made = made_figures(path, sha256) if precision != "fp32" else None
        if made is None:
            return general, basis
        base = default_tolerances(precision, on_pixels=on_pixels, images=images)
        figures, row, beside = made
        own = own_limits(figures, row, base, images=images, on_noise=on_noise, beside=beside)
        if own is None or not set(own.tolerances) & set(self.outputs):
            return general, basis
        found = dict(general)
        for name in set(own.tolerances) & set(self.outputs):
            found |= tolerances_by_output([name], own.tolerances[name], **self.given(name))
        return found, own.basis

    def given(self, output: str) -> dict[str, float | None]:
        """The caller's limits of one output; None where there are none."""
        given = {"atol": self.atol, "rtol": self.rtol}
        return {name: v.get(output, v.get("")) if isinstance(v, Mapping) else v for name, v in given.items()}


def made_figures(path: Path, sha256: str) -> tuple[AccuracyReport, AccuracyRow, str] | None:
    """What was measured of a file, or of the file that an engine was built from, when it was made.

    ``tune`` measures no accuracy: it compares what it makes with the artifact's own file of the same precision, whose
    ranges it has. Its figures are taken then.

    Args:
        path: The file, in its artifact.
        sha256: Of its bytes.

    Returns:
        The figures, and the name of the file that they are of where that is another one; None where the artifact keeps
        none of these bytes.
    """
    if not (path.parent / MANIFEST).is_file():
        return None
    if is_engine(path):
        sha256 = read_engine(path).onnx_sha256
    evidence = read_evidence(path.parent)
    own = {sha256: ""}
    for item in evidence.of(ParityReport):
        if item.record.file_sha256 == sha256 and item.record.rests_on and item.record.passed:
            # float32 first, and the file of its own precision.
            name, other = item.record.rests_on[-1]
            own[other] = name
    for asked, beside in own.items():
        for made in evidence.newest(AccuracyReport):
            if (row := made.row_of(asked)) is not None:
                return made, row, beside
    return None
