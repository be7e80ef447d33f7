"""`angarium demo --durability local`: what a site took alone, cut off, before it was killed, comes back with it."""

import json
from pathlib import Path

import pytest

from tests.clients.test_demo import demo

pytestmark = [pytest.mark.timeout(300), pytest.mark.long]


def test_mail_that_only_the_killed_site_had_comes_back_with_it(tmp_path: Path) -> None:
    with demo(tmp_path, "--messages", "300", "--durability", "local") as process:
        out, told = process.communicate()
    print(told)
    assert process.returncode == 0, told
    verdict = json.loads(out.splitlines()[-1])
    assert verdict["acknowledged"] >= 300
    assert verdict["lost"] == verdict["doubled"] == verdict["uidvalidity_changes"] == 0
    salvage = verdict["salvage"]
    assert salvage["events"] >= salvage["messages"] > 0, "it took mail alone"
    assert not salvage["reported"]
