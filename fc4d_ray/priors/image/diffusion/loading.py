"""Finding and reading pipeline folders, with errors that say what is wrong with them.

Weights are read from safetensors only; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fc4d_ray.assets.registry import assets_directory, file_digest
from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.errors import ConfigError, WeightsMissing
from fc4d_ray.priors.image.diffusion.config import ModelConfig

_PIPELINES = {
    "StableDiffusionPipeline": "sd15",
    "StableDiffusionXLPipeline": "sdxl",
}
_INDEX = "model_index.json"
_BASE_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
_READ_SUFFIXES = (".safetensors", ".json", ".txt")


def base_folder(config: ModelConfig) -> Path:
    """The base pipeline's folder. Raises ``WeightsMissing`` or ``ConfigError``."""
    folder = _folder(config.base, config.revision, "image.model.base", config.allow_downloads)
    if not (folder / _INDEX).is_file():
        raise WeightsMissing(
            f"image.model.base: {folder} is no diffusers pipeline: it holds no {_INDEX}"
        )
    return folder


def unet_folder(config: ModelConfig) -> Path | None:
    """The replacing UNet's folder, None where the base keeps its own."""
    if config.unet is None:
        return None
    folder = _folder(config.unet, config.unet_revision, "image.model.unet", config.allow_downloads)
    if not (folder / "config.json").is_file():
        raise WeightsMissing(f"image.model.unet: {folder} is no UNet folder: it has no config.json")
    return folder


def pipeline_kind(folder: Path) -> str:
    """``sd15`` or ``sdxl``.

    Raises ``ConfigError`` for other pipelines and ``WeightsMissing`` where a part is absent.
    """
    try:
        index = json.loads((folder / _INDEX).read_text())
        name = index["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsMissing(f"image.model.base: {folder / _INDEX} is damaged: {error}") from error
    if name not in _PIPELINES:
        raise ConfigError(
            f"image.model.base: {folder} holds a {name}; usable are {', '.join(_PIPELINES)}"
        )
    kind = _PIPELINES[name]
    for part in _parts(kind):
        if not (folder / part).is_dir() or not index.get(part, [None])[0]:
            raise WeightsMissing(
                f"image.model.base: {folder} lacks {part}/; fetch the whole pipeline, in "
                "safetensors format"
            )
    return kind


def load_pipeline(config: ModelConfig, dtype: Any) -> tuple[Any, str]:
    """The pipeline with its UNet in place, on the CPU, and its kind.

    Raises ``WeightsMissing`` where files are absent or damaged and ``ConfigError`` where the UNet
    does not fit its base.
    """
    ensure_torchvision_importable()
    import diffusers

    base, unet_path = base_folder(config), unet_folder(config)
    kind = pipeline_kind(base)
    if unet_path is None and not (base / "unet").is_dir():
        raise WeightsMissing(
            f"image.model.base: {base} lacks unet/, and image.model.unet names none"
        )
    unet_path = base / "unet" if unet_path is None else unet_path
    shared = {"use_safetensors": True, "local_files_only": True, "dtype": dtype}
    checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    extra = {} if kind == "sdxl" else checker
    try:
        with _without_progress_bars():
            unet = diffusers.UNet2DConditionModel.from_pretrained(unet_path, **shared)
            pipeline = getattr(diffusers, _pipeline_name(kind)).from_pretrained(
                base, unet=unet, **extra, **shared
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise WeightsMissing(
            f"image.model: the weights under {base} or {unet_path} cannot be read: {error}"
        ) from error
    check_fit(pipeline, kind, unet_path)
    return pipeline, kind


def check_fit(pipeline: Any, kind: str, unet_path: Path) -> None:
    """Raise ``ConfigError`` where the UNet was made for another base."""
    unet = pipeline.unet.config

    def require(name: str, found: Any, wanted: Any) -> None:
        if found != wanted:
            raise ConfigError(
                f"image.model.unet: {unet_path} does not fit its base: {name} is {found}, "
                f"the base needs {wanted}"
            )

    text = pipeline.text_encoder.config.hidden_size
    if kind == "sdxl":
        text += pipeline.text_encoder_2.config.hidden_size
        pooled = pipeline.text_encoder_2.config.projection_dim
        require("addition_embed_type", unet.addition_embed_type, "text_time")
        wanted = 6 * unet.addition_time_embed_dim + pooled
        require("projection size", unet.projection_class_embeddings_input_dim, wanted)
    else:
        require("addition_embed_type", unet.addition_embed_type, None)
    require("cross_attention_dim", unet.cross_attention_dim, text)
    require("in_channels", unet.in_channels, pipeline.vae.config.latent_channels)
    require("out_channels", unet.out_channels, pipeline.vae.config.latent_channels)


def weights_digest(config: ModelConfig) -> str:
    """Digest of every file that shapes results."""
    base, unet_path = base_folder(config), unet_folder(config)
    parts = [base / _INDEX, *(base / part for part in _parts(pipeline_kind(base)))]
    parts.append(base / "unet" if unet_path is None else unet_path)
    digest = hashlib.sha256()
    for part in parts:
        for path in [part] if part.is_file() else sorted(part.iterdir()):
            if path.is_file() and path.suffix in _READ_SUFFIXES and ".fp16." not in path.name:
                digest.update(f"{part.name}/{path.name} {file_digest(path)}\n".encode())
    return digest.hexdigest()


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Workers' logs are no terminals."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    chatty = [
        library
        for library in (diffusers_logging, transformers_logging)
        if library.is_progress_bar_enabled()
    ]
    for library in chatty:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in chatty:
            library.enable_progress_bar()


def _parts(kind: str) -> tuple[str, ...]:
    """Folders of a base pipeline besides its UNet."""
    return (*_BASE_PARTS, *(("text_encoder_2", "tokenizer_2") if kind == "sdxl" else ()))


def _pipeline_name(kind: str) -> str:
    return next(name for name, of in _PIPELINES.items() if of == kind)


def _folder(named: str, revision: str | None, option: str, allow_downloads: bool) -> Path:
    """A path as it stands, a folder under the assets folder, or the hub's local snapshot."""
    path = Path(named).expanduser()
    if path.is_dir():
        return path
    if (inside := assets_directory() / named).is_dir():
        return inside
    if path.exists():
        raise WeightsMissing(f"{option}: {path} is a file; a diffusers folder is needed")
    if named.count("/") != 1 or path.is_absolute():
        raise WeightsMissing(
            f"{option}: there is no folder {named!r}, neither here nor under {assets_directory()}; "
            "`fc4d assets list` says where to get it"
        )
    return _snapshot(named, revision, option, allow_downloads)


def _snapshot(hub_id: str, revision: str | None, option: str, allow_downloads: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if allow_downloads and not revision:
        raise ConfigError(
            f"{option}: pin the revision of {hub_id!r} with {_revision_option(option)}, so that "
            "the weights cannot change under a run"
        )
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                local_files_only=not allow_downloads,
                allow_patterns=["*.json", "*.txt", "*.safetensors"],
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        advice = (
            "" if allow_downloads else "; image.model.allow_downloads: true would let it be fetched"
        )
        raise WeightsMissing(f"{option}: {hub_id!r} is not on this machine{advice}") from error


def _revision_option(option: str) -> str:
    return "image.model.unet_revision" if option.endswith("unet") else "image.model.revision"
