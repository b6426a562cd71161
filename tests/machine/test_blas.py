import sys
import warnings

import pytest

from mlx_stella import StellaWarning
from mlx_stella.machine import blas


def test_a_slow_blas_is_said_once(monkeypatch):
    monkeypatch.setattr(blas, "_is_slow", True)
    with pytest.warns(StellaWarning, match="apt-get install libopenblas0-pthread"):
        blas.warn_if_slow()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blas.warn_if_slow()


@pytest.mark.parametrize("platform, is_slow", [("linux", True), ("darwin", False)])
def test_where_nothing_is_found_linux_is_slow_and_macos_untouched(monkeypatch, platform, is_slow):
    monkeypatch.setattr(blas, "_LIBRARIES", ("libnone.so.0",))
    monkeypatch.setattr(blas, "_is_slow", False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delitem(sys.modules, "mlx.core")
    blas.prefer_fast_blas()
    assert blas._is_slow is is_slow
