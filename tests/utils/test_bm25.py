"""The lexical ranking."""

import subprocess
import sys
from pathlib import Path

JAX = "raise SystemExit('JAX was started')\n"


def test_jax_is_not_started(tmp_path: Path) -> None:
    """It would take three quarters of a GPU's memory."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text(JAX)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import acebert.utils.bm25; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
