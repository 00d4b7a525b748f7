"""What keeps a release back: versions that disagree, a change log that is behind, an sdist with holes."""

import io
import tarfile

import pytest

from tools import release


@pytest.fixture
def project(tmp_path):
    (tmp_path / "edgemeta").mkdir()
    (tmp_path / "edgemeta" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3]: 2026-01-01\n")
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "edgemeta-1.2.3-py3-none-any.whl").touch()
    (dist / "edgemeta-1.2.3.tar.gz").touch()
    return tmp_path


@pytest.mark.parametrize("tag", ["v1.2.3", "1.2.3", None])
def test_versions_that_agree(project, tag):
    assert release.versions(project, project / "dist", tag) == "1.2.3"


def test_a_tag_of_another_version(project):
    with pytest.raises(release.NotReady, match=r"the tag is v1\.2\.4, and the code 1\.2\.3"):
        release.versions(project, project / "dist", "v1.2.4")


def test_a_change_log_that_is_behind(project):
    (project / "CHANGELOG.md").write_text("## [Unreleased]: 1.2.3\n")
    with pytest.raises(release.NotReady, match=r"no section 1\.2\.3"):
        release.versions(project, project / "dist", "v1.2.3")


def test_files_of_another_version(project):
    (project / "dist" / "edgemeta-1.2.3.tar.gz").rename(project / "dist" / "edgemeta-1.2.2.tar.gz")
    with pytest.raises(release.NotReady, match=r"no single edgemeta-1\.2\.3\.tar\.gz"):
        release.versions(project, project / "dist", None)


def test_an_sdist_with_holes(project):
    with tarfile.open(project / "dist" / "edgemeta-1.2.3.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("edgemeta-1.2.3/pyproject.toml")
        archive.addfile(info, io.BytesIO(b""))
    with pytest.raises(release.NotReady, match="the sdist lacks README.md"):
        release.source(project / "dist", "1.2.3")
