"""The report on a new patient, for every kind of artefact, as a browser shows it."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from small_models import SMALL, make

matplotlib.use("Agg")

import sczoo
from sczoo import hub
from sczoo.hub._transfer import usable
from sczoo.report import write_report
from sczoo.report.patient import patient_report
from sczoo.testing import example_cells

HOSTILE = '"><script>document.title="owned"</script><img src="https://example.org/x.png">'
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


def imported(folder):
    import scvi

    cells = example_cells()
    scvi.model.SCVI.setup_anndata(cells)
    model = scvi.model.SCVI(cells, n_hidden=8, n_latent=3)
    model.train(max_epochs=1, enable_progress_bar=False, logger=False)
    model.save(str(folder))
    return hub.from_scvi(folder, example_cells(), trust_pickle=True)


@pytest.fixture(scope="module", params=[*sorted(SMALL), "a distilled set", "SCVI of scvi-tools"])
def applied(request, tmp_path_factory):
    """A model, a patient with dangerous names to whom it was applied, and the report's file."""
    folder = tmp_path_factory.mktemp("report")
    if request.param == "a distilled set":
        model = usable(make("SCDD").distill(20))
    elif request.param == "SCVI of scvi-tools":
        model = imported(folder / "scvi")
    else:
        model = make(request.param)
    query = example_cells(90, seed=7, scale=getattr(model, "_input_scale", "counts"))
    query.obs["ward"] = np.where(np.arange(query.n_obs) % 2, HOSTILE, "east")
    query = query[:, 3:].copy()  # some genes are missing
    result = sczoo.transfer(model, query)
    path = folder / "report.html"
    made = patient_report(
        model, query, result, source="toy/small:1", query=HOSTILE, limits=["Only for the tests."]
    )
    write_report(made, path)
    return model, query, result, path


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def test_nothing_is_loaded_from_elsewhere_and_names_stay_text(applied):
    *_, path = applied
    page = Page(path)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                assert value.startswith("data:image/png;base64,"), (tag, value[:60])
    style = path.read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "document.title" in page.text  # the dangerous name is there to be read
    assert path.stat().st_size < 3e6


def test_it_says_what_a_reader_needs_in_that_order(applied):
    model, query, result, path = applied
    text = Page(path).text
    order = ["Read this first" if result.warnings else "No warnings", "At a glance"]
    order += ["Limits", "Methods paragraph", "References", "Provenance"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    for warning in result.warnings:
        assert warning in text
    assert "Only for the tests." in text
    assert "not for diagnosis" in text
    assert type(model).__name__ in text
    assert "10.1038/s41587-021-01206-w" in text
    for citation in model._citation:
        assert citation.get("doi", "") in text
    assert "57 of 60" in text
    for column in (f"{model._method}_label", f"{model._method}_cluster"):
        if column in query.obs:
            assert str(query.obs[column].iloc[0]) in text
    if result.share_outside is not None:
        assert f"{result.share_outside:.0%} of the cells" in text


def test_there_is_a_picture(applied):
    *_, path = applied
    pictures = [a for tag, a in Page(path).tags if tag == "img"]
    assert pictures
    assert all(a["alt"] for a in pictures)


def _browse(path, folder, *arguments):
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1100,2400",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
        *arguments, path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")
def test_a_browser_shows_it(applied, tmp_path):
    *_, path = applied
    picture = tmp_path / "page.png"
    done = _browse(path, tmp_path, f"--screenshot={picture}", "--dump-dom")
    assert done.returncode == 0, done.stderr
    assert "owned" not in done.stdout.partition("</title>")[0].replace('title="owned"', "")
    # no script, picture or style was refused, and none was asked for elsewhere
    assert "Refused" not in done.stderr
    assert "ERR_NAME_NOT_RESOLVED" not in done.stderr
    if not picture.exists():  # some versions make one of the two in a run
        assert _browse(path, tmp_path, f"--screenshot={picture}").returncode == 0
    shown = matplotlib.image.imread(picture)
    assert shown.shape[1] == 1100
    assert len(np.unique(shown.reshape(-1, shown.shape[2]), axis=0)) > 50  # more than one colour
    assert Path(picture).stat().st_size > 20_000


def test_the_command_shows_the_limits_of_the_card():
    from sczoo.cli._cells import _limits_of

    assert _limits_of("./folder", None) == []
    for entry in hub.list_artefacts():
        shown = _limits_of(entry.name, None)
        assert shown[: len(entry.limits)] == list(entry.limits)
        assert all(use in "".join(shown) for use in entry.out_of_scope)
