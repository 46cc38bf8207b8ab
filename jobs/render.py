"""Renders every avatar of an output, spread over a cluster:

    ray job submit … -- python jobs/render.py s3://bucket/avatars --out s3://bucket/views \
        --azimuth 0,30,60 --clip smile

The job's driver finds its cluster through ``RAY_ADDRESS``, which Ray sets for submitted jobs.
"""

from __future__ import annotations

from fc4d_ray.cli.console import run_job
from fc4d_ray.cli.rendering import render_all

if __name__ == "__main__":
    run_job(render_all)
