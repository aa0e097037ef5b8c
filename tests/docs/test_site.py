# SPDX-License-Identifier: GPL-2.0-or-later
"""The site builds strictly, needs no network, and can be searched.

``make docs`` builds it too, and fails likewise: so these may take their time.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.harness.report.chromium import browser

TOOLS = ("mkdocs", "material", "mkdocstrings")
missing = [name for name in TOOLS if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)}: make docs installs them"),
    pytest.mark.slow,
]
REMOTE = re.compile(
    r"""(?:<(?:script|img|iframe)[^>]*\ssrc|<link[^>]*\shref)=["']?(?:https?:)?//"""
)


def build(clone: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=clone,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, directory)
    assert done.returncode == 0, done.stderr
    return directory


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    assert [str(page) for page in pages if REMOTE.search(page.read_text(encoding="utf-8"))] == []
    styles = "".join(style.read_text(encoding="utf-8") for style in site.rglob("*.css"))
    assert not re.search(r"@import|url\(['\"]?https?:", styles)


def test_a_browser_opens_it_from_files_and_searches(site: Path) -> None:
    """No request leaves the folder, nothing is complained about, nothing is wider than a phone."""
    heard: list[str] = []
    with browser() as chromium:
        for width in (1280, 390):
            page = chromium.new_page(viewport={"width": width, "height": 900})
            page.on("console", lambda message: heard.append(message.text))
            page.on("requestfailed", lambda request: heard.append(request.url))
            for name in ("index.html", "fault.html", "book/8-slab.html"):
                page.goto((site / name).as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.set_viewport_size({"width": 1280, "height": 900})
        page.fill("[data-md-component=search-query]", "vmalloc")
        found = page.wait_for_selector(".md-search-result__item")
        assert "vmalloc" in found.inner_text()
    assert heard == []


def test_a_remote_script_would_be_seen() -> None:
    assert REMOTE.search('<script async src="https://example.org/x.js">')
    assert REMOTE.search('<link rel="stylesheet" href="//example.org/x.css">')
    assert not REMOTE.search('<a href="https://example.org/">')


def test_the_reference_has_the_docstrings(site: Path) -> None:
    text = (site / "reference" / "kernel.html").read_text(encoding="utf-8")
    assert "The memory manager of one machine" in text
    assert 'id="kernel_model.kernel.Kernel.start_kernel"' in text
    assert ":class:" not in text


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    """The same settings, on a site of one page."""
    (tmp_path / "docs").mkdir()
    for name in ("site.css", "sphinx_roles.py", "vendor"):
        source = ROOT / "docs" / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / "docs" / name)
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    (tmp_path / "docs" / "index.md").write_text("[there](nowhere.md)\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
