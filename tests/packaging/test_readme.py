"""The README and docs/ name what there is, no more, no less, and link to it; the pinned set fits every machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from wpt_bench import experiments, profiles, registry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = Path(__file__).parent / "example_method"


def rows(heading: str) -> set[str]:
    """First cells, in code, of the first table below a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = re.search(r"(^\|.*\n)+", section, flags=re.MULTILINE)
    return set(re.findall(r"^\| `([^`]+)`", table[0], flags=re.MULTILINE))


@pytest.mark.parametrize(("file", "language"), [("linear_search.py", "python"), ("pyproject.toml", "toml")])
def test_shows_the_example_method_as_it_is(file: str, language: str) -> None:
    assert f"```{language}\n{(EXAMPLE / file).read_text()}```" in (ROOT / "docs" / "own-method.md").read_text()


def test_tables_are_complete() -> None:
    assert rows("Profiles") == set(profiles.names())
    assert rows("Methods") == set(registry.methods())
    assert rows("Experiments") == set(experiments.names())


def test_every_command_it_shows_exists() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "nox", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    shown = {name for page in PAGES for name in re.findall(r"nox -s ([\w-]+)", page.read_text())}
    assert {"tests", "bench-dmc", "bench-metaworld"} <= shown
    assert shown <= set(re.findall(r"^[*-] ([\w-]+)", listed, flags=re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_somewhere(page: Path) -> None:
    """Files that there are, and headings that they have, by the names that GitHub gives them."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.is_file(), target
            headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.MULTILINE) if anchor else []
            names = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in names, target


def test_pinned_versions_fit_every_machine() -> None:
    """No local build label, no path, no address: only ``name==version``."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+(\.?post\d+)?", pin) for pin in pins)
