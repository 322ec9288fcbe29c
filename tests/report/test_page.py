"""The page, opened in a real browser where there is one."""

import json
import re
import shutil

import pytest

from qspinn.report.page import page, write_page
from qspinn.selection import Run, Target, select

EVIL = "</script><img src=x onerror=\"document.title='evil'\">&amp;'`${1}"
CURVES = [
    {
        "name": "membrane",
        "points": [
            {"word_length": length, "accuracy": accuracy, "accuracy_std": None}
            for length, accuracy in [(3, 0.6), (4, 0.9), (8, 0.97)]
        ],
    }
]


def many(make_record, count):
    """A cloud of runs, all of which meet the target."""
    return [
        Run(
            f"run{index:05}",
            make_record(
                bits=100 + (index * 7919) % 3000,
                accuracy=0.5 + ((index * 104729) % 1000) / 2500,
                scheme=("ptq", "itq")[index % 2],
                rounding=("nearest", "truncate", "stochastic")[index % 3],
                setting_key=f"{index:064}",
            ),
        )
        for index in range(count)
    ]


def formats(name):
    entry = {"role": "weight", "format": "Q0.7", "rounding": "nearest", "overflow": "saturate"}
    return {name: entry}


@pytest.fixture
def selection(make_record):
    base = {"baseline_accuracy": 0.98}
    runs = [
        Run("grid/float", make_record(scheme="none", bits=3200, accuracy=0.982)),
        Run("grid/ptq8", make_record(bits=800, accuracy=0.975, formats=formats("net.w"), **base)),
        Run(
            "grid/ptq8-1",
            make_record(bits=800, accuracy=0.985, seed=1, formats=formats("net.w"), **base),
        ),
        Run(EVIL, make_record(bits=1000, accuracy=0.974, rounding="truncate", **base)),
        Run("grid/itq4", make_record(scheme="itq", bits=400, accuracy=0.9, network=EVIL, **base)),
    ]
    return select(runs, Target(max_drop=0.01), allow_mixed=True)


@pytest.fixture(scope="module")
def browser():
    """A browser without a window and without a network, or skip."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver on this machine: the page is not opened")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,1500"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()


@pytest.fixture
def opened(browser, tmp_path):
    """Return a function that opens a page and gives the browser; a complaint of it fails."""

    def open_page(selection, **values):
        file = write_page(selection, tmp_path / "selection.html", **values)
        browser.get(file.as_uri())
        return browser

    yield open_page
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def texts(browser, css):
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(n => n.textContent)", css
    )


def marks(browser):
    return browser.execute_script("return document.querySelectorAll('#plot .mark').length")


def hover(browser, css):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    ActionChains(browser).move_to_element(browser.find_element(By.CSS_SELECTOR, css)).perform()


def toggle(browser, name, value):
    box = browser.execute_script(
        "return [...document.querySelectorAll('#filters input')]"
        ".find(n => n.name === arguments[0] && n.value === arguments[1])",
        name,
        value,
    )
    box.click()


def test_it_needs_nothing_from_elsewhere(selection):
    text = page(selection)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    assert "@DATA@" not in text
    assert "@SCRIPT@" not in text
    assert len(text) < 60_000


def test_no_text_of_a_record_ends_the_data(selection):
    text = page(selection)
    assert text.count("</script>") == 2
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    points = json.loads(data)["points"]
    assert EVIL in {point["path"] for point in points}
    assert EVIL in {point["network"] for point in points}


def test_all_points_the_front_and_the_winner_are_there(selection, opened):
    browser = opened(selection, significance=CURVES, problems=["skipped: x/record.json: empty"])
    assert marks(browser) == 3
    assert texts(browser, "#below") == ["1 far below"]
    toggle(browser, "picture", "all")
    assert marks(browser) == 4
    assert texts(browser, "#below") == []
    assert texts(browser, "#reason") == [selection.reason]
    assert texts(browser, "#count") == ["4 of 4 shown"]
    assert len(texts(browser, "#plot .mark[tabindex]")) == 2
    assert len(texts(browser, "#plot .ring")) == 1
    assert texts(browser, "#rows tr.winner td")[0] == "winner"
    assert texts(browser, "#rows tr.winner td")[4:7] == ["2", "98.00% ± 0.71", "0.00"]
    assert texts(browser, "#tensors td") == ["net.w", "weight", "Q0.7", "nearest", "saturate"]
    assert texts(browser, "#notes li")[-1] == "skipped: x/record.json: empty"
    assert len(texts(browser, "#curves svg")) == 1
    assert texts(browser, "#choices td")[1] == "0"


def test_texts_of_records_stay_texts(selection, opened):
    browser = opened(selection)
    assert browser.title == "qspinn: selection"
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    assert EVIL in texts(browser, "#rows td")


def test_what_is_not_quantised_is_said_of_each_run(make_record, opened):
    lines = [
        "quantised: 99.9% of the parameters, 40.0% of the states",
        f"32-bit: 600 values, {EVIL}",
    ]
    partly = {
        "parameters": {"quantized": 999, "total": 1000},
        "states": {"quantized": 400, "total": 1000},
        "lines": lines,
    }
    base = {"baseline_accuracy": 0.98}
    runs = [
        Run("float", make_record(scheme="none", bits=3200, accuracy=0.98, summary=partly)),
        Run("older", make_record(bits=900, accuracy=0.98, setting_key="1" * 64, **base)),
        Run("some", make_record(bits=500, accuracy=0.979, summary=partly, **base)),
    ]
    browser = opened(select(runs, Target()))
    assert texts(browser, "#summary li") == lines
    assert texts(browser, "#share")[0].startswith(lines[0])
    column = "#rows tbody td:nth-child(10)"
    assert sorted(texts(browser, column)) == ["-", "-", "99.9% / 40.0%"]
    assert texts(browser, "#rows tr.winner td:nth-child(10)") == ["99.9% / 40.0%"]
    hover(browser, "#plot .ptq[tabindex]")
    assert "99.9% / 40.0% (parameters / states)" in texts(browser, "#tip")[0]


def test_older_records_leave_the_section_out(selection, opened):
    browser = opened(selection)
    assert browser.execute_script("return document.getElementById('quantized').hidden")


def test_filters_change_what_is_shown_and_the_front(selection, opened):
    browser = opened(selection)
    toggle(browser, "state", "dropped")
    assert marks(browser) == 3
    before = browser.execute_script("return document.getElementById('front').getAttribute('d')")
    toggle(browser, "rounding", "nearest")
    assert texts(browser, "#count") == ["2 of 4 shown"]
    after = browser.execute_script("return document.getElementById('front').getAttribute('d')")
    assert before != after
    assert len(texts(browser, "#rows tbody tr")) == 2
    toggle(browser, "rounding", "truncate")
    toggle(browser, "scheme", "none")
    assert "no run passes these filters" in texts(browser, "#plot text")


def test_hovering_and_the_keyboard_show_the_combination(selection, opened):
    browser = opened(selection)
    assert not browser.execute_script("return !document.getElementById('tip').hidden")
    hover(browser, "#plot .ptq[tabindex]")
    (tip,) = texts(browser, "#tip")
    for part in ("grid/ptq8", "nearest", "0, 1", "98.00% ± 0.71", "800 bits, 4.0x", "winner"):
        assert part in tip
    browser.execute_script("document.querySelector('#plot .none[tabindex]').focus()")
    assert "grid/float" in texts(browser, "#tip")[0]
    label = browser.execute_script(
        "return document.querySelector('#plot .ptq[tabindex]').getAttribute('aria-label')"
    )
    assert "accuracy 98.00%" in label


def test_columns_sort(selection, opened):
    browser = opened(selection)
    browser.execute_script(
        "[...document.querySelectorAll('#rows th button')]"
        ".find(b => b.textContent.startsWith('footprint')).click()"
    )
    assert texts(browser, "#rows tbody td:nth-child(8)") == ["400", "800", "1,000", "3,200"]
    assert texts(browser, "#rows th[aria-sort=ascending]") == ["footprint (bits) ▲"]


def test_five_thousand_points_are_drawn_at_once(make_record, opened):
    chosen = select(many(make_record, 5100), Target(max_drop=None))
    browser = opened(chosen)
    assert marks(browser) == 5000
    assert "100 more" in texts(browser, "#count")[0]
    seconds = browser.execute_script(
        "const t = performance.now(); update(); document.body.offsetHeight;"
        "return (performance.now() - t) / 1000"
    )
    # About 0.15 s on a free machine.
    assert seconds < 2.0
    (shown,) = [len(texts(browser, "#plot .mark[tabindex]"))]
    assert shown == len(chosen.front)


def test_a_selection_without_a_winner(make_record, opened):
    browser = opened(select([Run("a", make_record(baseline_accuracy=0.99))]))
    assert marks(browser) == 1
    assert "No run meets the target" in texts(browser, "#reason")[0]
    assert texts(browser, "#plot .ring") == []
