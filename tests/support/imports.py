"""What each module of the package imports, read from its source."""

import ast

PACKAGE = "ndekit"


def module_names(root):
    """The path of every module of the package, by its dotted name."""
    names = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def part_of(module):
    """`integrate` for `ndekit.integrate.costs`; the door for `ndekit` itself."""
    return module.split(".")[1] if "." in module else PACKAGE


def absolute(node, module, path):
    """The dotted name that `from ... import` starts from, dots resolved."""
    if node.level == 0:
        return node.module
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def imports(module, path, modules):
    """Every (line, module) of the package that a module imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, path)
            full = [f"{base}.{alias.name}" for alias in node.names]
            # `from package import name`: a module of the package, or a name that it holds.
            targets = [name if name in modules else base for name in full]
        else:
            continue
        for target in targets:
            if target.split(".")[0] == PACKAGE:
                yield node.lineno, target


def graph_of(root):
    """Every (module, path, line, imported module) of the package."""
    modules = module_names(root)
    return [
        (module, path.relative_to(root), line, target)
        for module, path in modules.items()
        for line, target in imports(module, path, modules)
    ]
