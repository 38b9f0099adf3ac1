"""Makes transformers' own tests importable from where `fetch.py` unpacked them (TRANSFORMERS_SOURCE).

Its source distribution leaves out four helpers that the tests import. What stands in for them here takes away the tests
of exporters and of text generation, which ACE-BERT has none of, and the check of `config_common_kwargs`, which the
library itself doesn't apply to a config that is made of others.
"""

import os
import sys
from types import ModuleType
from typing import Any

import pytest

source = os.environ.get("TRANSFORMERS_SOURCE")
if not source or not os.path.isdir(os.path.join(source, "tests")):
    raise pytest.UsageError(
        "TRANSFORMERS_SOURCE names no folder with transformers' tests: run `make test-transformers`."
    )


def stand_in(name: str, **members: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


sys.path.insert(0, source)
stand_in("tests.exporters")
stand_in("tests.exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
stand_in("tests.generation")
stand_in("tests.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
stand_in("tests.utils")
stand_in("tests.utils.test_configuration_utils", config_common_kwargs={})
stand_in("fetch_hub_objects_for_ci", url_to_local_path=lambda url: url)
