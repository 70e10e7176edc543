"""Reading and writing artefacts needs none of the heavy libraries."""

import subprocess
import sys


def test_no_heavy_library_is_imported():
    code = (
        "import sys; import sczoo.base._artefact, sczoo.base._files; "
        "print([m for m in ('torch', 'scvi', 'anndata', 'pandas', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
