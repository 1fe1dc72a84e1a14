"""A tiny network's artifact, and images for it."""

from __future__ import annotations

import shutil

import pytest
from image_files import by_class


@pytest.fixture(scope="session")
def captured():
    torch = pytest.importorskip("torch")
    from tiny_network import TINY

    from s2mlp_deploy import api

    source = api.load("s2mlpv2_nano", overrides=TINY, seed=1)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in source.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return api.capture(source)


@pytest.fixture(scope="session")
def untouched(captured, tmp_path_factory):
    from s2mlp_deploy import api

    path = tmp_path_factory.mktemp("tiny") / "artifact"
    api.export(captured, path)
    return path


@pytest.fixture
def artifact(untouched, tmp_path):
    return shutil.copytree(untouched, tmp_path / "artifact")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Forty images of three classes."""
    return by_class(tmp_path_factory.mktemp("images"), 40)


@pytest.fixture
def lab(monkeypatch, artifact):
    """Candidates of a tuning whose times are known, and no others than the forms of the artifact's own file."""
    from tune_lab import Lab

    from s2mlp_deploy.api import tune_final, tune_heats
    from s2mlp_deploy.api.variants import Variants
    from s2mlp_deploy.errors import ExportError

    made = Lab(artifact)
    monkeypatch.setattr(tune_heats, "Track", made.track)
    monkeypatch.setattr(tune_final, "measure", made.measure)

    def no_layouts(_):
        raise ExportError("there is one layout alone")

    def no_passes(_, __):
        raise ExportError("every graph pass has run")

    monkeypatch.setattr(Variants, "other_layouts", no_layouts)
    monkeypatch.setattr(Variants, "of_passes", no_passes)
    return made
