"""Build the marker table and the slice of the Cell Ontology that GRIT ships with.

The table is curated by hand in ``curated_markers.txt``, from the literature named in
``src/sczoo/model/grit/README.md``; no labelled dataset was looked at. This script checks the
curation against public resources and writes the files: every symbol must be a gene of GENCODE,
every identifier a term of the Cell Ontology, mouse symbols are the orthologues of Ensembl 105, and
a type must have at least five genes. For each gene it counts how many of three resources
(PanglaoDB, CellMarker 2.0, the CellTypist encyclopedia) list it as a marker of any type: a gene
that none of them knows is reported.

Run: ``python benchmarks/build_marker_table.py`` (reads ``../shared/data/resources``).
"""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
RESOURCES = Path(
    os.environ.get("SCZOO_RESOURCES_DIR", ROOT.parent / "shared" / "data" / "resources")
)
OUT = ROOT / "src" / "sczoo" / "model" / "grit"
PARENTS = Path(__file__).with_name("curated_parents.txt")
ROOT_TERM = "CL:0000000"
MIN_GENES = 5
CURATED = Path(__file__).with_name("curated_markers.txt")


def _resource(name: str, **kwargs: object) -> pd.DataFrame:
    path = RESOURCES / name
    if not path.is_file():
        sys.exit(f"{path} is not there: set SCZOO_RESOURCES_DIR to the folder of the resources")
    return pd.read_csv(path, dtype=str, keep_default_na=False, **kwargs)


def curated() -> pd.DataFrame:
    """Read the curation."""
    lines = CURATED.read_text().splitlines()
    rows = [[part.strip() for part in line.split("|")] for line in lines if line[0] != "#"]
    table = pd.DataFrame(rows, columns=["name", "cl_id", "tissues", "genes"])
    table["genes"] = table["genes"].str.split()
    table["tissues"] = table["tissues"].str.split(", ").map(sorted)
    return table


def known_markers() -> list[set[str]]:
    """Genes that each resource lists as a marker of any human type."""
    panglao = _resource("markers_panglaodb_2020-03-27.tsv.gz", sep="\t")
    cellmarker = _resource("markers_cellmarker2_human.csv.gz")
    encyclopedia = _resource("celltypes_celltypist_encyclopedia.tsv.gz", sep="\t")
    return [
        set(panglao["official gene symbol"]),
        {gene for genes in cellmarker["Gene"] for gene in genes.split(",")},
        {gene.strip() for genes in encyclopedia["Curated markers"] for gene in genes.split(",")},
    ]


def curated_parents() -> dict[str, list[str]]:
    """Read the parents that the ontology's table lacks."""
    lines = [line for line in PARENTS.read_text().splitlines() if line[0] != "#"]
    return {line.split(" | ")[0]: line.split(" | ")[1].split() for line in lines}


def ontology_slice(terms: list[str]) -> pd.DataFrame:
    """Terms and all their ancestors: identifier, name, parents, definition."""
    everything = _resource("cell_ontology_cl_basic_2022-09-15.tsv.gz", sep="\t")
    everything = everything.set_index("cl_id")
    added = curated_parents()
    for term, above in added.items():
        everything.loc[term, "is_a"] = ",".join(above)
    wanted, stack = set(), list(terms)
    while stack:
        term = stack.pop()
        if term in wanted:
            continue
        if term not in everything.index:
            sys.exit(f"{term} is not a term of the Cell Ontology")
        wanted.add(term)
        stack += [p for p in everything.at[term, "is_a"].replace("|", ",").split(",") if p]
    orphans = [t for t in sorted(wanted) if t != ROOT_TERM and not everything.at[t, "is_a"]]
    if orphans:
        sys.exit(f"no parents: {orphans}; add them to {PARENTS.name}")
    found = everything.loc[sorted(wanted), ["name", "is_a", "definition"]]
    found["is_a"] = found["is_a"].str.replace("|", ",", regex=False)
    return found.reset_index().rename(columns={"is_a": "parents"})


def identifiers(table: pd.DataFrame) -> pd.DataFrame:
    """Ensembl identifiers of all markers, where a symbol has exactly one."""
    parts = []
    for species, column, name in (
        ("human", "genes", "genes_human_gencode44.tsv.gz"),
        ("mouse", "genes_mouse", "genes_mouse_mgi.tsv.gz"),
    ):
        genes = _resource(name, sep="\t").iloc[:, :2]
        genes.columns = ["ensembl", "symbol"]
        wanted = {gene for genes_ in table[column] for gene in genes_.split(",") if gene}
        genes = genes[genes["symbol"].isin(wanted)].drop_duplicates("symbol", keep=False)
        parts.append(genes.sort_values("symbol").assign(species=species))
    return pd.concat(parts)[["species", "symbol", "ensembl"]]


def write(table: pd.DataFrame, name: str) -> None:
    """Write a gzipped TSV whose bytes depend on its content alone."""
    text = table.to_csv(sep="\t", index=False, lineterminator="\n").encode()
    with open(OUT / name, "wb") as file, gzip.GzipFile("", "wb", mtime=0, fileobj=file) as packed:
        packed.write(text)
    print(f"{name}: {len(table)} rows, {(OUT / name).stat().st_size} bytes")


def main() -> None:
    """Check the curation and write the two files."""
    table = curated()
    symbols = set(_resource("genes_human_gencode44.tsv.gz", sep="\t").iloc[:, 1])
    orthologs = _resource("orthologs_human_mouse_ensembl105.csv.gz")
    mouse = orthologs.groupby("human_symbol")["mouse_symbol"].agg(list).to_dict()
    resources = known_markers()
    short = table[table["genes"].map(lambda genes: len(set(genes))) < MIN_GENES]
    if len(short) or table["name"].duplicated().any() or table["cl_id"].duplicated().any():
        sys.exit(f"too few genes, or a type twice: {short['name'].tolist()}")
    for row in table.itertuples():
        wrong = [gene for gene in row.genes if gene not in symbols]
        if wrong:
            sys.exit(f"{row.name}: not symbols of GENCODE 44: {wrong}")
    support = {
        gene: sum(gene in resource for resource in resources)
        for gene in sorted({gene for genes in table["genes"] for gene in genes})
    }
    unknown = [gene for gene, count in support.items() if count == 0]
    print(f"{len(table)} types, {len(support)} genes; in no resource: {', '.join(unknown)}")
    ontology = ontology_slice(table["cl_id"].tolist())
    names = ontology.set_index("cl_id")["name"]
    out = pd.DataFrame(
        {
            "name": table["name"],
            "cl_id": table["cl_id"],
            "cl_name": names.loc[table["cl_id"]].to_numpy(),
            "tissues": table["tissues"].map(",".join),
            "genes": table["genes"].map(",".join),
            "genes_mouse": table["genes"].map(
                lambda genes: ",".join(sorted({m for g in genes for m in mouse.get(g, [])}))
            ),
            "n_resources": table["genes"].map(lambda gs: ",".join(str(support[g]) for g in gs)),
        }
    )
    print(out[["name", "cl_name"]].to_string())
    write(out, "markers.tsv.gz")
    write(identifiers(out), "marker_genes.tsv.gz")
    write(ontology, "cell_ontology.tsv.gz")


if __name__ == "__main__":
    main()
