"""Reports: everything escaped, self-contained, written in one step."""

from __future__ import annotations

from html.parser import HTMLParser

import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sczoo.errors import InputError
from sczoo.report import Figure, Report, Table, render_report, write_report

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>{{ 7*7 }}'


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def _report(text: str) -> Report:
    return Report(
        title=text,
        lead=text,
        warnings=[text],
        facts=[(text, text)],
        figures=[Figure(text, b"\x89PNG")],
        tables=[Table(text, [text], [[text]])],
        methods=text,
        citations=[text],
        limits=[text],
        provenance={text: text},
    )


def test_hostile_names_stay_text():
    html = render_report(_report(HOSTILE))
    parser = _Tags()
    parser.feed(html)
    assert not [tag for tag, _ in parser.tags if tag == "script"]
    assert [attrs["src"][:15] for tag, attrs in parser.tags if tag == "img"] == ["data:image/png;"]
    assert "onerror" not in {name for _, attrs in parser.tags for name in attrs}
    assert "49" not in html.replace("{{ 7*7 }}", "")
    # title twice, lead, warning, fact twice, picture twice, table three times, methods, citation,
    # limit, provenance twice
    assert html.count("&lt;script&gt;") == 16


def test_it_needs_no_other_file():
    html = render_report(_report("plain"))
    parser = _Tags()
    parser.feed(html)
    linked = [a.get("src") or a.get("href") for _, a in parser.tags]
    assert all(link is None or link.startswith("data:") for link in linked)
    assert "default-src 'none'" in html


def test_warnings_come_first_and_are_said_to_be_absent():
    html = render_report(_report("plain"))
    assert html.index("Read this first") < html.index("At a glance")
    assert "No warnings." in render_report(Report(title="calm"))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(Report(title="old"), path)

    def broken(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(InputError, match="disk full"):
        write_report(Report(title="new"), path)
    assert "old" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_figures_are_png():
    figure, _ = plt.subplots()
    rendered = Figure.from_matplotlib(figure, "an empty plot")
    plt.close(figure)
    assert rendered.png.startswith(b"\x89PNG\r\n\x1a\n")
    assert rendered.data_uri.startswith("data:image/png;base64,")
