"""Fixtures are in plugins, one per concern."""

pytest_plugins = [
    "jivs_pipeline_tests.fix_faults",
    "jivs_pipeline_tests.fix_case",
    "jivs_pipeline_tests.fix_cli",
    "jivs_pipeline_tests.fix_engine",
    "jivs_pipeline_tests.fix_postgresql",
    "jivs_pipeline_tests.fix_control",
    "jivs_pipeline_tests.fix_dagster",
    "jivs_pipeline_tests.fix_breakers",
    "jivs_pipeline_tests.fix_exporter",
    "jivs_pipeline_tests.fix_prometheus",
    "jivs_pipeline_tests.faults.here",
    "jivs_pipeline_tests.faults.servers",
    "jivs_pipeline_tests.faults.wire",
    "jivs_pipeline_tests.fix_redis",
    "jivs_pipeline_tests.fix_mysql",
    "jivs_pipeline_tests.fix_odbc",
]
