r"""LangCell as a scorer: cells and descriptions of cell types in one space.

Zhao et al., LangCell: Language-Cell Pre-training for Cell Identity Understanding, ICML 2024. With
the projections :math:`u_i` of a cell and :math:`t_c` of a description, both of length one,

.. math:: P_{ic} = \langle u_i, t_c\rangle / 0.05 \tag{1}

and, with the matching head :math:`q_{ic}` of the text tower that looks at the cell,

.. math:: P_{ic} = \alpha\,\mathrm{softmax}_c\langle u_i, t_c\rangle / 0.05
          + (1 - \alpha)\,\mathrm{softmax}_c\, q_{ic}, \tag{2}

which is the published score with :math:`\alpha = 0.1`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sczoo.errors import ArtefactError, CorruptedArtefactError, InputError
from sczoo.model.grit.ontology import cell_ontology
from sczoo.model.grit.scorers._langcell_bert import BertConfig, BertTower
from sczoo.model.grit.scorers._langcell_tokens import CellTokenizer, WordPiece
from sczoo.model.grit.scorers._markers import marker_table
from sczoo.model.grit.scorers._protocol import Scores, check_classes

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

__all__ = ["LangCellScorer"]

TEMPERATURE = 0.05
# <cls> follows the 25,426 genes and special tokens of Geneformer's vocabulary.
_CLS_TOKEN = 25426
_WEIGHTS = {
    "cell_bert": "cell_bert/model.safetensors",
    "text_bert": "text_bert/model.safetensors",
    "cell_proj": "cell_proj.safetensors",
    "text_proj": "text_proj.safetensors",
    "ctm_head": "ctm_head.safetensors",
}
_CONFIGS = {"cell_bert": "cell_bert/config.json", "text_bert": "text_bert/config.json"}
_VOCABULARY = "tokenizer/BiomedBERT/vocab.txt"
_GENES = ("gene_tokens.tsv", "gene_tokens.tsv.gz")
_WHERE = (
    "The weights of LangCell are not part of sczoo. Their authors offer them, under the MIT "
    "licence of https://github.com/PharMolix/LangCell, in the folder 'ckpt' of "
    "https://drive.google.com/drive/folders/1cuhVG9v0YoAnjW-t_WMpQQguajumCBTp"
)
_CONVERT = (
    "sczoo never unpickles a file. Convert each .bin once, where you trust it: "
    'python -c "import torch, safetensors.torch as s; '
    "s.save_file({k: v.contiguous() for k, v in torch.load('pytorch_model.bin', "
    "weights_only=True).items()}, 'model.safetensors')\""
)


class LangCellScorer:
    """Scores of a LangCell checkpoint.

    Parameters
    ----------
    folder
        The checkpoint: ``cell_bert/{config.json,model.safetensors}``,
        ``text_bert/{config.json,model.safetensors}``, ``cell_proj.safetensors``,
        ``text_proj.safetensors``, ``ctm_head.safetensors`` (for `ctm_alpha` only),
        ``tokenizer/BiomedBERT/vocab.txt`` and ``gene_tokens.tsv[.gz]`` (columns ``ensembl_id``,
        ``token``, ``median`` and, if known, ``symbol``).
    classes
        Names of cell types. Their descriptions are those of the Cell Ontology where sczoo has
        them.
    class_texts
        Description of a class, instead.
    ctm_alpha
        Weight of the similarity in equation (2), such as 0.1; by default equation (1), which needs
        one pass per cell instead of one per cell and class.
    batch_size
        Cells in a pass.
    device
        Where to compute.

    Examples
    --------
    >>> from sczoo.model.grit.scorers import LangCellScorer
    >>> scorer = LangCellScorer("langcell/ckpt", classes=["B cell", "T cell", "monocyte"])
    >>> model = sczoo.model.GRIT(adata, scorer=scorer)
    """

    name = "langcell"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        classes: Sequence[str] | None = None,
        *,
        class_texts: Mapping[str, str] | None = None,
        ctm_alpha: float | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        named = list(class_texts or {}) if classes is None else list(classes)
        self.classes = check_classes(named, "classes")
        given = dict(class_texts or {})
        self.texts = [given.get(name) or describe(name) for name in self.classes]
        if ctm_alpha is not None and not 0 <= ctm_alpha <= 1:
            raise InputError(f"ctm_alpha={ctm_alpha!r}: it is a weight between 0 and 1.")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size!r}: it is at least 1.")
        self.ctm_alpha, self.batch_size = ctm_alpha, batch_size
        self.device = torch.device(device)
        self._load(Path(folder))

    # --- loading ------------------------------------------------------------------------------

    def _load(self, folder: Path) -> None:
        parts = [part for part in _WEIGHTS if part != "ctm_head" or self.ctm_alpha is not None]
        genes = next((folder / name for name in _GENES if (folder / name).is_file()), None)
        self._require_files(folder, parts, genes)
        cell, text = (_read_config(folder / _CONFIGS[part]) for part in _CONFIGS)
        states = {part: _read_tensors(folder / _WEIGHTS[part]) for part in parts}
        self.cell_bert = _fill(BertTower(cell), states["cell_bert"], folder / "cell_bert")
        self.text_bert = _fill(
            BertTower(text, source_width=cell.hidden_size),
            states["text_bert"],
            folder / "text_bert",
        )
        self.cell_proj = _linear(states["cell_proj"], cell.hidden_size, "cell_proj")
        self.text_proj = _linear(states["text_proj"], text.hidden_size, "text_proj")
        self.ctm_head = None
        if self.ctm_alpha is not None:
            self.ctm_head = _linear(states["ctm_head"], text.hidden_size, "ctm_head")
        for part in (self.cell_bert, self.text_bert, self.cell_proj, self.text_proj):
            part.to(self.device).eval()
        if self.ctm_head is not None:
            self.ctm_head.to(self.device).eval()
        vocabulary = folder / _VOCABULARY
        self.text_tokens = WordPiece.read(vocabulary, min(512, text.max_position_embeddings))
        assert genes is not None
        has_cls = cell.vocab_size > _CLS_TOKEN
        self.cell_tokens = CellTokenizer.read(
            genes,
            # the last row of a vocabulary of another size
            cls_token=_CLS_TOKEN if has_cls else cell.vocab_size - 1,
            max_length=min(2048, cell.max_position_embeddings),
        )
        largest = int(self.cell_tokens.tokens.max())
        if largest >= cell.vocab_size:
            raise ArtefactError(
                f"{genes} names the token {largest}, but cell_bert knows {cell.vocab_size} only: "
                "they are not of the same model."
            )

    @staticmethod
    def _require_files(folder: Path, parts: list[str], genes: Path | None) -> None:
        if not folder.is_dir():
            raise ArtefactError(f"There is no folder {folder}. {_WHERE}")
        wanted = [_WEIGHTS[part] for part in parts] + list(_CONFIGS.values()) + [_VOCABULARY]
        missing = [name for name in wanted if not (folder / name).is_file()]
        if not missing and genes is not None:
            return
        if not missing:
            raise ArtefactError(
                f"{folder} lacks {_GENES[0]}: the gene tokens and medians of Geneformer, as a "
                "table with the columns ensembl_id, token, median. They come with the code of "
                "LangCell (geneformer_001/geneformer/)."
            )
        pickled = [
            name
            for name in missing
            if (folder / name).with_suffix(".bin").is_file()
            or (folder / name).with_name("pytorch_model.bin").is_file()
        ]
        if pickled:
            raise ArtefactError(f"{folder} has {pickled[0]} as a .bin only. {_CONVERT}")
        raise ArtefactError(f"{folder} lacks {', '.join(missing)}. {_WHERE}")

    # --- scoring ------------------------------------------------------------------------------

    @torch.inference_mode()
    def score(self, adata: AnnData, *, layer: str | None = None) -> Scores:
        """Score cells of raw counts."""
        encoded = self.cell_tokens.encode(adata, layer)
        text_tokens, text_mask = _padded([self.text_tokens.encode(t) for t in self.texts])
        text_tokens, text_mask = text_tokens.to(self.device), text_mask.to(self.device)
        text = self.text_proj(self.text_bert(text_tokens, text_mask)[:, 0])
        text = torch.nn.functional.normalize(text, dim=-1)
        out = np.zeros((adata.n_obs, len(self.classes)), dtype=np.float32)
        for start in range(0, adata.n_obs, self.batch_size):
            tokens, mask = _padded(encoded[start : start + self.batch_size])
            tokens, mask = tokens.to(self.device), mask.to(self.device)
            states = self.cell_bert(tokens, mask)
            cell = torch.nn.functional.normalize(self.cell_proj(states[:, 0]), dim=-1)
            scores = cell @ text.T / TEMPERATURE
            if self.ctm_alpha is not None:
                match = self._match(states, mask, text_tokens, text_mask).softmax(-1)
                alpha = self.ctm_alpha
                scores = alpha * scores.softmax(-1) + (1 - alpha) * match
            out[start : start + len(tokens)] = scores.cpu().numpy()
        return Scores(out, self.classes, self.ctm_alpha is not None)

    def _match(
        self,
        states: torch.Tensor,
        mask: torch.Tensor,
        text_tokens: torch.Tensor,
        text_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Probability that text and cell match, ``(n_cells, n_classes)``."""
        assert self.ctm_head is not None
        columns = []
        for tokens, text in zip(text_tokens, text_mask, strict=True):
            n_cells = len(states)
            seen = self.text_bert(
                tokens.expand(n_cells, -1), text.expand(n_cells, -1), states, mask
            )
            columns.append(self.ctm_head(seen[:, 0]).softmax(-1)[:, 1])
        return torch.stack(columns, dim=1)


def describe(name: str) -> str:
    """Describe a cell type as LangCell's texts do: its name and definition."""
    ontology, table = cell_ontology(), marker_table()
    term = table[name].term if name in table else ontology.find(name)
    if term is None:
        return f"cell type: {name}."
    return f"cell type: {ontology.names[term]}. {ontology.definitions[term]}".rstrip()


def _read_config(path: Path) -> BertConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptedArtefactError(f"{path} is not JSON: {error}") from error
    return BertConfig.from_mapping(values, str(path))


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptedArtefactError(f"{path} is not a safetensors file: {error}") from error


def _fill(tower: BertTower, state: dict[str, torch.Tensor], where: Path) -> BertTower:
    """Load a tower; what the checkpoint has beyond it may only be a pooler or positions."""
    state = {name.removeprefix("bert."): tensor for name, tensor in state.items()}
    spare = {n for n in state if n.startswith("pooler.") or n == "embeddings.position_ids"}
    own = tower.state_dict()
    missing = sorted(set(own) - set(state))
    extra = sorted(set(state) - set(own) - spare)
    if missing or extra:
        raise ArtefactError(
            f"{where} holds another model than its config.json describes: missing {missing[:3]}, "
            f"unknown {extra[:3]}."
        )
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise ArtefactError(
                f"{where}: {name} has the shape {tuple(state[name].shape)}, but config.json "
                f"describes {tuple(tensor.shape)}."
            )
    tower.load_state_dict({name: state[name] for name in own})
    return tower


def _linear(state: dict[str, torch.Tensor], n_in: int, name: str) -> torch.nn.Linear:
    if set(state) != {"weight", "bias"} or state["weight"].shape[-1] != n_in:
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        raise ArtefactError(f"{name} must be a linear layer of {n_in} inputs; it holds {shapes}.")
    layer = torch.nn.Linear(n_in, len(state["weight"]))
    layer.load_state_dict(state)
    return layer


def _padded(sequences: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad with zeros to the longest; returns tokens and mask."""
    length = max(len(sequence) for sequence in sequences)
    tokens = torch.zeros((len(sequences), length), dtype=torch.long)
    mask = torch.zeros((len(sequences), length))
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = torch.as_tensor(np.asarray(sequence))
        mask[row, : len(sequence)] = 1.0
    return tokens, mask
