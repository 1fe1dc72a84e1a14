"""The one error hierarchy of the package.

Every error says what is wrong, where, and how to mend it. The command line prints the message and exits with
``exit_code``: 2 when the user's input is wrong, 1 when a check that ran to its end failed.
"""

from __future__ import annotations


class S2MLPDeployError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        problem: What is wrong, one sentence.
        where: The file, tensor, option or line it concerns.
        fix: What the user can do about it.
    """

    exit_code = 2

    def __init__(self, problem: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.problem = problem
        self.where = where
        self.fix = fix
        super().__init__(problem, where, fix)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class InputError(S2MLPDeployError):
    """An argument or option has a value that cannot be used."""


class SourceError(InputError):
    """The model that was named cannot be found or built."""


class CheckpointError(InputError):
    """A weights file cannot be read, or does not fit the model."""


class ShiftError(InputError):
    """A shift specification is not valid, or does not fit the tensor it is applied to."""


class ImageError(InputError):
    """A picture cannot be decoded or turned into the model's input."""


class DataError(InputError):
    """A collection of pictures is missing, empty or unusable."""


class PreprocessingError(InputError):
    """A description of the preprocessing is not valid."""


class ArtifactError(InputError):
    """A manifest or a file of an artifact is missing, damaged or of another version."""


class OutputError(InputError):
    """The place to write to cannot be used."""


class ExportError(InputError):
    """The model cannot be captured or lowered to ONNX."""


class QuantizationError(InputError):
    """A graph cannot be quantized, or cannot be quantized with this data."""


class TargetError(InputError):
    """An engine, provider or GPU target that does not exist here."""


class BuildError(InputError):
    """A runtime refused to build or load a graph."""


class MissingDependencyError(InputError):
    """A package that this command needs is not installed."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed",
            fix=f"pip install 's2mlp-deploy[{extra}]'",
        )
        self.package = package
        self.extra = extra


class CheckFailedError(S2MLPDeployError):
    """A check ran to its end and the answer was no (exit status 1)."""

    exit_code = 1
