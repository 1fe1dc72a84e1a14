"""How large the package and its tests are: lines, files over 300 lines, imports inside functions.

python benchmarks/structure.py [CHECKOUT]
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

LONG = 300


def inner_imports(tree: ast.AST) -> int:
    """Import statements inside functions."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    found = {
        child.lineno
        for function in functions
        for child in ast.walk(function)
        if isinstance(child, ast.Import | ast.ImportFrom)
    }
    return len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, nargs="?", default=Path(__file__).resolve().parents[1])
    root = parser.parse_args().checkout
    print(f"| folder | files | lines | files over {LONG} lines | imports inside functions |")
    print("|---|---|---|---|---|")
    for folder in ("s2mlp_deploy", "tests"):
        texts = [path.read_text() for path in sorted((root / folder).rglob("*.py"))]
        lines = [text.count("\n") for text in texts]
        over = sum(count > LONG for count in lines)
        inner = sum(inner_imports(ast.parse(text)) for text in texts)
        print(f"| {folder} | {len(texts)} | {sum(lines)} | {over} | {inner} |")


if __name__ == "__main__":
    main()
