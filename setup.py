"""Build of the C core, an optional extension: without a compiler the package installs and runs without it."""

from setuptools import setup
from setuptools.command.build_ext import build_ext


class BuildOptional(build_ext):
    """Say what to do when the C core does not compile; the extension is optional, so nothing else fails."""

    def build_extension(self, ext: object) -> None:
        """Build one extension."""
        try:
            super().build_extension(ext)
        except Exception:
            self.warn(
                "The C core of the probe did not compile, so the slower torch backend will serve. To "
                "have it, install a C compiler (`apt-get install gcc`, `xcode-select --install`), then run "
                "`pip install --force-reinstall --no-deps .` again."
            )
            raise


setup(
    cffi_modules=["kernels/csrc/binding.py:ffi"],
    cmdclass={"build_ext": BuildOptional},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
