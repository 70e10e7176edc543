"""Make the dataset embedded in the package: src/sczoo/datasets/data/kang_ifnb_demo.h5ad.

Source: the named dataset kang_ifnb (hash-checked), from SCZOO_DATA_DIR or ../shared/data beside
the repository. Donors 101 and 107 whole, plus a seeded sample of the other donors' control cells,
stratified by donor and cell type. The same source gives the same bytes with the same h5py.

    python benchmarks/build_embedded_data.py            # write the file, print size and sha256
    python benchmarks/build_embedded_data.py --check    # rebuild in memory, compare content
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from sczoo import datasets

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src" / "sczoo" / "datasets" / "data" / "kang_ifnb_demo.h5ad"
WHOLE = ("donor_101", "donor_107")
N_SAMPLED = 8_400  # the most, in hundreds, that keeps the file below 3.5 MB
SEED = 0
GZIP = {"compression": "gzip", "compression_opts": 9}


def allocate(sizes: pd.Series, total: int) -> pd.Series:
    """Share ``total`` among strata in proportion to their sizes (largest remainders)."""
    exact = sizes * total / sizes.sum()
    share = exact.astype(int)
    order = (exact - share).sort_values(ascending=False, kind="stable").index
    share[order[: total - share.sum()]] += 1
    return share


def choose_cells(obs: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Positions of the cells to keep, in a shuffled order that carries no information."""
    whole = obs["patient"].isin(WHOLE).to_numpy()
    pool = obs[~whole & (obs["condition"] == "ctrl").to_numpy()]
    strata = pool.groupby(["patient", "cell_type"], observed=True).indices
    sizes = pd.Series({key: len(strata[key]) for key in sorted(strata)})
    shares = allocate(sizes, N_SAMPLED)
    positions = obs.index.get_indexer(pool.index)
    sampled = [
        positions[rng.choice(strata[key], size=shares[key], replace=False)] for key in sizes.index
    ]
    return rng.permutation(np.concatenate([np.flatnonzero(whole), *sampled]))


def select(source: ad.AnnData) -> ad.AnnData:
    """Make the embedded object: counts, three columns, neutral names, terms."""
    cells = choose_cells(source.obs, np.random.default_rng(SEED))
    obs = source.obs.iloc[cells][["patient", "condition", "cell_type"]].copy()
    obs.index = pd.Index([f"cell_{i:05d}" for i in range(1, len(cells) + 1)])
    for column in obs:  # categories in alphabetical order, whatever the source's order is
        obs[column] = pd.Categorical(obs[column].astype(str))
    origin = source.uns["source"]
    terms = next(info for info in datasets.list_datasets("kang_ifnb"))
    return ad.AnnData(
        X=source.X[cells],
        obs=obs,
        var=source.var[["ensembl_id"]].copy(),
        uns={
            "matrix": "raw counts",
            "source": {
                "study": "Kang et al. 2018, PBMC of eight donors, control vs interferon-beta",
                "doi": "10.1038/nbt.4042",
                "accession": "GSE96583",
                "species": origin["species"],
                "tissue": terms.tissue,
                "licence": f"data: {terms.licence}; repository: {terms.source.licence}",
                "repository": origin["repo"],
                "commit": origin["commit"],
                "path": origin["path"],
                "derived_from": f"kang_ifnb.h5ad, sha256 {terms.sha256}",
                "how_made": (
                    f"donors 101 and 107 whole; {N_SAMPLED} control cells of the other six donors "
                    "in proportion to donor and cell type "
                    f"(numpy default_rng({SEED})); cell order shuffled; barcodes replaced by "
                    "neutral names; columns patient, condition and cell_type kept; "
                    "script benchmarks/build_embedded_data.py"
                ),
            },
        },
    )


def pack(adata: ad.AnnData) -> bytes:
    """Write a plain h5ad that any anndata reads, with 16-bit counts instead of float32.

    The shuffle filter makes the high bytes of the int32 gene indices almost free. Anndata stores
    names with variable length, which gzip does not reach, and HDF5 does not give deleted space
    back: so everything is first written to a scratch file, then copied.
    """
    counts = adata.X.tocsr()
    counts.sort_indices()
    if counts.data.max() > np.iinfo(np.uint16).max or (counts.data % 1).any():
        raise ValueError("the source's X does not hold counts that fit 16 bits")
    buffer = io.BytesIO()
    with h5py.File(io.BytesIO(), "w") as scratch, h5py.File(buffer, "w") as file:
        write_elem(scratch, "/", ad.AnnData(obs=adata.obs, var=adata.var, uns=adata.uns))
        file.attrs.update(scratch.attrs)
        for key in sorted(set(scratch) - {"X", "raw", "obs", "var"}):
            scratch.copy(key, file)
        for axis in ("obs", "var"):
            copy_frame(scratch[axis], file.create_group(axis))
        matrix = file.create_group("X")
        matrix.attrs["encoding-type"] = "csr_matrix"
        matrix.attrs["encoding-version"] = "0.1.0"
        matrix.attrs["shape"] = np.asarray(counts.shape, dtype=np.int64)
        for key, values in {
            "data": counts.data.astype(np.uint16),
            "indices": counts.indices.astype(np.int32),
            "indptr": counts.indptr.astype(np.int32),
        }.items():
            matrix.create_dataset(
                key, data=values, chunks=(min(len(values), 1 << 20),), shuffle=True, **GZIP
            )
    return buffer.getvalue()


def copy_frame(source: h5py.Group, target: h5py.Group) -> None:
    """Copy a data frame, its names with fixed length and compressed."""
    target.attrs.update(source.attrs)
    for key, item in source.items():
        if item.attrs["encoding-type"] == "string-array":
            values = item.asstr()[()].astype("S")
            target.create_dataset(key, data=values, **GZIP).attrs.update(item.attrs)
        else:
            source.copy(item, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    os.environ.setdefault("SCZOO_DATA_DIR", str(ROOT.parent / "shared" / "data"))
    content = pack(select(datasets.load("kang_ifnb")))
    digest = hashlib.sha256(content).hexdigest()
    if check:
        same = content == TARGET.read_bytes()
        print("identical" if same else "different", digest)
        raise SystemExit(not same)
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(content)
    print(f"{TARGET.relative_to(ROOT)}\nSIZE = {len(content):_}\nSHA256 = {digest!r}")


if __name__ == "__main__":
    main()
