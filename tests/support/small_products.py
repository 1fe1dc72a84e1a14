"""Small networks of all kinds of products, named after them: each with its example inputs, all of rank 3 or 4."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Made = tuple[nn.Module, Tensor]


class Applied(nn.Module):
    """A function of its modules and one tensor."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module | nn.Parameter | Tensor) -> None:
        super().__init__()
        self._forward_of = forward
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward_of(self, x)


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5)


def _heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def _tokens() -> Tensor:
    return torch.randn(2, 6, 16)


def _image() -> Tensor:
    return torch.randn(2, 16, 8, 8)


def _net(forward: Callable[..., Tensor], x: Tensor, **parts: nn.Module | nn.Parameter | Tensor) -> Made:
    return Applied(forward, **parts).eval(), x


def _l() -> nn.Linear:
    return nn.Linear(16, 16)


PRODUCTS: dict[str, Callable[[], Made]] = {
    "attention": lambda: _net(
        lambda m, x: m.o(torch.softmax(m.l(x) @ x.transpose(1, 2) / 4, -1) @ x), _tokens(), l=_l(), o=_l()
    ),
    "attention_with_a_mask": lambda: _net(
        lambda m, x: m.o(torch.softmax(m.l(x) @ x.transpose(1, 2) + m.mask, -1) @ x),
        _tokens(),
        l=_l(),
        o=_l(),
        mask=torch.full((6, 6), float("-inf")).triu(1),
    ),
    "attention_of_heads": lambda: _net(
        lambda m, x: m.o(
            F.scaled_dot_product_attention(_heads(m.q(x), 2), _heads(m.k(x), 2), _heads(x, 2))
            .transpose(1, 2)
            .flatten(2)
        ),
        _tokens(),
        q=_l(),
        k=_l(),
        o=_l(),
    ),
    "attention_of_rank_3": lambda: _net(
        lambda m, x: m.o(F.scaled_dot_product_attention(m.q(x), m.k(x), x)), _tokens(), q=_l(), k=_l(), o=_l()
    ),
    "multihead_attention": lambda: _net(
        lambda m, x: m.o(m.a(x, x, x, need_weights=False)[0]),
        _tokens(),
        a=nn.MultiheadAttention(16, 4, batch_first=True),
        o=_l(),
    ),
    "transformer_layer": lambda: _net(
        lambda m, x: m.t(x), _tokens(), t=nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
    ),
    "class_token": lambda: _net(lambda m, x: m.l(torch.cat([x.new_zeros(x.shape[0], 1, 16), x], 1)), _tokens(), l=_l()),
    "weight_on_the_left": lambda: _net(lambda m, x: m.l(m.w @ x), _tokens(), l=_l(), w=_weight(6, 6)),
    "weights_of_a_batch": lambda: _net(
        lambda m, x: m.l(torch.bmm(_heads(x, 4).flatten(0, 1)[:4], m.w)),
        _tokens(),
        l=nn.Linear(5, 16),
        w=_weight(4, 4, 5),
    ),
    "weights_of_heads": lambda: _net(
        lambda m, x: m.l((_heads(x, 2) @ m.w).transpose(1, 2).flatten(2)), _tokens(), l=_l(), w=_weight(2, 8, 8)
    ),
    "einsum_of_activations": lambda: _net(
        lambda m, x: m.l(torch.einsum("btc,bsc,bsd->btd", x, m.l(x), x)), _tokens(), l=_l()
    ),
    "einsum_with_weights": lambda: _net(
        lambda m, x: m.l(torch.einsum("btc,cgd->btgd", x, m.w).flatten(2)), _tokens(), l=_l(), w=_weight(16, 2, 8)
    ),
    "addmm": lambda: _net(
        lambda m, x: m.l(torch.addmm(m.b, x.flatten(0, 1), m.w, alpha=0.5, beta=2.0).view(x.shape)),
        _tokens(),
        l=_l(),
        b=_weight(16),
        w=_weight(16, 16),
    ),
    "baddbmm": lambda: _net(lambda m, x: m.l(torch.baddbmm(x, x @ x.transpose(1, 2), x, alpha=0.1)), _tokens(), l=_l()),
    "matrix_times_vector": lambda: _net(lambda m, x: m.l(x + (x @ m.w)[..., None]), _tokens(), l=_l(), w=_weight(16)),
    "bilinear": lambda: _net(lambda m, x: m.l(m.b(x, x)), _tokens(), l=_l(), b=nn.Bilinear(16, 16, 16)),
    "computed_weights": lambda: _net(
        lambda m, x: F.linear(m.l(x), m.w @ m.l(x)[0]), _tokens(), l=_l(), w=_weight(4, 6)
    ),
    "gru": lambda: _net(lambda m, x: m.l(m.r(x)[0]), _tokens(), l=_l(), r=nn.GRU(16, 16, batch_first=True)),
    "lstm": lambda: _net(
        lambda m, x: m.l(m.r(x)[0]),
        _tokens(),
        l=nn.Linear(32, 16),
        r=nn.LSTM(16, 16, batch_first=True, bidirectional=True),
    ),
    "conv_transpose": lambda: _net(
        lambda m, x: m.t(m.c(x)), _image(), c=nn.Conv2d(16, 16, 3, padding=1), t=nn.ConvTranspose2d(16, 16, 2, 2)
    ),
    "conv_of_rank_1": lambda: _net(lambda m, x: m.l(m.c(x)), _tokens(), l=_l(), c=nn.Conv1d(6, 6, 3, padding=1)),
    "conv_of_rank_3": lambda: _net(
        lambda m, x: m.c(x[:, None]).flatten(1, 2), torch.randn(2, 16, 8, 8), c=nn.Conv3d(1, 16, 3, padding=1)
    ),
    "depthwise": lambda: _net(
        lambda m, x: m.p(m.d(x)), _image(), d=nn.Conv2d(16, 16, 3, padding=1, groups=16), p=nn.Conv2d(16, 32, 1)
    ),
    "computed_kernels": lambda: _net(
        lambda m, x: m.c(F.conv2d(x, m.w * x.mean())), _image(), c=nn.Conv2d(16, 16, 1), w=_weight(16, 16, 3, 3)
    ),
    "unit_vectors": lambda: _net(lambda m, x: m.c(F.normalize(torch.relu(x), dim=1)), _image(), c=nn.Conv2d(16, 16, 1)),
}
