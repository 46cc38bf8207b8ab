"""Exception types, one branch per layer, each with a message a user can act on.

The class name is what a failed manifest row carries in ``error_type``, so names are part of the
public format.
"""

from __future__ import annotations


class FC4DError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(FC4DError):
    """The configuration or the command line is unusable (exit code 2)."""


class StoreError(FC4DError):
    """The output location cannot be used: not ours, another schema, unwritable, or full."""


class DamagedArtifact(StoreError):
    """A stage's stored files are not what their completion record says; they are made again."""


class WeightsMissing(FC4DError):
    """A model file the chosen profile needs is absent; the message says where users get it."""


class ModelFileError(FC4DError):
    """A model file is not what it should be: another edition, wrong shapes, damaged, incomplete."""


class UnsafePickle(FC4DError):
    """A pickle asks for something outside the allow-list; nothing of it was executed."""


class RunError(FC4DError):
    """The run as a whole cannot go on (exit code 1)."""


class InputError(FC4DError):
    """One portrait cannot be processed; its row fails, the batch goes on."""


class UnreadableSource(InputError):
    """The URI cannot be opened or read."""


class UndecodableImage(InputError):
    """The bytes are no image, are truncated, or hold no pixels worth reading."""


class ImageTooLarge(InputError):
    """The image declares more pixels than the configured limit (decompression bomb)."""


class ImageTooSmall(InputError):
    """The image, or the face in it, has too few pixels to make an avatar from."""


class NoFaceFound(InputError):
    """No human face was detected and the input table names no ``face_box``."""


class SeveralFaces(InputError):
    """More than one face while ``ingest.faces`` is ``single``."""


class InvalidAnnotation(InputError):
    """A ``face_box`` or ``landmarks`` value of the input table has a wrong shape or range."""


class PoisonInput(InputError):
    """The portrait ended its worker process as often as the attempt ledger allows."""


class StageFailed(FC4DError):
    """A stage could not reach a usable result on a valid input."""


class FitFailed(StageFailed):
    """The head model could not be fitted to the portrait."""


class DeadlineExceeded(StageFailed):
    """A stage ran longer on one portrait than its ``deadline_minutes``."""


class OutOfGpuMemory(StageFailed):
    """A stage asked for more GPU memory than there is, also on the second try."""


class DevicePoisoned(FC4DError):
    """A CUDA error that leaves the process unable to use its device: it must be replaced."""


class TrackingFailed(StageFailed):
    """Clips cannot be tracked: no face in them, unequal sizes, or values that are no numbers."""


class TrainingDiverged(StageFailed):
    """A loss or parameter became non-finite during avatar training."""
