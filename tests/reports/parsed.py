"""What tests look at on a page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from wpt_bench.analysis.compare import compare_runs
from wpt_bench.analysis.experiment import summarise
from wpt_bench.analysis.scores import read
from wpt_bench.reports import page

VOID = {"meta", "br", "hr", "img", "link", "input", "source"}
SILENT = {"script", "style"}
ADDRESSES = {"src", "href", "xlink:href", "srcset", "data", "action", "formaction", "poster", "ping", "background"}


class Parsed(HTMLParser):
    """Collects what the tests look at, and checks that every element is closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.attributes, self.text, self.ids, self.scripts = [], [], [], [], []
        self.source = path.read_text()
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag == "script":
            self.scripts.append((dict(attributes), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))
        if not self.open or self.open[-1] not in SILENT:
            self.text.append(data)

    @property
    def words(self):
        """What a reader reads."""
        return " ".join(" ".join(self.text).split())

    @property
    def tags(self):
        return {tag for tag, _, _ in self.attributes}

    @property
    def panels(self):
        return json.loads(self.scripts[0][1])

    def of(self, name):
        """Values of an attribute, in order."""
        return [value for _, own, value in self.attributes if own == name]

    def check_harmless(self):
        """The promises of a page that needs no network and runs nothing but its own script."""
        addresses = [value for _, name, value in self.attributes if name in ADDRESSES]
        assert addresses and all(re.match(r"#|data:image/png;base64,", address) for address in addresses)
        assert {address[1:] for address in addresses if address.startswith("#")} <= set(self.ids)
        assert set(re.findall(r"url\(([^)]*)\)", self.source)) <= {f"#{name}" for name in self.ids}
        assert re.findall(r"@import|https?:|javascript:", self.source) == []
        assert not self.tags & {"link", "iframe", "object", "embed", "img", "base", "form"}
        assert [name for name in (name for _, name, _ in self.attributes) if name.startswith("on")] == []
        assert [attributes for attributes, _ in self.scripts] == [{"type": "application/json", "id": "panels"}, {}]
        assert len(re.findall("<script", self.source, flags=re.IGNORECASE)) == 2
        assert self.scripts[1][1].strip() == (Path(page.__file__).parent / "templates" / "page.js").read_text().strip()
        assert isinstance(self.panels, dict)


def render(root, out, *, title="A title", suite="dmc", profile="quick", expected=None, plans=(), **options):
    """The page of all runs below a folder."""
    reading = read(root)
    comparisons = compare_runs(reading, suite=suite, profile=profile, expected=expected, plans=plans)
    experiments = [summarise(plan, reading) for plan in plans]
    return Parsed(page.write(comparisons, out, title=title, experiments=experiments, **options))
