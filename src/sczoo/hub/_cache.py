"""The cache: artefacts by the hash of their manifest, below one folder of the user."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["artefact_cache", "cache_dir"]


def cache_dir() -> Path:
    """Folder of the cache: ``SCZOO_CACHE_DIR``, else the user's cache folder."""
    configured = os.environ.get("SCZOO_CACHE_DIR")
    if configured:
        return Path(configured).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("sczoo")


def artefact_cache(manifest_sha256: str) -> Path:
    """Folder of one artefact in the cache."""
    return cache_dir() / "artefacts" / manifest_sha256
