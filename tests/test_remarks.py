"""A result that is none says so: in its row, in the table and on the page, and a good one says nothing."""

import numpy as np
import pytest
from lines import line, run

from sept.compose import expand
from sept.results import CHANCE, FEATURES, FLOOR, UNTRAINED, P, by_chance, gained, remarks
from sept.tables import rows
from sept.tables.labels import FLOOR_IS, explained
from sept.tables.report import report
from sept.tables.text import as_csv, as_markdown, as_terminal

TESTS = 1104  # of 46 classes


def test_a_good_result_deserves_no_remark():
    assert remarks(49.0, 800, 6.25, 15.0, [35.0, 30.0, 40.0]) == []


@pytest.mark.parametrize(
    ("score", "told"), [(2.7, [CHANCE, FLOOR]), (4.2, [FLOOR]), (27.5, []), (0.0, [CHANCE, FLOOR])]
)
def test_chance_and_the_floor_are_told_apart(score, told):
    assert remarks(score, TESTS, 100 / 46, 27.0) == told


def test_guesses_are_called_chance_as_often_as_promised():
    hits = np.random.default_rng(0).binomial(TESTS, 1 / 46, 2000)
    called = np.mean([by_chance(100 * each / TESTS, TESTS, 100 / 46) for each in hits])
    assert called >= 1 - 1.6 * P


def test_what_is_not_known_is_not_remarked_on():
    assert remarks(0.1, None, None, None, [-3.0]) == []  # a detector's average precision
    assert remarks(1.0, TESTS, 2.2, None) == [CHANCE]


@pytest.mark.parametrize(
    ("gains", "told"), [([1.0], True), ([10.0], False), ([-2.0, -1.0, 1.0], True), ([4.0, 5.0, 4.5], False)]
)
def test_a_gain_over_random_weights_counts_if_it_is_more_than_noise(gains, told):
    assert (UNTRAINED in remarks(20.0, 800, 6.25, 15.0, gains)) == told
    assert gained(20.0, 800, gains) != told


@pytest.mark.parametrize(("gain", "told"), [(-0.8, True), (1.0, True), (6.3, False)])
def test_features_are_compared_with_those_of_random_weights(gain, told):
    found = remarks(77.0, TESTS, 2.2, 27.0, [], probe=60.0, probe_gains=[gain])
    assert found == ([FEATURES] if told else [])


def test_a_table_has_the_remarks_and_says_what_they_mean():
    bad = line("sept", [2.0, 2.2], remarks=f"{CHANCE}, {FLOOR}", floor=27.0)
    good = line("random", [60.0, 61.0], floor=27.0)
    told = explained([bad, good])
    assert told[0] == FLOOR_IS
    assert [each.partition(":")[0] for each in told[1:]] == [CHANCE, FLOOR]
    assert explained([good | {"floor": None}]) == []
    for text in (as_terminal({"t": [bad, good]}), as_markdown({"t": [bad, good]})):
        assert f"{CHANCE}, {FLOOR}" in text.replace("\n", " ")
        assert told[1] in " ".join(text.split())
    assert as_csv({"t": [bad, good]}).count(CHANCE) == 1


def test_the_page_has_the_remarks_where_they_belong():
    bad = line("sept", [], [run(2.0, 0, remarks=[CHANCE])], remarks=CHANCE)
    good = line("random", [60.0])
    page = report({"t": [bad, good]})
    assert page.count(f"<small>{CHANCE}</small>") == 1
    assert page.count(f"{CHANCE}: ") == 2  # what it means, and with its run


@pytest.fixture
def settings(tiny):
    from conftest import TINY

    return [*TINY, f"store.root={tiny.store}"]


def test_a_run_of_the_tiny_store_is_remarked_on(settings):
    """Three epochs on 80 images of 32 px teach nothing, whatever the initial weights."""
    [found] = rows(expand("quickstart", [*settings, "init=random", "finetune.seed=0"]))
    [done] = found["runs"]
    assert done["chance"] == pytest.approx(6.25)
    assert 0 <= done["floor"] <= 100
    assert found["remarks"] == ", ".join(done["remarks"])
    assert CHANCE in done["remarks"]
    assert done["probe_untrained"] is not None
    [plain] = rows(expand("quickstart", [*settings, "init=rand_init", "finetune.seed=0"]))
    assert plain["runs"][0]["probe_untrained"] is None
    assert done["untrained"] == plain["runs"][0]["score"]
    assert UNTRAINED not in plain["remarks"]
