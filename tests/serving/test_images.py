"""What may be classified, and what it is called."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_artifact import picture
from PIL import Image

from s2mlp_deploy.errors import DataError, InputError
from s2mlp_deploy.serving.images import named_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.jpg", "below/deep/c.PNG", ".hidden/d.png", "notes.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "images"


def names(images):
    return [image.name for image in named_images(images)]


def test_a_text_is_one_path_and_no_list_of_characters():
    (image,) = named_images("cat.png")
    assert (image.name, image.source) == ("cat.png", Path("cat.png"))


def test_a_folder_stands_for_all_images_below_it(folder):
    below = [str(folder / name) for name in ("a.jpg", "b.png", "below/deep/c.PNG")]
    assert names(folder) == names(str(folder)) == below
    assert names(["first.png", folder]) == ["first.png", *below]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="no image"):
        names([tmp_path])


def test_images_in_memory_are_numbered_among_all():
    stream = io.BytesIO()
    Image.fromarray(picture("red")).save(stream, "PNG")
    images = [stream.getvalue(), "x.png", Image.fromarray(picture("red")), picture("red"), picture("red")[..., 0]]
    assert names(images) == ["image 0", "x.png", "image 2", "image 3", "image 4"]


@pytest.mark.parametrize("image", [b"bytes", picture("red"), Image.fromarray(picture("red")), Path("x")], ids=type)
def test_one_image_needs_no_list(image):
    (found,) = named_images(image)
    assert found.source is image or found.source == image


def test_a_stack_is_as_many_images():
    assert names(np.stack([picture("red")] * 3)) == ["image 0", "image 1", "image 2"]


def test_what_comes_one_by_one_is_taken_one_by_one():
    def endless():
        while True:
            yield "x.png"

    images = named_images(endless())
    assert [next(images).name for _ in range(3)] == ["x.png"] * 3


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (7, "int"),
        ([None], "NoneType"),
        ([["a.png"]], "list"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \[3, 8, 8\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
    ],
    ids=str,
)
def test_what_is_no_image_is_named(images, says):
    with pytest.raises(InputError, match=f"no image: .*{says}") as caught:
        names(images)
    assert "paths" in caught.value.fix
