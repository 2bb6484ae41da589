"""JIVS_* variables: names, defaults, and the sentence for a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.settings import Settings

CONTRACT = {
    "JIVS_LEASE_SECONDS": ("lease_seconds", 300),
    "JIVS_LOCK_WAIT_SECONDS": ("lock_wait_seconds", 30),
    "JIVS_IO_TIMEOUT_SECONDS": ("io_timeout_seconds", 30),
    "JIVS_LOAD_TIMEOUT_SECONDS": ("load_timeout_seconds", 1200),
    "JIVS_UI_PORT": ("ui_port", 3000),
    "JIVS_METRICS_PORT": ("metrics_port", 9464),
    "JIVS_RETENTION_DAYS": ("retention_days", 90),
}
OPTIONAL = {
    "JIVS_CONTROL_URL": "control_url",
    "JIVS_DAGSTER_URL": "dagster_url",
    "JIVS_REDIS_URL": "redis_url",
    "JIVS_STAGING_URL": "staging_url",
    "JIVS_CONNECTIONS": "connections",
    "JIVS_PYTHON_RULES": "python_rules",
    "JIVS_FAILPOINT": "failpoint",
}


@pytest.mark.parametrize(("variable", "field", "default"), [(v, f, d) for v, (f, d) in CONTRACT.items()])
def test_numbers_have_the_contracts_name_and_default(variable, field, default):
    assert getattr(Settings.from_environment({}), field) == default
    assert getattr(Settings.from_environment({variable: "77"}), field) == 77


@pytest.mark.parametrize(("variable", "field"), OPTIONAL.items())
def test_everything_else_is_unset_by_default(variable, field):
    assert getattr(Settings.from_environment({}), field) is None
    assert getattr(Settings.from_environment({variable: "/x"}), field) is not None


@pytest.mark.parametrize("variable", [*CONTRACT, *OPTIONAL, "JIVS_HOME"])
def test_an_empty_variable_counts_as_unset(variable):
    assert Settings.from_environment({variable: "", "HOME": "/h"}) == Settings.from_environment(
        {"HOME": "/h"}
    )


@pytest.mark.parametrize("text", ["abc", "-1", "nan", "inf", "1e400", "1 h"])
@pytest.mark.parametrize("variable", [v for v in CONTRACT if v.endswith("SECONDS")])
def test_a_duration_that_is_none_names_its_variable(variable, text):
    with pytest.raises(ConfigError, match=variable) as caught:
        Settings.from_environment({variable: text})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["70000", "-1", "http", "80.5"])
def test_a_port_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="JIVS_UI_PORT"):
        Settings.from_environment({"JIVS_UI_PORT": text})


def test_only_waiting_for_the_lock_may_take_no_time():
    assert Settings.from_environment({"JIVS_LOCK_WAIT_SECONDS": "0"}).lock_wait_seconds == 0
    for variable in ("JIVS_LEASE_SECONDS", "JIVS_IO_TIMEOUT_SECONDS", "JIVS_LOAD_TIMEOUT_SECONDS"):
        with pytest.raises(ConfigError, match=variable):
            Settings.from_environment({variable: "0"})


def test_home_is_below_the_users_home_and_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Settings.from_environment({"HOME": "/h"}).home == Path("/h/.jivs")
    assert Settings.from_environment({"HOME": "/h", "JIVS_HOME": "rel"}).home == tmp_path / "rel"
    assert Settings.from_environment({}).home == Path("/tmp/.jivs")


def test_staging_is_a_directory_below_home_unless_said_otherwise():
    def staging(url: str) -> Path:
        return Settings.from_environment({"JIVS_HOME": "/j", "JIVS_STAGING_URL": url}).staging_directory

    assert staging("") == Path("/j/staging")
    assert staging("/big/disk") == Path("/big/disk")
    assert staging("file:///big/disk") == Path("/big/disk")
    with pytest.raises(ConfigError, match="JIVS_STAGING_URL"):
        staging("s3://bucket/x")


def test_urls_with_passwords_are_not_shown():
    settings = Settings.from_environment(
        {v: "redis://:hunter2@h" for v in OPTIONAL if v.endswith("_URL") and "STAGING" not in v}
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump(mode="json"))
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:hunter2@h"


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        Settings.from_environment({}).ui_port = 1
