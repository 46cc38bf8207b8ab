"""``report.html``: tables, plots and contact sheets on one page that opens without a server."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fc4d_ray.evaluation.report.tables import TextTable

TEMPLATE = Path(__file__).parent / "templates" / "evaluation.html.j2"


@dataclass(frozen=True)
class Sheet:
    """A contact sheet and its heading."""

    title: str
    png: bytes

    @property
    def data_uri(self) -> str:
        """The picture inside the page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Plot:
    """SVG text of our own making and its heading."""

    title: str
    svg: str


def render_page(
    title: str,
    summary: Sequence[tuple[str, str]],
    tables: Sequence[TextTable],
    plots: Sequence[Plot],
    sheets: Sequence[Sheet],
    failures: Sequence[tuple[str, str, str, str]],
    stamp: str = "",
) -> str:
    """HTML of the page. ``failures``: (method, subject, error type, message)."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE.name).render(
        title=title,
        summary=summary,
        tables=tables,
        plots=[(plot.title, Markup(plot.svg)) for plot in plots],
        sheets=sheets,
        failures=failures,
        stamp=stamp,
    )
