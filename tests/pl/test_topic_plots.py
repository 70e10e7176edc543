from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sczoo import pl
from sczoo.errors import EmptyDataError, InputError, MissingKeyError


def panels_of(axes):
    return list(np.ravel(np.asarray(axes, dtype=object)))


def genes_in(panel):
    return [text.get_text() for text in panel.texts]


def test_top_genes_are_the_best_of_each_topic(model, matrix_model):
    for source in (model, matrix_model):
        panels = panels_of(pl.topics(source, 4))
        assert len(panels) == 5
        for topic, panel in enumerate(panels):
            best = source.matrix.iloc[topic].sort_values(ascending=False)[:4]
            assert genes_in(panel) == list(best.index)
            assert panel.get_title(loc="left") == f"Topic {topic}"
            lengths = [bar.get_width() for bar in panel.patches[4:]]
            np.testing.assert_allclose(lengths, best / best.max())


def test_topics_are_chosen_in_order_by_name_or_number(model):
    panels = panels_of(pl.topics(model, 3, topics=[4, 0]))
    assert [panel.get_title(loc="left") for panel in panels] == ["Topic 4", "Topic 0"]
    renamed = model.matrix.set_axis([f"topic_{k}" for k in range(5)])
    model.matrix = renamed
    for chosen in (["topic_3"], [3]):
        panel = pl.topics(model, 3, topics=chosen)
        assert panel.get_title(loc="left") == "Topic 3"


def test_tables_are_drawn_too(model):
    long = model.get_top_genes(3)
    wide = pd.DataFrame([["A", "B"], ["C", "D"]])
    assert len(panels_of(pl.topics(long))) == 5
    assert [genes_in(panel) for panel in panels_of(pl.topics(wide))] == [["A", "B"], ["C", "D"]]


def test_arrays_take_names_from_the_model(matrix_model):
    table = matrix_model.matrix
    matrix_model.get_topic_gene_matrix = lambda: table.to_numpy()
    matrix_model.var_names = pd.Index(table.columns)
    assert genes_in(pl.topics(matrix_model, 1, topics=[2])) == [table.iloc[2].idxmax()]


def test_scores_without_a_scale(model):
    # logits may be negative: the genes are listed, without bars that would mean nothing
    model.matrix = -model.matrix
    panel = pl.topics(model, 3, topics=[0])
    assert [bar.get_width() for bar in panel.patches[3:]] == [0, 0, 0]


def test_highlighted_genes_are_bold(model):
    gene = model.matrix.iloc[0].idxmax()
    panel = pl.topics(model, 3, topics=[0], highlight=[gene])
    assert [text.get_weight() for text in panel.texts] == ["bold", "normal", "normal"]


def test_many_topics_in_given_axes(model):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    panels = panels_of(pl.topics(model, 3, ax=ax))
    assert len(panels) == 5
    assert all(panel.figure is ax.figure for panel in panels)


def test_bad_topics(model):
    with pytest.raises(MissingKeyError, match="no topic 9"):
        pl.topics(model, topics=[9])
    with pytest.raises(InputError, match="at least one gene"):
        pl.topics(model, 0)
    with pytest.raises(InputError, match="topics is empty"):
        pl.topics(model, topics=[])
    with pytest.raises(InputError, match="object has neither get_top_genes"):
        pl.topics(object())


def usage_values(ax):
    return ax.collections[0].get_array().reshape(len(ax.get_yticks()), -1)


def test_usage_is_the_mean_by_group(model, cells):
    ax = pl.topic_usage(model, cells, "cell_type", sort=False)
    share = pd.DataFrame(model.get_topic_proportions(cells))
    expected = share.groupby(cells.obs["cell_type"].to_numpy()).mean()
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows == ["T", "B", "NK"]  # the order of the categories
    np.testing.assert_allclose(usage_values(ax), expected.loc[rows])
    assert [label.get_text() for label in ax.get_xticklabels()] == list("01234")


def test_usage_is_sorted_beside_its_group(model, cells):
    values = usage_values(pl.topic_usage(model, cells, "cell_type"))
    strongest = values.argmax(axis=0)
    assert (np.diff(strongest) >= 0).all()


def test_usage_of_logits_is_centred(model, cells):
    ax = pl.topic_usage(model, cells, "cell_type", kind="logits")
    np.testing.assert_allclose(usage_values(ax).mean(axis=0), 0, atol=1e-12)
    low, high = ax.collections[0].get_clim()
    assert low == -high


def test_usage_of_chosen_topics_and_of_many(model, cells):
    ax = pl.topic_usage(model, cells, "cell_type", topics=[3, 1])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["3", "1"]
    ax = pl.topic_usage(model, cells, "cell_type", max_topics=3)
    assert "3 of 5" in ax.get_xlabel()
    assert {label.get_text() for label in ax.get_xticklabels()} == {"0", "1", "2"}


def test_usage_by_two_columns(model, cells):
    ax = pl.topic_usage(model, cells, ["cell_type", "condition"])
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert rows[:2] == ["T · ctrl", "T · stim"]
    assert len(rows) == 6


def test_bad_usage(model, cells):
    with pytest.raises(MissingKeyError, match="'donor'"):
        pl.topic_usage(model, cells, "donor")
    with pytest.raises(InputError, match="kind='odds'"):
        pl.topic_usage(model, cells, "cell_type", kind="odds")
    with pytest.raises(MissingKeyError, match="no topic 7"):
        pl.topic_usage(model, cells, "cell_type", topics=[7])
    with pytest.raises(InputError, match="no get_topic_proportions"):
        pl.topic_usage(object(), cells, "cell_type")
    cells.obs["nothing"] = pd.Categorical([None] * 60)
    with pytest.raises(InputError, match="not missing"):
        pl.topic_usage(model, cells, "nothing")


def test_empty_table_of_top_genes():
    with pytest.raises(EmptyDataError):
        pl.topics(pd.DataFrame(columns=["topic", "rank", "gene", "score"]))
