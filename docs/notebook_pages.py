"""Brings `notebooks/`, which stands beside `docs/`, into the site: an MkDocs hook.

The plugin `ipynb` makes a page of each notebook, outputs included. Links between the two folders
are written as they are in the repository, so that they work there too.
"""

import pathlib

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


@event_priority(100)  # before the plugin looks for notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in sorted((pathlib.Path(config.docs_dir).parent / "notebooks").glob("*.ipynb")):
        uri = f"notebooks/{path.name}"
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    return links_of_site(markdown, page.file.src_uri)


def links_of_site(markdown: str, uri: str) -> str:
    """Links from `docs/` to `notebooks/` and back, in a site where the second is in the first."""
    if uri.startswith("notebooks/"):
        return markdown.replace("](../docs/", "](../")
    up = "../" * uri.count("/")
    return markdown.replace(f"]({up}../notebooks/", f"]({up}notebooks/")
