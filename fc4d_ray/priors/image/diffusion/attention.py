"""Cross-view mutual attention (paper section 3.2, after MasaCtrl).

In chosen self-attention layers a view's queries read the keys and values of its portrait's
reference row. Every row of the batch names its reference row, so several portraits and both halves
of classifier-free guidance share a batch without seeing each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

ExchangeMode = Literal["replace", "masked", "union"]
MODES: tuple[ExchangeMode, ...] = ("replace", "masked", "union")
"""``replace``: the reference's tokens only (the paper's). ``masked``: of these, the foreground for
foreground queries and the background for background ones. ``union``: the row's own tokens too; with
a mask the reference's are restricted as in ``masked``."""

_FOREGROUND = 0.5


@dataclass(frozen=True)
class RowGroup:
    """Rows of a batch that exchange in the same way."""

    mode: ExchangeMode
    rows: Tensor  # [G] int64
    reference_rows: Tensor  # [G] int64


@dataclass(frozen=True)
class Exchange:
    """Who reads whose keys and values in a batch of B rows.

    Rows in no group attend to themselves, as the reference rows do.
    """

    groups: tuple[RowGroup, ...]
    plain_rows: Tensor  # [P] int64, the rows in no group
    foreground: Tensor | None = None  # [B, h, w] 0…1 at latent resolution, or no masks
    by_tokens: dict[int, Tensor] = field(default_factory=dict, compare=False)
    """The foreground per number of tokens, [B, tokens] bool; filled by ``prepared_for``."""

    @staticmethod
    def plan(
        reference_row: Sequence[int],
        modes: Sequence[ExchangeMode],
        foreground: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> Exchange:
        """``reference_row``: per row the row it reads; a row that reads itself stays plain.

        Raises ``ValueError`` where a row names a row that is none of a reference.
        """
        for row, source in enumerate(reference_row):
            if not 0 <= source < len(reference_row) or reference_row[source] != source:
                raise ValueError(f"row {row} reads row {source}, which is no reference row")
        groups = []
        for mode in MODES:
            rows = [
                row
                for row, source in enumerate(reference_row)
                if source != row and modes[row] == mode
            ]
            if rows:
                sources = [reference_row[row] for row in rows]
                groups.append(
                    RowGroup(
                        mode,
                        torch.tensor(rows, device=device),
                        torch.tensor(sources, device=device),
                    )
                )
        plain = [row for row, source in enumerate(reference_row) if source == row]
        return Exchange(tuple(groups), torch.tensor(plain, device=device), foreground)

    def doubled(self, count: int) -> Exchange:
        """The same for [unconditional rows, conditional rows] of ``count`` each.

        Each half reads its own references: the halves of guidance never mix.
        """
        groups = tuple(
            RowGroup(
                group.mode,
                torch.cat([group.rows, group.rows + count]),
                torch.cat([group.reference_rows, group.reference_rows + count]),
            )
            for group in self.groups
        )
        plain = torch.cat([self.plain_rows, self.plain_rows + count])
        foreground = None if self.foreground is None else self.foreground.repeat(2, 1, 1)
        return Exchange(groups, plain, foreground)

    def prepared_for(self, latent_size: tuple[int, int], levels: int) -> Exchange:
        """With the masks brought to the token grids of ``levels`` halvings of the latent."""
        if self.foreground is None:
            return self
        height, width = latent_size
        by_tokens = {}
        for _ in range(levels):
            pooled = functional.adaptive_avg_pool2d(self.foreground[:, None], (height, width))
            by_tokens[height * width] = (pooled >= _FOREGROUND).flatten(1)
            height, width = (height + 1) // 2, (width + 1) // 2
        return replace(self, by_tokens=by_tokens)


class ExchangeState:
    """What the processors of one UNet share: the exchange of the call under way, if any."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None

    @contextmanager
    def during(self, exchange: Exchange | None) -> Iterator[None]:
        """Make ``exchange`` the one that holds; None leaves every layer as it was made."""
        before, self.exchange = self.exchange, exchange
        try:
            yield
        finally:
            self.exchange = before


class MutualAttentionProcessor:
    """diffusers attention processor of one self-attention layer.

    Without an exchange the layer's own processor answers, so that a step without exchange gives
    the very bits of the stock UNet.
    """

    def __init__(self, stock: Any, state: ExchangeState) -> None:
        self.stock = stock
        self.state = state

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,  # [B, tokens, channels]
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        exchange = self.state.exchange
        if exchange is None or not exchange.groups:
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        query = _heads(attn, attn.to_q(hidden_states), attn.norm_q)
        key = _heads(attn, attn.to_k(hidden_states), attn.norm_k)
        value = _heads(attn, attn.to_v(hidden_states), None)
        mixed = mutual_attention(query, key, value, exchange)
        joined = mixed.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        joined = attn.to_out[1](attn.to_out[0](joined))
        if attn.residual_connection:
            joined = joined + hidden_states
        return joined / attn.rescale_output_factor


def mutual_attention(
    query: Tensor,  # [B, heads, tokens, d]
    key: Tensor,
    value: Tensor,
    exchange: Exchange,
) -> Tensor:
    """softmax(Q K_refᵀ/√d) V_ref for rows that exchange, plain attention for the others."""
    plain = exchange.plain_rows
    mixed = torch.empty_like(query)
    mixed[plain] = functional.scaled_dot_product_attention(query[plain], key[plain], value[plain])
    for group in exchange.groups:
        keys, values = key[group.reference_rows], value[group.reference_rows]
        if group.mode == "union":
            keys = torch.cat([keys, key[group.rows]], 2)
            values = torch.cat([values, value[group.rows]], 2)
        allowed = _allowed(query.shape[2], group, exchange)
        mixed[group.rows] = functional.scaled_dot_product_attention(
            query[group.rows], keys, values, attn_mask=allowed
        )
    return mixed


def install_exchange(unet: Any, layers: Sequence[str], state: ExchangeState) -> None:
    """Put mutual attention into the named self-attention layers; all others keep their object."""
    processors = dict(unet.attn_processors)
    for name in layers:
        processors[f"{name}.processor"] = MutualAttentionProcessor(
            processors[f"{name}.processor"], state
        )
    unet.set_attn_processor(processors)


def remove_exchange(unet: Any) -> None:
    """Put the layers' own processors back."""
    unet.set_attn_processor(
        {
            name: processor.stock if isinstance(processor, MutualAttentionProcessor) else processor
            for name, processor in unet.attn_processors.items()
        }
    )


def _heads(attn: Any, projected: Tensor, norm: Any) -> Tensor:
    """[B, tokens, heads·d] to [B, heads, tokens, d]."""
    split = projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    return split if norm is None else norm(split)


def _allowed(tokens: int, group: RowGroup, exchange: Exchange) -> Tensor | None:
    """Which keys each query may read, [G, 1, tokens, keys] bool; None allows all.

    A query whose kind the reference does not show at all may read every reference token.
    """
    kind = exchange.by_tokens.get(tokens)
    if kind is None or group.mode == "replace":
        return None
    mine, theirs = kind[group.rows], kind[group.reference_rows]
    allowed = mine[:, :, None] == theirs[:, None, :]
    if group.mode == "union":
        return torch.cat([allowed, torch.ones_like(allowed)], 2)[:, None]
    return (allowed | ~allowed.any(-1, keepdim=True))[:, None]
