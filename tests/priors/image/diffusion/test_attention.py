"""Mutual attention on tiny UNets of both kinds: who reads whom, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from fc4d_ray.priors.image.diffusion.attention import (
    Exchange,
    ExchangeState,
    MutualAttentionProcessor,
    install_exchange,
    mutual_attention,
    remove_exchange,
)
from fc4d_ray.priors.image.diffusion.backbone import DiffusionBackbone
from fc4d_ray.priors.image.diffusion.denoiser import Row
from fc4d_ray.priors.image.diffusion.layers import self_attention_layers
from fc4d_ray.priors.image.diffusion.loading import load_pipeline

KINDS = ("sd15", "sdxl")
SIDE = 8


def _latents(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=KINDS)
def backbone(request, tiny_config) -> DiffusionBackbone:
    return DiffusionBackbone.load(tiny_config(request.param))


@pytest.fixture(scope="module")
def stock(pipelines):
    """The UNet of a kind as diffusers loads it, with the inputs a backbone gives."""
    from diffusers import UNet2DConditionModel

    def load(kind: str):
        return UNet2DConditionModel.from_pretrained(pipelines[kind] / "unet").eval()

    return load


def _condition(backbone: DiffusionBackbone, rows: int):
    return backbone.condition([Row("p", f"v{i}", f"a head {i}") for i in range(rows)])


def test_only_the_chosen_self_attention_gets_another_processor(backbone, stock) -> None:
    processors = backbone.unet.attn_processors
    chosen = {f"{name}.processor" for name in backbone.exchange_layers}
    assert chosen and all(name.startswith("up_blocks") for name in chosen)
    plain = {name: type(p) for name, p in stock(backbone.kind).attn_processors.items()}
    for name, processor in processors.items():
        assert isinstance(processor, MutualAttentionProcessor) == (name in chosen)
        assert name in chosen or type(processor) is plain[name]


def test_installing_leaves_the_other_processors_the_same_objects(stock) -> None:
    unet = stock("sdxl")
    before = dict(unet.attn_processors)
    layers = self_attention_layers(before)[3:5]
    install_exchange(unet, layers, ExchangeState())
    after = unet.attn_processors
    for name in before:
        changed = name.removesuffix(".processor") in layers
        assert (after[name] is before[name]) != changed
    remove_exchange(unet)
    assert all(unet.attn_processors[name] is before[name] for name in before)


def test_without_an_exchange_the_bits_are_the_stock_unets(backbone, stock) -> None:
    latents, condition = _latents(2), _condition(backbone, 2)
    added = backbone._size_condition(condition, (SIDE, SIDE))
    with torch.no_grad():
        expected = stock(backbone.kind)(
            latents, 301, encoder_hidden_states=condition.text, added_cond_kwargs=added
        ).sample
    assert torch.equal(backbone.predict(latents, 301, condition), expected)
    nobody = Exchange.plan([0, 1], ["replace"] * 2)
    assert torch.equal(backbone.predict(latents, 301, condition, exchange=nobody), expected)


@pytest.mark.parametrize("mode", ["replace", "masked", "union"])
def test_a_view_equal_to_its_reference_is_left_as_plain_attention_has_it(backbone, mode) -> None:
    latents = _latents(1).repeat(3, 1, 1, 1)
    condition = backbone.condition([Row("p", "v", "a head")] * 3)
    exchange = Exchange.plan([0, 0, 0], [mode] * 3)
    plain = backbone.predict(latents, 301, condition)
    mutual = backbone.predict(latents, 301, condition, exchange=exchange)
    torch.testing.assert_close(mutual, plain, atol=1e-5, rtol=0)


def test_views_read_their_reference_and_no_other_row(backbone) -> None:
    """Perturbing a row changes exactly those that read it."""
    latents, condition = _latents(5), _condition(backbone, 5)
    exchange = Exchange.plan([0, 1, 0, 1, 0], ["replace"] * 5)
    before = backbone.predict(latents, 301, condition, exchange=exchange)
    for perturbed, readers in {0: {0, 2, 4}, 1: {1, 3}, 2: {2}, 3: {3}, 4: {4}}.items():
        other = latents.clone()
        other[perturbed] += 0.5
        after = backbone.predict(other, 301, condition, exchange=exchange)
        distance = (after - before).abs().amax((1, 2, 3))
        assert {row for row in range(5) if distance[row] > 1e-4} == readers
        assert all(distance[row] < 1e-5 for row in range(5) if row not in readers)


@pytest.mark.parametrize("mode", ["replace", "masked", "union"])
def test_a_batch_gives_what_its_views_give_one_by_one(backbone, mode) -> None:
    """Two portraits with two views each in a guided batch, against four batches of one view."""
    latents, condition = _latents(6), _condition(backbone, 6)
    reference_row = [0, 1, 0, 1, 1, 0]
    foreground = (torch.rand(6, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) > 0.4) * 1.0
    together = backbone.predict(
        latents, 301, condition, guidance=3.0,
        exchange=Exchange.plan(reference_row, [mode] * 6, foreground),
    )  # fmt: skip
    for row in range(2, 6):
        pair = [reference_row[row], row]
        one = type(condition)(
            condition.text[pair], None if condition.pooled is None else condition.pooled[pair]
        )
        alone = backbone.predict(
            latents[pair], 301, one, guidance=3.0,
            exchange=Exchange.plan([0, 0], [mode] * 2, foreground[pair]),
        )  # fmt: skip
        torch.testing.assert_close(together[pair], alone, atol=1e-5, rtol=0)


def test_the_gather_equals_a_naive_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(5, 2, 7, 4, generator=generator) for _ in range(3))
    reference_row, modes = [0, 1, 0, 1, 0], ["replace", "replace", "union", "masked", "masked"]
    kinds = torch.rand(5, 7, generator=generator) > 0.5
    exchange = Exchange.plan(reference_row, modes)
    exchange.by_tokens[7] = kinds
    mixed = mutual_attention(query, key, value, exchange)
    for row, source in enumerate(reference_row):
        for token in range(7):
            for head in range(2):
                keys, values = key[source, head], value[source, head]
                if source != row and modes[row] in ("masked", "union"):
                    same = kinds[source] == kinds[row, token]
                    keys, values = keys[same], values[same]
                if source != row and modes[row] == "union":
                    keys = torch.cat([keys, key[row, head]])
                    values = torch.cat([values, value[row, head]])
                weights = (keys @ query[row, head, token] / 2).softmax(0)
                torch.testing.assert_close(mixed[row, head, token], weights @ values)


def test_a_kind_the_reference_lacks_may_read_all_of_it() -> None:
    query, key, value = (torch.randn(2, 1, 4, 4) for _ in range(3))
    exchange = Exchange.plan([0, 0], ["masked"] * 2)
    exchange.by_tokens[4] = torch.tensor([[True] * 4, [False] * 4])
    mixed = mutual_attention(query, key, value, exchange)
    expected = (query[1, 0] @ key[0, 0].T / 2).softmax(-1) @ value[0, 0]
    torch.testing.assert_close(mixed[1, 0], expected)
    assert torch.isfinite(mixed).all()


def test_guidance_halves_never_mix(backbone, monkeypatch) -> None:
    """Perturbing the unconditional half's reference leaves the conditional rows as they are."""
    latents, condition = _latents(3), _condition(backbone, 3)
    exchange = Exchange.plan([0, 0, 0], ["replace"] * 3)
    original, halves = backbone.unet.forward, []

    def spy(sample, *arguments, **options):
        halves.append(original(sample.clone(), *arguments, **options).sample)
        sample = sample.clone()
        sample[0] += 1.0
        halves.append(original(sample, *arguments, **options).sample)
        return original(sample, *arguments, **options)

    monkeypatch.setattr(backbone.unet, "forward", spy)
    backbone.predict(latents, 301, condition, exchange=exchange, guidance=3.0)
    plain, perturbed = halves
    assert torch.equal(plain[3:], perturbed[3:])
    assert (plain[:3] - perturbed[:3]).abs().amax((1, 2, 3)).min() > 1e-4


def test_masks_follow_the_token_grids() -> None:
    foreground = torch.zeros(2, 8, 8)
    foreground[0, :, :4] = 1
    exchange = Exchange.plan([0, 0], ["masked"] * 2, foreground).prepared_for((8, 8), 3)
    assert {tokens: int(kind[0].sum()) for tokens, kind in exchange.by_tokens.items()} == {
        64: 32, 16: 8, 4: 2,
    }  # fmt: skip
    doubled = Exchange.plan([0, 0], ["masked"] * 2, foreground).doubled(2)
    assert doubled.groups[0].rows.tolist() == [1, 3]
    assert doubled.groups[0].reference_rows.tolist() == [0, 2]
    assert doubled.plain_rows.tolist() == [0, 2]


def test_rows_must_read_reference_rows() -> None:
    with pytest.raises(ValueError, match="row 2 reads row 1, which is no reference row"):
        Exchange.plan([0, 0, 1], ["replace"] * 3)
    with pytest.raises(ValueError, match="row 0 reads row 7"):
        Exchange.plan([7], ["replace"])


def test_the_processor_can_be_compiled_whole(tiny_config) -> None:
    """No graph break: what ``compile_repeated_blocks(fullgraph=True)`` asks for."""
    pipeline, _ = load_pipeline(tiny_config().model, torch.float32)
    state = ExchangeState()
    layers = self_attention_layers(pipeline.unet.attn_processors)
    install_exchange(pipeline.unet, layers, state)
    attention = pipeline.unet.get_submodule(layers[-1])
    tokens = torch.randn(3, 16, attention.to_q.in_features)
    exchange = Exchange.plan([0, 0, 0], ["replace", "replace", "union"])
    compiled = torch.compile(attention, fullgraph=True, backend="eager")
    with torch.no_grad(), state.during(exchange):
        torch.testing.assert_close(compiled(tokens), attention(tokens))
    with torch.no_grad():
        torch.testing.assert_close(compiled(tokens), attention(tokens))
    # The next wave brings another exchange of the same make: nothing is compiled again.
    another = Exchange.plan([0, 0, 0], ["replace", "replace", "union"])
    with torch.no_grad(), state.during(another), torch.compiler.set_stance("fail_on_recompile"):
        torch.testing.assert_close(compiled(2 * tokens), attention(2 * tokens))
