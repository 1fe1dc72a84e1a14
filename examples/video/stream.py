"""Streams frames through the online network, and compares with the offline one that sees whole clips.

    python stream.py build/online build/causal

Both must have the same weights: export them with one ``--checkpoint``, or both with the seeded random ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s2mlp_deploy.api import Predictor

Frames = NDArray[np.float32]


def stream(online: Predictor, frames: Frames) -> Frames:
    """Logits of each frame of [frames, 3, H, W]; what the blocks keep comes back with the next frame."""
    names, shapes = online_inputs(online)
    state = [np.zeros((1, *shape[1:]), np.float32) for shape in shapes[1:]]
    answers = []
    for frame in frames:
        feeds = dict(zip(names, [frame[None], *state], strict=True))
        logits, *state = online.run(feeds).values()
        answers.append(logits[0])
    return np.stack(answers)


def online_inputs(online: Predictor) -> tuple[list[str], list[tuple[int, ...]]]:
    """Names of the inputs, the frame first, and their shapes; a free batch counts as 1."""
    inputs = online.manifest.inputs
    return [info.name for info in inputs], [
        tuple(size if isinstance(size, int) else 1 for size in info.shape) for info in inputs
    ]


def main(online: str, offline: str) -> None:
    """Streams the frames of two clips, and compares each clip with the offline network."""
    with Predictor(online) as one, Predictor(offline) as whole:
        (video,) = whole.manifest.inputs
        shape = tuple(size for size in video.shape[1:] if isinstance(size, int))
        frames = 8
        generator = np.random.default_rng(0)
        for number in (1, 2):
            clip = generator.standard_normal((frames, *shape)).astype(np.float32)
            (expected,) = whole.run({video.name: clip}).values()
            got = stream(one, clip)
            difference = float(np.abs(got - expected).max())
            print(
                f"clip {number}: {frames} frames, largest difference {difference:.1e} of {np.abs(expected).max():.2f}"
            )
            if difference > 1e-4:
                raise SystemExit("the two differ: do they have the same weights?")


if __name__ == "__main__":
    main(*(str(Path(name)) for name in sys.argv[1:3]))
