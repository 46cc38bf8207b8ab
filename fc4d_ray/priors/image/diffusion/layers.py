"""A UNet's self-attention layers in the order in which they run.

``attn_processors`` lists down, up, mid; execution goes down, mid, up. Text cross-attention
(``attn2``) is never listed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fc4d_ray.errors import ConfigError

_BLOCK_ORDER = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
_SUFFIX = ".processor"


def self_attention_layers(processor_names: Iterable[str]) -> tuple[str, ...]:
    """Module names such as ``up_blocks.1.attentions.0.transformer_blocks.0.attn1``, as they run.

    ``processor_names``: the keys of ``unet.attn_processors``.
    """
    names = [name.removesuffix(_SUFFIX) for name in processor_names]
    return tuple(sorted((name for name in names if name.endswith(".attn1")), key=_place))


def select_layers(
    layers: Sequence[str], prefixes: Sequence[str], first_layer: int = 0
) -> tuple[str, ...]:
    """The layers under one of the module-name prefixes whose index is ``first_layer`` or more.

    ``up_blocks.1`` means that block and not ``up_blocks.10``. Raises ``ConfigError`` for a prefix
    under which this UNet has no self-attention, and where nothing is left.
    """
    for prefix in prefixes:
        if not any(_is_under(name, prefix) for name in layers):
            blocks = sorted({".".join(name.split(".")[:2]) for name in layers})
            raise ConfigError(
                f"image.exchange.layers names {prefix!r}, under which this UNet has no "
                f"self-attention; it has: {', '.join(blocks)}"
            )
    chosen = tuple(
        name
        for index, name in enumerate(layers)
        if index >= first_layer and any(_is_under(name, prefix) for prefix in prefixes)
    )
    if not chosen:
        raise ConfigError(
            f"image.exchange.first_layer is {first_layer}, which leaves none of this UNet's "
            f"{len(layers)} self-attention layers under {', '.join(prefixes)}"
        )
    return chosen


def _is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def _place(name: str) -> tuple[int, tuple[Any, ...]]:
    block = name.split(".", 1)[0]
    if block not in _BLOCK_ORDER:
        raise ConfigError(f"this UNet has attention outside down, mid and up blocks: {name}")
    return _BLOCK_ORDER[block], tuple(int(number) for number in re.findall(r"\d+", name))
