"""Runs notebooks in full and keeps what they show.

`python notebooks/run_all.py [FILE ...]`: all of them if none is named, one
after the other. Each takes some minutes on two CPU cores.
"""

import pathlib
import sys

import nbclient
import nbformat


def run(path):
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=3600,
        record_timing=False,
        coalesce_streams=True,  # one box on the page for all that a cell prints
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    # The version of Python is not part of the notebook.
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    named = [pathlib.Path(name) for name in sys.argv[1:]]
    for path in named or sorted(pathlib.Path(__file__).parent.glob("*.ipynb")):
        print(path, flush=True)
        run(path)
