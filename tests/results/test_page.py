"""The leaderboard page in a real browser: what it shows is the data, it sorts, filters, shares, copies, and asks nobody for anything."""

import json
import re
import shutil
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from results import leaderboard, page, plots, published, record, sheet, table

MEASURED = Path(page.__file__).parent / "measured"


def data_of(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.S)[1])


@pytest.fixture
def world(trial):
    found = []
    for name, ap in (("random", 1.0), ("supervised", 5.0), ("moco_v2", 6.5), ("<img src=x onerror=alert(1)>", 8.0)):
        for seed in (0, 1, 2):
            metrics = {"AP": ap + seed, "AP50": 2 * ap + seed, "AP75": ap / 2 + seed}
            found.append(trial("voc_c4", name, metrics, seed))
            found.append(trial("imagenet_linear", name, {"top1": 20 + ap - seed, "top5": 50 + ap}, seed))
    return found


# --- what stands in the page


def test_the_page_holds_every_published_figure_once_and_every_measured_mean(world):
    data = data_of(page.html(world))
    rows = [row for row in data["rows"] if row["kind"] == "published"]
    held = sorted((r["source"], r["method"], c, cell["text"]) for r in rows for c, cell in r["cells"].items())
    assert held == sorted((f.source, f.method, f"{f.task}.{f.metric}", str(f.value)) for f in published.figures())
    mine = {row["model"]: row for row in data["rows"] if row["kind"] == "measured"}
    assert mine["moco_v2"]["cells"]["voc_c4.AP"]["v"] == 7.5 and mine["moco_v2"]["cells"]["voc_c4.AP"]["n"] == 3
    assert len(mine["moco_v2"]["trials"]) == 6
    assert [r["mean"] for r in data["overview"][0]["ranks"]] == sorted(r["mean"] for r in data["overview"][0]["ranks"])


def test_no_name_can_leave_the_data_and_nothing_points_outside(world, trial):
    hostile = trial("voc_c4", "</script><script>alert(1)</script>", {"AP": 1.0})
    text = page.html([*world, hostile])
    assert text.count("<script") == 2 and "alert(1)</script>" not in text.replace("\\u003c", "")
    assert any(row["model"] == hostile["model"]["name"] for row in data_of(text)["rows"])
    outside = re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)([^\"']+)", text)
    assert not outside and "import(" not in text and "fetch(" not in text and "XMLHttpRequest" not in text


def test_leaderboard_writes_page_tables_and_plots_whole(world, tmp_path):
    written = leaderboard.write(world, tmp_path)
    names = {file.relative_to(tmp_path).as_posix() for file in written}
    assert {
        "index.html",
        "leaderboard.csv",
        "leaderboard.md",
        "plots/progress_voc.svg",
        "plots/progress_voc.png",
    } <= names
    assert {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()} == names
    for file in written:
        if file.suffix == ".svg":
            assert ElementTree.fromstring(file.read_text()).tag.endswith("svg")
        if file.suffix == ".png":
            assert file.read_bytes().startswith(b"\x89PNG")
    before = (tmp_path / "plots/progress_voc.svg").read_text()
    leaderboard.write(world, tmp_path)
    assert (tmp_path / "plots/progress_voc.svg").read_text() == before


def several(trial):
    """Weights of one name, of which the table compares with those of the fewest epochs; the first column lacks them at first."""
    runs = [("supervised", 12, 5.0), ("supervised", 3, 3.0), ("[2ex]*_it", 10, 6.0)]
    found = [trial("voc_c4", name, {"AP": ap}, epochs=n, weights=f"{name}{n}") for name, n, ap in runs]
    found += [
        trial("voc_semantic", name, {"mIoU": 9 * ap}, epochs=n, weights=f"{name}{n}") for name, n, ap in runs[::-1]
    ]
    return [
        *found,
        trial("voc_c4", "other", {"AP": 90.0}, protocol="b"),
        trial("voc_c4", "more", {"AP": 80.0}, protocol="b"),
    ]


def test_the_page_takes_differences_from_the_model_that_the_tables_do(trial):
    data = data_of(page.html(several(trial)))
    (base,) = {f"supervised {t['model']['sha256'][:8]}" for t in several(trial) if t["model"]["epochs"] == 3}
    assert data["base"] == base and f"difference from supervised (3 epochs) {base[11:]}" in table.render(
        "moco", several(trial)
    )
    lone = [trial("voc_c4", "moco_v2", {"AP": 1.0})]
    assert data_of(page.html(lone))["base"] == "supervised"
    assert data_of(page.html([*lone, trial("voc_c4", "random", {"AP": 1.0}, weights=None)]))["base"] == "random"


# --- plots


def test_the_talks_two_progress_plots_rise_as_it_says():
    linear, voc = plots.best("imagenet_linear", "top1"), plots.best("voc_c4", "AP")
    assert (linear["clsa"], linear["byol"] >= 74.4, voc["pixpro"]) == (76.2, True, 60.2)
    assert plots.month("moco_v1") == pytest.approx(2019 + 10 / 12, abs=0.01) and plots.month("clsa") > plots.month(
        "simclr"
    )
    figure = plots.progress("voc_c4", "AP", "VOC", 53.5)
    steps = next(line for line in figure.axes[0].lines if line.get_label() == "best so far").get_ydata()
    assert list(steps) == sorted(steps) and steps[-1] == max(voc[m] for m in voc if m in plots.PREPRINTS)


def test_bars_are_means_with_deviations_and_curves_are_the_logs(world, tmp_path):
    group = next(g for g in leaderboard.grouped(world) if g.task == "voc_c4")
    axes = plots.bars(group, "AP").axes[0]
    assert sorted(patch.get_width() for patch in axes.patches) == [2.0, 6.0, 7.5, 9.0]
    trials = [trial for own in group.trials.values() for trial in own]
    assert plots.curves(tmp_path, trials) is None
    file = record.write(trials[0], tmp_path)
    file.with_suffix("").mkdir()
    lines = [json.dumps({"iteration": i, "loss": 3 - i / 10}) for i in (10, 20)]
    (file.with_suffix("") / "log.jsonl").write_text("\n".join([*lines, '{"iteration": 3']))
    (line,) = plots.curves(tmp_path, trials).axes[0].lines
    assert list(line.get_xdata()) == [10, 20] and list(line.get_ydata()) == [2, 1]


@pytest.mark.parametrize("name", ["$\\foo{$", "$x_$ and $", "a$b", "_it_"])
def test_a_name_with_dollars_is_no_formula(trial, tmp_path, name):
    trials = [trial("voc_c4", name, {"AP": 1.0}), trial("imagenet_linear", name, {"top1": 1.0})]
    for one in trials:
        one["protocol"]["name"] = name
        log = record.write(one, tmp_path).with_suffix("") / "log.jsonl"
        log.parent.mkdir()
        log.write_text(json.dumps({"iteration": 10, "loss": 1}))
    figures = plots.every(trials, tmp_path)
    own = {
        file: plots.svg(figure) for file, figure in figures.items() if re.match("bars|curves|linear.*measured", file)
    }
    assert len(own) == 5 and all(name in text for text in own.values())


def test_a_plot_is_xml_and_without_warnings_whatever_a_model_is_called(trial):
    (group,) = leaderboard.grouped(
        [trial("voc_c4", name, {"AP": 1.0}) for name in ("\x1b[31m\x07", "\u6a21\u578b \U0001f980")]
    )
    text = plots.svg(plots.bars(group, "AP"))
    assert ElementTree.fromstring(text) is not None and "?[31m?" in text and "\u6a21\u578b \U0001f980" in text


def test_of_many_models_the_best_are_drawn_and_the_title_says_so(trial):
    (group,) = leaderboard.grouped([trial("voc_c4", f"m{i}", {"AP": i / 10}) for i in range(plots.NAMED + 5)])
    figure = plots.bars(group, "AP")
    assert len(figure.axes[0].patches) == plots.NAMED and figure.get_size_inches()[1] < 20
    assert figure.axes[0].get_title().endswith(f": the best {plots.NAMED} of {plots.NAMED + 5} models")
    assert min(patch.get_width() for patch in figure.axes[0].patches) == 0.5
    last = min(group.trials, key=lambda key: group.trials[key][0]["metrics"]["AP"])
    assert last[1] and [patch.get_width() for patch in plots.bars(group, "AP", last[1]).axes[0].patches][:2] == [0, 0.5]


def test_a_model_without_a_plots_metric_is_left_out_of_it(trial):
    whole = [trial("voc_c4", "a", {"AP": 1.0}), trial("imagenet_linear", "a", {"top1": 2.0})]
    lacking = [trial("voc_c4", "b", {"AP50": 1.0}), trial("imagenet_linear", "b", {"top1": 3.0})]
    figures = plots.every([*whole, *lacking])
    (points,) = figures["linear_against_voc_measured_1"].axes[0].containers
    assert list(points.lines[0].get_xdata()) == [2.0]


def test_no_backbone_leads_a_plot_out_of_its_folder(trial):
    one = trial("voc_c4", "moco_v2", {"AP": 1.0}, arch="../../x")
    one["data"]["digest"] = "../../"
    assert not [name for name in plots.every([one]) if "/" in name]


def test_two_weights_of_one_name_have_a_curve_each(trial, tmp_path):
    trials = [trial("voc_c4", "moco_v2", {"AP": 1.0}, weights=weights) for weights in ("one", "other")]
    for loss, own in enumerate(trials, 1):
        log = record.write(own, tmp_path).with_suffix("") / "log.jsonl"
        log.parent.mkdir()
        log.write_text(json.dumps({"iteration": 10, "loss": loss}))
    lines = plots.curves(tmp_path, trials).axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[1], [2]]
    assert [line.get_label() for line in lines] == [
        f"moco_v2 (10 epochs) {t['model']['sha256'][:8]}, seed 0" for t in trials
    ]


def test_the_names_of_many_curves_cover_none_and_the_title_says_how_many_are_drawn(trial, tmp_path):
    trials = [trial("voc_c4", f"moco_{'v' * 80}{number}", {"AP": 1.0}) for number in range(plots.NAMED + 5)]
    for own in trials:
        log = record.write(own, tmp_path).with_suffix("") / "log.jsonl"
        log.parent.mkdir()
        log.write_text(json.dumps({"iteration": 10, "loss": 1}))
    figure = plots.curves(tmp_path, trials)
    assert figure.axes[0].get_title().endswith(f": {plots.NAMED} of {plots.NAMED + 5} runs")
    plots.png(figure)
    (legend,) = figure.legends
    whole, curves, names = (part.get_window_extent() for part in (figure, figure.axes[0], legend))
    assert curves.x1 < names.x0 < names.x1 <= whole.x1 and whole.y0 <= names.y0 and curves.width > 200
    assert len(legend.get_texts()) == len(figure.axes[0].lines) == plots.NAMED


# --- the browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, where Debian's chromium and chromium-driver are installed."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("chromium and chromium-driver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        running = webdriver.Chrome(options, Service(driver))
    yield running
    running.quit()


@pytest.fixture
def opened(browser, world, tmp_path):
    """A function that opens the page at an address' end; afterwards no console error and no request but for the file itself."""
    (tmp_path / "index.html").write_text(page.html(world), encoding="utf-8")
    address = (tmp_path / "index.html").as_uri()
    browser.get_log("browser"), browser.get_log("performance")

    def go(end=""):
        browser.get("about:blank")
        browser.get(address + end)
        return browser

    yield go
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert {url.partition("#")[0] for url in asked} <= {address, "data:,", "about:blank"}


def names(browser):
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")  # draws the rows that wait for a scroll
    return [cell.get_attribute("title") for cell in browser.find_elements("css selector", "#board tbody th")]


def column(browser, name):
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    heads = [b.get_attribute("data-sort") for b in browser.find_elements("css selector", "#board thead button")]
    place = heads.index(name) + 1
    return browser.execute_script(
        "return [...document.querySelectorAll('#board tbody tr')].map(r => r.children[arguments[0]].textContent)",
        place - 1,
    )


def choose(browser, field, value):
    browser.execute_script(
        "const f = document.getElementById('form').elements[arguments[0]]; f.value = arguments[1];"
        "f.dispatchEvent(new Event('input', {bubbles: true}))", field, value,
    )  # fmt: skip


def test_a_header_sorts_both_ways_and_says_so_and_empty_cells_stay_last(opened):
    browser = opened()
    for _ in range(2):
        browser.find_element("css selector", "[data-sort='imagenet_linear.top1']").click()
        shown = column(browser, "imagenet_linear.top1")
        filled = [float(text.split(" ")[0]) for text in shown if text]
        assert shown[len(filled) :] == [""] * (len(shown) - len(filled)) and len(filled) > 50
        state = browser.find_element("css selector", "th[aria-sort='ascending'], th[aria-sort='descending']")
        assert filled == sorted(filled, reverse=state.get_attribute("aria-sort") == "descending")
    assert browser.switch_to.active_element.get_attribute("data-sort") == "imagenet_linear.top1"


def test_filters_and_search_leave_what_they_say(opened):
    browser = opened()
    choose(browser, "kind", "measured")
    assert sorted(name.split(" ")[0] for name in names(browser)) == ["<img", "moco_v2", "random", "supervised"]
    choose(browser, "kind", "")
    choose(browser, "method", "pixpro")
    choose(browser, "epochs", "400")
    assert names(browser) and set(names(browser)) == {"pixpro"} and set(column(browser, "epochs")) == {"400"}
    choose(browser, "task", "voc_c4")
    assert {h.get_attribute("data-sort") for h in browser.find_elements("css selector", "thead button")} >= {
        "voc_c4.AP",
        "voc_c4.AP50",
        "voc_c4.AP75",
    }
    browser.find_element("id", "reset").click()
    choose(browser, "q", "VICReg facebookresearch")
    assert names(browser) and all("vicreg" in name for name in names(browser))
    choose(browser, "q", "no such thing")
    assert names(browser) == [] and browser.find_element("id", "status").text.startswith("0 of ")


def test_differences_are_from_the_chosen_baseline_under_the_same_conditions_only(opened):
    browser = opened()
    choose(browser, "kind", "measured")
    choose(browser, "show", "difference")
    assert dict(zip([n.split(" ")[0] for n in names(browser)], column(browser, "voc_c4.AP"), strict=True)) == {
        "<img": "+3.00", "moco_v2": "+1.50", "supervised": "0.00", "random": "−4.00"
    }  # fmt: skip
    choose(browser, "base", "random")
    assert "+5.50" in column(browser, "voc_c4.AP")
    choose(browser, "base", "supervised")
    assert set(column(browser, "voc_c4.AP")) == {""}  # the published one
    choose(browser, "kind", "published")
    choose(browser, "source", "talk: MoCo Results, Table 2(b)")
    assert sorted(column(browser, "voc_c4.AP")) == sorted(["0.0", "+2.4", "+3.7", "−19.7"])


def test_what_is_printed_alike_is_best_alike(browser, trial, tmp_path):
    models = [trial("voc_c4", name, {"AP": ap}) for name, ap in (("a", 1.0041), ("b", 1.0039), ("c", 0.99))]
    (tmp_path / "index.html").write_text(page.html(models), encoding="utf-8")
    browser.get((tmp_path / "index.html").as_uri() + "#kind=measured")
    assert [cell.text for cell in browser.find_elements("css selector", "td.best")] == ["1.00", "1.00"]


def test_a_mean_that_ends_in_a_half_is_printed_as_in_the_tables(browser, trial, tmp_path):
    trials = [trial("voc_c4", "moco_v2", {"AP": ap}, seed) for seed, ap in enumerate((2.12, 2.13))]
    (tmp_path / "index.html").write_text(page.html(trials), encoding="utf-8")
    browser.get((tmp_path / "index.html").as_uri() + "#kind=measured")
    assert column(browser, "voc_c4.AP") == [f"{2.125:.2f} ± 0.01"] == ["2.12 ± 0.01"]


def test_every_column_has_one_baseline_and_a_best_of_every_protocol(browser, trial, tmp_path):
    (tmp_path / "index.html").write_text(page.html(several(trial)), encoding="utf-8")
    browser.get((tmp_path / "index.html").as_uri() + "#kind=measured")
    best = browser.find_elements("css selector", "td.best")
    assert sorted(cell.text for cell in best) == ["54.00", "6.00", "90.00"]
    choose(browser, "show", "difference")
    assert sorted(column(browser, "voc_c4.AP")) == ["", "", "+2.00", "+3.00", "0.00"]
    assert sorted(column(browser, "voc_semantic.mIoU")) == ["", "", "+18.00", "+27.00", "0.00"]
    assert re.search("differences from supervised, 3 epochs, [0-9a-f]{8},", browser.find_element("id", "status").text)
    browser.execute_script("navigator.clipboard.writeText = (t) => { window.got = t; return Promise.resolve(); }")
    browser.find_element("id", "latex").click()
    assert re.search(r"\n\{\[\}2ex\]\{\*\}\\_it [0-9a-f]{8} & ", browser.execute_script("return window.got"))


def test_a_view_is_shared_by_its_address(opened):
    browser = opened()
    choose(browser, "kind", "measured")
    choose(browser, "show", "difference")
    choose(browser, "base", "random")
    browser.find_element("css selector", "[data-sort='model']").click()
    before, end = (names(browser), column(browser, "voc_c4.AP")), browser.execute_script("return location.hash")
    browser = opened(end)
    assert (names(browser), column(browser, "voc_c4.AP")) == before
    opened("#kind=nonsense&base=nobody&sort=-no.such&show=%3Cscript%3E")
    assert len(names(browser)) > 300


def test_skipping_to_the_table_keeps_the_view(opened):
    browser = opened("#kind=measured")
    before, end = names(browser), browser.execute_script("return location.hash")
    browser.execute_script("document.querySelector('.skip').click()")
    assert browser.execute_script("return document.activeElement.className") == "wide"
    assert (names(browser), browser.execute_script("return location.hash")) == (before, end)


def test_a_number_opens_its_trials_and_provenance(opened):
    browser = opened("#kind=measured&q=moco_v2")
    browser.find_element("css selector", "td button").click()
    dialog = browser.find_element("id", "detail")
    assert dialog.get_attribute("open") is not None
    text = browser.execute_script("return arguments[0].textContent", dialog)
    assert "7.50" in text and "seed 2" in text and "bench results show voc_c4/" in text and "95 % interval" in text


def test_the_table_is_copied_as_markdown_and_latex(opened):
    browser = opened("#kind=measured")
    browser.execute_script(
        "window.got = []; navigator.clipboard.writeText = (t) => { window.got.push(t); return Promise.resolve(); }"
    )
    for button in ("markdown", "latex", "share"):
        browser.find_element("id", button).click()
    markdown, latex, link = browser.execute_script("return window.got")
    lines = markdown.strip().splitlines()
    assert len(lines) == 6 and len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert (
        "7.50 ± 1.00" in markdown
        and r"7.50 $\pm$ 1.00" in latex
        and r"\toprule" in latex
        and link.endswith("#kind=measured")
    )
    (row,) = [line for line in lines if line.startswith("| moco_v2 ")]
    assert re.match(r"\| moco_v2 [0-9a-f]{8} \|", row) and "voc_c4@mini" in row  # which weights, under which protocol


def test_a_copied_name_is_escaped_as_in_the_tables(browser, trial, tmp_path):
    (tmp_path / "index.html").write_text(page.html([trial("voc_c4", "__a_b__ &lt;~", {"AP": 1.0})]), encoding="utf-8")
    browser.get((tmp_path / "index.html").as_uri() + "#kind=measured")
    browser.execute_script("navigator.clipboard.writeText = (t) => { window.got = t; return Promise.resolve(); }")
    browser.find_element("id", "markdown").click()
    assert rf"| {sheet.escaped('__a_b__ &lt;~')} " in browser.execute_script("return window.got")


def test_a_search_that_finds_nothing_keeps_the_order(opened):
    browser = opened("#kind=measured&q=nothing-at-all")
    box = browser.find_element("name", "q")
    box.clear()
    browser.execute_script("arguments[0].dispatchEvent(new Event('input', {bubbles: true}))", box)
    assert "sort=" not in browser.current_url and browser.find_element("css selector", "th[aria-sort=descending]")


def test_on_a_phone_the_page_does_not_overflow_and_controls_fold(opened):
    browser = opened()
    browser.set_window_size(500, 900)  # the smallest that headless Chromium opens
    browser = opened()
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.find_element("id", "controls").get_attribute("open") is None
    browser.set_window_size(1400, 1000)


def test_on_the_narrowest_phone_the_ranks_do_not_widen_the_page(browser, trial, tmp_path):
    models = [trial("voc_c4", name, {"AP": 1.0}) for name in ("a_method_with_a_long_name", "b")]
    (tmp_path / "index.html").write_text(page.html(models), encoding="utf-8")
    narrow = {"width": 320, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    browser.get((tmp_path / "index.html").as_uri())
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide == 320


def test_two_thousand_rows_are_sorted_rightly(browser, trial, tmp_path):
    many = [trial("voc_c4", f"model{i}", {"AP": (i * 37 % 1999) / 40}) for i in range(2000)]
    (tmp_path / "index.html").write_text(page.html(many), encoding="utf-8")
    browser.get((tmp_path / "index.html").as_uri() + "#kind=measured")
    drawn = "return document.querySelectorAll('#board tbody tr').length"
    first = browser.execute_script(drawn)
    browser.execute_script(
        "const w = document.querySelector('.wide'); w.scrollTop = w.scrollHeight; w.dispatchEvent(new Event('scroll'))"
    )
    assert 0 < first < browser.execute_script(drawn) < 2000
    assert len(names(browser)) == 2000
    browser.find_element("css selector", "[data-sort='voc_c4.AP']").click()
    values = [float(text) for text in column(browser, "voc_c4.AP")]
    assert values == sorted(values)
