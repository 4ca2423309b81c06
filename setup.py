"""The compiled part; everything else about the package is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["csrc/ffi_build.py:ffi"],
    # The module uses Python's stable interface: one wheel serves 3.10 and later.
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
