from __future__ import annotations

import pytest
import torch

from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.image.diffusion.layers import select_layers, self_attention_layers

SD = {
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}


def _real_size(options: dict):
    ensure_torchvision_importable()
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, **options)


@pytest.mark.parametrize(
    ("options", "count", "blocks"),
    [
        (SD, 16, {0: "down_blocks.0", 6: "mid_block", 7: "up_blocks.1", 10: "up_blocks.2"}),
        (
            SDXL,
            70,
            {
                23: "down_blocks.2",
                24: "mid_block",
                34: "up_blocks.0.attentions.0",
                44: "up_blocks.0.attentions.1",
                54: "up_blocks.0.attentions.2",
                64: "up_blocks.1",
            },
        ),
    ],
    ids=["sd15", "sdxl"],
)
def test_real_unets_have_their_layers_where_masactrl_counts_them(options, count, blocks) -> None:
    layers = self_attention_layers(_real_size(options).attn_processors)
    assert len(layers) == count
    for index, prefix in blocks.items():
        assert layers[index].startswith(prefix + ".")
    assert len(set(layers)) == count and all(name.endswith(".attn1") for name in layers)


def test_layers_are_listed_as_they_run(pipelines) -> None:
    ensure_torchvision_importable()
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(pipelines["sd15"] / "unet")
    called: list[str] = []
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 3, 32))
    assert tuple(called) == self_attention_layers(unet.attn_processors)
    assert list(called) != [
        n.removesuffix(".processor") for n in unet.attn_processors if "1.p" in n
    ]


def test_prefixes_and_indices_select() -> None:
    layers = self_attention_layers(
        [f"{block}.attn{kind}.processor"
         for block in ("up_blocks.10.attentions.0", "up_blocks.1.attentions.0", "mid_block.a.0",
                       "down_blocks.0.attentions.0")
         for kind in (1, 2)]
    )  # fmt: skip
    assert [name.split(".attn")[0] for name in layers] == [
        "down_blocks.0.attentions.0", "mid_block.a.0", "up_blocks.1.attentions.0",
        "up_blocks.10.attentions.0",
    ]  # fmt: skip
    assert select_layers(layers, ("up_blocks.1",)) == (layers[2],)
    assert select_layers(layers, ("up_blocks", "mid_block")) == layers[1:]
    assert select_layers(layers, ("up_blocks", "mid_block"), 2) == layers[2:]


def test_prefixes_without_layers_are_refused() -> None:
    layers = ("down_blocks.0.attentions.0.attn1", "up_blocks.1.attentions.0.attn1")
    with pytest.raises(ConfigError, match="up_block'.*has no self-attention.*up_blocks.1"):
        select_layers(layers, ("up_block",))
    with pytest.raises(ConfigError, match="first_layer is 2, which leaves none"):
        select_layers(layers, ("up_blocks",), 2)
    with pytest.raises(ConfigError, match="outside down, mid and up"):
        self_attention_layers(["blocks.0.attn1.processor"])
