import sys
import warnings

import pytest

from mlx_stella import StellaWarning, blas


def test_a_slow_blas_is_said_once(monkeypatch):
    monkeypatch.setattr(blas, "_is_slow", True)
    with pytest.warns(StellaWarning, match="apt-get install libopenblas0-pthread"):
        blas.warn_if_slow()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blas.warn_if_slow()


def test_where_nothing_is_found_it_is_noticed(monkeypatch):
    monkeypatch.setattr(blas, "_LIBRARIES", ("libnone.so.0",))
    monkeypatch.setattr(blas, "_is_slow", False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delitem(sys.modules, "mlx.core")
    blas.prefer_fast_blas()
    assert blas._is_slow


def test_macos_is_untouched(monkeypatch):
    monkeypatch.setattr(blas, "_LIBRARIES", ("libnone.so.0",))
    monkeypatch.setattr(blas, "_is_slow", False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delitem(sys.modules, "mlx.core")
    blas.prefer_fast_blas()
    assert not blas._is_slow
