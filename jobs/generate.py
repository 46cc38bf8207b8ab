"""Entry point of ``ray job submit -- python jobs/generate.py INPUTS… --out URI``: ``fc4d run``.

The job's driver finds its cluster through ``RAY_ADDRESS``, which Ray sets for submitted jobs.
"""

from __future__ import annotations

import typer

from fc4d_ray.cli.runs import run

if __name__ == "__main__":
    typer.run(run)
