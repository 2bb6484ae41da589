"""Settings of a process, read once from an environment mapping that `runtime.py` hands in.

What belongs here: the variables of CONTRACT.md, their defaults and checks.
What does not: connections (`core/connections.py`) and reading `os.environ`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from jivs_pipeline.core.errors import ConfigError

__all__ = ["LogFormat", "LogLevel", "Settings"]

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseModel):
    """All settings; frozen. Durations are in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    home: Path
    control_url: SecretStr | None = None
    dagster_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    webhook_url: SecretStr | None = None
    webhook_secret: SecretStr | None = None
    report_key: SecretStr | None = Field(default=None, min_length=16)
    staging_url: str | None = None
    connections: Path | None = None
    lease_seconds: float = Field(default=300, gt=0)
    lock_wait_seconds: float = Field(default=30, ge=0)
    io_timeout_seconds: float = Field(default=30, gt=0)
    load_timeout_seconds: float = Field(default=1200, gt=0)
    ui_port: int = Field(default=3000, ge=0, le=65535)
    metrics_port: int = Field(default=9464, ge=0, le=65535)
    python_rules: Path | None = None
    mask_key: SecretStr | None = Field(default=None, min_length=16)
    retention_days: int = Field(default=90, ge=1, le=36500)
    log_format: LogFormat = "console"
    log_level: LogLevel | None = None
    failpoint: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from `JIVS_*` variables; an empty variable counts as unset.

        Raises:
            ConfigError: a value is not of its kind; names the variable.
        """
        values: dict[str, str] = {}
        for name in cls.model_fields:
            if text := environment.get(f"JIVS_{name.upper()}", ""):
                values[name] = text
        home = values.get("home") or str(Path(environment.get("HOME") or "/tmp") / ".jivs")  # noqa: S108 - no home at all
        values["home"] = str(Path(home).expanduser().absolute())
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            variable = f"JIVS_{str(first['loc'][0]).upper()}"
            raise ConfigError(
                f"{variable} is not usable: {first['msg'].lower()}", hint=f"Correct {variable} or unset it"
            ) from None

    @property
    def staging_directory(self) -> Path:
        """Where chunk files go."""
        if self.staging_url is None:
            return self.home / "staging"
        if "://" in self.staging_url and not self.staging_url.startswith("file://"):
            raise ConfigError(
                "JIVS_STAGING_URL names a store that this version cannot write",
                hint="Use a directory, or leave it unset",
            )
        return Path(self.staging_url.removeprefix("file://"))
