"""Failpoints: places where a test makes the process die, fail or wait."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from jivs_pipeline.core.errors import ConfigError, TransientError
from jivs_pipeline.infra.failpoints import arm, failpoint


@pytest.fixture(autouse=True)
def disarmed():
    yield
    arm(None)


@pytest.mark.parametrize("text", [None, "", "other:error", "here@2:error"])
def test_a_place_that_is_not_armed_is_passed(text):
    arm(text)
    failpoint("here")


def test_an_error_is_transient_and_comes_once():
    arm("here:error")
    with pytest.raises(TransientError, match="here"):
        failpoint("here")
    failpoint("here")


def test_a_count_names_the_time_of_passing():
    arm("here@3:error,there:error")
    failpoint("here")
    failpoint("here")
    with pytest.raises(TransientError, match="there"):
        failpoint("there")
    with pytest.raises(TransientError, match="here"):
        failpoint("here")
    failpoint("here")


def test_arming_again_forgets_what_was_passed():
    arm("here@2:error")
    failpoint("here")
    arm("here@2:error")
    failpoint("here")
    with pytest.raises(TransientError):
        failpoint("here")


def test_sleep_waits():
    arm("here:sleep=0.05")
    began = time.monotonic()
    failpoint("here")
    assert time.monotonic() - began >= 0.05


def test_kill_kills():
    code = "from jivs_pipeline.infra.failpoints import *; arm('here:kill'); failpoint('here'); print('alive')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b""


@pytest.mark.parametrize(
    "text",
    [
        "here",
        "here:",
        "here:die",
        "here:sleep",
        "here:sleep=",
        "here:sleep=long",
        "here:kill=3",
        "here@x:kill",
        "here@-1:kill",
        "a:error,b",
    ],
)
def test_a_text_that_is_no_failpoint_is_refused_and_arms_nothing(text):
    with pytest.raises(ConfigError, match="JIVS_FAILPOINT"):
        arm(text)
    failpoint("a")
