"""The report says what the rows say, needs nothing but itself, and shows a figure only where there is one."""

import base64
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import TINY, Tiny
from lines import line, run, table
from PIL import Image

from sept import compose
from sept.compose import expand
from sept.tables.__main__ import main
from sept.tables.charts import charts
from sept.tables.figures import COLOURS, OTHERS, _marked, draw
from sept.tables.html import grid, page
from sept.tables.pictures import CHOSEN, QUERIES, strips
from sept.tables.report import report
from sept.tables.rows import rows

VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Tags in order, checked to nest; ids, links, sources and the text between."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: dict[str, str] = {}  # text of a link by where it leads
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []
        self.sources += [named["src"]] if "src" in named else []
        assert not {"onclick", "onload", "style"} & named.keys() or "svg" in self.open
        if tag == "a":
            self.links[named["href"]] = ""
            self.leads = named["href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        named = dict(attrs)
        self.ids += [named["id"]] if "id" in named else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if "a" in self.open:
            self.links[self.leads] += data


def budgets() -> list[dict]:
    return table(
        line("rand_init", [10.0, 11.0]),
        line("random", [20.0, 22.0], budget=100, paper=30.0),
        line("random", [24.0, 26.0], budget=200, paper=33.0),
        line("sept", [40.0, 42.0], budget=100, paper=50.0),
        line("sept", [46.0, 48.0], budget=200, status="1 of 3 missing"),
        line("sept", [], budget=400, reason="no data in /x"),
    )


def assert_needs_nothing(text: str) -> None:
    inside = re.sub(r"data:image/jpeg;base64,[^\"]*", "", text)
    assert not re.search(r"https?:|//|url\((?!#)|@import|<script|<link|<iframe|<object|src=\"(?!\")", inside)


def test_the_page_needs_nothing_but_itself_and_its_links_lead_somewhere():
    text = report({"t": budgets(), "u": budgets()})
    assert_needs_nothing(text)
    found = Page(text)
    assert len(found.ids) == len(set(found.ids))
    assert {href.removeprefix("#") for href in found.links} <= set(found.ids)
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert len(references) > 20  # of the figures too
    assert references <= set(found.ids)


def test_every_number_is_that_of_its_row_and_leads_to_its_runs():
    lines = budgets()
    text = report({"t": lines})
    found = Page(text)
    for place, each in enumerate(lines):
        number = "–" if not each["n"] else f"{each['mean']:.2f} ± {each['std']:.2f}"
        assert found.links[f"#t-{place + 1}"] == number
        section = text.partition(f'<section id="t-{place + 1}">')[2].partition("</section>")[0]
        assert section.count("<pre>python train.py") == each["n"]
        for made in each["runs"]:
            assert f"top-1 {made['score']:.2f} · seed {made['seed']}, fine-tuning seed 0" in section
            assert f"key {made['key'][:16]}" in section
            assert made["artefacts"][0]["path"] in section
            assert "commit 0123456789ab" in section
    texts = " ".join(found.texts)
    assert texts.count("paper 50.00") == 1
    assert "missing: no data in /x" in texts
    assert "1 of 3 missing" in texts
    assert "5 of 6 comparisons have finished runs." in texts


def test_differences_and_costs_stand_on_the_page():
    lines = table(line("random", [20.0, 22.0]), line("sept", [40.0, 36.0]), line("union_topk", [21.0, 22.5]))
    text = report({"t": lines})
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", text)
    place = cells.index("sept - random")
    assert cells[place + 2 : place + 6] == ["+17.00", "[-21.12, +55.12]", "within noise", "2 seeds"]
    assert text.count('<tr class="noise">') == cells.count("within noise")
    total = cells[cells.index("all") :]
    assert total[1:3] == ["6", "1.2e+10"]  # six runs with an artefact each


def test_the_page_says_beside_a_number_what_its_spread_is_over():
    runs = [run(40.0 + again, 0, again) for again in range(3)]
    texts = Page(report({"t": [line("random", [], runs), line("sept", [1.0, 2.0])]})).texts
    assert texts.count("3 fine-tunings") == texts.count("2 seeds") == 1
    [note] = [text for text in texts if "Pre-trainings vary more" in text]
    assert "python train.py +table=t seed=0,1,2" in note


def test_names_are_escaped():
    evil = "<b>\"&amp;'</b><script>alert(1)</script>"
    lines = table(line("random", [1.0, 2.0], task=evil, pool=evil), line("sept", [2.0, 1.0], task=evil, pool="q"))
    lines[0]["runs"][0]["artefacts"][0]["path"] = evil
    text = report({"t": lines})
    assert "<script" not in text
    assert "<b>&quot;" not in text
    Page(text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_table_with_nothing_finished_is_a_page_too():
    text = report({"t": [line("sept", [], paper=3.0), line("random", [])]})
    Page(text)
    assert "0 of 2 comparisons have finished runs." in text
    assert "paper 3.00" in text
    assert "<svg" not in text
    assert "Costs" not in text


def series(chart) -> dict[str, list[tuple[float, float, float | None]]]:
    return {s.label: [(p.x, p.y, p.paper) for p in s.points] for s in chart.panels[0].series}


def test_accuracy_over_budget_has_a_line_for_each_init_and_levels_for_those_without():
    chart = {each.name: each for each in charts(budgets())}["budget"]
    assert series(chart) == {
        "rand_init": [(0, 10.5, None)],
        "random": [(100, 21.0, 30.0), (200, 25.0, 33.0)],
        "sept": [(100, 41.0, 50.0), (200, 47.0, None)],
    }
    assert [each.level for each in chart.panels[0].series] == [True, False, False]


def test_accuracy_over_pool_size_names_the_pools_there_and_joins_none():
    def sized(init: str, score: float, images: int, **rest) -> dict:
        return line(init, [], [run(score, 0, pool_images=images)], pool_images=images, **rest)

    lines = [
        line("rand_init", [5.0]),
        sized("sept", 30.0, 2000, variant="pool.images=2000, pool.seed=1"),
        sized("sept", 20.0, 1000, variant="pool.images=1000, pool.seed=2"),
        sized("sept", 40.0, 9000, pool="large"),
    ]
    chart = {each.name: each for each in charts(lines)}["pool"]
    assert series(chart)["sept"] == [(1000, 20.0, None), (2000, 30.0, None), (9000, 40.0, None)]
    assert chart.panels[0].names == {1000: "p", 2000: "p", 9000: "large"}
    svg = draw(chart, "t")
    assert ">9k large<" in svg
    assert "pool" not in {each.name for each in charts(lines[:2])}


def test_bars_stand_side_by_side_for_each_task_and_number_of_shots():
    lines = [line(init, [score], task=task) for task, score in (("a", 1.0), ("b", 2.0)) for init in ("random", "sept")]
    lines.append(line("sept", [3.0], task="b", shot=10))
    chart = next(each for each in charts(lines) if each.name == "bars")
    assert [panel.title for panel in chart.panels] == ["5 shots", "10 shots"]
    assert chart.panels[0].ticks == ("a", "b")
    assert series(chart) == {"random": [(0, 1.0, None), (1, 2.0, None)], "sept": [(0, 1.0, None), (1, 2.0, None)]}
    assert chart.panels[1].ticks == ("b",)


def test_too_many_ways_to_start_are_shown_at_the_smallest_budget():
    lines = [line(init, [1.0], budget=budget) for init in ("random", "sept") for budget in (30, 20, 40, 50, 60)]
    chart = next(each for each in charts(lines) if each.name == "bars")
    assert [each.label for each in chart.panels[0].series] == ["random", "sept"]
    assert "Budget: 20 images." in chart.caption


def test_figures_are_drawn_only_where_the_rows_have_what_they_need():
    assert charts([line("sept", [1.0, 2.0])]) == []
    assert charts([line("sept", []), line("random", []), line("rand_init", [])]) == []
    assert [each.name for each in charts([line("sept", [1.0]), line("random", [2.0])])] == ["bars"]
    dear = line("sept", [], [run(3.0, 0, flops=5e9)], flops=5e9)
    assert [each.name for each in charts([line("rand_init", [1.0]), dear])] == ["bars", "flops"]


def test_accuracy_over_compute_shows_what_is_shared_too():
    dear = line("sept", [], [run(3.0, 0)], flops=5e9)
    chart = charts([line("rand_init", [1.0]), dear])[-1]
    assert [(p.x, p.further) for s in chart.panels[0].series for p in s.points] == [(2e9, 3e9), (5e9, 6e9)]


def test_the_pareto_front_is_what_no_cheaper_row_reaches():
    spent = [("random", 1.0, 1e9), ("random", 5.0, 2e9), ("sept", 4.0, 3e9), ("sept", 7.0, 4e9), ("sept", 6.0, 4e9)]
    lines = [line(init, [], [run(score, 0)], flops=flops, budget=i) for i, (init, score, flops) in enumerate(spent)]
    [chart] = [each for each in charts(lines) if each.name == "flops"]
    assert chart.panels[0].front == ((1e9, 1.0), (2e9, 5.0), (4e9, 7.0))
    assert "stroke-dasharray" in draw(chart, "t")


def of_network(network: str, *spent: tuple[float, float], method: str = "byol") -> list[dict]:
    cell = compose.experiment([f"backbone={network}"])
    about = {"method": method, "variant": f"backbone={network}", "cell": cell}
    return [line("random", [score], compute=f"{x:g}", flops=x, **about) for x, score in spent]


def told(lines: list[dict]) -> tuple[tuple, list[str]]:
    """The rings of accuracy over compute, and the sentences about networks."""
    [chart] = [each for each in charts(lines) if each.name == "flops"]
    rings = " Rings: where the means of two networks cross. "
    return chart.panels[0].crossings, re.findall(
        r"[^.]+ is (?:not )?ahead of [^.]+\.", chart.caption.partition(rings)[2]
    )


def test_a_larger_network_crosses_a_smaller_one_where_their_lines_do():
    """Halfway between two gaps of equal size, on the logarithmic axis that is drawn."""
    small = of_network("vit_s16", (1e9, 10.0), (1e11, 30.0), (1e13, 40.0))
    lines = small + of_network("vit_b16", (1e11, 20.0), (1e13, 50.0))
    assert told(lines) == (
        ((pytest.approx(1e12), pytest.approx(35.0)),),
        ["random: vit_b16 is ahead of vit_s16 from 1e+12 FLOPs on."],
    )
    [chart] = [each for each in charts(lines) if each.name == "flops"]
    assert draw(chart, "t") != draw(replace(chart, panels=(replace(chart.panels[0], crossings=()),)), "t")


@pytest.mark.parametrize(
    ("large", "sentences"),
    [
        (((1e9, 1.0), (1e11, 2.0)), ["vit_b16 is not ahead of vit_s16 up to 1e+11 FLOPs."]),
        (((1e9, 11.0), (1e11, 32.0)), ["vit_b16 is ahead of vit_s16 from 1e+09 FLOPs on, the least that both have."]),
        (((1e12, 11.0), (1e13, 32.0)), []),  # no compute that both have
        (((1e9, 99.0),), []),
    ],
)
def test_networks_that_do_not_cross_are_told_apart(large, sentences):
    lines = of_network("vit_s16", (1e9, 10.0), (1e11, 30.0)) + of_network("vit_b16", *large)
    assert told(lines) == ((), [f"random: {each}" for each in sentences])


def test_methods_cross_on_their_own():
    lines = [
        *of_network("vit_b16", (1e9, 1.0), (1e11, 40.0)),
        *of_network("vit_s16", (1e9, 10.0), (1e11, 30.0)),
        *of_network("vit_b16", (1e9, 1.0), (1e11, 2.0), method="mae"),
        *of_network("vit_s16", (1e9, 10.0), (1e11, 30.0), method="mae"),
    ]
    rings, sentences = told(lines)
    assert len(rings) == 1
    assert [each.partition(":")[0].strip() for each in sentences] == ["random, byol", "random, mae"]


def test_a_network_that_is_ahead_in_between_is_told_where_it_is_not():
    lines = of_network("vit_s16", (1e9, 10.0), (1e10, 20.0), (1e11, 30.0))
    lines += of_network("vit_b16", (1e9, 1.0), (1e10, 25.0), (1e11, 29.0))
    assert told(lines) == ((), ["random: vit_b16 is not ahead of vit_s16 at 1e+11 FLOPs."])


def test_budgets_of_equal_compute_are_lines_of_their_own():
    cell = compose.experiment(["compute.epochs=null", "compute.flops=1e13"])
    lines = [
        line("sept", [score], budget=budget, compute=f"{x:g} FLOPs", flops=x, cell=cell)
        for x, budget, score in ((1e13, 100, 50.0), (1e13, 900, 60.0), (2e13, 100, 55.0), (2e13, 900, 65.0))
    ]
    [chart] = [each for each in charts(lines) if each.name == "flops"]
    assert series(chart) == {
        "sept, budget 100": [(1e13, 50.0, None), (2e13, 55.0, None)],
        "sept, budget 900": [(1e13, 60.0, None), (2e13, 65.0, None)],
    }


def test_the_front_leaves_out_what_starts_from_weights_of_unknown_cost():
    given = line("in1k_ssl", [], [run(90.0, 0)], flops=1e6)
    further = line("sept from hub", [], [run(95.0, 0)], flops=1e7)
    made = [line("random", [score], budget=i, flops=x) for i, (score, x) in enumerate(((5.0, 1e9), (7.0, 2e9)))]
    [chart] = [each for each in charts([given, further, *made]) if each.name == "flops"]
    assert chart.panels[0].front == ((1e9, 5.0), (2e9, 7.0))


def test_methods_of_one_init_have_marks_of_their_own():
    lines = [line("sept", [1.0], method=f"m{i}", flops=x) for i in range(10) for x in (1e9, 2e9)]
    for each in lines:
        each["compute"] = f"{each['flops']:g}"
    [chart] = [each for each in charts(lines) if each.name == "flops"]
    assert len({mark for _, mark in _marked(chart.panels[0])}) == 10


def test_the_cost_of_a_run_is_stacked_by_stage():
    parts = [{"stage": "features", "flops": 4e9, "shared": True}, {"stage": "finetune", "flops": 1e9, "shared": False}]
    lines = [line("random", [1.0]), line("sept", [], [run(2.0, 0, artefacts=parts), run(3.0, 1, artefacts=parts)])]
    [chart] = [each for each in charts(lines) if each.name == "stages"]
    [panel] = chart.panels
    assert {each.label: [point.y for point in each.points] for each in panel.series} == {
        "finetune": [2e9, 1e9],
        "features (shared)": [0.0, 4e9],
    }
    assert ">features (shared)" in draw(chart, "t")


def test_of_many_rows_the_longest_pre_trainings_are_stacked():
    parts = [{"stage": "features", "flops": 4e9, "shared": True}, {"stage": "pretrain", "shared": False}]
    lines = []
    for method in map(str, range(12)):
        for x in (2e10, 4e10, 1e10):
            spent = run(1.0, 0, artefacts=[parts[0], parts[1] | {"flops": x}])
            lines.append(line("sept", [], [spent], method=method, compute=f"{x:g}", flops=x))
    [chart] = [each for each in charts(lines) if each.name == "stages"]
    [panel] = chart.panels
    assert panel.ticks == tuple(f"a, 5 shots, sept, {method}" for method in range(12))
    assert [[point.y for point in each.points] for each in panel.series] == [[4e9] * 12, [4e10] * 12]
    assert "the longest" in chart.caption


def test_the_papers_accuracies_are_drawn_over_counted_flops_without_any_run():
    """SEPT Tables 2 and 3, Food-101, 5 shots; FLOPs as in the ledger's tests."""
    lines = rows(expand("table3", ["task=food101", "shot=5shot", "retriever.weights=x", "init.weights=x"]))
    [chart] = [each for each in charts(lines) if each.name == "printed"]
    [panel] = chart.panels
    points = {each.label: {f"{point.x:.2e}": point.y for point in each.points} for each in panel.series}
    assert points["sept"]["2.16e+18"] == pytest.approx(55.6, abs=0.05)
    assert points["random"]["1.08e+19"] == pytest.approx(32.7, abs=0.05)


def test_the_papers_detectors_are_drawn_by_their_own_measure():
    lines = rows(expand("table7", ["task=voc", "retriever.weights=x", "init.weights=x"]))
    [chart] = [each for each in charts(lines) if each.name == "printed"]
    assert chart.y == "mAP"


def test_a_random_subset_of_one_source_is_drawn_in_the_colour_of_random_ones():
    [chart] = charts([line("random", [2.0]), line("random curated 100%", [3.0]), line("sept", [4.0])])
    svg = draw(chart, "t")
    assert ">random curated 100%" in svg
    assert len(set(re.findall("#[0-9a-f]{6}", svg)) & set(COLOURS.values())) == 2


def test_a_selector_that_nobody_gave_a_colour_is_drawn_in_one_of_the_others():
    [chart] = charts([line("random", [2.0]), line("sept", [4.0]) | {"init": "mine"}])
    colours = set(re.findall("#[0-9a-f]{6}", draw(chart, "t")))
    assert len(colours & set(COLOURS.values())) == len(colours & set(OTHERS)) == 1


@pytest.mark.parametrize("chart", charts(budgets()), ids=lambda chart: chart.name)
def test_a_figure_is_svg_in_the_colours_of_the_page(chart):
    svg = draw(chart, "t")
    assert_needs_nothing(svg)
    Page(svg)
    assert svg.startswith("<svg ")
    assert "currentColor" in svg
    assert not re.search("#010203|#fff", svg)  # a white ground would hide white letters on a dark page
    for label in ("random", "sept", "rand_init"):
        assert f">{label}" in svg
    assert draw(chart, "t") == svg


def test_dollars_and_angles_in_names_are_drawn_as_they_are():
    [chart] = charts([line("sept", [1.0], task="$a_1$ <x>"), line("random", [2.0], task="$a_1$ <x>")])
    svg = draw(chart)
    assert "$a_1$ &lt;x&gt;" in svg


def test_the_pieces_of_a_page_escape():
    Page(page("<t>", [grid(["<a>", "b"], [["<c>", "1"]], (1,), ["x"])]))
    assert "<c>" not in grid(["a"], [["<c>"]], ())


def test_galleries_show_what_each_query_brought(tiny: Tiny):
    """From the packed selection: nothing is searched, and the store stays as it is."""
    before = sorted(tiny.store.rglob("*"))
    settings = [*TINY, f"store.root={tiny.store}", "finetune.seed=0"]
    rand_init, random, sept = (strips(e) for e in expand("quickstart", settings))
    assert sorted(tiny.store.rglob("*")) == before
    assert rand_init == []
    assert [(each.query is None, len(each.chosen)) for each in random] == [(True, CHOSEN)]
    assert len(sept) == QUERIES
    assert all(each.query is not None and each.chosen for each in sept)
    similarities = [similarity for _, similarity in sept[0].chosen]
    assert similarities == sorted(similarities, reverse=True)
    [missing] = expand("quickstart", [*settings, "init=sept", "budget.images=64"])
    assert strips(missing) == []


def test_the_report_of_a_store(tiny: Tiny, tmp_path: Path, capsys):
    settings = [*TINY, f"store.root={tiny.store}", "finetune.seed=0"]
    assert main(["quickstart", *settings, "--html", str(tmp_path / "report.html")]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'report.html'}\n"
    text = (tmp_path / "report.html").read_text()
    assert_needs_nothing(text)
    found = Page(text)
    for place, each in enumerate(rows(expand("quickstart", settings))):
        assert found.links[f"#quickstart-{place + 1}"] == f"{each['mean']:.2f}"
        assert each["runs"][0]["key"][:16] in text
        assert (tiny.store / each["runs"][0]["artefacts"][-1]["path"]).is_dir()
    assert len(found.sources) > QUERIES
    with Image.open(io.BytesIO(base64.b64decode(found.sources[0].partition(",")[2]))) as first:
        assert first.format == "JPEG"
    assert str(tiny.store) not in text
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]
    assert main(["quickstart", *settings, "--html", str(tmp_path / "none" / "report.html")]) == 74
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_neither_torch_nor_matplotlib_is_imported_for_a_table(tmp_path):
    code = "import sys, sept.tables, sept.tables.figures; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "set()\n"
