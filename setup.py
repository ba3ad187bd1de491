"""Build the Cython kernels, once for every instruction set.  Everything else about the package is in pyproject.toml.

Each ``<op>/<op>_cython.pyx`` becomes C once, and that C becomes one module for each instruction set:
``minilm._kernels.x86_64_v3.<op>_cython`` and so on.  The best that the processor has is taken at run time
(minilm/_kernels/cpu.py), so a wheel runs everywhere and a plain ``pip install .`` is fast.  What all of them need for
typed arrays is compiled once, as ``minilm._kernels.cyutility``.  Without Cython, without a C compiler, or without
OpenMP, the build still succeeds: fewer backends, or one thread.

MINILM_BUILD_OPS="gelu layer_norm" builds only these; what has not changed is not built again in any case.
"""

import copy
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

KERNELS = Path("minilm/_kernels")
PACKAGE = "minilm._kernels"
MACHINE = KERNELS / "machine_cython.pyx"  # one for all instruction sets: it asks which of them are here
SHARED = f"{PACKAGE}.cyutility"  # Cython's own code for typed arrays, most of what a module would hold
GENERATED = Path("build/cython")
DEPENDS = ["setup.py", *map(str, sorted(KERNELS.glob("*.h")))]  # and the headers beside a .pyx

# Never -ffast-math, nor on the link line: it drops inf and NaN, and sets flush-to-zero for the whole process.
UNIX = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-g0"]
MSVC = ["/O2"]
BASE = {"base": ([], [])}  # neither Intel nor AMD: the compiler's own target
X86_64 = {  # name -> flags for gcc and clang, flags for MSVC
    "x86_64": (["-march=x86-64"], []),
    "x86_64_v3": (["-march=x86-64-v3"], ["/arch:AVX2"]),
    "x86_64_v4": (["-march=x86-64-v4", "-mprefer-vector-width=512"], ["/arch:AVX512"]),
}


def instruction_sets():
    return X86_64 if sysconfig.get_platform().endswith(("x86_64", "amd64")) else BASE


def extensions():
    wanted = os.environ.get("MINILM_BUILD_OPS", "").split()
    sources = [s for s in sorted(KERNELS.glob("*/*_cython.pyx")) if not wanted or s.parent.name in wanted]
    modules = [(f"{PACKAGE}.{isa}.{source.stem}", source) for source in sources for isa in instruction_sets()]
    modules.append((f"{PACKAGE}.{MACHINE.stem}", MACHINE))
    kernels = [
        Extension(name, [str(source)], depends=[*DEPENDS, *map(str, sorted(source.parent.glob("*.h")))], optional=True)
        for name, source in modules
    ]
    return [Extension(SHARED, [], optional=True), *kernels]


class BuildKernels(build_ext):
    """Translate once, compile for each instruction set on all cores; what cannot be built is left out."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def build_extensions(self):
        try:
            generated = translate({ext.sources[0] for ext in self.extensions if ext.sources})
        except ImportError:
            self.warn("Cython is not here: only the NumPy and Numba kernels will run")
            self.extensions = []
            return
        msvc = self.compiler.compiler_type == "msvc"
        openmp = next((flags for flags in ([["/openmp"]] if msvc else [["-fopenmp"]]) if self._compiles(flags)), [])
        if not openmp:
            self.warn("this compiler has no OpenMP: the Cython kernels will run on one thread")
        for ext in self.extensions:
            isa = ext.name.split(".")[-2]
            source = ext.sources[0] if ext.sources else SHARED
            ext.include_dirs = [str(KERNELS), os.path.dirname(source), numpy.get_include()] if ext.sources else []
            ext.sources = [generated[source]]
            ext.extra_compile_args = [
                *(MSVC if msvc else UNIX), *openmp, *instruction_sets().get(isa, ([], []))[msvc],
            ]  # fmt: skip
            ext.extra_link_args = [] if msvc else openmp
        super().build_extensions()

    def build_extension(self, ext):
        own = copy.copy(self)  # the variants come from one C file: each needs a place for its object file
        own.build_temp = os.path.join(self.build_temp, ext.name)
        super(BuildKernels, own).build_extension(ext)

    def copy_extensions_to_source(self):
        for ext in self.extensions:
            Path(*ext.name.split(".")[:-1]).mkdir(exist_ok=True)
        super().copy_extensions_to_source()

    def _compiles(self, flags):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try.c")
            source.write_text("#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                link_flags = [] if self.compiler.compiler_type == "msvc" else flags
                self.compiler.link_executable(objects, str(Path(folder, "try")), extra_postargs=link_flags)
            except (BaseError, CCompilerError):
                return False
        return True


def translate(sources):
    """Turn each .pyx into C that is newer than it, and write the code that they share; return {pyx or SHARED: C}."""
    from Cython import __version__
    from Cython.Build import cythonize

    pyx = sorted(sources)
    modules = [Extension(".".join(Path(s).with_suffix("").parts), [s]) for s in pyx]
    shared = GENERATED / f"cython-{__version__}" / "cyutility.c"
    if not shared.exists():
        shared.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "cython", "-3", f"--generate-shared={shared}"], check=True)
    made = cythonize(
        modules,
        build_dir=str(GENERATED),
        nthreads=(os.cpu_count() or 1) if sys.platform == "linux" else 0,  # elsewhere they would run this file again
        quiet=True,
        shared_utility_qualified_name=SHARED,
    )
    return {SHARED: str(shared), **dict(zip(pyx, [ext.sources[0] for ext in made], strict=True))}


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildKernels})
