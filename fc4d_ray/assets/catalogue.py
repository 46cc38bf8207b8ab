"""What every model file is, where it comes from and what may be done with it.

Data only: ``registry`` finds the files. Licence lines restate what the publishers say and are no
legal advice; docs/licences.md is the readable form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Use = Literal["any", "conditions", "research"]
Need = Literal["required", "optional"]


@dataclass(frozen=True)
class AssetFile:
    """One file of an asset."""

    path: str
    """Inside the asset's folder; for packages inside the installed distribution."""
    sha256: str | None = None
    """Digest of the release, where it is known."""


@dataclass(frozen=True)
class Asset:
    """A set of model files that stages of some profile need."""

    key: str
    title: str
    kind: Literal["package", "user file"]
    """``package`` comes with pip; ``user file`` is brought by the user and never downloaded."""
    source: str
    """Where users get it."""
    licence: str
    use: Use
    """``any``, ``conditions`` (read the licence) or ``research`` (no commercial use)."""
    size_mb: float | None
    files: tuple[AssetFile, ...]
    needed_by: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Stages by profile: ``embedded``, ``paper`` or ``evaluation``."""
    need: Need = "required"
    """``optional`` assets have a named substitute."""
    alternatives: tuple[str, ...] = ()
    """Keys of assets of which any one suffices."""


CATALOGUE: tuple[Asset, ...] = (
    Asset(
        key="anny",
        title="Anny parametric human model, 52 facial actions",
        kind="package",
        source="pip install anny (a dependency of this package)",
        licence="Apache-2.0 (code), CC0-1.0 (MakeHuman data)",
        use="any",
        size_mb=108,
        files=(AssetFile("anny/__init__.py"), AssetFile("anny/data/mpfb2/LICENSE.md")),
        needed_by={"embedded": ("shape", "track", "train"), "paper": ("shape", "video")},
    ),
    Asset(
        key="dlib-landmarks",
        title="dlib 68-point face landmarks",
        kind="package",
        source="pip install face_recognition_models (a dependency of this package)",
        licence="file CC0-1.0; trained on iBUG 300-W, whose terms exclude commercial use",
        use="research",
        size_mb=99.7,
        files=(
            AssetFile(
                "face_recognition_models/models/shape_predictor_68_face_landmarks.dat",
                "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
            ),
        ),
        needed_by={
            "embedded": ("ingest", "shape", "track"),
            "paper": ("ingest", "shape", "track"),
            "evaluation": ("identity",),
        },
    ),
    Asset(
        key="dlib-face-detector",
        title="dlib convolutional face detector",
        kind="package",
        source="pip install face_recognition_models (a dependency of this package)",
        licence="CC0-1.0",
        use="any",
        size_mb=0.7,
        files=(
            AssetFile(
                "face_recognition_models/models/mmod_human_face_detector.dat",
                "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
            ),
        ),
        needed_by={"embedded": ("ingest",), "paper": ("ingest",)},
    ),
    Asset(
        key="dlib-descriptor",
        title="dlib face descriptor (identity distances)",
        kind="package",
        source="pip install face_recognition_models (a dependency of this package)",
        licence="CC0-1.0",
        use="any",
        size_mb=22.5,
        files=(
            AssetFile(
                "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
                "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            ),
        ),
        needed_by={"embedded": ("publish",), "paper": ("publish",), "evaluation": ("identity",)},
    ),
    Asset(
        key="flame2020",
        title="FLAME 2020 head model",
        kind="user file",
        source="https://flame.is.tue.mpg.de (registration), generic_model.pkl; "
        "then `fc4d assets import flame`",
        licence="FLAME model licence: non-commercial scientific research",
        use="research",
        size_mb=None,
        files=(AssetFile("flame/flame2020.npz"),),
        needed_by={"paper": ("track", "train")},
        alternatives=("flame2023", "flame2023-open"),
    ),
    Asset(
        key="flame2023",
        title="FLAME 2023 head model, with jaw rotation",
        kind="user file",
        source="https://flame.is.tue.mpg.de (registration), flame2023.pkl; "
        "then `fc4d assets import flame`",
        licence="FLAME model licence: non-commercial scientific research",
        use="research",
        size_mb=None,
        files=(AssetFile("flame/flame2023.npz"),),
        needed_by={"paper": ("track", "train")},
        alternatives=("flame2020", "flame2023-open"),
    ),
    Asset(
        key="flame2023-open",
        title="FLAME 2023 Open head model",
        kind="user file",
        source="https://flame.is.tue.mpg.de (registration), FLAME 2023 Open; "
        "then `fc4d assets import flame`",
        licence="CC-BY-4.0",
        use="conditions",
        size_mb=None,
        files=(AssetFile("flame/flame2023-open.npz"),),
        needed_by={"paper": ("track", "train")},
        alternatives=("flame2020", "flame2023"),
    ),
    Asset(
        key="panohead",
        title="PanoHead generator",
        kind="user file",
        source="the Google Drive folder linked from github.com/SizheAn/PanoHead "
        "(easy-khair-180-gpc0.8-trans10-025000.pkl), then fc4d assets import panohead PATH",
        licence="repository CC BY-NC-SA 4.0, EG3D parts NVIDIA Source Code License; the "
        "checkpoint has no statement of its own: treat it as non-commercial",
        use="research",
        size_mb=None,
        files=(
            AssetFile("panohead/generator.safetensors"),
            AssetFile("panohead/generator.json"),
        ),
        needed_by={"paper": ("shape",)},
    ),
    Asset(
        key="liveportrait",
        title="LivePortrait networks (human)",
        kind="user file",
        source="https://huggingface.co/KwaiVGI/LivePortrait",
        licence="MIT (code and weights)",
        use="any",
        size_mb=521,
        files=tuple(
            AssetFile(f"liveportrait/{name}.pth")
            for name in (
                "base_models/appearance_feature_extractor",
                "base_models/motion_extractor",
                "base_models/warping_module",
                "base_models/spade_generator",
                "retargeting_models/stitching_retargeting_module",
            )
        ),
        needed_by={"paper": ("video",)},
    ),
    Asset(
        key="stable-diffusion-1.5",
        title="Stable Diffusion 1.5 pipeline",
        kind="user file",
        source="https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5",
        licence="CreativeML OpenRAIL-M (use restrictions)",
        use="conditions",
        size_mb=None,
        files=(AssetFile("stable-diffusion-v1-5/model_index.json"),),
        needed_by={"paper": ("image",)},
        alternatives=("sdxl",),
    ),
    Asset(
        key="sdxl",
        title="Stable Diffusion XL base 1.0 pipeline",
        kind="user file",
        source="https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0",
        licence="CreativeML OpenRAIL++-M (use restrictions)",
        use="conditions",
        size_mb=None,
        files=(AssetFile("stable-diffusion-xl-base-1.0/model_index.json"),),
        needed_by={"paper": ("image",)},
        alternatives=("stable-diffusion-1.5",),
    ),
    Asset(
        key="cosmicman-sdxl",
        title="CosmicMan-SDXL UNet",
        kind="user file",
        source="https://huggingface.co/cosmicman/CosmicMan-SDXL",
        licence="CC-BY-4.0, on top of the base model's OpenRAIL++-M",
        use="conditions",
        size_mb=10300,
        files=(
            AssetFile("CosmicMan-SDXL/config.json"),
            AssetFile("CosmicMan-SDXL/diffusion_pytorch_model.safetensors"),
        ),
        needed_by={"paper": ("image",)},
        need="optional",
        alternatives=("cosmicman-sd",),
    ),
    Asset(
        key="cosmicman-sd",
        title="CosmicMan-SD UNet",
        kind="user file",
        source="https://huggingface.co/cosmicman/CosmicMan-SD",
        licence="CC-BY-4.0, on top of the base model's OpenRAIL-M",
        use="conditions",
        size_mb=3440,
        files=(
            AssetFile("CosmicMan-SD/config.json"),
            AssetFile("CosmicMan-SD/diffusion_pytorch_model.safetensors"),
        ),
        needed_by={"paper": ("image",)},
        need="optional",
        alternatives=("cosmicman-sdxl",),
    ),
    Asset(
        key="insightface-buffalo-l",
        title="InsightFace buffalo_l: SCRFD detector, ArcFace embedding, landmarks",
        kind="user file",
        source="the model zoo of github.com/deepinsight/insightface",
        licence="code MIT; models non-commercial research only",
        use="research",
        size_mb=None,
        files=(
            AssetFile("insightface/models/buffalo_l/det_10g.onnx"),
            AssetFile("insightface/models/buffalo_l/2d106det.onnx"),
            AssetFile("insightface/models/buffalo_l/w600k_r50.onnx"),
        ),
        needed_by={"evaluation": ("ID",)},
    ),
    Asset(
        key="lpips-vgg",
        title="VGG-16 backbone for LPIPS",
        kind="user file",
        source="torchvision's vgg16-397923af.pth; the linear heads come with pip install lpips",
        licence="lpips BSD-2-Clause, torchvision BSD-3-Clause; trained on ImageNet (research)",
        use="conditions",
        size_mb=528,
        files=(AssetFile("torchvision/vgg16-397923af.pth"),),
        needed_by={"paper": ("shape",)},
    ),
    Asset(
        key="lpips-alex",
        title="AlexNet backbone for LPIPS",
        kind="user file",
        source="torchvision's alexnet-owt-7be5be79.pth; the linear heads come with lpips",
        licence="lpips BSD-2-Clause, torchvision BSD-3-Clause; trained on ImageNet (research)",
        use="conditions",
        size_mb=233,
        files=(AssetFile("torchvision/alexnet-owt-7be5be79.pth"),),
        needed_by={"evaluation": ("LPIPS",)},
        need="optional",
    ),
    Asset(
        key="clip-vit-l-14",
        title="CLIP ViT-L/14 image encoder",
        kind="user file",
        source="https://huggingface.co/openai/clip-vit-large-patch14",
        licence="MIT (code); the model card asks for research use",
        use="conditions",
        size_mb=1710,
        files=(AssetFile("clip-vit-large-patch14/model.safetensors"),),
        needed_by={"evaluation": ("CLIP-I",)},
    ),
    Asset(
        key="inception-fid",
        title="Inception-v3 features for FID",
        kind="user file",
        source="where clean-fid fetches inception-2015-12-05.pt from",
        licence="Apache-2.0 (TensorFlow model); trained on ImageNet (research)",
        use="conditions",
        size_mb=95,
        files=(AssetFile("fid/inception-2015-12-05.pt"),),
        needed_by={"evaluation": ("FID",)},
    ),
)
