from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fc4d_ray.errors import UndecodableImage
from fc4d_ray.portraits.config import IngestConfig
from fc4d_ray.portraits.crop import map_points
from fc4d_ray.stages.ingest import IngestStage
from fc4d_ray.stages.protocol import Facts, StageContext

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CONFIG = IngestConfig(crop_size=384)


@pytest.fixture(scope="module")
def stage() -> IngestStage:
    made = IngestStage()
    made.setup(CONFIG)
    return made


def run(stage: IngestStage, source: Path, output: Path, **row: object) -> Facts:
    output.mkdir(parents=True)
    return stage.process(StageContext(source, {}, output, CONFIG, seed=3, row=row))


@pytest.fixture(scope="module")
def astronaut(stage: IngestStage, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts]:
    data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("astronaut")
    Image.fromarray(data.astronaut()).save(folder / "astronaut.png")
    facts = run(stage, folder / "astronaut.png", folder / "out")
    return folder, facts


def load(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{name}.png"))


def at_source(record: dict, image: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """The crop's pixel that shows a source pixel."""
    x, y = map_points(np.array(record["source_to_crop"]), np.array(point)).astype(int)
    return image[y, x]


def test_leaves_the_promised_files(astronaut: tuple[Path, Facts]) -> None:
    folder, facts = astronaut
    out = folder / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "ingest.json",
        "matte.png",
        "portrait.png",
        "regions.png",
    ]
    assert load(out, "portrait").shape == (384, 384, 3)
    assert load(out, "matte").shape == load(out, "regions").shape == (384, 384)
    record = json.loads((out / "ingest.json").read_text())
    assert np.array(record["landmarks"]).shape == (68, 2)
    assert record["source_size"] == [512, 512]
    assert record["landmarks_source"] == "detector"
    assert facts["source_width"] == 512
    assert facts["face_pass"] == "hog"
    assert 70 < facts["face_width_px"] < 110
    json.dumps(facts)


def test_the_crop_shows_the_source_where_the_record_says(astronaut: tuple[Path, Facts]) -> None:
    source = load(astronaut[0], "astronaut")
    crop = load(astronaut[0] / "out", "portrait")
    record = json.loads((astronaut[0] / "out" / "ingest.json").read_text())
    for point in ((221.5, 128.5), (180.5, 60.5), (260.5, 200.5)):
        seen = at_source(record, crop, point).astype(int)
        assert np.abs(seen - source[int(point[1]), int(point[0])]).max() < 40


def test_matte_takes_the_person_and_leaves_the_flag(astronaut: tuple[Path, Facts]) -> None:
    folder, facts = astronaut
    matte = load(folder / "out", "matte")
    record = json.loads((folder / "out" / "ingest.json").read_text())
    person = [(221, 130), (215, 40), (172, 70), (275, 85), (222, 215), (200, 250)]
    backdrop = [(140, 60), (310, 80), (150, 130), (320, 150), (110, 160), (300, 30)]
    assert [int(at_source(record, matte, p)) for p in person] == [255] * len(person)
    assert [int(at_source(record, matte, p)) for p in backdrop] == [0] * len(backdrop)
    assert facts["matte_confidence"] > 0.5
    soft = ((matte > 10) & (matte < 245)).mean()
    assert 0.001 < soft < 0.06, "the outline is soft, the rest is not"


def test_regions_name_face_hair_and_clothing(astronaut: tuple[Path, Facts]) -> None:
    folder, _ = astronaut
    regions = load(folder / "out", "regions")
    matte = load(folder / "out", "matte")
    record = json.loads((folder / "out" / "ingest.json").read_text())
    landmarks = np.array(record["landmarks"])
    inner = landmarks[27:].astype(int)
    assert (regions[inner[:, 1], inner[:, 0]] == 1).all()
    assert at_source(record, regions, (215, 40)) == 2
    assert at_source(record, regions, (222, 240)) == 3
    assert ((regions == 0) == (matte < 128)).all()


def test_equal_seeds_give_equal_bytes(
    stage: IngestStage, astronaut: tuple[Path, Facts], tmp_path: Path
) -> None:
    folder, facts = astronaut
    assert run(stage, folder / "astronaut.png", tmp_path / "again") == facts
    for name in ("portrait.png", "matte.png", "regions.png", "ingest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_own_alpha_is_the_matte(
    stage: IngestStage, astronaut: tuple[Path, Facts], tmp_path: Path
) -> None:
    y, x = np.mgrid[0:512, 0:512]
    alpha = np.where(np.hypot((x - 221) / 90, (y - 135) / 120) < 1, 255, 0).astype(np.uint8)
    picture = load(astronaut[0], "astronaut")
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "cut.png")
    facts = run(stage, tmp_path / "cut.png", tmp_path / "out")
    assert facts["matte_source"] == "alpha"
    record = json.loads((tmp_path / "out" / "ingest.json").read_text())
    matte = load(tmp_path / "out", "matte")
    assert at_source(record, matte, (221, 140)) == 255
    assert at_source(record, matte, (221, 272)) == 0
    assert ((load(tmp_path / "out", "regions") > 0) == (matte >= 128)).all()


def test_exif_rotated_file_gives_the_same_crop(
    stage: IngestStage, astronaut: tuple[Path, Facts], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.ascontiguousarray(np.rot90(load(astronaut[0], "astronaut"), 1))
    Image.fromarray(turned).save(tmp_path / "phone.png", exif=exif)
    run(stage, tmp_path / "phone.png", tmp_path / "out")
    for name in ("portrait", "matte"):
        np.testing.assert_array_equal(
            load(tmp_path / "out", name), load(astronaut[0] / "out", name)
        )


@pytest.mark.parametrize(
    ("name", "person", "backdrop"),
    [
        ("terracotta_warrior", [(316, 155), (354, 350), (280, 540)], [(100, 300), (600, 200)]),
        ("painting_woman", [(275, 90), (270, 200), (270, 350)], [(120, 80), (450, 150)]),
        ("pearl_earring", [(440, 330), (430, 560), (650, 1000)], [(150, 300), (200, 1000)]),
        ("mona_lisa", [(340, 180), (340, 340), (470, 420)], [(120, 250), (600, 250)]),
    ],
)
def test_mattes_of_paintings_and_statues(
    stage: IngestStage,
    tmp_path: Path,
    name: str,
    person: list[tuple[float, float]],
    backdrop: list[tuple[float, float]],
) -> None:
    source = SHARED / "portraits" / f"{name}.jpg"
    if not source.exists():
        pytest.skip("the shared example portraits are not here")
    run(stage, source, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "ingest.json").read_text())
    matte = load(tmp_path / "out", "matte")
    assert min(int(at_source(record, matte, p)) for p in person) > 200
    assert max(int(at_source(record, matte, p)) for p in backdrop) < 50


def test_errors_pass_through_typed(stage: IngestStage, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("not a picture")
    with pytest.raises(UndecodableImage):
        run(stage, tmp_path / "note.jpg", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_digest_is_stable(stage: IngestStage) -> None:
    digest = stage.weights_digest(CONFIG)
    assert len(digest) == 64
    assert digest == IngestStage().weights_digest(CONFIG)
