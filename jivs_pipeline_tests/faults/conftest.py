"""What all fault tests share."""

from jivs_pipeline_tests.faults.cases import cases

__all__ = ["cases"]
