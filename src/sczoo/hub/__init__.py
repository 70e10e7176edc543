"""Registries of published artefacts: find, fetch, check, load, apply and publish.

Importing this package is cheap; torch and scvi-tools come with the first model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "CardFields": "_schema",
    "Finding": "_gate_report",
    "GateReport": "_gate_report",
    "Registry": "_schema",
    "RegistryEntry": "_schema",
    "TransferResult": "_transfer",
    "VerifyReport": "_verify",
    "add_source": "_store",
    "cache_dir": "_cache",
    "card_text": "_card",
    "create_signing_key": "_signing",
    "deprecate": "_store",
    "from_scvi": "_from_scvi",
    "inspect": "_gate",
    "list_artefacts": "_registry",
    "load": "_load",
    "publish": "_publish",
    "pull": "_fetch",
    "push_to_hf": "_huggingface",
    "read_card": "_card",
    "read_registry": "_registry",
    "render_card": "_card",
    "reproduce": "_reproduce",
    "revoke": "_store",
    "show": "_registry",
    "sign_registry": "_signing",
    "to_scvi": "_scvi",
    "transfer": "_transfer",
    "verify": "_verify",
}

if TYPE_CHECKING:
    from sczoo.hub._cache import cache_dir
    from sczoo.hub._card import card_text, read_card, render_card
    from sczoo.hub._fetch import pull
    from sczoo.hub._from_scvi import from_scvi
    from sczoo.hub._gate import inspect
    from sczoo.hub._gate_report import Finding, GateReport
    from sczoo.hub._huggingface import push_to_hf
    from sczoo.hub._load import load
    from sczoo.hub._publish import publish
    from sczoo.hub._registry import list_artefacts, read_registry, show
    from sczoo.hub._reproduce import reproduce
    from sczoo.hub._schema import CardFields, Registry, RegistryEntry
    from sczoo.hub._scvi import to_scvi
    from sczoo.hub._signing import create_signing_key, sign_registry
    from sczoo.hub._store import add_source, deprecate, revoke
    from sczoo.hub._transfer import TransferResult, transfer
    from sczoo.hub._verify import VerifyReport, verify

__all__ = [
    "CardFields",
    "Finding",
    "GateReport",
    "Registry",
    "RegistryEntry",
    "TransferResult",
    "VerifyReport",
    "add_source",
    "cache_dir",
    "card_text",
    "create_signing_key",
    "deprecate",
    "from_scvi",
    "inspect",
    "list_artefacts",
    "load",
    "publish",
    "pull",
    "push_to_hf",
    "read_card",
    "read_registry",
    "render_card",
    "reproduce",
    "revoke",
    "show",
    "sign_registry",
    "to_scvi",
    "transfer",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(f"sczoo.hub.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module 'sczoo.hub' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
