"""The site of `make docs`: it is built without a warning, shows every page, and needs nothing from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMPONENTS = ("AnchorGenerator", "RegionProposalNetwork", "ProposalGenerator", "RoIPooling", "FasterRCNN")


class Loaded(HTMLParser):
    """Addresses that a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("img", "script", "iframe", "source"):
            self.addresses.append(values.get("src") or "")
        if tag == "link" and values.get("rel") != "canonical":
            self.addresses.append(values.get("href") or "")


def test_pages__can_be_reached():
    """Every page is in the navigation, or another one leads to it."""
    navigation = re.findall(r": ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    reached = {(ROOT / "docs" / name).resolve() for name in navigation}
    assert len(reached) > 15
    for page in PAGES:
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text(encoding="utf-8"))
        reached |= {(page.parent / link).resolve() for link in links}
    assert sorted(set(PAGES) - reached) == []


def test_images__are_small():
    for image in (ROOT / "docs" / "images" / "stages").iterdir():
        assert image.stat().st_size < 150_000, image


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocstrings", reason='the site needs pip install ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_site__loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert [a for a in loaded.addresses if re.match(r"(\w+:)?//", a)] == [], page


def test_site__reference_has_the_shapes(site):
    page = re.sub(r"<[^>]+>", "", (site / "reference" / "model.html").read_text(encoding="utf-8"))
    for name in COMPONENTS:
        assert name in page
    assert "Float[Tensor, &#34;r c s s&#34;]" in page or 'Float[Tensor, "r c s s"]' in page


def test_site__reference_has_the_public_names(site):
    import fasterrcnn

    page = (site / "reference" / "public.html").read_text(encoding="utf-8")
    for name in fasterrcnn.__all__:
        assert re.search(rf'id="fasterrcnn\.[\w.]*{name}"', page), name
