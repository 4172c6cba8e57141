"""What the API pages cannot read off the source: what an `eqx.Module` takes, who is in a group."""

import re
from typing import Any

import griffe

# Sections that list names, and an entry `t0, t1: the ends of the step.`, which griffe takes for one
# name, with the lines that go on with it.
SECTIONS = ("Args:\n", "Attributes:\n")
GROUP = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)+)(: .*(?:\n {5,}.*|\n(?=\n* {5,}))*)", re.M)
# A class of ours that has a base from one of these is an `eqx.Module`.
MODULE_PACKAGES = ("equinox", "diffrax")


class DataclassName(griffe.ExprName):
    """`dataclasses.dataclass`, as if it stood above the class."""

    @property
    def canonical_path(self) -> str:
        return "dataclasses.dataclass"


class Modules(griffe.Extension):
    """Shows `eqx.Module`s as dataclasses, and each parameter of a group on a line of its own."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for cls in classes_of(pkg):
            if is_module(cls) and "__init__" not in cls.members:
                decorator = DataclassName("dataclass", parent=cls)
                cls.decorators.append(griffe.Decorator(decorator, lineno=None, endlineno=None))
                for attribute in cls.attributes.values():
                    attribute.value = default_of(attribute.value)
        for package in [pkg, *pkg.modules.values()]:
            unshadow(package)
        for owner in documented(pkg):
            owner.docstring.value = ungrouped(owner.docstring.value)


def documented(owner: griffe.Object) -> list[griffe.Object]:
    """Everything with a docstring inside a package, itself included."""
    own = [member for member in owner.members.values() if not member.is_alias]
    return [owner] * bool(owner.docstring) + [x for member in own for x in documented(member)]


def ungrouped(docstring: str) -> str:
    """An entry for each name of a group: `t0: the ends.` and `t1: ...` for `t0, t1: the ends.`."""
    sections = re.split(r"^(?=\S)", docstring, flags=re.MULTILINE)
    return "".join(
        GROUP.sub(one_each, section) if section.startswith(SECTIONS) else section
        for section in sections
    )


def one_each(group: re.Match) -> str:
    return "\n".join(f"    {name}{group[2]}" for name in group[1].split(", "))


def classes_of(owner: griffe.Module) -> list[griffe.Class]:
    """Every class of a package, those of its submodules included."""
    own = [member for member in owner.members.values() if not member.is_alias]
    inner = [cls for module in own if module.is_module for cls in classes_of(module)]
    return [member for member in own if member.is_class] + inner


def unshadow(package: griffe.Module) -> None:
    """Make `data.digits` the function of `data/digits.py`, as it is after `import ndekit.data`."""
    for name, module in package.modules.items():
        if not module.is_alias and name in module.functions:
            function = module.members.pop(name)
            function.parent, function.public = package, True
            function.members.update(module.members)  # so that `data.digits.other` is still found
            package.members[name] = function


def is_module(cls: griffe.Class) -> bool:
    for base in cls.bases:
        path = base if isinstance(base, str) else base.canonical_path
        if path.split(".")[0] in MODULE_PACKAGES:
            return True
    return any(is_module(parent) for parent in cls.resolved_bases if parent.is_class)


def default_of(value: Any) -> Any:
    """`"sum"` for `eqx.field(static=True, default="sum")`, `dict()` for `default_factory=dict`."""
    if not (isinstance(value, griffe.ExprCall) and value.canonical_path == "equinox.field"):
        return value
    given = [arg for arg in value.arguments if isinstance(arg, griffe.ExprKeyword)]
    keywords = {arg.name: arg.value for arg in given}
    if "default_factory" in keywords:
        return f"{keywords['default_factory']}()"
    return keywords.get("default")
