"""``ray job submit -- python jobs/evaluate.py [NAME=]OUT… --out URI`` is ``fc4d eval``.

The job's driver finds its cluster through ``RAY_ADDRESS``, which Ray sets for submitted jobs.
"""

from __future__ import annotations

from fc4d_ray.cli.console import run_job
from fc4d_ray.cli.evaluation import evaluate

if __name__ == "__main__":
    run_job(evaluate)
