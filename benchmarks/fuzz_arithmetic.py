"""Blocks of the fuzzer that compute: layers, norms with small epsilons, arithmetic on sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fuzz_blocks import Block, Draw

EPSILONS = ("1e-12", "1e-10", "1e-8", "1e-7", "1e-6", "1e-5", "1e-3")


def affine(d: Draw) -> Block:
    size = f"x.shape[{d.axis()}]"
    return Block(
        d.pick(
            [
                "x = x * 1.5 + 0.25",
                f"x = x + {d.pick(EPSILONS)}",
                f"x = x * {d.pick(['1.000005', '0.9999999', '1.0', '-1'])}",
                f"x = x / {size}",
                f"x = x * {size} ** -0.5",
                f"x = x + {size} // 3",
                f"x = x / math.sqrt({size})",
                f"x = x * (2 if {size} % 2 else 3)",
                "x = x + 0 * x.flip(-1)",
                "x = x + torch.arange(x.shape[-1]) / x.shape[-1]",
                "x = x * torch.linspace(0, 1, x.shape[-1])",
                f"x = x * {size} ** 0.5",
                "x = x / (x.numel() // x.shape[0])",
                f"for i in range({d.integer(2, 3)}):\n    x = x + torch.roll(x, i, -1) * 0.5",
                "x = x - torch.full((x.shape[-1],), 1 / x.shape[-1])",
            ]
        )
    )


def scale(d: Draw) -> Block:
    axis = d.fixed()
    ones = [1] * d.rank
    ones[axis] = d.shape[axis]
    return Block(f"x = x * self.{d.name}.view({ones})", f"self.{d.name} = nn.Parameter(torch.randn({d.shape[axis]}))")


def linear(d: Draw) -> Block:
    n = d.shape[-1]
    if d.free[-1]:
        axis = d.fixed()
        out = d.integer(2, 8)
        return Block(
            f"x = self.{d.name}(x.transpose({axis}, -1)).transpose({axis}, -1)",
            f"self.{d.name} = nn.Linear({d.shape[axis]}, {out})",
        )
    return Block(f"x = self.{d.name}(x)", f"self.{d.name} = nn.Linear({n}, {d.integer(2, 8)}, bias={d.chance(0.7)})")


def conv(d: Draw) -> Block:
    if d.free[1] or d.rank not in (3, 4, 5):
        raise IndexError
    kernel = d.pick([1, 1, 3])
    stride = d.pick([1, 1, 1, 2])
    mode = d.pick(["zeros", "zeros", "replicate", "reflect", "circular"]) if kernel == 3 and d.rank < 5 else "zeros"
    if min(d.shape[2:]) < 2:
        mode = "zeros"
    c = d.shape[1]
    out, groups = (c, c) if d.chance(0.3) else (d.pick([4, 6, 8]), 1)
    return Block(
        f"x = self.{d.name}(x)",
        f"self.{d.name} = nn.Conv{d.rank - 2}d({c}, {out}, {kernel}, stride={stride}, padding={kernel // 2}, "
        f"groups={groups}, padding_mode={mode!r})",
    )


def norm(d: Draw) -> Block:
    eps, n = d.pick(EPSILONS), d.shape[-1]
    ways = [Block(f"x = F.layer_norm(x, x.shape[-1:], eps={eps})")]
    if not d.free[-1]:
        ways.append(Block(f"x = self.{d.name}(x)", f"self.{d.name} = nn.LayerNorm({n}, eps={eps})"))
    if not d.free[1]:
        c = d.shape[1]
        ways.append(Block(f"x = F.group_norm(x, {d.pick([g for g in (1, 2, c) if c % g == 0])}, eps={eps})"))
        if d.rank in (4, 5):
            ways.append(
                Block(
                    f"x = self.{d.name}(x)",
                    f"self.{d.name} = nn.BatchNorm{d.rank - 2}d({c}, eps={eps})\n"
                    f"self.{d.name}.running_var.uniform_(0.5, 2)\nself.{d.name}.running_mean.normal_()",
                )
            )
            if d.shape[2] * d.shape[3] > 4:
                ways.append(Block(f"x = F.instance_norm(x, eps={eps})"))
    return d.pick(ways)


def divide(d: Draw) -> Block:
    """A division that an epsilon keeps from zero."""
    axis, eps = d.axis(), d.pick(EPSILONS)
    return Block(
        d.pick(
            [
                f"x = x / (x.norm(dim={axis}, keepdim=True) + {eps})",
                f"x = F.normalize(x, dim={axis}, eps={eps})",
                f"x = x / x.norm(dim={axis}, keepdim=True).clamp(min={eps})",
                f"x = x * torch.rsqrt(x.pow(2).mean({axis}, keepdim=True) + {eps})",
                f"x = x / (x.abs().sum({axis}, keepdim=True) + {eps})",
                f"x = x / (x.var({axis}, keepdim=True, unbiased=False) + {eps}).sqrt()",
                f"x = F.relu(x)\nx = x / (x.sum({axis}, keepdim=True) + {eps})",
                f"x = x / torch.sqrt((x * x).sum({axis}, keepdim=True) + {eps})",
                f"x = x / torch.maximum(x.abs().amax({axis}, keepdim=True), torch.tensor({eps}))",
                f"x = torch.log(x.abs() + {eps}) * 0.1",
                f"x = x.abs().clamp(min={eps}).sqrt()",
            ]
        )
    )


def activation(d: Draw) -> Block:
    axis = d.axis()
    return Block(
        d.pick(
            [
                "x = F.gelu(x)",
                "x = F.gelu(x, approximate='tanh')",
                "x = F.relu(x)",
                "x = F.silu(x)",
                f"x = x.softmax({axis})",
                f"x = F.log_softmax(x, {axis})",
                "x = x * torch.sigmoid(x.mean(-1, keepdim=True))",
                "x = F.hardswish(x)",
                "x = torch.tanh(x)",
                "x = x.clamp(-1, 1)",
                "x = x.clamp(0, 1).clamp(2, 3)",
                f"x = x.clamp(min={d.pick(EPSILONS)})",
                "x = F.relu(x.clamp(max=-0.5)) + x",
                "x = torch.minimum(x, x.flip(-1))",
            ]
        )
    )


def reduce(d: Draw) -> Block:
    axis = d.axis()
    ways = [
        f"x = x - x.mean({axis}, keepdim=True)",
        f"x = x + x.sum({axis}, keepdim=True) / x.shape[{axis}]",
        f"x = x - x.amax({axis}, keepdim=True)",
        f"x = x.cumsum({axis})",
        f"x = x.sort({axis}).values",
        f"x = x * x.argmax({axis}, keepdim=True)",
        f"x = x * x.std({axis}, keepdim=True, unbiased=False)",
        "x = x + x.mean((-1, -2), keepdim=True)",
        f"x = (x.sum({axis}, keepdim=True) - x) / max(1, x.shape[{axis}] - 1)",
    ]
    if d.rank > 3 and axis:
        ways += [f"x = x.mean({axis})", f"x = x.amax({axis})"]
    if d.rank == 4:
        ways += [
            "x = F.avg_pool2d(x, 2, ceil_mode=True)",
            "x = F.max_pool2d(x, 3, 1, 1)",
            "x = F.adaptive_avg_pool2d(x, 1) + x",
            "x = F.interpolate(x, scale_factor=2, mode='bilinear')",
            "x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)",
        ]
    return Block(d.pick(ways))


def attend(d: Draw) -> Block:
    return Block(
        d.pick(
            [
                "x = torch.softmax(x @ x.mT / x.shape[-1] ** 0.5, -1) @ x",
                "x = F.scaled_dot_product_attention(x, x, x)",
                "x = F.scaled_dot_product_attention(x, x, x, is_causal=True)",
                "x = x @ torch.ones(x.shape[-1], x.shape[-1]).triu() / x.shape[-1]",
                "x = torch.einsum('...ij,...kj->...ik', x, x) / x.shape[-1]",
            ]
        )
    )


def combine(d: Draw) -> Block:
    """A sum of the tensor and a moved one."""
    axis = d.axis(2)
    return Block(
        d.pick(
            [
                f"x = x + torch.roll(x, {d.step(axis)}, {axis})",
                f"x = x - x.flip({axis})",
                f"x = x[{d.at(axis, '1:')}] - x[{d.at(axis, ':-1')}]",
                f"a, b = x.tensor_split(2, {axis})\nx = torch.cat([b * 0.5, a], {axis})",
                f"x = x * x[{d.at(axis, ':1')}]",
            ]
        )
    )


def function(d: Draw) -> Block:
    """Functions whose translations have rules of their own."""
    axis, order = d.axis(), d.pick(["1", "2", "math.inf", "3"])
    return Block(
        d.pick(
            [
                "x = F.softplus(x)",
                "x = F.softplus(x, beta=2, threshold=5)",
                "x = F.elu(x, alpha=0.7)",
                "x = F.celu(x, alpha=0.7)",
                "x = F.selu(x)",
                "x = F.mish(x)",
                "x = F.leaky_relu(x, 0.2)",
                "x = F.logsigmoid(x)",
                "x = F.hardtanh(x, -0.5, 0.75)",
                "x = F.hardsigmoid(x)",
                "x = F.softshrink(x, 0.3) + F.hardshrink(x, 0.3)",
                "x = F.threshold(x, 0.1, 0.5)",
                "x = F.relu6(x * 4)",
                "x = x.floor() + x.ceil()",
                "x = torch.round(x * 8) / 8",
                "x = torch.remainder(x.round(), 3)",
                "x = torch.fmod(x.round(), 3)",
                "x = torch.div(x.round(), 2, rounding_mode='floor')",
                "x = x.sign() * x.abs().sqrt()",
                "x = x.trunc() + x.frac()",
                "x = torch.log1p(x.abs()) + torch.expm1(x * 0.1)",
                "x = torch.atan2(x, x.flip(-1).abs() + 1)",
                f"x = x - x.logsumexp({axis}, keepdim=True)",
                f"x = x - torch.linalg.vector_norm(x, ord={order}, dim={axis}, keepdim=True)",
                f"x = x * F.cosine_similarity(x, x.flip(-1), dim={axis}, eps={d.pick(EPSILONS)}).unsqueeze({axis})",
                f"x = F.rms_norm(x, x.shape[-1:], eps={d.pick(EPSILONS)})",
                f"v, m = torch.var_mean(x, {axis}, keepdim=True, correction=0)\n"
                f"x = (x - m) * (v + {d.pick(EPSILONS)}).rsqrt()",
                f"x = F.glu(x, {axis})",
                f"x = torch.lerp(x, x.flip({axis}), 0.3)",
                f"x = torch.addcmul(x, x, x.flip({axis}), value=0.5)",
                "x = (x > 0.1).to(x.dtype) - (x < -0.1).float()",
                "x = x.double().mul(3).float()",
                f"x = x * (x > 0).any({axis}, keepdim=True)",
                f"x = x + (x > 0).sum({axis}, keepdim=True)",
                f"x = x.clamp(min=x.mean({axis}, keepdim=True))",
                f"x = x / x.amax({axis}, keepdim=True).clamp_min({d.pick(EPSILONS)})",
                f"x = x * x.prod({axis}, keepdim=True).clamp(-1, 1)",
                f"x = x.cumsum({axis}).flip({axis}).cumsum({axis}) * 0.1",
                "x = x.nan_to_num()",
                "x = x ** 2 - x ** 3 * 0.1 + 2 ** (x * 0.1)",
                "x = torch.rsqrt(x.abs() + 1e-3) * 0.1",
                "x = x.masked_fill(x < 0, -1e4).softmax(-1)",
                "x = x.masked_fill(x < 0, float('-inf')).softmax(-1).nan_to_num()",
                f"x = x * (x.shape[{axis}] / x.shape[-1])",
                f"x = x * float(x.shape[{axis}]) ** -1",
            ]
        )
    )


def layer(d: Draw) -> Block:
    """Layers with weights of other shapes, and resizing."""
    name, axis = d.name, d.axis()
    ways = []
    if not d.free[-1]:
        n = d.shape[-1]
        ways.append(
            Block(
                f"x = x + self.{name}b(F.gelu(self.{name}a(x)))",
                f"self.{name}a = nn.Linear({n}, {2 * n})\nself.{name}b = nn.Linear({2 * n}, {n})",
            )
        )
        if d.rank == 3 and n % 2 == 0:
            ways.append(
                Block(
                    f"x = self.{name}(x, x, x, need_weights=False)[0]",
                    f"self.{name} = nn.MultiheadAttention({n}, 2, batch_first=True)",
                )
            )
    if not d.free[1]:
        c = d.shape[1]
        ways.append(Block(f"x = self.{name}(x)", f"self.{name} = nn.PReLU({c})"))
        weights = f"self.{name} = nn.Embedding({d.pick([16, 40])}, {c})"
        place = ", ".join(["None", ":", *["None"] * (d.rank - 3)])
        ways.append(Block(f"x = x + self.{name}(torch.arange(x.shape[-1])).T[{place}]", weights))
    ways.append(
        Block(f"x = x + self.{name}[: x.shape[-1]]", f"self.{name} = nn.Parameter(torch.randn({d.pick([12, 64])}))")
    )
    if d.rank == 4:
        texts = (
            "x = F.interpolate(x, size=(x.shape[2] * 2, x.shape[3]), mode='nearest')",
            "x = F.interpolate(x, size=(5, 7), mode='bilinear')",
            "x = F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)",
            "x = F.interpolate(x, scale_factor=0.5)",
            "x = F.interpolate(x, scale_factor=2, mode='bicubic')",
            "x = F.interpolate(x.mean((2, 3), keepdim=True), size=x.shape[2:]) + x",
            "x = F.adaptive_avg_pool2d(x, (2, 2))",
            "x = F.max_pool2d(x, 2, ceil_mode=True)",
            "x = F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)",
            f"x = F.local_response_norm(x, 3, k={d.pick(['1.0', '1e-3'])})",
            "x = F.lp_pool2d(x.abs(), 2, 2)",
            "x = F.fold(F.unfold(x, 2, stride=2), x.shape[2:], 2, stride=2)",
        )
        ways += [Block(text) for text in texts]
    ways.append(Block(f"x = x.mean({axis}, keepdim=True) + x.std({axis}, keepdim=True, correction=0) * x"))
    return d.pick(ways)


def _computes(make: Callable[[Draw], Block]) -> Callable[[Draw], Block]:
    return lambda d: replace(make(d), moves=False)


ARITHMETIC = tuple(
    map(
        _computes,
        (
            affine,
            affine,
            scale,
            linear,
            conv,
            norm,
            divide,
            divide,
            activation,
            reduce,
            attend,
            combine,
            function,
            function,
            layer,
        ),
    )
)
