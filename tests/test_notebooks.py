"""The notebooks run from top to bottom, at the smallest sizes, and hold pictures as committed."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

pytestmark = pytest.mark.slow

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
TINY = Path(__file__).parent / "data" / "tiny.yaml"
TIMEOUT_S = 300


def pictures(notebook) -> list[str]:
    return [
        output.data["image/png"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def test_both_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FC4D_NOTEBOOK_OUT", str(tmp_path / "run"))
    monkeypatch.setenv("FC4D_NOTEBOOK_CONFIG", str(TINY))
    for name in ("quickstart", "evaluate"):
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        client = nbclient.NotebookClient(
            notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(tmp_path)}}
        )
        executed = client.execute()
        assert pictures(executed), f"{name} shows no picture"
    text = str(executed)
    assert "FaceCraft4D (published)" in text and "n/a" in text


@pytest.mark.parametrize("name", ["quickstart", "evaluate"])
def test_they_are_committed_with_their_pictures_and_without_errors(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert len(pictures(notebook)) >= 2
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert "/home/" not in str(outputs) and "/tmp/" not in str(outputs)
