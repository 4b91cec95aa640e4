"""SciPy's loops over sparse matrices, without the rest of SciPy.

`import scipy.sparse` loads 260 modules: a third of a second and 23 MB at every start. The extension with the
loops needs only NumPy. Arrays are not checked: pointers and indices must be int32, elements float64.
"""

import importlib.util
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np

from portfolio_realtime.valuation.arrays import Floats, Int32s

EXTENSION: Final = "_sparsetools"


def _load() -> ModuleType:
    """The extension module, loaded by SciPy itself if it is not beside SciPy's other files."""
    scipy = importlib.util.find_spec("scipy")
    folders = (
        [] if scipy is None else [str(Path(one) / "sparse") for one in scipy.submodule_search_locations or ()]
    )
    found = PathFinder.find_spec(EXTENSION, folders)
    if found is None or found.loader is None:
        return importlib.import_module(f"scipy.sparse.{EXTENSION}")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


_tools: Final[Any] = _load()
csr_matvec: Final = _tools.csr_matvec
csc_matvec: Final = _tools.csc_matvec
csr_row_index: Final = _tools.csr_row_index


class Lines(NamedTuple):
    """A sparse matrix by lines: the rows of CSR, or the columns of CSC."""

    pointers: Int32s  # one more than there are lines
    indices: Int32s
    elements: Floats


def by_columns(rows: Lines, column_count: int) -> Lines:
    """The matrix by columns, from its rows; its pointers begin at 0."""
    pointers = np.empty(column_count + 1, np.int32)
    indices, elements = np.empty_like(rows.indices), np.empty_like(rows.elements)
    _tools.csr_tocsc(len(rows.pointers) - 1, column_count, *rows, pointers, indices, elements)
    return Lines(pointers, indices, elements)


def some_of(lines: Lines, chosen: Int32s) -> Lines:
    """A copy of the chosen lines."""
    pointers = np.zeros(len(chosen) + 1, np.int32)
    np.cumsum(lines.pointers[chosen + 1] - lines.pointers[chosen], out=pointers[1:])
    indices, elements = np.empty(pointers[-1], np.int32), np.empty(pointers[-1])
    csr_row_index(len(chosen), chosen, *lines, indices, elements)
    return Lines(pointers, indices, elements)
