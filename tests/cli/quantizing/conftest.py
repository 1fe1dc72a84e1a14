"""A small artifact, images for it, and a ``quantize`` that must be refused."""

from __future__ import annotations

import shutil

import nano_artifact
import pytest
from image_files import by_class
from tiny_network import SMALLER_SOURCE


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return by_class(tmp_path_factory.mktemp("images") / "data ü")


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    pytest.importorskip("torch")
    from s2mlp_deploy import api
    from s2mlp_deploy.cli.options import parse_settings

    path = tmp_path_factory.mktemp("original") / "artifact"
    # As the command line gives them: what an artifact keeps of settings is their text.
    api.export(SMALLER_SOURCE[0], path, overrides=parse_settings(list(SMALLER_SOURCE[2::2])))
    return path


@pytest.fixture
def artifact(original, tmp_path):
    return shutil.copytree(original, tmp_path / "an artifact")


@pytest.fixture
def no_quantize(refused, artifact):
    """Runs a quantize that must be refused and leave the artifact as it was, to the byte."""

    def run(*arguments, directory=artifact):
        before = nano_artifact.snapshot(directory)
        text = refused("quantize", directory, *arguments)
        assert nano_artifact.snapshot(directory) == before, "the artifact was changed"
        return text

    return run
