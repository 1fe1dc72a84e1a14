"""The networks run: both layouts, every ablation of the papers, seeded weights, and the trained checkpoint."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from s2mlp_deploy.models.config import DIRECTION_SETS, STEPS
from s2mlp_deploy.models.layers import SpatialShift
from s2mlp_deploy.models.registry import build_model, configure, create_model, get_model
from s2mlp_deploy.shift.spec import BORDERS

V1 = {"dims": [16], "depths": [2], "patches": [4], "image_size": 16, "classes": 5}
V2 = {"dims": [16, 32], "depths": [1, 2], "patches": [2, 2], "image_size": 16, "classes": 5}
FAMILIES = pytest.mark.parametrize(
    ("name", "small"),
    [("s2mlp_wide", V1), ("s2mlp_deep", V1 | {"norm": "affine"}), ("s2mlpv2_nano", V2)],
    ids=["v1", "v1-affine", "v2"],
)


def lively(model: nn.Module) -> nn.Module:
    """Random numbers in every weight: zero biases and unit scales would hide a wrong one."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def image(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def run(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x)
    return out


class TestLayouts:
    @FAMILIES
    @pytest.mark.parametrize("border", BORDERS)
    def test_same_weights_same_answer(self, name: str, small: dict[str, Any], border: str) -> None:
        overrides = small | {"border": border}
        last = lively(create_model(name, **overrides))
        first = create_model(name, **overrides, layout="channels-first")
        first.load_state_dict(last.state_dict())
        x = image(3, 3, 16, 16)
        expected = run(last, x)
        torch.testing.assert_close(run(first, x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())

    @FAMILIES
    def test_weights_travel_back(self, name: str, small: dict[str, Any]) -> None:
        first = lively(create_model(name, **small, layout="channels-first"))
        last = create_model(name, **small)
        last.load_state_dict(first.state_dict())
        again = create_model(name, **small, layout="channels-first")
        again.load_state_dict(last.state_dict())
        for key, value in first.state_dict().items():
            assert torch.equal(again.state_dict()[key], value)

    @FAMILIES
    def test_height_and_width_are_not_mixed_up(self, name: str, small: dict[str, Any]) -> None:
        overrides = small | {"image_size": [16, 32]}
        last = lively(create_model(name, **overrides))
        first = create_model(name, **overrides, layout="channels-first")
        first.load_state_dict(last.state_dict())
        x = image(2, 3, 16, 32)
        expected = run(last, x)
        torch.testing.assert_close(run(first, x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        turned = run(last, x.transpose(2, 3))
        assert not torch.allclose(turned, expected, rtol=1e-2)


def written_out(x: Tensor, w: dict[str, Tensor], depths: list[int], patches: list[int], *, v2: bool) -> Tensor:
    """Both networks once more, straight from the papers' equations: channels last, LayerNorm, directions a, keep."""

    def fc(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def shifted(x: Tensor, first: int) -> Tensor:
        """A quarter of the channels forward along axis ``first``, one back, then the same along the other axis."""
        out, quarter = x.clone(), x.shape[-1] // 4
        for index, axis in enumerate((first, first, 3 - first, 3 - first)):
            channels = slice(index * quarter, (index + 1) * quarter)
            low, high = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
            target, source = (high, low) if index % 2 == 0 else (low, high)
            out[..., channels][target] = x[..., channels][source]
        return out

    def mixed(x: Tensor, name: str) -> Tensor:
        if not v2:
            return fc(shifted(F.gelu(fc(x, f"{name}.fc1")), 1), f"{name}.fc2")
        a, b, c = fc(x, f"{name}.expand").chunk(3, -1)
        branches = torch.stack([shifted(a, 1), shifted(b, 2), c], 1)
        pooled = branches.sum((1, 2, 3))
        logits = fc(F.gelu(fc(pooled, f"{name}.attention.reduce")), f"{name}.attention.expand")
        weights = logits.unflatten(1, (3, -1)).softmax(1)
        return fc(torch.einsum("nkhwc,nkc->nhwc", branches, weights), f"{name}.project")

    def mlp(x: Tensor, name: str) -> Tensor:
        return fc(F.gelu(fc(x, f"{name}.fc1")), f"{name}.fc2")

    for stage, (depth, patch) in enumerate(zip(depths, patches, strict=True)):
        embed = f"stages.{stage}.patch_embed"
        if stage:
            x = x.permute(0, 3, 1, 2)
        x = F.conv2d(x, w[f"{embed}.proj.weight"], w[f"{embed}.proj.bias"], stride=patch).permute(0, 2, 3, 1)
        if not v2:
            x = norm(x, f"{embed}.norm")
        for index in range(depth):
            block = f"stages.{stage}.blocks.{index}"
            if v2:
                x = x + mixed(norm(x, f"{block}.norm1"), f"{block}.mixer")
                x = x + mlp(norm(x, f"{block}.norm2"), f"{block}.mlp")
            else:
                x = x + norm(mixed(x, f"{block}.mixer"), f"{block}.norm1")
                x = x + norm(mlp(x, f"{block}.mlp"), f"{block}.norm2")
    if v2:
        x = norm(x, "norm")
    return fc(x.mean((1, 2)), "head")


@pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
@pytest.mark.parametrize(("name", "small"), [("s2mlp_wide", V1), ("s2mlpv2_nano", V2)], ids=["v1", "v2"])
def test_networks_are_the_papers_equations(name: str, small: dict[str, Any], layout: str) -> None:
    last = lively(create_model(name, **small))
    model = create_model(name, **small, layout=layout)
    model.load_state_dict(last.state_dict())
    x = image(3, 3, 16, 16)
    expected = written_out(x, last.state_dict(), small["depths"], small["patches"], v2=name != "s2mlp_wide")
    torch.testing.assert_close(run(model, x), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


class TestAblations:
    @pytest.mark.parametrize("letter", DIRECTION_SETS)
    def test_v1_directions(self, letter: str) -> None:
        model = create_model("s2mlp_wide", **V1, directions=letter)
        shifts = [m for m in model.modules() if isinstance(m, SpatialShift)]
        assert len(shifts) == 2
        for shift in shifts:
            steps = [] if shift.spec is None else [group.offsets for group in shift.spec.groups]
            assert steps == [STEPS[name] for name in DIRECTION_SETS[letter]]
        assert run(model, image(2, 3, 16, 16)).shape == (2, 5)

    def test_paper_directions_in_the_papers_order(self) -> None:
        """Groups along the first axis, then the second; in v2's second branch the other way around."""
        v1 = create_model("s2mlp_wide", **V1)
        v2 = create_model("s2mlpv2_nano", **V2)
        first_axis_first = [(1, 0), (-1, 0), (0, 1), (0, -1)]
        assert [g.offsets for g in v1.stages[0].blocks[0].mixer.shift.spec.groups] == first_axis_first
        shift1, shift2, identity = v2.stages[0].blocks[0].mixer.shifts
        assert [g.offsets for g in shift1.spec.groups] == first_axis_first
        assert [g.offsets for g in shift2.spec.groups] == first_axis_first[2:] + first_axis_first[:2]
        assert identity.spec is None

    @pytest.mark.parametrize(
        "overrides",
        [
            {"norm": "affine"},
            {"depths": [1]},
            {"dims": [24]},
            {"expansion": 1},
            {"expansion": 5},
            {"patches": [8]},
            {"image_size": 32},
            {"in_channels": 1},
            {"classes": 1},
            {"dims": [8, 16], "depths": [1, 1], "patches": [4, 2]},
            {"directions": "down-right, up-left"},
        ],
        ids=str,
    )
    def test_v1_fields(self, overrides: dict[str, Any]) -> None:
        self.check_runs("s2mlp_wide", V1 | overrides)

    @pytest.mark.parametrize(
        "overrides",
        [
            {"fusion": "sum"},
            {"branches": ["shift2", "identity"]},
            {"branches": ["shift1", "identity"]},
            {"branches": ["shift1", "shift2"]},
            {"branches": ["identity"], "fusion": "sum"},
            {"attention_ratio": 1},
            {"dims": [32], "depths": [2], "patches": [4]},
            {"dims": [8, 16, 32], "depths": [1, 1, 1], "patches": [2, 2, 2]},
            {"image_size": [8, 24]},
            {"in_channels": 4},
            {"classes": 1},
            {"shift1": "none", "shift2": "b"},
        ],
        ids=str,
    )
    def test_v2_fields(self, overrides: dict[str, Any]) -> None:
        self.check_runs("s2mlpv2_nano", V2 | overrides)

    @staticmethod
    def check_runs(name: str, overrides: dict[str, Any]) -> None:
        config = configure(get_model(name).config, overrides)
        x = image(2, config.in_channels, *config.image_size)
        for layout in ("channels-last", "channels-first"):
            out = run(build_model(configure(config, {"layout": layout})), x)
            assert out.shape == (2, config.classes)
            assert out.isfinite().all()

    @pytest.mark.parametrize("field", ["fusion", "branches", "shift1", "border"])
    def test_v2_fields_change_the_answer(self, field: str) -> None:
        other = {"fusion": "sum", "branches": ["shift2", "shift1", "identity"], "shift1": "left", "border": "zero"}
        model = lively(create_model("s2mlpv2_nano", **V2))
        changed = create_model("s2mlpv2_nano", **V2 | {field: other[field]})
        changed.load_state_dict(model.state_dict(), strict=False)
        x = image(2, 3, 16, 16)
        assert not torch.allclose(run(model, x), run(changed, x), rtol=1e-2)

    def test_without_a_shift_cells_do_not_speak_to_each_other(self) -> None:
        """A shift of one cell reaches one cell further per block; the branch of identities reaches none."""

        def touched(directions: str) -> int:
            model = lively(create_model("s2mlp_wide", **V1 | {"depths": [1]}, directions=directions))
            x = image(1, 3, 16, 16)
            other = x.clone()
            other[:, :, 4:8, 4:8] += 1  # the cell in row 1, column 1
            with torch.no_grad():
                return int((model.stages(x) != model.stages(other)).any(-1).sum())

        assert touched("none") == 1
        assert touched("a") == 5
        assert touched("b") == 9


class TestWeights:
    @FAMILIES
    def test_a_seed_gives_the_same_weights(self, name: str, small: dict[str, Any]) -> None:
        one, two, other = (create_model(name, seed=seed, **small).state_dict() for seed in (5, 5, 6))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
        assert any(not torch.equal(value, other[key]) for key, value in one.items())

    @FAMILIES
    def test_the_global_generator_is_left_alone(self, name: str, small: dict[str, Any]) -> None:
        torch.manual_seed(11)
        before = torch.get_rng_state()
        create_model(name, seed=5, **small)
        assert torch.equal(torch.get_rng_state(), before)

    def test_models_come_in_evaluation_mode(self) -> None:
        assert not create_model("s2mlpv2_nano", **V2).training

    def test_gradients_reach_every_weight(self) -> None:
        model = lively(create_model("s2mlpv2_nano", **V2)).train()
        model(image(2, 3, 16, 16)).square().sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.data
class TestTrainedCheckpoint:
    STEM = "s2mlpv2_nano_cifar10"

    @pytest.fixture(scope="class")
    @staticmethod
    def folder(shared_dir: Path) -> Path:
        return shared_dir / "checkpoints"

    @pytest.fixture(scope="class")
    @staticmethod
    def description(folder: Path) -> dict[str, Any]:
        return json.loads((folder / f"{TestTrainedCheckpoint.STEM}.json").read_text())

    @pytest.fixture(scope="class")
    @staticmethod
    def state(folder: Path) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        return load_file(folder / f"{TestTrainedCheckpoint.STEM}.safetensors")

    @pytest.fixture(scope="class")
    @staticmethod
    def logits(folder: Path) -> dict[str, np.ndarray]:
        with np.load(folder / f"{TestTrainedCheckpoint.STEM}_logits.npz") as saved:
            return dict(zip(saved["names"].tolist(), saved["logits"], strict=True))

    @pytest.fixture(scope="class")
    @staticmethod
    def images(data_dir: Path, logits: dict[str, np.ndarray], description: dict[str, Any]) -> Tensor:
        """The images of the saved logits, in their order; prepared here, not with the package's own code."""
        pixels: dict[str, np.ndarray] = {}
        with tarfile.open(data_dir / "cifar10_jpeg.tar.xz", "r|xz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                name = name[name.index("test/") :] if "test/" in name else name
                if name in logits:
                    file = archive.extractfile(member)
                    assert file is not None
                    pixels[name] = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"), np.float32) / 255
                    if len(pixels) == len(logits):
                        break
        stacked = np.stack([pixels[name] for name in logits])
        normal = (stacked - np.float32(description["mean"])) / np.float32(description["std"])
        return torch.from_numpy(normal.transpose(0, 3, 1, 2).copy()).float()

    def test_names_and_shapes_are_the_zoos(self, state: dict[str, Tensor], description: dict[str, Any]) -> None:
        model = create_model(description["architecture"], **description["config"])
        own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == own

    def test_its_description_is_the_zoo_entry(self, description: dict[str, Any]) -> None:
        entry = get_model(description["architecture"])
        assert configure(entry.config, description["config"]) == entry.config

    @pytest.mark.parametrize("layout", ["channels-last", "channels-first"])
    def test_reproduces_the_logits_of_the_code_that_trained_it(
        self,
        layout: str,
        state: dict[str, Tensor],
        description: dict[str, Any],
        images: Tensor,
        logits: dict[str, np.ndarray],
    ) -> None:
        model = create_model(description["architecture"], **description["config"], layout=layout)
        model.load_state_dict(state)
        expected = torch.from_numpy(np.stack(list(logits.values())))
        assert len(expected) == 256
        torch.testing.assert_close(run(model, images), expected, rtol=0, atol=1e-4)

    def test_another_border_does_not(
        self, state: dict[str, Tensor], description: dict[str, Any], images: Tensor, logits: dict[str, np.ndarray]
    ) -> None:
        model = create_model(description["architecture"], **description["config"] | {"border": "zero"})
        model.load_state_dict(state)
        expected = torch.from_numpy(np.stack(list(logits.values()))[:32])
        assert (run(model, images[:32]) - expected).abs().max() > 0.1
