"""The page, opened in a real browser where there is one."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from qspinn.records import write_record
from qspinn.report.page import page, write_page
from qspinn.selection import Dropped, LinearReward, Run, Target, select

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
    assert "@STYLE@" not in text
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
    assert texts(browser, "#headline") == [
        "mnist_subset, conv_snn, PTQ, 8 bits, nearest: 4.0x smaller, 0.00 points below 32\u2011bit."
    ]
    assert "Runner-up: #2 mnist_subset, conv_snn, 32-bit" in "".join(texts(browser, "#details li"))
    assert texts(browser, "#count") == ["4 of 4 shown"]
    assert len(texts(browser, "#plot .mark[tabindex]")) == 2
    assert len(texts(browser, "#plot .ring")) == 1
    assert texts(browser, "#rows tr.winner td.name .why") == ["winner (2 seeds)"]
    assert texts(browser, "#rows tr.winner td")[2:6] == [
        "98.00% ± 0.71",
        "0.00",
        "800 bits",
        "4.0x",
    ]
    assert texts(browser, "#heat tbody th") == ["net.w"]
    assert texts(browser, "#heat tbody td") == ["8"]
    assert texts(browser, "#tensors td") == ["net.w", "weight", "Q0.7", "nearest", "saturate"]
    assert texts(browser, "#notes li")[-1] == "skipped: x/record.json: empty"
    assert len(texts(browser, "#curves svg")) == 1
    assert texts(browser, "#choices td")[1] == "0"


def test_texts_of_records_stay_texts(selection, opened):
    browser = opened(selection)
    assert browser.title == "qspinn: selection"
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    names = texts(browser, "#rows td.name")
    assert any(EVIL in name for name in names)


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
    column = "td[data-name=quantised]"
    assert sorted(texts(browser, f"#rows {column}")) == ["-", "-", "99.9% / 40.0%"]
    assert texts(browser, f"#rows tr.winner {column}") == ["99.9% / 40.0%"]
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
    assert "no candidate passes these filters" in texts(browser, "#plot text")


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
    sizes = texts(browser, "#rows tbody td[data-name=footprint]")
    assert sizes == ["400 bits", "800 bits", "1,000 bits", "400 B"]
    assert texts(browser, "#rows th[aria-sort=ascending]") == ["footprint ▲"]


def test_five_thousand_points_are_drawn_at_once(make_record, opened):
    chosen = select(many(make_record, 5100), Target(max_drop=None))
    from selenium.webdriver.support.ui import WebDriverWait

    browser = opened(chosen)
    WebDriverWait(browser, 30).until(marks)  # a busy machine takes its time
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
    assert "No candidate meets the target" in texts(browser, "#headline")[0]
    assert "The nearest is PTQ, 8 bits, nearest" in texts(browser, "#details li")[0]
    assert texts(browser, "#plot .ring") == []


@pytest.fixture
def grid(make_record):
    """Candidates of a device: more flash buys accuracy, and RAM differs."""
    runs = []
    for index, bits in enumerate(range(2, 14)):
        for scheme in ("ptq", "itq"):
            flash, ram = 3000 * bits, 500 * bits if scheme == "ptq" else 6000
            entry = {"role": "weight", "rounding": "nearest", "overflow": "saturate"}
            record = make_record(
                bits=flash + ram,
                baseline_bits=120_000,
                flash_bits=flash,
                ram_bits=ram,
                accuracy=0.99 - 0.2 / bits**2 + (0.003 if scheme == "itq" else 0.0),
                baseline_accuracy=0.985,
                samples=1000,
                scheme=scheme,
                word_lengths={"weight": [bits]},
                setting_key=f"{2 * index + (scheme == 'itq'):064}",
                formats={
                    f"layer{n}.weight": entry | {"format": f"Q0.{bits - 1 + n % 2}"}
                    for n in range(3)
                },
            )
            runs.append(Run(f"grid/{scheme}{bits}/record.json", record))
    return runs


def move(browser, name, value):
    """Put a slider on the notch of a value, as dragging it does."""
    browser.execute_script(
        "const input = document.getElementById('slide-' + arguments[0]);"
        "const found = [...Array(+input.max + 1).keys()].some(i => { input.value = i;"
        " input.dispatchEvent(new Event('input'));"
        " return bounds[arguments[0]] === arguments[1]; });"
        "if (!found) throw new Error('no such notch');",
        name,
        value,
    )


@pytest.mark.few(0.2)
@pytest.mark.parametrize(
    "bounds",
    [
        {"flash": 12_000},
        {"ram": 2_000},
        {"flash": 9_000, "ram": 6_000, "max_drop": 0.02},
        {"max_drop": None, "mu": 1.0},
        {"max_drop": 0.03, "mu": 0.0},
        {"flash": 6_000, "max_drop": 0.0},
    ],
)
def test_sliders_choose_as_a_selection_with_these_bounds_does(grid, opened, bounds):
    browser = opened(select(grid, Target(max_drop=0.01), LinearReward(0.1)))
    if bounds.get("max_drop") is not None:
        # Where there are candidates, at tenths of a point.
        notches = browser.execute_script(
            "return data.points.map(p => Math.ceil(1000 * p.drop - 1e-6) / 1000)"
        )
        wanted = bounds["max_drop"]
        bounds = bounds | {"max_drop": min(notches, key=lambda notch: abs(notch - wanted))}
    for name, value in bounds.items():
        move(browser, name, value)
    given = {"max_drop": 0.01} | {key: value for key, value in bounds.items() if key != "mu"}
    expected = select(grid, Target(**given), LinearReward(bounds.get("mu", 0.1)))
    states = browser.execute_script(
        "return Object.fromEntries(data.points.map(p => [p.path, p.state]))"
    )
    paths = {row.group.path.removesuffix("/record.json"): row for row in expected.compared}
    assert states.keys() == paths.keys()
    for path, row in paths.items():
        state = "dropped" if isinstance(row, Dropped) else "front" if row.on_front else "dominated"
        assert states[path] == state, path
    chosen = browser.execute_script("return winner && winner.path")
    (said,) = texts(browser, "#choice")
    if expected.winner is None:
        assert (chosen, said) == (None, "Nothing meets these bounds.")
    else:
        assert chosen == expected.winner.group.path.removesuffix("/record.json")
        assert f"{expected.winner.group.reduction:.1f}x smaller" in said
        assert texts(browser, "#rows tbody tr:first-child .why")[0].startswith("winner")
    (command,) = texts(browser, "#command code")
    for name in bounds:
        assert ("reward.mu=" if name == "mu" else f"target.{name}=") in command
    browser.execute_script("document.getElementById('reset').click()")
    assert texts(browser, "#choice") == [""]
    first = select(grid, Target(max_drop=0.01)).winner.group.path
    assert f"{browser.execute_script('return winner.path')}/record.json" == first


def test_the_command_of_the_sliders_can_be_read(grid, opened):
    browser = opened(select(grid, Target(max_drop=0.01)))
    move(browser, "flash", 12_000)
    move(browser, "max_drop", None)
    (command,) = texts(browser, "#command code")
    overrides = dict(word.removeprefix("target.").split("=") for word in command.split()[3:])
    assert overrides.pop("max_drop") == "null"
    assert Target.of(overrides).flash == 12_000


def test_a_reward_of_ones_own_has_no_sliders(grid, opened):
    browser = opened(select(grid, Target(), lambda record: record.accuracy))
    assert browser.execute_script("return document.getElementById('bounds').hidden")


@pytest.mark.parametrize("width", [320, 400, 1000, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(grid, opened, browser, width, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(select(grid, Target()))
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") is (scheme == "light")
        table = "return document.getElementById('rows').getBoundingClientRect().right <= innerWidth"
        assert browser.execute_script(table)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_every_control_has_a_name(grid, opened):
    browser = opened(select(grid, Target()))
    unnamed = browser.execute_script(
        "const named = n => n.getAttribute('aria-label') || n.textContent.trim() ||"
        " (n.labels && n.labels.length);"
        "return [...document.querySelectorAll('input, button, a, svg[role], [tabindex]')]"
        ".filter(n => !named(n)).map(n => n.outerHTML)"
    )
    assert unnamed == []
    values = browser.execute_script(
        "return [...document.querySelectorAll('input[type=range]')].map(n => n.ariaValueText)"
    )
    assert values == ["1.00 points", "any", "any", "0.1"]


def test_layers_are_a_heat_map_of_the_front(grid, opened):
    chosen = select(grid, Target())
    browser = opened(chosen)
    assert texts(browser, "#heat tbody th") == [f"layer{n}.weight" for n in range(3)]
    assert len(texts(browser, "#heat thead th")) == 1 + len(chosen.front)
    best = chosen.front[0].group.record.word_lengths["weight"][0]
    first = texts(browser, "#heat tbody td:nth-child(2)")
    assert first == [str(best), str(best + 1), str(best)]


def test_rows_link_to_their_records(make_record, opened, tmp_path):
    names = ["a", "b,=#%?", "c ä"]
    runs = []
    for index, name in enumerate(names):
        record = make_record(bits=800 - index, accuracy=0.97 - index / 1000, baseline_accuracy=0.97)
        path = write_record(record, tmp_path / name / "record.json")
        runs.append(Run(str(path), record))
    runs.append(Run("elsewhere/record.json", make_record(bits=700, baseline_accuracy=0.97)))
    browser = opened(select(runs, Target(), group_seeds=False))
    links = browser.execute_script(
        "return [...document.querySelectorAll('#rows td.name a')].map(a => a.href)"
    )
    files = {Path(unquote(urlsplit(link).path)) for link in links}
    assert files == {tmp_path / name / "record.json" for name in names}


def test_many_rows_are_shown_on_request(make_record, opened):
    browser = opened(select(many(make_record, 60), Target(max_drop=None)))
    assert len(texts(browser, "#rows tbody tr")) == 25
    assert texts(browser, "#more")[0].startswith("The first 25 of 60. ")
    browser.execute_script("document.querySelector('#more button').click()")
    assert len(texts(browser, "#rows tbody tr")) == 60
    assert texts(browser, "#more") == [""]


def test_behaviour_and_energy_of_the_winner(make_record, opened):
    layer = {
        "layer": EVIL,
        "neurons": 12,
        "rate": 0.05,
        "reference_rate": 0.1,
        "silent": 0.38,
        "reference_silent": 0.04,
        "saturated": 0.0,
        "reference_saturated": 0.0,
        "rate_distance": 0.05,
        "agreement": 0.9,
        "overlap": 0.5,
        "first_step": 3,
        "first_neuron": [1, 2],
    }
    drift = {
        "samples": 64,
        "agreement": 0.875,
        "first_layer": EVIL,
        "layers": [layer],
        "warnings": ["layer a: 38% silent, 4% before; give membrane 2 bits more"],
        "notes": ["layer b is not compared: it shows nothing"],
    }
    work = {"energy_nj": 1250.0, "lines": ["1.25 uJ per sample"]}
    device = {"file": "model.qspinn", "sha256": "0" * 64, "lines": [f"RAM: {EVIL}"]}
    record = make_record(baseline_accuracy=0.97, fidelity=drift, work=work, device_model=device)
    browser = opened(select([Run("a", record)]))
    assert texts(browser, "#behaves") == [
        "87.5% of 64 samples get the same class from both networks. "
        f"The first layer to differ is {EVIL}. layer b is not compared: it shows nothing."
    ]
    assert texts(browser, "#warnings li") == drift["warnings"]
    cells = ["12", "10.00% → 5.00%", "4.0% → 38.0%", "0.0% → 0.0%", "0.0500", "step 3, neuron 1,2"]
    assert texts(browser, "#drift td") == [EVIL, *cells]
    widths = browser.execute_script(
        "return ['before', 'after'].map(n => +document.querySelector(`#rates .${n}`)"
        ".getAttribute('width'))"
    )
    assert widths[0] == pytest.approx(2 * widths[1])
    assert texts(browser, "#work li") == work["lines"]
    assert texts(browser, "#model li") == ["device model: model.qspinn", *device["lines"]]
    assert "1.25 uJ" in texts(browser, "#rows td[data-name=energy]")
    assert texts(browser, "#rows td[data-name=alike]") == ["87.5%"]


def test_records_without_behaviour_leave_the_sections_out(selection, opened):
    browser = opened(selection)
    hidden = (
        "return ['behaviour', 'energy', 'device'].map(id => document.getElementById(id).hidden)"
    )
    assert browser.execute_script(hidden) == [True, True, True]
