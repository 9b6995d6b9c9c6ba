"""A small run of the whole: every part works, and the client tells the truth."""

import html.parser
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hearth"
ARMS = ("direct", "envoy", "epp-approximate", "envoy-hearth", "vllm-router-cache", "smg-cache",
        "hearth-tokenized")


class Links(html.parser.HTMLParser):
    """What a page would load from elsewhere."""

    def __init__(self):
        super().__init__()
        self.outside = []

    def handle_starttag(self, tag, attributes):
        self.outside += [value for name, value in attributes
                         if name in ("src", "href", "xlink:href")
                         and value and not value.startswith("#")]


class SmallRun(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = Path(scratch.name) / "run"
        [envoy] = CACHE.glob("envoy-1.40.0/lib/python3*/site-packages/envoy/_bin/envoy")
        environment = {key: value for key, value in os.environ.items()
                       if key not in ("EPP_BIN", "AGW_BIN")}
        done = subprocess.run(
            [sys.executable, HERE / "main.py", "--quick", "--out", cls.folder, "--envoy", envoy,
             "--hearth", os.environ["HEARTH_BINARY"], "--cache", CACHE,
             "--loadtest", os.environ["LOADTEST_BINARY"], "--arms", *ARMS],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout
        lines = (cls.folder / "records.jsonl").read_text().splitlines()
        cls.records = [json.loads(line) for line in lines]
        cls.facts = json.loads((cls.folder / "facts.json").read_text())
        cls.output = done.stdout

    def test_every_arm_that_is_here_was_measured_without_an_error(self):
        wrong = [record for record in self.records if record.get("not_run") or record["errors"]]
        self.assertEqual(wrong, [], self.output)
        cells = {(record["arm"], record["cell"]) for record in self.records
                 if record["kind"] == "cost"}
        self.assertEqual(len(cells), 12)
        deciding = {record["arm"] for record in self.records if record["kind"] == "quality"}
        self.assertEqual(deciding, set(ARMS) - {"direct", "epp-approximate"})

    def test_an_arm_that_is_not_here_is_a_row_that_says_so(self):
        [epp] = [arm for arm in self.facts["arms"] if arm["name"] == "epp-approximate"]
        self.assertIn("no EPP binary", epp["not_run"])
        self.assertIn("no EPP binary", (self.folder / "report.html").read_text())

    def test_the_client_agrees_with_an_upstream_that_knows_its_delay(self):
        self.assertLess(abs(self.facts["selftest"]["off_percent"]), 5)

    def test_each_arm_was_asked_the_same(self):
        tokens = {record["arm"]: record["queries"] for record in self.records
                  if record["kind"] == "quality"}
        self.assertLess(max(tokens.values()) / min(tokens.values()), 1.02, tokens)

    def test_every_request_is_on_record(self):
        lines = (self.folder / "requests.jsonl").read_text().splitlines()
        deciding = [record for record in self.records if record["kind"] == "quality"]
        self.assertEqual(len(lines), sum(record["answered"] for record in deciding))
        self.assertEqual(len(lines), sum(sum(record["requests"]) for record in deciding))

    def test_the_report_opens_offline_and_its_plots_read_on_any_ground(self):
        page = (self.folder / "report.html").read_text()
        links = Links()
        links.feed(page)
        self.assertEqual(links.outside, [])
        plots = [part.partition("</figure>")[0] for part in page.split("<figure>")[1:]]
        self.assertEqual(len(plots), 5)
        for plot in plots:
            self.assertTrue(ElementTree.fromstring(plot).tag.endswith("svg"))
            self.assertIn("currentColor", plot)
            self.assertNotIn("#000000", plot)


if __name__ == "__main__":
    unittest.main()
