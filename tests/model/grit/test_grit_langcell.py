"""The LangCell loader on a small random checkpoint, against an independent forward pass."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
import torch
from anndata import AnnData
from safetensors.numpy import save_file
from scipy import sparse
from scipy.special import erf, log_softmax, softmax

from sczoo.errors import ArtefactError, CorruptedArtefactError, GeneOverlapError, NotCountsError
from sczoo.model.grit.scorers import LangCellScorer, Scorer
from sczoo.model.grit.scorers._langcell_tokens import CellTokenizer, WordPiece

CELL = {
    "vocab_size": 90,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "hidden_act": "relu",
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
}
TEXT = CELL | {
    "hidden_size": 12,
    "num_attention_heads": 3,
    "hidden_act": "gelu",
    "num_hidden_layers": 2,
}
WORDS = "cell type : b t . monocyte ##s lymph ##ocyte , a that is of the ##ic immun ##e -".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TEXT["vocab_size"] = len(VOCABULARY) + 2  # [DEC] and [ENC]
TEXTS = {
    "B": "cell type: B cell. a lymphocyte of the immune",
    "T": "cell type: T cell",
    "M": "Monocytes, that is a cell",
}
IDS = [f"ENSG{number:011d}" for number in range(60)]
MEDIANS = np.random.default_rng(3).uniform(0.5, 4, 60).round(3)


def random_tower(config, rng, *, source=None):
    def linear(n_in, n_out):
        return rng.normal(0, 0.3, (n_out, n_in)), rng.normal(0, 0.1, n_out)

    width, inner = config["hidden_size"], config["intermediate_size"]
    state = {
        "embeddings.word_embeddings.weight": rng.normal(0, 0.5, (config["vocab_size"], width)),
        "embeddings.position_embeddings.weight": rng.normal(
            0, 0.2, (config["max_position_embeddings"], width)
        ),
    }
    if source is None:
        state["embeddings.token_type_embeddings.weight"] = rng.normal(0, 0.2, (2, width))

    def norm(name):
        state[f"{name}.LayerNorm.weight"] = rng.uniform(0.5, 1.5, width)
        state[f"{name}.LayerNorm.bias"] = rng.normal(0, 0.1, width)

    def put(name, n_in, n_out):
        state[f"{name}.weight"], state[f"{name}.bias"] = linear(n_in, n_out)

    norm("embeddings")
    for number in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{number}"
        blocks = {"attention": width} | ({} if source is None else {"crossattention": source})
        for block, n_in in blocks.items():
            put(f"{at}.{block}.self.query", width, width)
            put(f"{at}.{block}.self.key", n_in, width)
            put(f"{at}.{block}.self.value", n_in, width)
            put(f"{at}.{block}.output.dense", width, width)
            norm(f"{at}.{block}.output")
        put(f"{at}.intermediate.dense", width, inner)
        put(f"{at}.output.dense", inner, width)
        norm(f"{at}.output")
    return {name: value.astype(np.float32) for name, value in state.items()}


def random_linear(n_in, n_out, rng):
    return {
        "weight": rng.normal(0, 0.4, (n_out, n_in)).astype(np.float32),
        "bias": rng.normal(0, 0.1, n_out).astype(np.float32),
    }


@pytest.fixture
def checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "cell_bert": random_tower(CELL, rng),
        "text_bert": random_tower(TEXT, rng, source=CELL["hidden_size"]),
        "cell_proj": random_linear(CELL["hidden_size"], 8, rng),
        "text_proj": random_linear(TEXT["hidden_size"], 8, rng),
        "ctm_head": random_linear(TEXT["hidden_size"], 2, rng),
    }
    folder = tmp_path / "ckpt"
    for tower, config in (("cell_bert", CELL), ("text_bert", TEXT)):
        (folder / tower).mkdir(parents=True)
        (folder / tower / "config.json").write_text(json.dumps(config | {"dropout": 0.02}))
        save_file(tensors[tower], folder / tower / "model.safetensors")
    # the text tower of the real checkpoint carries a pooler that nobody uses
    extra = {f"pooler.dense.{k}": v for k, v in random_linear(12, 12, rng).items()}
    save_file(tensors["text_bert"] | extra, folder / "text_bert" / "model.safetensors")
    for part in ("cell_proj", "text_proj", "ctm_head"):
        save_file(tensors[part], folder / f"{part}.safetensors")
    vocabulary = folder / "tokenizer" / "BiomedBERT"
    vocabulary.mkdir(parents=True)
    (vocabulary / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    lines = ["ensembl_id\ttoken\tmedian\tsymbol", "<pad>\t0\t\t", "<mask>\t1\t\t"]
    lines += [
        f"{gene}\t{n + 2}\t{median}\tSYM{n}"
        for n, (gene, median) in enumerate(zip(IDS, MEDIANS, strict=True))
    ]
    with gzip.open(folder / "gene_tokens.tsv.gz", "wt") as file:
        file.write("\n".join(lines))
    return folder, tensors


@pytest.fixture
def cells():
    counts = np.random.default_rng(5).poisson(1.2, (7, 66)).astype(np.float32)
    counts[2] = 0  # a cell without counts is <cls> alone
    adata = AnnData(sparse.csr_matrix(counts))
    adata.var_names = [f"{name}.7" for name in IDS] + [f"OTHER{n}" for n in range(6)]
    return adata


# --- an independent forward pass: numpy, double precision, one sequence at a time, no masks ---


def layer_norm(x, state, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scaled = (x - mean) / np.sqrt(variance + 1e-12)
    return scaled * state[f"{name}.LayerNorm.weight"] + state[f"{name}.LayerNorm.bias"]


def apply(x, state, name):
    return x @ state[f"{name}.weight"].astype(np.float64).T + state[f"{name}.bias"]


def attend(x, source, state, name, heads):
    query, key, value = (
        apply(inp, state, f"{name}.self.{part}")
        for inp, part in ((x, "query"), (source, "key"), (source, "value"))
    )
    width = query.shape[1] // heads
    out = np.empty_like(query)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weights = softmax(query[:, part] @ key[:, part].T / math.sqrt(width), axis=1)
        out[:, part] = weights @ value[:, part]
    return layer_norm(apply(out, state, f"{name}.output.dense") + x, state, f"{name}.output")


def forward(tokens, state, config, source=None):
    x = state["embeddings.word_embeddings.weight"][tokens].astype(np.float64)
    x = x + state["embeddings.position_embeddings.weight"][: len(tokens)]
    if "embeddings.token_type_embeddings.weight" in state:
        x = x + state["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(x, state, "embeddings")
    for number in range(config["num_hidden_layers"]):
        at, heads = f"encoder.layer.{number}", config["num_attention_heads"]
        x = attend(x, x, state, f"{at}.attention", heads)
        if source is not None:
            x = attend(x, source, state, f"{at}.crossattention", heads)
        inner = apply(x, state, f"{at}.intermediate.dense")
        if config["hidden_act"] == "relu":
            inner = np.maximum(inner, 0)
        else:
            inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = layer_norm(apply(inner, state, f"{at}.output.dense") + x, state, f"{at}.output")
    return x


def unit(x):
    return x / np.linalg.norm(x)


def expected_tokens(counts):
    """Rank genes of one cell by count over total over median, ties in the order of the genes."""
    total = counts.sum()
    if total == 0:
        return [CELL["vocab_size"] - 1]
    value = counts[:60] / total * 1e4 / MEDIANS
    order = sorted((gene for gene in range(60) if value[gene] > 0), key=lambda g: (-value[g], g))
    return [CELL["vocab_size"] - 1, *(gene + 2 for gene in order)][:40]


def expected_scores(adata, tensors, alpha):
    encode = WordPiece(VOCABULARY).encode
    text = [encode(t) for t in TEXTS.values()]
    described = [
        unit(
            forward(t, tensors["text_bert"], TEXT)[0]
            @ tensors["text_proj"]["weight"].astype(np.float64).T
            + tensors["text_proj"]["bias"]
        )
        for t in text
    ]
    rows = []
    for counts in adata.X.toarray().astype(np.float64):
        states = forward(expected_tokens(counts), tensors["cell_bert"], CELL)
        cell = unit(
            states[0] @ tensors["cell_proj"]["weight"].astype(np.float64).T
            + tensors["cell_proj"]["bias"]
        )
        similarity = np.array([cell @ d for d in described]) / 0.05
        if alpha is None:
            rows.append(similarity)
            continue
        head = tensors["ctm_head"]
        match = [
            softmax(
                forward(t, tensors["text_bert"], TEXT, states)[0]
                @ head["weight"].astype(np.float64).T
                + head["bias"]
            )[1]
            for t in text
        ]
        rows.append(alpha * softmax(similarity) + (1 - alpha) * softmax(match))
    return np.array(rows)


@pytest.mark.parametrize("alpha", [None, 0.1])
def test_scores_equal_an_independent_forward_pass(checkpoint, cells, alpha):
    folder, tensors = checkpoint
    for batch_size in (1, 3, 16):
        scorer = LangCellScorer(folder, class_texts=TEXTS, ctm_alpha=alpha, batch_size=batch_size)
        assert isinstance(scorer, Scorer)
        found = scorer.score(cells)
        expected = expected_scores(cells, tensors, alpha)
        assert found.classes == tuple(TEXTS)
        assert found.probability == (alpha is not None)
        assert np.abs(found.values - expected).max() < 2e-4 * max(1, np.abs(expected).max())


def test_published_mixture_is_a_probability(checkpoint, cells):
    found = LangCellScorer(checkpoint[0], class_texts=TEXTS, ctm_alpha=0.5).score(cells)
    assert np.allclose(found.values.sum(1), 1, atol=1e-5)
    assert np.isfinite(log_softmax(found.values, axis=1)).all()


def test_cells_are_encoded_by_rank(checkpoint, cells):
    tokenizer = LangCellScorer(checkpoint[0], class_texts=TEXTS).cell_tokens
    found = tokenizer.encode(cells)
    for row, counts in zip(found, cells.X.toarray(), strict=True):
        assert row.tolist() == expected_tokens(counts.astype(np.float64))
    by_symbol = cells.copy()
    by_symbol.var_names = [f"SYM{n}" for n in range(60)] + [f"OTHER{n}" for n in range(6)]
    for one, two in zip(tokenizer.encode(by_symbol), found, strict=True):
        assert np.array_equal(one, two)
    by_column = by_symbol.copy()
    by_column.var["ensembl_id"] = list(cells.var_names)
    by_column.var_names = [f"x{n}" for n in range(66)]
    for one, two in zip(tokenizer.encode(by_column), found, strict=True):
        assert np.array_equal(one, two)


def test_text_is_split_like_bert_does():
    words = WordPiece.words("CD4+ T-cell, naïve (αβ)  x")
    assert words == ["cd4", "+", "t", "-", "cell", ",", "naive", "(", "αβ", ")", "x"]
    piece = WordPiece(VOCABULARY, max_length=8)
    names = [VOCABULARY[n] for n in piece.encode("Lymphocytes that")]
    assert names == ["[CLS]", "lymph", "##ocyte", "##s", "that", "[SEP]"]
    assert [VOCABULARY[n] for n in piece.encode("zebra")] == ["[CLS]", "[UNK]", "[SEP]"]
    assert len(piece.encode("cell " * 50)) == 8


def test_refined_by_grit(checkpoint):
    import sczoo

    counts = np.random.default_rng(8).poisson(1.0, (40, 60)).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(counts))
    adata.var_names = IDS
    sczoo.model.GRIT.setup_anndata(adata)
    scorer = LangCellScorer(checkpoint[0], class_texts=TEXTS)
    model = sczoo.model.GRIT(adata, scorer=scorer, n_neighbors=5)
    model.train(accelerator="cpu", enable_progress_bar=False)
    assert model.classes == list(TEXTS)
    assert np.allclose(model.refine().raw, scorer.score(adata).values, atol=1e-5)


# --- what cannot be loaded ---


def test_absent_weights_say_where_they_come_from(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ArtefactError, match=r"drive\.google"):
            LangCellScorer(folder, class_texts=TEXTS)


def test_pickled_weights_are_not_opened(checkpoint):
    folder, _ = checkpoint
    (folder / "cell_bert" / "model.safetensors").rename(folder / "cell_bert" / "pytorch_model.bin")
    with pytest.raises(ArtefactError, match="never unpickles") as caught:
        LangCellScorer(folder, class_texts=TEXTS)
    assert "save_file" in str(caught.value)


def test_matching_head_is_needed_only_where_it_is_used(checkpoint):
    folder, _ = checkpoint
    (folder / "ctm_head.safetensors").unlink()
    LangCellScorer(folder, class_texts=TEXTS)
    with pytest.raises(ArtefactError, match="ctm_head"):
        LangCellScorer(folder, class_texts=TEXTS, ctm_alpha=0.1)


def test_another_model_than_the_config_describes(checkpoint):
    folder, tensors = checkpoint
    path = folder / "cell_bert" / "model.safetensors"
    lacking = dict(tensors["cell_bert"])
    del lacking["encoder.layer.1.output.dense.bias"]
    save_file(lacking, path)
    with pytest.raises(ArtefactError, match="missing"):
        LangCellScorer(folder, class_texts=TEXTS)
    wrong = tensors["cell_bert"] | {"embeddings.LayerNorm.bias": np.zeros(5, np.float32)}
    save_file(wrong, path)
    with pytest.raises(ArtefactError, match="shape"):
        LangCellScorer(folder, class_texts=TEXTS)
    path.write_bytes(b"not a tensor")
    with pytest.raises(CorruptedArtefactError, match="safetensors"):
        LangCellScorer(folder, class_texts=TEXTS)
    (folder / "cell_bert" / "config.json").write_text("{}")
    with pytest.raises(ArtefactError, match="configuration"):
        LangCellScorer(folder, class_texts=TEXTS)


def test_cells_that_langcell_cannot_read(checkpoint, cells):
    scorer = LangCellScorer(checkpoint[0], class_texts=TEXTS)
    fractions = cells.copy()
    fractions.X = fractions.X * 0.5
    with pytest.raises(NotCountsError, match="raw counts"):
        scorer.score(fractions)
    strangers = cells.copy()
    strangers.var_names = [f"OTHER{n}" for n in range(66)]
    with pytest.raises(GeneOverlapError, match="Ensembl"):
        scorer.score(strangers)


def test_a_gene_of_the_vocabulary_counts_once():
    tokenizer = CellTokenizer(IDS, np.arange(2, 62), MEDIANS)
    twice = AnnData(np.ones((1, 61), dtype=np.float32))
    twice.var_names = [*(f"{name}.1" for name in IDS), f"{IDS[0]}.2"]
    tokens = tokenizer.encode(twice)[0]
    assert len(tokens) == len(set(tokens.tolist())) == 60


def test_towers_agree_with_transformers(checkpoint):
    """Compare the cell tower with Hugging Face's BertModel, where that library is installed."""
    transformers = pytest.importorskip("transformers")
    folder, tensors = checkpoint
    config = transformers.BertConfig(**CELL, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    state = {name: torch.as_tensor(value) for name, value in tensors["cell_bert"].items()}
    theirs.load_state_dict(state, strict=False)
    ours = LangCellScorer(folder, class_texts=TEXTS).cell_bert
    tokens = torch.randint(0, 89, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 20)
    mask[1, 12:] = 0
    with torch.inference_mode():
        expected = theirs(tokens, attention_mask=mask).last_hidden_state
        found = ours(tokens, mask)
    assert float((found - expected)[mask.bool()].abs().max()) < 1e-4
