"""CITATION.cff is valid for its schema's required keys and cites the version that is installed."""

import importlib.metadata
import tomllib

import pytest
import yaml
from support.checkout import ROOT


@pytest.fixture(scope="module")
def citation():
    # BaseLoader: every value stays the string that stands in the file.
    return yaml.load((ROOT / "CITATION.cff").read_text(), Loader=yaml.BaseLoader)


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_follows_cff_1_2_0(citation):
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)


def test_every_author_has_a_name(citation):
    people = [citation["authors"], *(work["authors"] for work in citation["references"])]
    for author in (author for authors in people for author in authors):
        assert "name" in author or {"family-names", "given-names"} <= set(author)


def test_every_reference_says_what_it_is(citation):
    for work in citation["references"]:
        assert {"type", "title", "authors"} <= set(work)


def test_version_is_the_projects(citation, project):
    assert citation["version"] == project["version"]


def test_version_is_the_installed_one(citation):
    assert citation["version"] == importlib.metadata.version("ndekit")


def test_license_is_the_projects(citation, project):
    assert citation["license"] == project["license"]
