"""Drawn pictures of things that CIFAR-10 has a class for: what the tutorials run on, since no photographs ship.

from pictures import draw_pictures
draw_pictures("build/pictures")          # build/pictures/airplane/0.png, ...
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 256
"""Pixels of the canvas; a picture is scaled down from it, as a photograph of the data set was."""

Colour = tuple[int, int, int]


def draw_pictures(folder: str | Path, each: int = 4, seed: int = 0) -> list[Path]:
    """Draws every motif some times, each time with other colours and in another place.

    Args:
        folder: Gets a folder for each class; what was there is removed.
        each: Pictures of each motif.
        seed: The same seed draws the same pictures.

    Returns:
        The files, 32 x 32 PNG.
    """
    random, root = np.random.default_rng(seed), Path(folder)
    shutil.rmtree(root, ignore_errors=True)
    files = []
    for name, paint in MOTIFS.items():
        for index in range(each):
            file = root / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            _drawn(paint, random, moved=bool(index)).save(file)
            files.append(file)
    return files


def contact_sheet(files: Iterable[Path], columns: int = 6, scale: int = 3) -> Image.Image:
    """Pictures side by side, enlarged."""
    pictures = [Image.open(file) for file in files]
    side = 32 * scale + 4
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), "white")
    for index, picture in enumerate(pictures):
        place = (index % columns * side + 2, index // columns * side + 2)
        sheet.paste(picture.resize((32 * scale, 32 * scale), Image.Resampling.NEAREST), place)
    return sheet


def _drawn(paint: Callable[[Image.Image], None], random: np.random.Generator, *, moved: bool) -> Image.Image:
    canvas = Image.new("RGB", (SIZE, SIZE))
    paint(canvas)
    if moved:
        step = tuple(int(value) for value in random.integers(-12, 13, 2))
        canvas = canvas.transform((SIZE, SIZE), Image.Transform.AFFINE, (0.94, 0, 8 + step[0], 0, 0.94, 8 + step[1]))
        light = 1 + random.uniform(-0.12, 0.12, 3)
        canvas = Image.fromarray(np.clip(np.asarray(canvas) * light, 0, 255).astype(np.uint8))
    return canvas.filter(ImageFilter.GaussianBlur(3)).resize((32, 32), Image.Resampling.LANCZOS)


def _background(
    canvas: Image.Image, top: Colour, bottom: Colour, horizon: int = SIZE, ground: Colour = (0, 0, 0)
) -> None:
    weight = np.linspace(0, 1, SIZE)[:, None, None]
    rows = np.array(top) * (1 - weight) + np.array(bottom) * weight
    canvas.paste(Image.fromarray(np.broadcast_to(rows, (SIZE, SIZE, 3)).astype(np.uint8)))
    if horizon < SIZE:
        canvas.paste(ground, (0, horizon, SIZE, SIZE))


def _wheels(draw: ImageDraw.ImageDraw, *centres: tuple[int, int]) -> None:
    for x, y in centres:
        draw.ellipse((x - 25, y - 25, x + 25, y + 25), (22, 22, 22))
        draw.ellipse((x - 11, y - 11, x + 11, y + 11), (160, 160, 160))


def _airplane(canvas: Image.Image) -> None:
    _background(canvas, (90, 150, 220), (190, 215, 240))
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((20, 115, 236, 150), (225, 228, 232))
    draw.polygon([(120, 130), (70, 220), (100, 220), (165, 135)], (190, 195, 200))
    draw.polygon([(130, 125), (95, 60), (118, 60), (165, 125)], (205, 210, 215))
    draw.polygon([(30, 125), (15, 80), (38, 80), (65, 122)], (200, 60, 50))
    draw.ellipse((195, 120, 225, 135), (60, 80, 110))


def _automobile(canvas: Image.Image) -> None:
    _background(canvas, (175, 200, 225), (225, 228, 230), 185, (105, 105, 108))
    draw = ImageDraw.Draw(canvas)
    draw.polygon([(60, 125), (90, 80), (170, 80), (205, 125)], (160, 25, 25))
    draw.polygon([(75, 122), (96, 88), (128, 88), (128, 122)], (60, 80, 95))
    draw.polygon([(135, 88), (166, 88), (190, 122), (135, 122)], (60, 80, 95))
    draw.rounded_rectangle((15, 120, 241, 180), 20, (185, 30, 30))
    _wheels(draw, (65, 178), (190, 178))


def _bird(canvas: Image.Image) -> None:
    _background(canvas, (140, 185, 225), (200, 220, 235))
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((70, 90, 190, 180), (120, 85, 55))
    draw.ellipse((160, 60, 220, 120), (120, 85, 55))
    draw.polygon([(215, 85), (245, 95), (215, 102)], (230, 160, 40))
    draw.ellipse((190, 78, 202, 90), (5, 5, 5))
    draw.polygon([(75, 130), (10, 160), (15, 180), (85, 155)], (90, 60, 40))
    draw.line((115, 178, 110, 220), (60, 40, 20), 6)
    draw.line((145, 178, 150, 220), (60, 40, 20), 6)
    draw.rectangle((0, 218, SIZE, 232), (100, 75, 50))


def _frog(canvas: Image.Image) -> None:
    _background(canvas, (70, 95, 45), (70, 95, 45))
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((50, 90, 210, 220), (95, 150, 50))
    for left in (70, 140):
        draw.ellipse((left, 60, left + 50, 110), (105, 160, 55))
        draw.ellipse((left + 12, 72, left + 35, 95), (230, 220, 120))
        draw.ellipse((left + 19, 78, left + 29, 90), (10, 10, 10))
    draw.arc((80, 110, 180, 170), 20, 160, (50, 90, 30), 6)
    draw.ellipse((30, 170, 90, 230), (85, 140, 45))
    draw.ellipse((170, 170, 230, 230), (85, 140, 45))


def _ship(canvas: Image.Image) -> None:
    _background(canvas, (170, 205, 235), (215, 230, 240), 170, (35, 85, 130))
    draw = ImageDraw.Draw(canvas)
    draw.polygon([(20, 140), (236, 140), (205, 195), (50, 195)], (130, 30, 30))
    draw.rectangle((70, 100, 180, 140), (235, 235, 235))
    draw.rectangle((90, 70, 160, 100), (240, 240, 240))
    draw.rectangle((115, 35, 135, 70), (40, 40, 40))
    for y in range(200, SIZE, 14):
        draw.line((0, y, SIZE, y + 4), (70, 120, 165), 3)


def _truck(canvas: Image.Image) -> None:
    _background(canvas, (160, 195, 230), (220, 225, 230), 190, (95, 95, 98))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((15, 70, 165, 190), (235, 235, 238))
    draw.rectangle((168, 105, 240, 190), (190, 40, 35))
    draw.polygon([(185, 115), (228, 115), (236, 150), (185, 150)], (120, 160, 190))
    _wheels(draw, (50, 192), (120, 192), (205, 192))


MOTIFS: dict[str, Callable[[Image.Image], None]] = {
    "airplane": _airplane,
    "automobile": _automobile,
    "bird": _bird,
    "frog": _frog,
    "ship": _ship,
    "truck": _truck,
}
