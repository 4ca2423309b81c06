"""Where a model is looked for, in which order, and what is said when there is none."""

import pytest

from bitnet_core import ModelNotFoundError, discovery
from bitnet_core.discovery import find_model, model_or_synthetic, qk256_model

OFFICIAL = "models/microsoft-bitnet-b1.58-2B-4T-gguf"


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """A repository with the working directory two levels below its root; the package belongs to another one."""
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    here = tmp_path / "repo" / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    package = tmp_path / "package"
    package.mkdir()
    (package / "pyproject.toml").touch()
    monkeypatch.setattr(discovery, "_package_root", lambda: package)
    monkeypatch.delenv("BITNET_GGUF", raising=False)
    monkeypatch.delenv("BITNET_QK256_MODEL", raising=False)
    monkeypatch.setenv("BITNET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "repo"


def make(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def test_environment_variable_comes_first(repo, monkeypatch):
    make(repo / OFFICIAL / "ggml-model-i2_s.gguf")
    mine = make(repo / "a" / "b" / "mine.gguf")
    monkeypatch.setenv("BITNET_GGUF", "mine.gguf")
    assert find_model() == mine
    monkeypatch.setenv("BITNET_GGUF", "")  # the same as not set
    assert find_model() != mine


def test_environment_variable_naming_nothing_is_an_error(repo, monkeypatch):
    make(repo / OFFICIAL / "ggml-model-i2_s.gguf")
    monkeypatch.setenv("BITNET_GGUF", "/no/such.gguf")
    with pytest.raises(FileNotFoundError, match="BITNET_GGUF is set") as caught:
        find_model()
    assert caught.value.filename == "/no/such.gguf"
    with pytest.raises(FileNotFoundError, match="BITNET_GGUF is set"):
        model_or_synthetic("tiny")


def test_home_folder_is_expanded(repo, monkeypatch):
    monkeypatch.setenv("HOME", str(repo))
    mine = make(repo / "mine.gguf")
    monkeypatch.setenv("BITNET_GGUF", "~/mine.gguf")
    assert find_model() == mine


def test_official_folder_before_any_other_model(repo):
    """From the least wanted to the most wanted: each new file wins over all before it."""
    other = repo.parent / "package"
    for path in (
        other / "models" / "a.gguf",
        repo / "models" / "z.gguf",
        repo / "models" / "deep" / "er" / "y.gguf",
        repo / "a" / "b" / "models" / "z.gguf",
        other / OFFICIAL / "model.gguf",
        other / OFFICIAL / "ggml-model-i2_s.gguf",
        repo / OFFICIAL / "model.gguf",
        repo / OFFICIAL / "ggml-model-i2_s.gguf",
        repo / "a" / OFFICIAL / "model.gguf",
        repo / "a" / "b" / OFFICIAL / "model.gguf",
    ):
        make(path)
        assert find_model() == path


def test_beyond_the_repository_root_is_not_looked_at(repo):
    make(repo.parent / OFFICIAL / "model.gguf")
    with pytest.raises(ModelNotFoundError):
        find_model()


@pytest.mark.usefixtures("repo")
def test_outside_a_repository_only_the_working_directory(tmp_path, monkeypatch):
    here = tmp_path / "plain" / "folder"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    make(here.parent / "models" / "a.gguf")
    with pytest.raises(ModelNotFoundError):
        find_model()
    inside = make(here / "models" / "b.gguf")
    assert find_model() == inside


@pytest.mark.usefixtures("repo")
def test_installed_package_has_no_repository(tmp_path):
    (tmp_path / "package" / "pyproject.toml").unlink()  # site-packages has none
    make(tmp_path / "package" / "models" / "a.gguf")
    with pytest.raises(ModelNotFoundError):
        find_model()


def test_folder_with_the_name_of_a_model_is_none(repo):
    (repo / "models" / "a.gguf").mkdir(parents=True)
    with pytest.raises(ModelNotFoundError):
        find_model()


def test_message_lists_every_place(repo, tmp_path):
    with pytest.raises(ModelNotFoundError) as caught:
        find_model()
    looked_at = caught.value.looked_at
    roots = [repo / "a" / "b", repo / "a", repo, tmp_path / "package"]
    assert looked_at == (
        "BITNET_GGUF (not set)",
        *(str(root / OFFICIAL / name) for root in roots for name in ("ggml-model-i2_s.gguf", "model.gguf")),
        *(str(root / "models" / "**" / "*.gguf") for root in roots),
    )
    for place in looked_at:
        assert place in str(caught.value)


def test_model_or_synthetic(repo):
    seen = []
    path, synthetic = model_or_synthetic("tiny", progress=lambda *_: seen.append(1))
    assert synthetic
    assert path.parent == repo.parent / "cache"
    assert path.is_file()
    assert seen
    mine = make(repo / "models" / "mine.gguf")
    assert model_or_synthetic("tiny") == (mine, False)


def test_qk256_model(repo, monkeypatch):
    assert qk256_model() is None
    mine = make(repo / "q.gguf")
    monkeypatch.setenv("BITNET_QK256_MODEL", str(mine))
    assert qk256_model() == mine


@pytest.mark.parametrize("value", ["set", "1", "/no/such.gguf", "/"])
def test_qk256_model_is_only_an_existing_file(monkeypatch, value):
    monkeypatch.setenv("BITNET_QK256_MODEL", value)
    assert qk256_model() is None


def test_hidden_files_are_no_models(repo):
    make(repo / "models" / ".half.gguf")
    make(repo / "models" / ".download" / "a.gguf")
    with pytest.raises(ModelNotFoundError):
        find_model()
    path = make(repo / "models" / "z.gguf")
    assert find_model() == path
