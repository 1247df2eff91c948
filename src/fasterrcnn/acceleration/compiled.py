"""C++ kernels of this folder: compiled once for this machine's processor, kept in the cache folder."""

import ctypes
import subprocess
from pathlib import Path

from fasterrcnn.acceleration.autotune import cache_digest, processor
from fasterrcnn.errors import UsageError
from fasterrcnn.files import atomic_write, cache_folder

_FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-std=c++17")
_COMPILE_SECONDS = 300


def load_library(source: Path) -> ctypes.CDLL:
    """The compiled functions of a C++ file; the compiler runs only if this processor's are not in the cache folder.

    Raises:
        UsageError: there is no C++ compiler, or it fails.
        OSError: the cache folder cannot be written, or nothing can be loaded from it.
    """
    content = source.read_text(encoding="utf-8")
    path = cache_folder() / f"{source.stem}-{cache_digest(content, *_FLAGS, processor())}.so"
    if not path.exists():
        _compile(source, path)
    return ctypes.CDLL(str(path))


def _compile(source: Path, path: Path) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler  # noqa: PLC0415 - the one that torch.compile uses

    try:
        compiler = get_cpp_compiler()
    except Exception:  # its errors differ from release to release
        raise UsageError(f"{source.name} needs a C++ compiler (g++, or $CXX); none was found") from None
    with atomic_write(path, shared=True) as temporary:
        # Threads of torch's own OpenMP; a compiler that has none gives a kernel with one thread.
        for openmp in (["-fopenmp"], []):
            command = [compiler, *_FLAGS, *openmp, str(source), "-o", str(temporary)]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_COMPILE_SECONDS)
            if done.returncode == 0:
                return
        raise UsageError(f"{compiler} cannot compile {source.name}: {(done.stderr.splitlines() or ['no reason'])[0]}")
