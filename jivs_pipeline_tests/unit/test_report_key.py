"""The key that a home signs its reports with: made once, also by many at once, and private."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jivs_pipeline.core.connections import ConnectionBook
from jivs_pipeline.core.errors import ConfigError, ResourceError
from jivs_pipeline.core.settings import Settings
from jivs_pipeline.infra.report_key import made_key, read_key
from jivs_pipeline.runtime import Runtime

MAKER = """
import sys
from pathlib import Path
from jivs_pipeline.infra.report_key import made_key
sys.stdin.readline()
print(made_key(Path(sys.argv[1])).id)
"""


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "home" / "report.key"
    assert read_key(path) is None
    mask = os.umask(0)
    try:
        key = made_key(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["report.key"]
    assert made_key(path) == read_key(path) == key
    assert len(key.secret) == 32
    assert made_key(tmp_path / "report.key") != key


def test_processes_that_make_it_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "report.key"
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    with ThreadPoolExecutor(len(makers)) as pool:
        said = list(pool.map(lambda maker: maker.communicate("go\n", 60)[0].strip(), makers))
    assert len(set(said)) == 1, said
    assert (there := read_key(path)) is not None
    assert there.id == said[0]
    assert [p.name for p in tmp_path.iterdir()] == ["report.key"]


def test_threads_that_make_it_at_once_agree(tmp_path: Path) -> None:
    for n in range(20):
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(made_key, [tmp_path / f"{n}.key"] * 8))
        assert len({key.secret for key in made}) == 1


@pytest.mark.parametrize("text", ["", "short", "g" * 64, "a" * 63, "a" * 65])
def test_what_is_no_key_is_neither_used_nor_replaced(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.key"
    path.write_text(text)
    with pytest.raises(ResourceError, match="holds no report key"):
        made_key(path)
    assert path.read_text() == text


def test_a_home_that_takes_no_key_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be") as caught:
        made_key(tmp_path / "file" / "report.key")
    assert "JIVS_REPORT_KEY" in caught.value.hint
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ResourceError, match="as soon as it was made"):
        made_key(tmp_path / "dangling")


def _runtime(home: Path, **environment: str) -> Runtime:
    settings = Settings.from_environment({"JIVS_HOME": str(home), **environment})
    return Runtime(settings, ConnectionBook({}, {}, home=home))


def test_the_variable_goes_before_the_file(tmp_path: Path) -> None:
    own = _runtime(tmp_path).report_key()
    given = _runtime(tmp_path, JIVS_REPORT_KEY="sixteen letters!").report_key()
    assert given.secret == b"sixteen letters!"
    assert given.id != own.id
    assert _runtime(tmp_path).report_key(make=False) == own


def test_checking_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no key to check with"):
        _runtime(tmp_path).report_key(make=False)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_can_be_guessed_is_refused_and_not_told() -> None:
    with pytest.raises(ConfigError, match="JIVS_REPORT_KEY is not usable") as caught:
        Settings.from_environment({"JIVS_REPORT_KEY": "fifteen letters"})
    assert "fifteen" not in str(caught.value)
