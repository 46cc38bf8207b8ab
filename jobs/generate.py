"""Entry point of ``ray job submit -- python jobs/generate.py INPUTS… --out URI``: ``fc4d run``.

The job's driver finds its cluster through ``RAY_ADDRESS``, which Ray sets for submitted jobs.
"""

from __future__ import annotations

from fc4d_ray.cli.console import run_job
from fc4d_ray.cli.runs import run

if __name__ == "__main__":
    run_job(run)
