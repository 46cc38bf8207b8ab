"""Plan digest of one avatar: the name under which its records are found."""

from __future__ import annotations

from fc4d_ray.store.digests import digest_json

PLAN_CHARACTERS = 20


def avatar_plan(plan_base: str, avatar_id: str) -> str:
    """Digest of image, config sections, weights and stage versions.

    ``plan_base`` is the run's part (``pipeline.plan.Plan.base``), the same for all its portraits.
    """
    return digest_json([plan_base, avatar_id])[:PLAN_CHARACTERS]
