"""The one error hierarchy of the package.

Every error says what is wrong, where, and how to mend it. The command line prints the message and exits with
``exit_code``: 2 when the user's input is wrong, 1 when a check that ran to its end failed. Anything else that is raised
is a bug of this package and exits with :data:`INTERNAL_ERROR`.
"""

from __future__ import annotations

from typing import Any

_LONGEST = 5_000
"""Characters of what is told: many problems repeat what stood in a file, which may be megabytes."""

INTERNAL_ERROR = 70
"""Exit status of a bug of this package: ``EX_SOFTWARE`` of sysexits.h."""


class S2MLPDeployError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        problem: What is wrong, one sentence.
        where: The file, tensor, option or line it concerns.
        fix: What the user can do about it.
    """

    exit_code = 2

    def __init__(self, problem: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.problem: str = _cut(problem)
        self.where: str | None = None if where is None else _cut(where)
        self.fix: str | None = None if fix is None else _cut(fix)
        super().__init__(self.problem, self.where, self.fix)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are rebuilt from their positional arguments, which these constructors do not take: without this a
        # worker's error breaks the pool that carries it instead of being raised.
        return _rebuilt, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        lines = [self.problem]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"


def _rebuilt(kind: type[S2MLPDeployError], args: tuple[Any, ...], state: dict[str, Any]) -> S2MLPDeployError:
    """An unpickled error."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class InputError(S2MLPDeployError):
    """An argument or option has a value that cannot be used."""


class SourceError(InputError):
    """The model that was named cannot be found or built."""


class CheckpointError(InputError):
    """A weights file cannot be read, or does not fit the model."""


class ShiftError(InputError):
    """A shift specification is not valid, or does not fit the tensor it is applied to."""


class ImageError(InputError):
    """An image cannot be decoded or turned into the model's input."""


class DataError(InputError):
    """A collection of images or arrays is missing, empty or unusable."""


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
    """A package that is needed here is not installed.

    Args:
        package: Its name, as it is imported.
        extra: The extra of this package that installs it.
        purpose: What needs it.
    """

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
