"""LangCell's tokenisers: genes in the order of their expression, and WordPiece for text."""

from __future__ import annotations

import csv
import gzip
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from sczoo.base._reading import matrix_of, read_rows
from sczoo.errors import ArtefactError, GeneOverlapError, NotCountsError

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

__all__ = ["CellTokenizer", "WordPiece"]

_TARGET_TOTAL = 1e4
_FEWEST_GENES = 50
_LONGEST_WORD = 100


class CellTokenizer:
    """Rank-value encoding: a cell is the list of its genes, by expression over their median.

    Parameters
    ----------
    ids
        Ensembl identifiers.
    tokens, medians
        Token and non-zero median expression of each.
    symbols
        Symbols, where known.
    cls_token
        Token that precedes every cell; ``None`` for none.
    max_length
        Longest encoding, the leading token counted.
    """

    def __init__(
        self,
        ids: list[str],
        tokens: np.ndarray,
        medians: np.ndarray,
        *,
        symbols: list[str] | None = None,
        cls_token: int | None = None,
        max_length: int = 2048,
    ) -> None:
        self._place = {name: position for position, name in enumerate(ids)}
        self._symbol = {s: p for p, s in enumerate(symbols or []) if s}
        self.tokens = np.asarray(tokens, dtype=np.int64)
        self.medians = np.asarray(medians, dtype=np.float64)
        self.cls_token, self.max_length = cls_token, max_length

    @classmethod
    def read(cls, path: Path, *, cls_token: int | None, max_length: int) -> CellTokenizer:
        """Read a tab-separated table with ``ensembl_id``, ``token``, ``median``, ``symbol``."""
        opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
        with opened as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        names = {"ensembl_id", "token", "median"}
        if not rows or not names <= set(rows[0]):
            raise ArtefactError(
                f"{path} must be a tab-separated table with the columns {sorted(names)}."
            )
        # special tokens have no median
        rows = [row for row in rows if row["ensembl_id"].startswith("ENS") and row["median"]]
        return cls(
            [row["ensembl_id"] for row in rows],
            np.array([int(row["token"]) for row in rows]),
            np.array([float(row["median"]) for row in rows]),
            symbols=[row.get("symbol") or "" for row in rows],
            cls_token=cls_token,
            max_length=max_length,
        )

    def encode(self, adata: AnnData, layer: str | None = None) -> list[np.ndarray]:
        """Encode the cells of `adata`.

        Parameters
        ----------
        adata
            Raw counts. Genes are found by Ensembl identifier (versions are ignored) in
            ``var_names`` or a column of ``var``, else by symbol.
        layer
            Layer with the counts.

        Returns
        -------
        Tokens of each cell, highest expression over the median first; equal ones in the order of
        the genes of `adata`.
        """
        places = self._find(adata)
        here = np.flatnonzero(places >= 0)
        matrix = matrix_of(adata, layer)
        encoded = []
        for start in range(0, adata.n_obs, 1024):
            block = read_rows(matrix, np.arange(start, min(start + 1024, adata.n_obs)))
            dense = block.toarray() if hasattr(block, "toarray") else np.asarray(block)
            dense = dense.astype(np.float64)
            if (dense < 0).any() or (dense != np.floor(dense)).any():
                raise NotCountsError(
                    f"LangCell reads raw counts, but rows {start} and following hold other values."
                    " Pass the layer with the counts."
                )
            total = dense.sum(axis=1, keepdims=True)
            relative = dense[:, here] / np.where(total > 0, total, 1.0) * _TARGET_TOTAL
            relative /= self.medians[places[here]]
            for row in relative:
                order = np.argsort(-row, kind="stable")
                order = order[: int((row > 0).sum())]
                tokens = self.tokens[places[here[order]]]
                if self.cls_token is not None:
                    tokens = np.concatenate([[self.cls_token], tokens])
                encoded.append(tokens[: self.max_length])
        return encoded

    def _find(self, adata: AnnData) -> np.ndarray:
        candidates = [adata.var_names]
        candidates += [
            adata.var[column]
            for column in ("ensembl_id", "gene_ids", "gene_id", "feature_id")
            if column in adata.var
        ]
        best = np.full(adata.n_vars, -1)
        for names in candidates:
            plain = [str(name).split(".")[0] for name in names]
            for lookup, keys in (
                (self._place, plain),
                (self._symbol, [str(name) for name in names]),
            ):
                found = np.array([lookup.get(key, -1) for key in keys])
                if (found >= 0).sum() > (best >= 0).sum():
                    best = found
        n_found = int((best >= 0).sum())
        if n_found < min(_FEWEST_GENES, len(self.tokens)):
            raise GeneOverlapError(
                f"{n_found} of {adata.n_vars} genes are in LangCell's vocabulary. It reads human "
                "Ensembl identifiers: put them into adata.var_names or adata.var['ensembl_id']."
            )
        # a gene of the vocabulary must not be counted twice
        _, first = np.unique(best, return_index=True)
        once = np.full(len(best), -1)
        once[first] = best[first]
        return once


class WordPiece:
    """Uncased WordPiece, as BERT's: lower case, no accents, longest pieces first.

    Parameters
    ----------
    vocabulary
        Pieces, in the order of their numbers.
    max_length
        Longest encoding, ``[CLS]`` and ``[SEP]`` counted.
    """

    def __init__(self, vocabulary: list[str], max_length: int = 512) -> None:
        self.number = {piece: number for number, piece in enumerate(vocabulary)}
        self.max_length = max_length
        for piece in ("[CLS]", "[SEP]", "[UNK]", "[PAD]"):
            if piece not in self.number:
                raise ArtefactError(f"vocab.txt has no {piece}: it is not that of a BERT.")

    @classmethod
    def read(cls, path: Path, max_length: int) -> WordPiece:
        """Read ``vocab.txt``: one piece per line."""
        return cls(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), max_length)

    def encode(self, text: str) -> list[int]:
        """Numbers of the pieces of `text`, between ``[CLS]`` and ``[SEP]``."""
        pieces = [piece for word in self.words(text) for piece in self._pieces(word)]
        pieces = pieces[: self.max_length - 2]
        return [self.number[piece] for piece in ("[CLS]", *pieces, "[SEP]")]

    @staticmethod
    def words(text: str) -> list[str]:
        """Split at white space and punctuation, in lower case and without accents."""
        plain = unicodedata.normalize("NFD", text.lower())
        out = [""]
        for letter in plain:
            category = unicodedata.category(letter)
            if category == "Mn" or (category[0] == "C" and letter not in "\t\n\r"):
                continue
            if letter.isspace():
                out.append("")
            elif _is_punctuation(letter, category) or _is_ideograph(letter):
                out += [letter, ""]
            else:
                out[-1] += letter
        return [word for word in out if word]

    def _pieces(self, word: str) -> list[str]:
        if len(word) > _LONGEST_WORD:
            return ["[UNK]"]
        pieces, start = [], 0
        while start < len(word):
            for stop in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:stop]
                if piece in self.number:
                    break
            else:
                return ["[UNK]"]
            pieces.append(piece)
            start = stop
        return pieces


def _is_punctuation(letter: str, category: str) -> bool:
    # BERT counts all symbols of ASCII as punctuation, also those that Unicode does not
    return category[0] == "P" or (letter.isascii() and not letter.isalnum())


def _is_ideograph(letter: str) -> bool:
    code = ord(letter)
    return 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF
