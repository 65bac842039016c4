"""Executes the notebooks with fewer agents and steps, and checks that their outputs belong to their code."""

import json
import re
import runpy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SMALLER = {
    "00_in_25_lines": {"num_seeds": 5, "total_steps": 700},
    "01_quickstart": {"num_seeds": 5, "total_steps": 700},
    "02_algorithm_1": {"num_seeds": 5, "total_steps": 700, "num_updates": 120},
    "03_research": {"num_seeds": 5, "num_fresh": 5, "total_steps": 700},
}
"""The parameters of each notebook in the tests."""

LARGEST = 600_000
"""The largest size of a notebook, in bytes."""

FOLDERS = "home|root|tmp|usr|opt|work|mnt|Users|private|var"
PATH_OF_A_MACHINE = re.compile(rf"(?<![\w./:])/({FOLDERS})/|[A-Z]:\\\\|ipykernel_\d")


@pytest.fixture(params=SMALLER)
def name(request):
    return request.param


def read(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def with_parameters(notebook, values):
    """Returns the notebook with other numbers in its cell of parameters; each parameter must be there."""
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    for parameter, value in values.items():
        cell.source, count = re.subn(rf"^{parameter} = [\d_]+", f"{parameter} = {value}", cell.source, flags=re.M)
        assert count == 1, f"{parameter} is not a parameter"
    return notebook


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(SMALLER)


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=pytest.mark.slow) if each.startswith(("02", "03")) else each for each in SMALLER],
)
def test_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    monkeypatch.setenv("PYTHONWARNINGS", "default")  # the kernel is not pytest
    notebook = with_parameters(read(name), SMALLER[name])
    # A failed cell raises an error. Run folders are made where the notebook is executed.
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    stderr = [output.text for cell in code_cells(notebook) for output in cell.outputs if output.get("name") == "stderr"]
    assert stderr == []


def test_outputs_are_of_the_code_that_is_there(name):
    notebook = read(name)
    digest = runpy.run_path(str(NOTEBOOKS / "execute.py"))["digest"]
    assert notebook.metadata["outputs_of"] == digest(notebook), "execute it: make notebooks"


def test_shows_the_outputs_and_figures_of_one_execution_in_order(name):
    cells = code_cells(read(name))
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert any(kind.startswith("image/") for output in outputs for kind in output.get("data", {}))


def test_is_small_and_names_no_path_of_a_machine(name):
    text = (NOTEBOOKS / f"{name}.ipynb").read_text()
    assert len(text) <= LARGEST
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output["data"] = {kind: data for kind, data in output.get("data", {}).items() if "image/" not in kind}
    found = PATH_OF_A_MACHINE.search(json.dumps(notebook["cells"]))
    assert found is None, found


def test_links_lead_to_files(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (NOTEBOOKS / target).exists(), target
