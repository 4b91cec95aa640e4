"""How long functions are, and how much is said about them: `python -m benchmarks.style FOLDER...`.

Each folder is a source tree, such as `src` here and in a checkout of an older commit. Lengths leave the
docstring out and count signatures and nested functions.
"""

import ast
import sys
import tokenize
from pathlib import Path
from statistics import median, quantiles

LONG = 70


def figures(folder: Path) -> str:
    """One row of the table."""
    lengths: list[int] = []
    documented: list[bool] = []
    lines, comments, files = 0, 0, 0
    for path in folder.rglob("*.py"):
        text = path.read_text()
        files += 1
        lines += len(text.splitlines())
        with path.open("rb") as source:
            comments += len(
                {
                    token.start[0]
                    for token in tokenize.tokenize(source.readline)
                    if token.type == tokenize.COMMENT
                }
            )
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                assert node.end_lineno is not None
                said = ast.get_docstring(node, clean=False)
                lengths.append(node.end_lineno - node.lineno + 1 - (len(said.splitlines()) if said else 0))
                if not node.name.startswith("_"):
                    documented.append(said is not None)
    cuts = quantiles(lengths, n=100)
    long = sum(length > LONG for length in lengths) / len(lengths)
    return (
        f"| {folder} | {files} | {lines} | {len(lengths)} | {median(lengths):.0f} | {cuts[89]:.0f} "
        f"| {cuts[98]:.0f} | {long:.1%} | {sum(documented) / len(documented):.0%} | {comments / lines:.1%} |"
    )


if __name__ == "__main__":
    print("| tree | files | lines | functions | median | p90 | p99 | > 70 | docstring | comments |")
    print("| --- " * 10 + "|")
    for name in sys.argv[1:] or ["src"]:
        print(figures(Path(name)))
