"""Everything measured on one finished avatar: who it is, whether it is whole, how it moves.

All on 512 x 512 renders of the avatar on white in the default framing, with the identity protocol
of ``identity.py``. A figure that could not be measured is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.evaluation.expressions import MEASURED_EXPRESSIONS, blink_fall, lip_opening_growth
from fc4d_ray.evaluation.focal_length import FOCAL_FACTORS, lens_camera, spread
from fc4d_ray.evaluation.identity import BACK_THRESHOLD, face_descriptor, face_detected
from fc4d_ray.evaluation.synthetic import SyntheticPerson
from fc4d_ray.evaluation.wholeness import measure_wholeness
from fc4d_ray.playback import Performance, on_white, render_rgba
from fc4d_ray.publishing.quality import identity_figures, silhouette_iou

SIZE = 512
BACK_AZIMUTHS_DEG = (150, 165, 180, 195, 210)
"""From here nobody has a face."""
EXPRESSION_AZIMUTHS_DEG = (0, 30, -30)
TURNED_AZIMUTHS_DEG = (40, -40)
"""From here a strongly turned portrait shows a person."""
DIGITS = 4


class Photograph(Protocol):
    """What is measured against: the ingest stage's crop (``stages.portrait_files``)."""

    @property
    def portrait(self) -> NDArray[np.uint8]:
        """(S, S, 3)"""

    @property
    def matte(self) -> NDArray[np.uint8]:
        """(S, S)"""

    @property
    def landmarks(self) -> NDArray[np.float64]:
        """(68, 2) px"""

    @property
    def inside(self) -> NDArray[np.bool_]:
        """(S, S), False where the crop reaches beyond the source: there nothing is known."""


class Stills(Protocol):
    """Renders (512, 512, 3) on white of whoever is measured."""

    def at(self, azimuth_deg: float, elevation_deg: float = 0.0) -> NDArray[np.uint8]:
        """At rest, from the orbit."""

    def acting(self, expression: str, azimuth_deg: float) -> NDArray[np.uint8]:
        """With one of ``MEASURED_EXPRESSIONS``."""


class AvatarStills:
    """Renders (512, 512, 3) of an avatar on white, each made once."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._made: dict[tuple[str, float, float], NDArray[np.uint8]] = {}

    def at(self, azimuth_deg: float, elevation_deg: float = 0.0) -> NDArray[np.uint8]:
        """At rest, from the orbit."""
        camera = orbit_camera(azimuth_deg, elevation_deg, size=SIZE)
        return self._still(("rest", azimuth_deg, elevation_deg), camera, {})

    def acting(self, expression: str, azimuth_deg: float) -> NDArray[np.uint8]:
        """With one of ``MEASURED_EXPRESSIONS``."""
        actions = MEASURED_EXPRESSIONS[expression]
        camera = orbit_camera(azimuth_deg, size=SIZE)
        return self._still((expression, azimuth_deg, 0.0), camera, actions)

    def through_lens(self, focal_factor: float, azimuth_deg: float = 0.0) -> NDArray[np.uint8]:
        """At rest, with a multiple of the default focal length."""
        camera = lens_camera(azimuth_deg, focal_factor, SIZE)
        return self._still(("lens", azimuth_deg, focal_factor), camera, {})

    def _still(
        self, key: tuple[str, float, float], camera: Camera, actions: Mapping[str, float]
    ) -> NDArray[np.uint8]:
        if key not in self._made:
            parameters = Performance(actions).parameters(0)
            self._made[key] = on_white(render_rgba(self._avatar, camera, parameters))
        return self._made[key]


class PersonStills:
    """The same of a synthetic person: what the truth looks like to the measures."""

    def __init__(self, person: SyntheticPerson) -> None:
        self._person = person

    def at(self, azimuth_deg: float, elevation_deg: float = 0.0) -> NDArray[np.uint8]:
        """As photographed, from the orbit."""
        return self._still(orbit_camera(azimuth_deg, elevation_deg, size=SIZE), {})

    def acting(self, expression: str, azimuth_deg: float) -> NDArray[np.uint8]:
        """With one of ``MEASURED_EXPRESSIONS``."""
        return self._still(orbit_camera(azimuth_deg, size=SIZE), MEASURED_EXPRESSIONS[expression])

    def _still(self, camera: Camera, actions: Mapping[str, float]) -> NDArray[np.uint8]:
        names = self._person.head_rig.action_names
        weights = np.array([actions.get(name, 0.0) for name in names])
        return on_white(self._person.render(camera, actions=weights)[0])


def measure_person(
    person: SyntheticPerson, photograph: NDArray[np.uint8], reference: Camera
) -> dict[str, Any]:
    """``identity`` and ``expressions`` of ``measure_avatar`` on the person the portrait shows.

    A detector that does not see a true eye shut says nothing of an avatar's. ``turned`` is how far
    the person from the front is from the same person seen from ``TURNED_AZIMUTHS_DEG``.
    """
    stills = PersonStills(person)
    return {
        "identity": identity_figures(photograph, reference, stills.at),
        "expressions": _expressions(stills, face_descriptor(photograph)),
        "turned": {
            f"{azimuth:+d}": _distance(face_descriptor(stills.at(azimuth)), stills.at(0))
            for azimuth in TURNED_AZIMUTHS_DEG
        },
    }


def measure_avatar(
    avatar: Avatar,
    portrait: Photograph,
    reference: Camera,
    stills: AvatarStills | None = None,
) -> dict[str, Any]:
    """All figures of one avatar as plain JSON values.

    ``reference`` is the camera the shape stage found for the portrait's crop; ``stills`` may be
    handed in where the renders are wanted for something else, too.
    """
    stills = AvatarStills(avatar) if stills is None else stills
    target = face_descriptor(portrait.portrait)
    return {
        "portrait_has_face": target is not None,
        "identity": identity_figures(portrait.portrait, reference, stills.at),
        "faces_behind": [a for a in BACK_AZIMUTHS_DEG if _face_behind(stills.at(a))],
        "silhouette_iou": _silhouette(avatar, portrait, reference),
        "wholeness": _wholeness(avatar),
        "expressions": _expressions(stills, target),
        "focal_length": _focal_length(stills, target),
    }


def summarise(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that criteria look at: one value each, the worst of its views.

    Worst of several views is None as soon as one of them could not be measured.
    """
    identity, acted = figures["identity"], figures["expressions"]
    blinks = [None if fall is None else fall["mean"] for fall in acted["blink_fall"].values()]
    return {
        "portrait_has_face": figures["portrait_has_face"],
        "azimuth_deg": identity["reference_azimuth_deg"],
        "id_0": identity["id_distance_0"],
        "id_30": identity["id_distance_30"],
        "id_45": identity["id_distance_45"],
        "id_60": identity["id_distance_60"],
        "id_own": identity["id_distance_reference"],
        "faces_behind": len(figures["faces_behind"]),
        "silhouette_iou": figures["silhouette_iou"],
        "whole": figures["wholeness"]["worst"],
        "whole_azimuth_deg": figures["wholeness"]["worst_azimuth_deg"],
        "lips": _worst(acted["lip_growth"].values(), min),
        "blink": _worst(blinks, min),
        "smile": _worst(acted["smile_distance"].values(), max),
        "focal": figures["focal_length"]["spread"],
    }


def _face_behind(render: NDArray[np.uint8]) -> bool:
    return face_detected(render, BACK_THRESHOLD)


def _silhouette(avatar: Avatar, portrait: Photograph, reference: Camera) -> float | None:
    size = len(portrait.matte)
    image = render_rgba(avatar, reference.resized(size, size), Performance().parameters(0))
    known = portrait.inside
    return silhouette_iou(image[..., 3] * known, portrait.matte * known, portrait.landmarks)


def _wholeness(avatar: Avatar) -> dict[str, Any]:
    result = measure_wholeness(avatar.splats({}), size=SIZE)
    azimuth, share = result.worst
    return {
        "worst": _rounded(share),
        "worst_azimuth_deg": azimuth,
        "shares": {f"{a:+g}": _rounded(s) for a, s in result.shares.items()},
    }


def _expressions(stills: Stills, target: NDArray | None) -> dict[str, Any]:
    lips, blinks, smiles = {}, {}, {}
    for azimuth in EXPRESSION_AZIMUTHS_DEG:
        key, rest = f"{azimuth:+d}", stills.at(azimuth)
        lips[key] = _rounded(lip_opening_growth(rest, stills.acting("jaw open", azimuth)))
        fall = blink_fall(rest, stills.acting("eyes shut", azimuth))
        blinks[key] = fall and {name: _rounded(value) for name, value in asdict(fall).items()}
        smiles[key] = _distance(target, stills.acting("smile", azimuth))
    return {"lip_growth": lips, "blink_fall": blinks, "smile_distance": smiles}


def _focal_length(stills: AvatarStills, target: NDArray | None) -> dict[str, Any]:
    distances = {f"{f:g}": _distance(target, stills.through_lens(f)) for f in FOCAL_FACTORS}
    return {"distances": distances, "spread": _rounded(spread(list(distances.values())))}


def _distance(target: NDArray | None, render: NDArray[np.uint8]) -> float | None:
    descriptor = None if target is None else face_descriptor(render)
    return None if descriptor is None else _rounded(float(np.linalg.norm(target - descriptor)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _worst(values: Iterable[float | None], choose: Callable[..., float]) -> float | None:
    values = list(values)
    return None if None in values else choose(values)
