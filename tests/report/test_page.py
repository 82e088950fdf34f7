"""The page itself, also as a browser sees it."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from pydec.cli.main import main

from .made import made

pytest.importorskip("matplotlib")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MOST_BYTES = 3_000_000


class Checked(HTMLParser):
    """Counts elements; every name is unique and every one that is used is there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.names: list[str] = []
        self.outside: list[str] = []
        self.feed(text)
        self.used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(
            re.findall(r'xlink:href="#([^"]+)"', text)
        )

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name == "id":
                self.names.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:")):
                self.outside.append(value)


def report(*words: str) -> int:
    return main(["report", *map(str, words)])


def test_one_run_is_one_page_of_its_own(tmp_path, capsys):
    run = made(tmp_path / "run", dies=1)
    assert report(run) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    text = (run / "report.html").read_text()
    seen = Checked(text)
    assert seen.tags["svg"] == 3 + 3 + 3 + 3 + 4 + 2
    assert "script" not in seen.tags
    assert not seen.outside
    assert len(seen.names) == len(set(seen.names))
    assert seen.used <= set(seen.names)
    for words in ("rank 1 lost: killed &lt;by&gt; a test", "certified checkpoint", "evicted", "toy:blobs"):
        assert words in text
    assert "#0102" not in text  # every colour is one of the page's


def test_the_page_says_where_the_trace_is(tmp_path):
    run = made(tmp_path / "run", done=False)
    assert report(run) == 0
    assert "trace.json" not in (run / "report.html").read_text()
    (run / "trace").mkdir()
    (run / "trace" / "rank-0.jsonl").write_text('{"pid":0}\n')
    assert report(run) == 0
    assert "trace.json: open it at" in (run / "report.html").read_text()
    assert json.loads((run / "trace.json").read_text())["traceEvents"] == [{"pid": 0}]


def test_several_runs_are_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [made(tmp_path / name / "run", options={"compressor": name}) for name in ("int8", "none")]
    assert report(*runs, "--title", "a & b") == 0
    text = (tmp_path / "report.html").read_text()
    assert "<title>a &amp; b</title>" in text
    assert f"<th>{runs[0]}</th><th>{runs[1]}</th>" in text  # the last parts of the paths are the same
    assert "<td>int8</td><td>none</td>" in text


def test_a_long_run_makes_no_large_page(tmp_path):
    run = made(tmp_path / "run", steps=3000)
    assert report(run) == 0
    assert (run / "report.html").stat().st_size < MOST_BYTES


def test_a_live_run_is_watched_until_it_ends(tmp_path, monkeypatch, capsys):
    run = made(tmp_path / "run", done=False)
    pages = []

    def sleep(seconds):
        pages.append((run / "report.html").read_text())
        (run / "summary.json").write_text('{"status": "done"}')

    monkeypatch.setattr("time.sleep", sleep)
    assert report(run, "--watch", "--every", "2") == 0
    assert len(pages) == 1
    assert '<meta http-equiv="refresh" content="2">' in pages[0]
    assert "http-equiv" not in (run / "report.html").read_text()
    assert "run at step 40" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no run directory"),
        (["run", "run"], "a run is named twice"),
        (["run", "-o", "notes.html"], "notes.html is there and no report"),
        (["run", "-o", "."], ". is a directory"),
        (["run", "--watch", "--every", "0"], "--every takes seconds above 0, got 0"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "run")
    (tmp_path / "notes.html").write_text("mine")
    assert report(*words) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "notes.html").read_text() == "mine"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium; on Debian: apt install chromium")
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_all_of_it(tmp_path, width, dark):
    """Nothing is wider than the window, charts and text have a readable size, and no complaint is made."""
    run = made(tmp_path / "run", dies=1)
    assert report(run) == 0
    page = html.escape((run / "report.html").read_text(), quote=True)
    looks = tmp_path / "looks.html"
    looks.write_text(f"""<!doctype html><link rel="icon" href="data:,">
        <iframe style="width: {width}px; height: 800px; border: 0" srcdoc="{page}"></iframe>
        <script>window.onload = () => {{
          const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
          const sizes = what => [...page.querySelectorAll(what)].map(each => each.getBoundingClientRect());
          const charts = sizes("figure svg"), texts = sizes("figure svg text").map(text => text.height);
          document.title = [root.scrollWidth, charts.length, Math.min(...charts.map(c => c.width)),
            Math.min(...texts), getComputedStyle(page.body).backgroundColor].join("|");
        }}</script>""")
    shown = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         f"--user-data-dir={tmp_path}/profile", "--window-size=1400,900",
         *(["--force-dark-mode"] if dark else []), f"file://{looks}"],
        capture_output=True, text=True, timeout=100, check=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr
    found = html.unescape(re.search(r"<title>(.*?)</title>", shown.stdout)[1]).split("|")
    wide, charts, chart_width, text_height = map(float, found[:4])
    assert wide <= width
    assert charts == 18
    assert chart_width >= 280
    assert text_height >= 9.0
    assert found[4] == ("rgb(21, 23, 26)" if dark else "rgb(255, 255, 255)")
