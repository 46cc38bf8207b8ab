"""The packs cannot be had here: insightface itself is replaced where it would load one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fc4d_ray.evaluation.features import FeatureConfig
from fc4d_ray.evaluation.features import arcface as module
from fc4d_ray.evaluation.features.arcface import ArcFaceFeatures


class FakeAnalysis:
    """Finds a small and a large face in any picture that is not black."""

    def get(self, bgr: np.ndarray) -> list[SimpleNamespace]:
        assert bgr.flags["C_CONTIGUOUS"]
        if not bgr.any():
            return []

        def face(side: float, value: np.ndarray) -> SimpleNamespace:
            embedding = np.resize(value.astype(np.float32), 512)
            unit = embedding / np.linalg.norm(embedding)
            return SimpleNamespace(bbox=np.array([0, 0, side, side, 0.9]), normed_embedding=unit)

        return [face(5, np.array([1, 0, 0])), face(9, bgr[0, 0])]


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArcFaceFeatures:
    pack = tmp_path / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    (pack / "det.onnx").write_bytes(b"x")
    monkeypatch.setattr(module, "package_missing", lambda *names: None)
    found = ArcFaceFeatures(FeatureConfig(arcface=str(pack)))
    found.__dict__["_analysis"] = FakeAnalysis()
    return found


def test_the_largest_face_of_a_bgr_picture_is_embedded(features: ArcFaceFeatures) -> None:
    assert features.unavailable() is None
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 200  # red in RGB, the last channel in BGR
    found = features.extract([image, np.zeros_like(image)])
    assert found.valid.tolist() == [True, False]
    assert found.vectors[0, 2] > 0 and found.vectors[0, 0] == 0


def test_a_folder_without_models_is_a_reason(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "package_missing", lambda *names: None)
    empty = ArcFaceFeatures(FeatureConfig(arcface=str(tmp_path)))
    assert "holds no .onnx files" in str(empty.unavailable())
