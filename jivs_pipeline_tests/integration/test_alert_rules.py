"""promtool on what is in `monitoring/`: it is well formed, and every alert fires when it should and only then."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from jivs_pipeline_tests.fix_prometheus import MONITORING, Programs

TESTS = sorted(MONITORING.glob("prometheus-alerts*.test.yml"))


def _promtool(programs: Programs, *arguments: str) -> str:
    ended = subprocess.run(
        [programs.promtool, *arguments],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_configuration_and_rules_are_well_formed(programs: Programs) -> None:
    assert "19 rules found" in _promtool(programs, "check", "config", "prometheus.yml")


@pytest.mark.parametrize("file", [path.name for path in TESTS])
def test_alerts_fire_when_they_should_and_only_then(programs: Programs, file: str) -> None:
    assert "SUCCESS" in _promtool(programs, "test", "rules", file)


def test_every_alert_has_a_case_of_both_kinds() -> None:
    rules = yaml.safe_load((MONITORING / "prometheus-alerts.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    ends: dict[str, set[int]] = {}
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            # The last look decides: a case that fires was silent before.
            last = test["promql_expr_test"][-1]
            alert = test["name"].split()[0]
            assert f'alertname="{alert}"' in last["expr"]
            ends.setdefault(alert, set()).add(last["exp_samples"][0]["value"])
    assert ends == {alert: {0, 1} for alert in alerts}
