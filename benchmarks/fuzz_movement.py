"""Blocks of the fuzzer that move elements, in as many ways as networks write it."""

from __future__ import annotations

from collections.abc import Callable

from fuzz_blocks import Block, Draw


def crop(d: Draw) -> Block:
    axis = d.axis(2)
    first = d.amount(axis, 0, d.shape[axis] - 1)
    last = d.pick(["", f"x.shape[{axis}] - {d.integer(0, 1)}", f"{d.shape[axis]}", f"-{d.integer(1, 2)}"])
    step = d.pick(["", "", "", ":2", ":3"])
    return Block(f"x = x[{d.at(axis, f'{first}:{last}{step}')}]")


def turn(d: Draw) -> Block:
    axis = d.axis(2)
    amount = d.amount(axis, 0, d.shape[axis])
    return Block(
        f"k = {amount}\nx = torch.cat([x[{d.at(axis, 'k:')}], x[{d.at(axis, ':k')}]], {axis})"
        if d.chance(0.6)
        else f"k = {amount}\nx = torch.cat([x.narrow({axis}, k, x.shape[{axis}] - k), x.narrow({axis}, 0, k)], {axis})"
    )


def pad(d: Draw) -> Block:
    mode = d.pick(["constant", "constant", "replicate", "reflect", "circular"])
    axes = d.integer(1, 2) if mode == "constant" else max(1, d.rank - 2)
    if mode != "constant" and d.rank > 5:
        mode, axes = "constant", 2
    amounts: list[str] = []
    for axis in range(d.rank - 1, d.rank - 1 - axes, -1):
        most = {"reflect": d.shape[axis] - 1, "circular": d.shape[axis]}.get(mode, 3)
        amounts += [d.amount(axis, 0, min(3, most)) for _ in range(2)]
    if mode == "constant" and d.chance(0.2):
        amounts[0] = "-1"
    value = f", value={d.pick([0.0, 1.0, -0.5])}" if mode == "constant" and d.chance(0.4) else ""
    text = f"F.pad(x, ({', '.join(amounts)}), mode={mode!r}{value})"
    if d.chance(0.4):
        # Shifted windows of the padded tensor, one a group of channels.
        axis, channels, (before, after) = d.rank - 1, d.fixed(2), amounts[:2]
        if channels == axis or axes > 1:
            raise IndexError
        groups = d.groups(channels)
        starts = [d.pick(["0", before, f"({before}) + ({after})"]) for _ in groups]
        parts = [f"g[{i}].narrow({axis}, {start}, x.shape[{axis}])" for i, start in enumerate(starts)]
        return Block(f"p = {text}\ng = p.split({groups}, {channels})\nx = torch.cat([{', '.join(parts)}], {channels})")
    return Block(f"x = {text}")


def roll(d: Draw) -> Block:
    if d.chance(0.1):
        return Block(f"x = torch.roll(x, {d.integer(-3, 3)})")
    axes = [d.axis() for _ in range(d.integer(1, 2))]
    axes = list(dict.fromkeys(axes))
    steps = ", ".join(d.step(axis) for axis in axes)
    return Block(f"x = torch.roll(x, ({steps},), ({', '.join(map(str, axes))},))")


def flip(d: Draw) -> Block:
    axes = d.order(d.rank - 1)[: d.integer(1, 2)]
    text = f"x = x.flip({', '.join(str(axis + 1) for axis in axes)})"
    return Block(
        d.pick([text, text, f"x = torch.rot90(x, {d.integer(1, 3)}, (-2, -1))", "x = torch.fft.fftshift(x, (-1,))"])
    )


def regroup(d: Draw) -> Block:
    """Groups of channels, each moved in its own way."""
    channels = d.fixed(2)
    groups = d.groups(channels)
    axis = d.axis(2)
    ways = []
    for index in range(len(groups)):
        part = f"g[{index}]"
        ways.append(
            d.pick(
                [
                    part,
                    f"torch.roll({part}, {d.step(axis)}, {axis})",
                    f"{part}.flip({axis})",
                    f"torch.cat([{part}[{d.at(axis, '1:')}], {part}[{d.at(axis, '-1:')}]], {axis})",
                    f"torch.cat([{part}[{d.at(axis, ':1')}], {part}[{d.at(axis, ':-1')}]], {axis})",
                ]
            )
        )
    if d.chance(0.3):
        ways = [ways[index] for index in d.order(len(ways))]
    cut = f"x.split({groups}, {channels})"
    if d.shape[channels] % 2 == 0 and d.chance(0.4):
        cut, ways = f"x.chunk(2, {channels})", ways[:2]
    return Block(f"g = {cut}\nx = torch.cat([{', '.join(ways)}], {channels})")


def stack(d: Draw) -> Block:
    axis, place = d.axis(), d.integer(1, d.rank - 1)
    other = d.pick([f"x.flip({axis})", f"torch.roll(x, {d.step(axis)}, {axis})", "x"])
    rest = d.pick(
        [f".flatten({place}, {place + 1})", f".unbind({place})[1]", ""] if d.rank < 6 else [f"[{d.at(place, '0')}]"]
    )
    return Block(f"x = torch.stack([x, {other}], {place}){rest}")


def table(d: Draw) -> Block:
    axis = d.fixed(2)
    n = d.shape[axis]
    numbers = d.pick([d.order(n), [min(n - 1, i + 1) for i in range(n)], [d.integer(0, n - 1) for _ in range(n)]])
    if d.chance(0.5):
        name, weights = f"self.{d.name}", f"self.register_buffer({d.name!r}, torch.tensor({numbers}))"
    else:
        name, weights = f"torch.tensor({numbers})", ""
    ones = [1] * d.rank
    ones[axis] = n
    texts = [
        f"x = x.index_select({axis}, {name})",
        f"x = x[{d.at(axis, name)}]",
        f"x = x.gather({axis}, {name}.view({ones}).expand(x.shape))",
        f"x = torch.take_along_dim(x, {name}.view({ones}), {axis})",
    ]
    return Block(f"{d.pick(texts)}", weights)


def counted(d: Draw) -> Block:
    """Indices counted up to a size."""
    axis = d.axis(2)
    size, step = f"x.shape[{axis}]", d.step(axis)
    text = d.pick(
        [
            f"(i + ({step})) % {size}",
            f"(i + ({step})).clamp(0, {size} - 1)",
            f"({size} - 1 - i)",
            "i // 2",
            f"(i * 2) % {size}",
            f"(i - 1).abs().clamp(max={size} - 1)",
            f"torch.where(i < {size} // 2, i, {size} - 1 - i)",
        ]
    )
    index = f"i = torch.arange({size})\ni = {text}\n"
    return Block(index + d.pick([f"x = x.index_select({axis}, i)", f"x = x[{d.at(axis, 'i')}]"]))


def transpose(d: Draw) -> Block:
    if d.chance(0.3):
        order = [0, *[axis + 1 for axis in d.order(d.rank - 1)]]
        return Block(f"x = x.permute({', '.join(map(str, order))})")
    a, b = (axis + 1 for axis in d.order(d.rank - 1)[:2])
    return Block(
        d.pick([f"x = x.transpose({a}, {b})", f"x = x.movedim({a}, {b})", f"x = x.transpose({a}, {b}).contiguous()"])
    )


def reshape(d: Draw) -> Block:
    axis = d.integer(1, d.rank - 2)
    n, size = d.shape[axis], f"x.shape[{axis}]"
    ways = [f"x = x.flatten({axis}, {axis + 1})"] if d.rank > 3 else []
    if d.rank < 6:
        for factor in (2, 3, 4):
            if n % factor == 0:
                ways.append(f"x = x.unflatten({axis}, ({factor}, -1))")
                ways.append(f"x = x.unflatten({axis}, ({size} // {factor}, {factor}))")
    ways.append(f"s = x.shape\nx = torch.roll(x.reshape(s[0], -1), {d.integer(1, 3)}, 1).view(s)")
    ways.append("s = list(x.shape)\nx = x.reshape(s[0], -1, s[-1]).flip(1).reshape(s)")
    if d.rank < 6:
        ways.append(f"x = x.unsqueeze({axis})")
    return Block(d.pick(ways))


def windows(d: Draw) -> Block:
    """Windows of one axis, moved inside or between, and put together again."""
    axis = d.pick([a for a in range(1, d.rank) if d.shape[a] % 2 == 0])
    if d.rank > 5:
        raise IndexError
    inner = d.integer(0, 1)
    moved = f"torch.roll(v, {d.integer(-1, 1)}, {axis + inner})"
    back = d.pick([f".flatten({axis}, {axis + 1})", ".reshape(s)", f".transpose({axis}, {axis + 1}).reshape(s)"])
    return Block(f"s = x.shape\nv = x.unflatten({axis}, (-1, 2))\nx = {moved}{back}")


def clips(d: Draw) -> Block:
    """The batch as clips of frames, with a shift over time."""
    frames = d.pick([f for f in (2, 3, 4) if d.shape[0] % f == 0])
    if d.rank > 5:
        raise IndexError
    channels = d.fixed(2)
    half = d.shape[channels] // 2
    first = d.at(channels - 1, f":{half}")
    view = d.pick([f"x.view(-1, {frames}, *x.shape[1:])", f"x.view(x.shape[0] // {frames}, {frames}, *x.shape[1:])"])
    return Block(
        f"v = {view}\ny = v.clone()\ny[:, 1:, {first}] = v[:, :-1, {first}]\n"
        + d.pick(["x = y.flatten(0, 1)", "x = y.view(x.shape)", "x = y.reshape(-1, *x.shape[1:])"])
    )


def unfold(d: Draw) -> Block:
    axis = d.axis(2)
    size, step = d.integer(1, min(3, d.shape[axis])), d.integer(1, 2)
    if d.rank == 4 and d.chance(0.4):
        return Block("x = F.unfold(x, 3, padding=1).view(x.shape[0], -1, x.shape[2], x.shape[3])")
    rest = d.pick([".mean(-1)", ".flatten(-2)", ".amax(-1)"] + ([""] if d.rank < 6 else []))
    return Block(f"x = x.unfold({axis}, {size}, {step}){rest}", moves="m" not in rest)


def shuffle(d: Draw) -> Block:
    if d.rank != 4:
        raise IndexError
    ways = []
    if d.shape[1] % 4 == 0:
        ways += ["x = F.pixel_shuffle(x, 2)", "x = F.channel_shuffle(x, 2)"]
    if d.shape[2] % 2 == 0 and d.shape[3] % 2 == 0:
        ways.append("x = F.pixel_unshuffle(x, 2)")
    ways.append("x = F.interpolate(x, scale_factor=2, mode='nearest')")
    return Block(d.pick(ways))


def one_hot(d: Draw) -> Block:
    """A depthwise convolution with one 1 in each kernel."""
    if d.rank != 4 or d.free[1]:
        raise IndexError
    c, k = d.shape[1], d.pick([3, 3, 5])
    places = [(d.integer(0, k - 1), d.integer(0, k - 1)) for _ in range(c)]
    rows, columns = [place[0] for place in places], [place[1] for place in places]
    weights = (
        f"w = torch.zeros({c}, 1, {k}, {k})\nw[torch.arange({c}), 0, {rows}, {columns}] = 1.0\n"
        f"self.register_buffer({d.name!r}, w)"
    )
    mode = d.pick(["constant", "constant", "replicate", "circular"])
    if mode != "constant" and min(d.shape[2:]) >= k // 2:
        p = k // 2
        return Block(f"x = F.conv2d(F.pad(x, ({p}, {p}, {p}, {p}), mode={mode!r}), self.{d.name}, groups={c})", weights)
    return Block(f"x = F.conv2d(x, self.{d.name}, padding={k // 2}, groups={c})", weights)


def write(d: Draw) -> Block:
    """Slices written in place, from another tensor or from the tensor itself."""
    axis = d.axis(2)
    n = d.shape[axis]
    k = d.amount(axis, 1, n - 1)
    there, here = d.at(axis, "k:"), d.at(axis, f":x.shape[{axis}] - k")
    if d.chance(0.5):
        there, here = here, there
    if axis > 1 and not d.free[1] and d.shape[1] > 1 and d.chance(0.7):
        c = d.integer(1, d.shape[1])
        part = d.pick([f":{c}", f"{c - 1}:", "::2"])
        there, here = (text.replace(":, :", f":, {part}", 1) for text in (there, here))
    if d.chance(0.45):
        start = d.pick(["x.clone()", "torch.zeros_like(x)", "x.new_zeros(x.shape)", "torch.ones_like(x)"])
        return Block(f"k = {k}\ny = {start}\ny[{there}] = x[{here}]\nx = y")
    # The tensor onto itself: an overlapping copy is a race.
    return Block(
        f"x = x.clone()\nk = {k}\nx[{there}] = x[{here}]",
        meaning=f"x = x.clone()\nk = {k}\nx[{there}] = x[{here}].clone()",
    )


def pieces(d: Draw) -> Block:
    """In place on the pieces of a chunk or on a view."""
    channels = d.fixed(2, 2)
    axis = d.axis(2)
    there, here = d.at(axis, "1:"), d.at(axis, ":-1")
    return Block(
        f"x = x.clone()\na, b = x.chunk(2, {channels})\na[{there}] = a[{here}]\nb[{here}] = b[{there}]",
        meaning=f"x = x.clone()\na, b = x.chunk(2, {channels})\na[{there}] = a[{here}].clone()\n"
        f"b[{here}] = b[{there}].clone()",
    )


def odd_write(d: Draw) -> Block:
    axis = d.axis(2)
    n = d.shape[axis]
    i = d.integer(0, n - 1)
    ways = [
        f"y[{d.at(axis, '::2')}] = x[{d.at(axis, '::2')}].flip({axis})",
        f"y[{d.at(axis, str(i))}] = x[{d.at(axis, '-1')}]",
        f"y[{d.at(axis, '1:')}] += x[{d.at(axis, ':-1')}]",
        f"y[{d.at(axis, f'[0, {n - 1}]')}] = x[{d.at(axis, f'[{n - 1}, 0]')}]",
        f"y.select({axis}, {i}).fill_(0.5)",
        f"y.narrow({axis}, 0, 1).copy_(x.narrow({axis}, {i}, 1))",
        f"y[{d.at(axis, ':1')}].zero_()",
        f"y[{d.at(axis, ':1')}].mul_(2)",
        f"y[{d.at(axis, f'{i}:')}] = 0",
    ]
    text = d.pick(ways)
    return Block(f"y = x.clone()\n{text}\nx = y", moves="+=" not in text and "mul" not in text)


def masked(d: Draw) -> Block:
    axis = d.axis(2)
    size = f"x.shape[{axis}]"
    ones = [1] * d.rank
    ones[axis] = -1
    if not d.free[axis] and d.chance(0.4):
        values = [bool(d.integer(0, 1)) for _ in range(d.shape[axis])]
        mask, weights = f"self.{d.name}", f"self.register_buffer({d.name!r}, torch.tensor({values}))"
    else:
        mask, weights = (
            d.pick(
                [f"(torch.arange({size}) < {d.amount(axis, 1, d.shape[axis])})", f"(torch.arange({size}) % 2 == 0)"]
            ),
            "",
        )
    shaped = f"m = {mask}.view({ones})\n"
    ways = [
        "x = torch.where(m, x, 0.0)",
        f"x = torch.where(m, x, torch.roll(x, {d.step(axis)}, {axis}))",
        "x = x.masked_fill(~m, 0.25)",
        "x = x * m",
        "x = torch.where(x > 0, x, x.flip(-1))",
        "y = x.clone()\ny[y < 0] = 0\nx = y",
        "y = x.clone()\ny[m.expand(x.shape)] = 0\nx = y",
    ]
    return Block(shaped + d.pick(ways), weights)


def repeated(d: Draw) -> Block:
    axis = d.axis()
    times = d.amount(axis, 1, 3)
    ones = ["1"] * d.rank
    ones[axis] = times
    sizes = [f"x.shape[{axis}]" if a == axis else "-1" for a in range(d.rank)]
    ways = [
        f"x = x.repeat({', '.join(ones)})",
        f"x = x.repeat_interleave(2, {axis})",
        f"x = x.narrow({axis}, 0, 1).expand({', '.join(sizes)})",
        f"x = x.narrow({axis}, 0, 1).expand_as(x) + x",
        f"x = torch.cat([x] * ({times}), {axis})",
    ]
    return Block(d.pick(ways))


def branch(d: Draw) -> Block:
    """A branch on a size."""
    of, axis = d.axis(), d.axis()
    n = d.shape[of]
    test = d.pick([f"> {d.pick([1, n, n + 1, 2 * n, 16])}", f"% 2 == {n % 2}", f">= {n}", f"== {n}", f"!= {n + 1}"])
    ways = [f"torch.roll(x, 1, {axis})", f"x.flip({axis})", "x * 2", "x"]
    return Block(f"if x.shape[{of}] {test}:\n    x = {d.pick(ways)}\nelse:\n    x = {d.pick(ways)}")


def loop(d: Draw) -> Block:
    """A loop over an axis."""
    channels, axis = d.fixed(2) if d.chance(0.8) else d.axis(2), d.axis()
    step = d.pick(["i", "i % 3 - 1", "-i", "i // 2"])
    parts = f"torch.roll(x, {step}, {axis}).select({channels}, i)"
    return Block(f"x = torch.stack([{parts} for i in range(x.shape[{channels}])], {channels})")


def grid(d: Draw) -> Block:
    """Two axes indexed at once, and other places that are written by number."""
    if d.rank < 4:
        raise IndexError
    h, w = d.rank - 2, d.rank - 1
    lead = ", ".join([":"] * h)
    rows = d.pick(
        [f"torch.arange(x.shape[{h}])", f"torch.arange(x.shape[{h}] - 1, -1, -1)", f"torch.arange(x.shape[{h}]) // 2"]
    )
    columns = d.pick([f"(torch.arange(x.shape[{w}]) + 1) % x.shape[{w}]", f"torch.arange(x.shape[{w}]).flip(0)"])
    read = f"r = {rows}\nc = {columns}\n"
    if d.chance(0.6):
        return Block(f"{read}x = x[{lead}, r[:, None], c]")
    return Block(
        f"{read}y = torch.zeros_like(x)\ny[{lead}, {d.integer(0, d.shape[h] - 1)}, c] = x[{lead}, 0, :]\nx = y"
    )


def scattered(d: Draw) -> Block:
    axis = d.fixed(2)
    n = d.shape[axis]
    order = f"torch.tensor({d.order(n)})"
    ones = [1] * d.rank
    ones[axis] = n
    return Block(
        d.pick(
            [
                f"x = torch.zeros_like(x).scatter({axis}, {order}.view({ones}).expand(x.shape), x)",
                f"x = x.index_copy({axis}, {order}, x)",
                f"x = x.index_fill({axis}, torch.tensor([0, {n - 1}]), 0.5)",
                f"y = x.clone()\nfor i in range(1, {n}):\n    y[{d.at(axis, 'i')}] = x[{d.at(axis, 'i - 1')}]\nx = y",
                "x = torch.tril(x)",
                "x = torch.triu(x, 1)",
                "x = torch.diff(F.pad(x, (1, 0)), dim=-1)",
            ]
        )
    )


MOVEMENT: tuple[Callable[[Draw], Block], ...] = (
    crop, turn, pad, pad, roll, roll, flip, regroup, regroup, stack, table, table, counted, counted, transpose, reshape,
    reshape, windows, clips, clips, unfold, shuffle, one_hot, one_hot, write, write, write, pieces, odd_write, masked,
    masked, repeated, branch, loop, grid, scattered,
)  # fmt: skip
"""The more often one stands here, the more often it is drawn."""
