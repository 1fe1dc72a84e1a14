"""Where the source of a model moves data, and how it is written there.

The origin of a shift travels with it as one string argument of the operator ``s2mlp::shift`` and one attribute of the
canonical ``Shift`` node, so that nothing has to be matched afterwards; lowering moves it into the manifest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

CONVOLUTION = "one-hot convolution"
"""How an idiom says that the source multiplies by zeros and ones instead of copying."""


@dataclass(frozen=True)
class Origin:
    """Where a movement of data comes from.

    Attributes:
        module: Path of the module it happens in; empty for the root module.
        line: ``file.py:12`` of the user's code; empty where unknown.
        code: That line.
        idiom: What the code uses to move data, for example ``slice assignment`` or ``roll``.
        sizes: At how many input sizes its index map was compared; 0 for ``s2mlp::shift`` itself, which needs no proof.
    """

    module: str = ""
    line: str = ""
    code: str = ""
    idiom: str = ""
    sizes: int = 0

    def to_text(self) -> str:
        """One line, the same for equal origins."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Origin:
        """Inverse of :meth:`to_text`; the empty text is an origin of which nothing is known.

        Raises:
            ValueError: Another text.
        """
        if not text:
            return cls()
        try:
            origin = cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not the origin of a shift: {text!r}") from error
        if any(type(value) is not type(getattr(cls(), name)) for name, value in asdict(origin).items()):
            raise ValueError(f"not the origin of a shift: {text!r}")
        return origin
