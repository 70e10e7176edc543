"""Looking around in registries must not cost seconds."""

import subprocess
import sys

HEAVY = ("torch", "scvi", "anndata", "pandas", "scipy", "numpy", "requests", "jinja2")


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from sczoo import hub; hub.list_artefacts(); "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_fetching_and_cards_need_no_torch():
    code = (
        "import sys; import sczoo.hub._fetch, sczoo.hub._card, sczoo.hub._store, sczoo.hub._gate; "
        "print([m for m in ('torch', 'scvi', 'anndata') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_every_name_is_importable():
    from sczoo import hub

    for name in hub.__all__:
        assert getattr(hub, name).__module__.startswith("sczoo.hub")
