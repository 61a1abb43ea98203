"""The HTML page in a real browser: it renders, its script runs, and pointing, sorting and filtering work."""

import json
import re
import struct

import pytest

from npbert.gradcheck.html import page
from tests.gradcheck.browser import open_page, screenshot
from tests.gradcheck.pages import HOSTILE, Reader, failed, hostile, inconclusive, passed

pytestmark = pytest.mark.oracle

# Does what a user does, and leaves what it saw in the page.
USER = """
(() => {
  const seen = {};
  const names = () => [...document.querySelectorAll("#summary tbody tr")]
    .filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
  const click = (column) => document.querySelectorAll("#summary thead button")[column].click();
  const sorted = (column) => document.querySelectorAll("#summary thead th")[column].getAttribute("aria-sort");
  const tip = document.getElementById("tip");

  seen.as_written = names();
  click(0); seen.by_name = names(); seen.name_order = sorted(0);
  click(4); seen.by_error = names(); seen.error_order = sorted(4);
  click(4); seen.by_error_again = names(); seen.name_order_then = sorted(0);
  click(1); seen.by_status = names();
  const find = document.getElementById("find");
  find.value = "LINEAR"; find.oninput(); seen.found = names().sort();
  seen.count = document.getElementById("count").textContent;
  find.value = ""; find.oninput();
  const status = document.getElementById("status");
  status.value = "passed"; status.onchange(); seen.passed = names();
  status.value = ""; status.onchange();

  const map = [...document.querySelectorAll("svg.map")].find((one) =>
    one.getAttribute("aria-label").includes("weight"));
  map.scrollIntoView();
  const box = map.querySelector("rect.no").getBoundingClientRect();
  const point = (row, column) => map.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + (column + 0.5) / 5 * box.width, clientY: box.top + (row + 0.5) / 7 * box.height }));
  seen.hidden_at_first = tip.hidden;
  point(3, 2); seen.tip = tip.textContent; seen.shown = !tip.hidden;
  point(6, 4); seen.other_tip = tip.textContent;
  map.onpointerleave(); seen.hidden_again = tip.hidden;
  const press = (key) => map.dispatchEvent(new KeyboardEvent("keydown", { key, cancelable: true }));
  press("ArrowLeft"); press("ArrowLeft"); press("ArrowUp"); seen.by_keyboard = tip.textContent;
  press("Escape"); seen.hidden_by_escape = tip.hidden;

  seen.cells = [...map.querySelectorAll("path[class^=a], path[class^=b]")].filter((path) =>
    !["at", "between"].includes(path.className.baseVal)).map((path) => [path.className.baseVal,
    path.getAttribute("d").split("M").length - 1, path.getBBox().width > 0]);
  const worst = map.querySelector(".worst");
  seen.worst = [worst.x.baseVal.value, worst.y.baseVal.value];
  seen.ground_width = box.width;

  const folded = document.getElementById("check-0");
  seen.folded = !folded.open;
  location.hash = "#check-0";
  dispatchEvent(new HashChangeEvent("hashchange"));
  seen.unfolded = folded.open;
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  seen.copy_buttons = document.querySelectorAll(".reproduce button").length;
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
})();
"""


@pytest.fixture(scope="module")
def reports():
    return [("softmax", passed()), ("linear", failed()), ("zeros", inconclusive())]


@pytest.fixture(scope="module")
def file(reports, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page of all checks.html"
    path.write_text(page(reports), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def seen(file):
    """What a user sees; their script needs a page without the policy that forbids other scripts."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", file.read_text(encoding="utf-8"))
    path = file.with_name("used.html")
    path.write_text(text.replace("</body>", f"<script>{USER}</script></body>"), encoding="utf-8")
    opened = open_page(path, "--window-size=420,900")
    assert opened.console == []
    found = [data for tag, data in Reader(opened.dom).texts if data.startswith("{") and tag == "pre"]
    return json.loads(found[0])


def test_it_renders_and_its_script_runs_without_complaint(file):
    opened = open_page(file)
    assert opened.console == []
    assert 'data-ready="yes"' in opened.dom
    read = Reader(opened.dom)
    assert len(read.all("svg", class_="map")) == 5
    assert not any("hidden" in found for found in read.all("div", id="controls"))
    assert "3 of 3 shown" in read.text()


def test_the_address_sorts_and_filters(file):
    opened = open_page(file, fragment="#sort=4&status=unproven&find=e")
    assert opened.console == []
    rows = re.findall(r"<tr( hidden=\"\")?><th scope=\"row\"><a[^>]*><code>(\w+)</code>", opened.dom)
    assert [name for _, name in rows] == ["linear", "softmax", "zeros"]  # errors: wrong, round-off, 0
    assert [name for is_hidden, name in rows if not is_hidden] == ["linear", "zeros"]


def test_sorting(seen):
    assert seen["as_written"] == ["softmax", "linear", "zeros"]
    assert seen["by_name"] == ["linear", "softmax", "zeros"]
    assert seen["by_error"] == ["linear", "softmax", "zeros"]
    assert seen["by_error_again"] == ["zeros", "softmax", "linear"]
    assert seen["by_status"] == ["linear", "zeros", "softmax"]  # what failed first
    assert (seen["name_order"], seen["error_order"]) == ("ascending", "descending")
    assert seen["name_order_then"] is None


def test_filtering(seen):
    assert seen["found"] == ["linear"]
    assert seen["count"] == "1 of 3 shown"
    assert seen["passed"] == ["softmax"]


def test_pointing_at_a_cell(seen, reports):
    row = reports[1][1].tensors[1]
    assert seen["hidden_at_first"] and seen["shown"] and seen["hidden_again"]
    assert seen["tip"].splitlines() == [
        "[3, 2]",
        f"gradient {row.gradient:.9g}",
        f"reference {row.reference:.9g}",
        f"relative error {row.max_error:.1e}",
    ]
    assert seen["other_tip"].startswith(f"[6, 4]\ngradient {row.entries.gradient[34]:.9g}\n")


def test_the_arrow_keys(seen):
    assert seen["by_keyboard"].startswith("[5, 3]\n")  # from [6, 4], where the pointer was
    assert seen["hidden_by_escape"]


def test_the_cells_of_a_heat_map(seen):
    assert sum(count for _, count, _ in seen["cells"]) == 35
    assert all(is_drawn for _, _, is_drawn in seen["cells"])
    assert sum(count for name, count, _ in seen["cells"] if name.startswith("a")) == 1
    assert seen["worst"] == [2, 3]
    assert seen["ground_width"] > 40


def test_links_unfold_what_they_lead_to(seen):
    assert seen["folded"] and seen["unfolded"]


def test_a_narrow_screen_needs_no_scrolling_sideways(seen):
    assert seen["overflow"] <= 0
    assert seen["copy_buttons"] == 3


def test_without_javascript(file, tmp_path):
    path = tmp_path / "without.html"
    text, count = re.subn(r"'sha256-[^']*'", "'none'", file.read_text(encoding="utf-8"))
    assert count == 1
    path.write_text(text, encoding="utf-8")
    opened = open_page(path)
    assert len(opened.console) == 1  # that it was not let run
    read = Reader(opened.dom)
    assert "data-ready" not in read.all("html")[0]
    assert all("hidden" in found for found in read.all("div", id="controls"))
    assert "[3, 2]" in read.text() and len(read.all("svg", class_="map")) == 5


def test_hostile_names_do_nothing(tmp_path):
    path = tmp_path / "hostile.html"
    # Even a script that was let in would not run: here one is put in by hand.
    text = page([(HOSTILE, hostile())]).replace("<main>", "<main><script>document.title = 'hacked'</script>")
    path.write_text(text, encoding="utf-8")
    opened = open_page(path)
    assert "<title>Gradient check</title>" in opened.dom
    assert 'data-ready="yes"' in opened.dom
    assert len(opened.console) == 1 and "Content Security Policy" in opened.console[0]


def test_light_and_dark(file, tmp_path):
    pictures = [
        screenshot(
            file,
            tmp_path / f"{scheme}.png",
            f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=700,900",
        )
        for scheme in (0, 1)  # dark, light
    ]
    for picture in pictures:
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", picture[16:24]) == (700, 900)
        assert len(picture) > 10_000  # an empty page takes a few thousand bytes
    assert pictures[0] != pictures[1]
