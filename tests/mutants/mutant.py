"""What a mutant is: one fault in one file, and the tests that must fail with it."""

import dataclasses
import pathlib


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault: `new` in the place of `old`, which stands once in the file of `module`."""

    name: str
    module: str
    old: str
    new: str
    what: str  # what it breaks
    tests: tuple[str, ...]  # files or node ids, from the root of the checkout

    def path(self, root: pathlib.Path) -> pathlib.Path:
        return root.joinpath(*self.module.split(".")).with_suffix(".py")

    def misfit(self, root: pathlib.Path) -> str | None:
        """Why it does not fit the code under `root`; `None` if it does."""
        path = self.path(root)
        if not path.is_file():
            return f"{self.name}: there is no module `{self.module}`."
        if (number := path.read_text().count(self.old)) != 1:
            return f"{self.name}: {self.old!r} stands {number} times in `{self.module}`, not once."
        for test in self.tests:
            file, *names = test.split("[")[0].split("::")
            text = root.joinpath(file).read_text() if root.joinpath(file).is_file() else None
            if text is None or any(f" {name}" not in text for name in names):
                return f"{self.name}: there is no `{test}`."
        return None

    def put_into(self, root: pathlib.Path) -> None:
        """Change the file of `module` under `root`."""
        path = self.path(root)
        path.write_text(path.read_text().replace(self.old, self.new))
        # Bytecode is told by seconds and bytes, and a changed sign changes neither.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()
