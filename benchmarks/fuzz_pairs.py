"""Blocks of the fuzzer in which operators meet that are rewritten together, writes go through views, and paths join."""

from __future__ import annotations

from collections.abc import Callable

from fuzz_blocks import Block, Draw


def padded_layer(d: Draw) -> Block:
    """A padding in front of a convolution, or a batch norm behind one: runtimes and exporters merge them."""
    if d.free[1] or d.rank != 4:
        raise IndexError
    c, out, name = d.shape[1], d.pick([4, 6]), d.name
    amounts = [d.integer(0, 2) for _ in range(4)]
    value = d.pick(["", "", ", value=1.0", ", mode='replicate'", ", mode='reflect'"])
    options = d.pick(["", ", padding=1", ", padding='same'", ", dilation=2, padding=2", ", stride=2", ", bias=False"])
    layer = d.pick([f"nn.Conv2d({c}, {out}, 3{options})", f"nn.ConvTranspose2d({c}, {out}, 2, stride=2)"])
    weights = f"self.{name} = {layer}\nself.{name}n = nn.BatchNorm2d({out}, eps={d.pick(['1e-12', '1e-5', '1e-3'])})"
    weights += f"\nself.{name}n.running_var.uniform_(0.5, 2)\nself.{name}n.running_mean.normal_()"
    if d.chance(0.2):
        weights += f"\nself.{name}n.running_var[0] = 0"
    lines = [f"x = F.pad(x, {tuple(amounts)}{value})"] if d.chance(0.6) else []
    lines += [f"x = self.{name}(x)"]
    lines += [f"x = self.{name}n(x)"] if d.chance(0.6) else []
    return Block("\n".join(lines), weights, moves=False)


def views(d: Draw) -> Block:
    """Views of views, slices of slices, some of which change nothing."""
    axis = d.axis(2)
    size = f"x.shape[{axis}]"
    ways = [
        f"x = x[{d.at(axis, '1:')}][{d.at(axis, ':-1')}]",
        f"x = x[{d.at(axis, f'0:{size}')}]",
        f"x = x[{d.at(axis, '::2')}][{d.at(axis, '::2')}]",
        f"x = x[{d.at(axis, ':-1')}][{d.at(axis, f'-{d.integer(1, 3)}:')}]",
        f"x = x[{d.at(axis, f':{size} - 3')}]",
        f"x = x[{d.at(axis, f'-{d.integer(1, d.shape[axis])}:')}]",
        f"x = x.unsqueeze(1).unsqueeze({axis}).squeeze({axis}).squeeze(1)",
        f"x = x.transpose({axis}, -1).transpose(1, -1).transpose(1, {axis})",
        f"x = x.expand({', '.join(f'x.shape[{a}]' for a in range(d.rank))})",
        "s = x.shape\nx = x.reshape(-1).reshape(s[0], -1).reshape(s)",
        "s = x.shape\nx = x.reshape(-1).flip(0).view(s)",
        f"s = x.shape\nx = torch.roll(x.flatten(1), ({size} // 2, ), (1, )).view(*s)",
        f"x = torch.roll(torch.roll(x, {d.step(axis)}, {axis}), {d.step(axis)}, {axis})",
        f"x = torch.roll(x, {d.pick([-100, 17, 64])}, {axis})",
        f"x = torch.cat([x[{d.at(axis, f'{size}:')}], x], {axis})",
        f"x = x.flip({axis}).flip({axis})",
        "x = F.pad(x, (2, 1))[..., 1:-1]",
        "x = F.pad(F.pad(x, (1, 1)), (-1, 1))",
        "x = x[..., None].expand(*x.shape, 2).flatten(-2)",
        "x = x.mT.flip(-1).mT",
        "x = x.unflatten(1, (-1, 1)).squeeze(2)",
        "x = x[..., :8]",
        "x = x.swapaxes(1, -1).reshape(x.shape)",
    ]
    return Block(d.pick(ways))


def through_views(d: Draw) -> Block:
    """Writes through views of a tensor."""
    axis = d.axis(2)
    ways = [
        f"y.transpose(1, {axis})[:, 1:] = x.transpose(1, {axis})[:, :-1]",
        f"y[{d.at(axis, '1:')}][{d.at(axis, ':1')}] = 0",
        "y.flatten(1)[:, ::2] = 0",
        "y.view(y.shape[0], -1)[:, 1:] = x.reshape(x.shape[0], -1)[:, :-1]",
        f"for part in y.unbind({axis}):\n    part.mul_(2)",
        f"for i, part in enumerate(y.chunk(2, {axis})):\n    part.copy_(torch.roll(part.clone(), i, -1))",
        f"y.unflatten({axis}, (-1, 1)).fill_(0.25)",
        f"y.index_fill_({axis}, torch.tensor([0]), 0.5)",
        f"y[{d.at(axis, '-1:')}] = x[{d.at(axis, ':1')}]",
        f"y[{d.at(axis, ':-2')}] = x[{d.at(axis, '2:')}]",
        "y[..., : x.shape[-1] // 2] = x[..., x.shape[-1] - x.shape[-1] // 2 :]",
        "y.swapaxes(1, -1).copy_(x.swapaxes(1, -1).flip(1))",
        f"y[{d.at(axis, '::2')}], y[{d.at(axis, '1::2')}] = x[{d.at(axis, '::2')}] * 1, 0",
        "y[:, 0], y[:, -1] = x[:, -1], x[:, 0]",
        f"for i in range(min(3, x.shape[{axis}])):\n    y[{d.at(axis, 'i')}] = x[{d.at(axis, '-1 - i')}]",
    ]
    text = d.pick(ways)
    return Block(f"y = x.clone()\n{text}\nx = y", moves="mul_" not in text)


def tables(d: Draw) -> Block:
    """Tables for several axes at once, and such that are computed."""
    if d.rank < 4:
        raise IndexError
    spatial = d.pick([f"torch.arange(x.shape[{d.rank - 2}] * x.shape[-1])", "torch.arange(x[0, 0].numel())"])
    moved = d.pick([".roll(1)", ".flip(0)", ".view(x.shape[-2], x.shape[-1]).roll(1, 0).flatten()"])
    moved += d.pick(["", ".long()", ".int()"])
    return Block(
        d.pick(
            [
                f"i = {spatial}{moved}\nx = x.flatten(-2)[..., i].view(x.shape)",
                f"i = {spatial}{moved.removesuffix('.int()')}\n"
                "x = x.flatten(-2).gather(-1, i.expand(x.flatten(-2).shape)).view_as(x)",
                "r, c = torch.meshgrid(torch.arange(x.shape[-2]), torch.arange(x.shape[-1]), indexing='ij')\n"
                "x = x[..., r, (c + r) % x.shape[-1]]",
                "x = x[:, torch.arange(x.shape[1]) % 2]",
                "x = x * (torch.arange(x.shape[-2])[:, None] >= torch.arange(x.shape[-1]))",
                "x = torch.where(torch.arange(x.shape[-1]) < x.shape[-1] - 2, x.roll(2, -1), 0.0)",
            ]
        )
    )


def joined(d: Draw) -> Block:
    """The input of the network, and the same movement twice."""
    axis = d.axis(2)
    step = d.step(axis)
    rolled = f"torch.roll(x, {step}, {axis})"
    return Block(
        d.pick(
            [
                "x = x + x_in",
                "x = torch.cat([x, x_in], 1)",
                f"x = torch.cat([{rolled}, {rolled} * 2], 1)",
                f"a = {rolled}\nb = {rolled}\nx = a * 0.5 + b",
                f"a, b = {rolled}, torch.roll(x, -({step}), {axis})\nx = a - b",
                "x = torch.where(x_in > 0, x, x_in)",
                f"a, b = x.split([1, x.shape[{axis}] - 1], {axis})\nx = torch.cat([b, a * 3], {axis})",
            ]
        ),
        moves=False,
    )


def two_sizes(d: Draw) -> Block:
    """What depends on two sizes at once."""
    a, b = (axis + 1 for axis in d.order(d.rank - 1)[:2])
    one, other = f"x.shape[{a}]", f"x.shape[{b}]"
    step = d.pick(
        [f"abs({one} - {other})", f"max({one}, {other}) // 2", f"({one} * {other}) % 3", f"min({one}, {other})"]
    )
    return Block(
        d.pick(
            [
                f"x = torch.roll(x, {step}, {a})",
                f"k = min({step}, {one} - 1)\nx = torch.cat([x.narrow({a}, k, {one} - k), x.narrow({a}, 0, k)], {a})",
                f"if {one} == {other}:\n    x = x.transpose({a}, {b})\nelse:\n    x = x.flip({a})",
                f"if {one} > {other}:\n    x = torch.roll(x, 1, {a})\nelse:\n    x = torch.roll(x, 1, {b})",
                f"if {one} >= {d.pick([20, 40, 100])}:\n    x = x * 2",
                "x = F.pad(x, (0, max(0, 4 - x.shape[-1])))",
                "x = F.pad(x, (0, -x.shape[-1] % 4))",
                "s = x.shape[-1]\nx = F.pad(x, (0, -s % 4)).unflatten(-1, (-1, 4)).flip(-1).flatten(-2)[..., :s]",
            ]
        )
    )


PAIRS: tuple[Callable[[Draw], Block], ...] = (
    padded_layer, views, views, through_views, through_views, tables, joined, joined, two_sizes, two_sizes,
)  # fmt: skip
