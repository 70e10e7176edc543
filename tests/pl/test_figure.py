"""What every plot keeps: it shows nothing unasked, saves what was asked, changes no settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from sczoo import pl
from sczoo.errors import InputError
from sczoo.pl._colours import colours_of_groups, palette

CHANGE = pd.Series([2.0, 1.0, -1.0, 0.0], ["ISG15", "MX1", "CD3D", "XIST"])


def plots(model, cells):
    return {
        "topics": lambda **kw: pl.topics(model, 3, topics=[0], **kw),
        "topic_usage": lambda **kw: pl.topic_usage(model, cells, "cell_type", **kw),
        "perturbation": lambda **kw: pl.perturbation(CHANGE, **kw),
        "embedding": lambda **kw: pl.embedding(cells, "flat", "cell_type", **kw),
        "history": lambda **kw: pl.history({"elbo_train": [3.0, 2.0, 1.0]}, **kw),
    }


NAMES = ["topics", "topic_usage", "perturbation", "embedding", "history"]


def test_every_plot_is_tested():
    assert sorted(pl.__all__) == dir(pl)
    tests = "\n".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert [name for name in pl.__all__ if f"pl.{name}(" not in tests] == []
    with pytest.raises(AttributeError, match="no attribute 'violin'"):
        pl.violin  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_returns_axes_and_shows_only_when_asked(name, model, cells, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: shown.append(1))
    plot = plots(model, cells)[name]
    assert isinstance(plot(), mpl.axes.Axes)
    assert isinstance(plot(show=False), mpl.axes.Axes)
    assert not shown
    plot(show=True)
    assert shown == [1]


@pytest.mark.parametrize("name", NAMES)
def test_draws_into_given_axes(name, model, cells):
    figure, (left, right) = plt.subplots(1, 2)
    assert plots(model, cells)[name](ax=right) is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("name", NAMES)
def test_saves_vector_text_and_leaves_settings(name, model, cells, tmp_path):
    before = dict(mpl.rcParams)
    plot = plots(model, cells)[name]
    plot(save=tmp_path / "plot.pdf")
    plot(save=str(tmp_path / "plot.svg"))
    assert dict(mpl.rcParams) == before
    assert b"/Type3" not in (tmp_path / "plot.pdf").read_bytes()
    assert "<text" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(InputError, match="path of the picture"):
        plot(save=True)


def test_import_stays_light():
    code = (
        "import sys, sczoo.pl as pl\n"
        "for name in pl.__all__: getattr(pl, name)\n"
        "heavy = {'torch', 'scvi', 'scanpy', 'numba', 'anndata', 'matplotlib', 'sklearn'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("n_colours", [1, 2, 3, 8, 9, 20, 21, 60])
def test_palette_colours_differ(n_colours):
    assert len(set(palette(n_colours))) == n_colours


def lightness_and_hue(colour, kind):
    """A colour as a dichromat sees it (Vienot, Brettel and Mollon 1999), in CIE L*a*b*."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    }[kind] @ linear
    xyz = [
        [0.4124, 0.3576, 0.1805],
        [0.2126, 0.7152, 0.0722],
        [0.0193, 0.1192, 0.9505],
    ] @ seen.clip(0, 1)
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", ["protan", "deutan"])
@pytest.mark.parametrize("n_colours", [2, 3, 4, 5, 6, 7, 8])
def test_palette_for_colour_blind_readers(n_colours, kind):
    seen = [lightness_and_hue(colour, kind) for colour in palette(n_colours)]
    apart = [np.linalg.norm(one - other) for k, one in enumerate(seen) for other in seen[:k]]
    assert min(apart) > 15  # a difference of about 2.3 is just noticeable


def test_colours_of_uns_are_honoured(cells):
    groups = ["T", "B", "NK"]
    cells.uns["cell_type_colors"] = np.array(["#ff0000", "#00ff00", "#0000ff"])
    expected = dict(zip(groups, ["#ff0000", "#00ff00", "#0000ff"], strict=True))
    assert colours_of_groups(cells, "cell_type", groups) == expected
    chosen = colours_of_groups(cells, "cell_type", groups, {"B": "black"})
    assert chosen["B"] == "black"
    assert chosen["T"] == palette(3)[0]
    assert list(colours_of_groups(cells, "cell_type", groups, ["r", "g", "b"]).values()) == [
        "r",
        "g",
        "b",
    ]
    for useless in (["#ff0000"], ["no", "colour", "here"]):
        cells.uns["cell_type_colors"] = useless
        assert list(colours_of_groups(cells, "cell_type", groups).values()) == palette(3)
