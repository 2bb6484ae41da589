"""What is in `monitoring/` and `docs/runbooks/` fits the exporter, the command line and each other.

What belongs here: names. What does not: whether alerts fire (`integration/test_alert_rules.py`).
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from jivs_pipeline.cli import app
from jivs_pipeline.core.breaker import BreakerState
from jivs_pipeline.infra.exporter.control import Buckets, ControlReading
from jivs_pipeline.infra.exporter.dagster_storage import DagsterReading
from jivs_pipeline.infra.exporter.families import families
from jivs_pipeline.infra.exporter.parts import Look
from jivs_pipeline.infra.exporter.redis_server import RedisReading
from jivs_pipeline.infra.exporter.surroundings import Disk
from jivs_pipeline_tests.fix_exporter import CONTRACT

ROOT = Path(__file__).resolve().parents[2]
MONITORING, RUNBOOKS = ROOT / "monitoring", ROOT / "docs" / "runbooks"
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "prometheus-alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((MONITORING / "grafana-dashboard-workflow.json").read_text())
SEVERITIES = {
    "critical": {
        "JivsFailureRateCritical", "JivsBreakerOpen", "JivsRunSlotsExhausted", "JivsConnectionsExhausted", "JivsMigrationStuck",
    },
    "warning": {
        "JivsFailureRateElevated", "JivsDurationHigh", "JivsEventQueueLong", "JivsRunSlotsHigh", "JivsRedisFailing",
        "JivsRequestQueueGrowing", "JivsConnectionsHigh",
    },
    "info": {"JivsThroughputLow", "JivsIdle", "JivsRecordFailureRateHigh"},
}  # fmt: skip
WATCH = {
    "JivsDaemonDead": "critical", "JivsHeartbeatLost": "warning", "JivsComponentDown": "critical", "JivsExporterDown": "critical"
}  # fmt: skip


def exported() -> set[str]:
    """Names that the exporter gives when every part has something to tell."""
    zero: Any = {
        "active": 0, "queued": 0, "slots_used": 0, "conflicts": 0, "records_failed": 0, "breaker_opened": 0,
        "events_published": 0, "events_waiting": 0, "events_waiting_seconds": 0, "requests_waiting": 0,
        "requests_waiting_seconds": 0,
    }  # fmt: skip
    target = {
        "target": "w",
        "started": 0,
        "resumed": 0,
        "completed": 0,
        "failed": 0,
        "paused": 0,
        "cancelled": 0,
    }
    row = {
        "key": "k", "source": "s", "target": "w", "phase": "load", "run_id": "r", "rows_done": 0, "rows_total": 0,
        "progress_seconds": 0, "silent_seconds": 0, "lease_seconds": 1,
    }  # fmt: skip
    buckets = Buckets((("1", 0), ("+Inf", 0)), 0)
    sessions = {"active": 0, "idle": 0, "other": 0, "free": 1}
    control = ControlReading(
        [{**target, "rows": 0, "bytes": 0, "retries": 0}],
        zero,
        [row],
        buckets,
        {"load": buckets},
        50,
        sessions,
    )
    values = {
        "control_database": control, "dagster_storage": DagsterReading(1.0, {}),
        "redis": RedisReading({"w@1": BreakerState.CLOSED}, 0, 0, 0, 0, 0), "code_location": None, "disk": Disk(1, 1), "targets": {},
    }  # fmt: skip
    looks = {name: Look(value, "", 0.0) for name, value in values.items()}
    return {sample.name for family in families(looks) for sample in family.samples}


EXPORTED = exported()
_NAME = re.compile(r"\b((?:migrations?|jivs|dagster)_[a-z_]+)\b")


def used(text: str) -> set[str]:
    return set(_NAME.findall(text))


def test_the_exporter_has_the_contracts_names() -> None:
    assert EXPORTED >= CONTRACT


def test_rules_use_what_the_exporter_has() -> None:
    for rule in RULES:
        names = used(rule["expr"])
        assert names <= EXPORTED, rule["alert"]
        assert names or "up{" in rule["expr"]


def test_panels_use_what_the_exporter_has() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            assert used(target["expr"]), panel["title"]
            assert used(target["expr"]) <= EXPORTED, panel["title"]


def test_the_page_of_metrics_lists_all_of_them() -> None:
    """Of a histogram its one name."""
    bare = {re.sub(r"_(bucket|sum|count)$", "", n) if "duration" in n else n for n in EXPORTED}
    table = [
        line for line in (ROOT / "docs" / "metrics.md").read_text().splitlines() if line.startswith("| `")
    ]
    assert {
        name for line in table for name in re.findall(r"`([a-z_]+)(?:\{[^}]*\})?`", line.split(" | ")[0])
    } == bare


# ── The dashboard ────────────────────────────────────────────────────────────────────────────────────────


def test_the_dashboard_has_its_twelve_panels() -> None:
    assert [p["title"] for p in DASHBOARD["panels"]] == [
        "Active migrations", "Throughput per minute", "Failure rate", "Duration of runs", "Run slots", "Circuit breakers",
        "Database connections", "Event fallback queue", "Records processed and failed", "Phase durations",
        "Redis operations", "Request queue",
    ]  # fmt: skip
    assert len({p["id"] for p in DASHBOARD["panels"]}) == 12
    places = [tuple(p["gridPos"].values()) for p in DASHBOARD["panels"]]
    assert len(set(places)) == 12


def test_the_dashboard_can_be_narrowed_and_leads_to_the_run() -> None:
    variables = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
    assert {"datasource", "target", "migration", "dagster"} == set(variables)
    assert used(variables["target"]["definition"]) | used(variables["migration"]["definition"]) <= EXPORTED
    text = json.dumps(DASHBOARD["panels"])
    assert "$target" in text
    assert "$migration" in text
    assert "${dagster}/runs/${__data.fields.run_id}" in text
    assert sum(len(p["fieldConfig"]["defaults"]["thresholds"]["steps"]) > 1 for p in DASHBOARD["panels"]) >= 5


# ── Alerts ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_fifteen_alerts_and_their_severities() -> None:
    found: dict[str, set[str]] = {}
    for rule in RULES:
        if rule["alert"] not in WATCH:
            found.setdefault(rule["labels"]["severity"], set()).add(rule["alert"])
        else:
            assert rule["labels"]["severity"] == WATCH[rule["alert"]]
    assert found == SEVERITIES
    assert len(RULES) == 15 + len(WATCH)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r["alert"])
def test_an_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert set(notes) == {"summary", "command", "runbook_url"}
    page = ROOT / notes["runbook_url"]
    text = page.read_text()
    assert page == RUNBOOKS / f"{rule['alert']}.md"
    assert text.startswith(f"# {rule['alert']}\n\n*{rule['labels']['severity']}.* ")
    for part in ("## Look at\n", "## Do\n"):
        assert part in text
    assert commands(text), "no command"
    if notes["command"].startswith("jivs"):
        check(re.sub(r"{{.*?}}", "KEY", notes["command"]))


def test_every_page_is_of_an_alert() -> None:
    assert {p.stem for p in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in RULES}
    for page in RUNBOOKS.glob("*.md"):
        for link in re.findall(r"\]\((\w+\.md)\)", page.read_text()):
            assert (RUNBOOKS / link).exists(), (page.name, link)


def commands(text: str) -> list[str]:
    """Lines of blocks, and code in sentences, that are commands of ours."""
    found = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    found += re.findall(r"`(jivs [^`]+)`", text)
    return [line.split("#")[0].strip() for line in found if line.startswith("jivs ")]


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda p: p.stem)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    for command in commands(page.read_text()):
        check(command)


def check(command: str) -> None:
    """The command line has this command, with these options and that many arguments."""
    words = shlex.split(command)[1:]
    known: Any = typer.main.get_command(app)
    while words and not words[0].startswith("-") and hasattr(known, "commands"):
        assert words[0] in known.commands, command
        known = known.commands[words.pop(0)]
    options = {name for parameter in known.params for name in parameter.opts if name.startswith("-")}
    given = [w for w in words if w.startswith("-")]
    assert set(given) <= options | {"--help"}, command
    with_value = {
        n for p in known.params for n in p.opts if n.startswith("-") and not getattr(p, "is_flag", False)
    }
    values = [words[i + 1] for i, w in enumerate(words[:-1]) if w in with_value]
    arguments = [w for w in words if not w.startswith("-") and w not in values]
    needed = [p for p in known.params if p.param_type_name == "argument"]
    assert sum(p.required for p in needed) <= len(arguments) <= len(needed), command


def test_alertmanager_routes_every_severity() -> None:
    example = yaml.safe_load((MONITORING / "alertmanager.example.yml").read_text())
    receivers = {r["name"] for r in example["receivers"]}
    routes = {m: r["receiver"] for r in example["route"]["routes"] for m in r["matchers"]}
    assert routes == {
        'severity="critical"': "on-call",
        'severity="warning"': "team",
        'severity="info"': "log",
    }
    assert {example["route"]["receiver"], *routes.values()} <= receivers
    named = set(re.findall(r'alertname="(\w+)"', json.dumps(example).replace('\\"', '"')))
    assert named <= {rule["alert"] for rule in RULES}


def test_grafana_finds_its_data() -> None:
    """The dashboard lets one choose the data source; the provisioned one is the default."""
    (source,) = yaml.safe_load((MONITORING / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((MONITORING / "provisioning/dashboards/jivs.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert DASHBOARD["panels"][0]["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
