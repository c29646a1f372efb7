"""What `search.py` shows: a selection with its statistics and gallery, or the matches of looked-up images or words."""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sept.app.export import export
from sept.app.story import MEANING, story
from sept.config import Experiment
from sept.data.images import ImageError, Pixels
from sept.data.labelled import read_image, reader
from sept.data.pool import ConcatPool
from sept.data.sources.folder import list_folder
from sept.data.tasks.task import Example
from sept.errors import ConfigError, DataError
from sept.pipeline import Pipeline
from sept.retrieval.drawings import curve, histogram, plane, scatter
from sept.retrieval.estimate import estimate, measure
from sept.retrieval.features import Features
from sept.retrieval.gallery import Match, Row, format_value, write_html, write_png, written
from sept.retrieval.index import search
from sept.retrieval.select import Ranked, random_subset
from sept.retrieval.selections import COPIES, SELECTION, load_selection
from sept.stages import queries as query_stage
from sept.stages.inputs import open_encoder
from sept.stages.pool import open_pool
from sept.stages.task import locate
from sept.store import Store

QUERIES_SHOWN = 10  # spread evenly over the task's shots
MOST_DRAWN = 1_500  # points of each group on the map
SLUG_CHARS = 60  # of a text query, in a folder's name
PNG, HTML = "gallery.png", "gallery.html"
BLANK = np.full((32, 32, 3), 128, np.uint8)  # in place of a missing query image
PAPER_POOL = 155_000_000  # images of SEPT-155m


def show_selection(e: Experiment, pipeline: Pipeline, store: Store, folder: Path) -> str:
    """Copies the selection and its list of copies below `folder`, draws the gallery there, and describes the
    selection."""
    selection = store.read(pipeline.selection)
    folder = folder / selection.path.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(selection.path / SELECTION, folder / SELECTION)
    pool, table = _pool(pipeline, store), load_selection(folder / SELECTION)
    exported = [] if e.export is None else [f"  {export(pool, table, Path(e.export), e.export_copies)}"]
    if not e.searches:
        return "\n".join([f"{selection.facts['images']:,} images at random: {folder / SELECTION}", *exported])
    features = _features(pipeline, store)
    vectors, ids, _ = query_stage.load(store.read(pipeline.queries))
    places = np.linspace(0, len(ids) - 1, min(QUERIES_SHOWN, len(ids))).astype(int)
    rows = []
    if _has_images(pool):
        queries = [*zip([ids[i] for i in places], _shown(e, pipeline, store, ids, places), strict=True)]
        rows = _rows(queries, search(vectors[places], features, e.query.top), pool)
        rows += _extremes(table, pool, e.query.top)
    facts, tables = dict(selection.facts), [SELECTION]
    if not e.of_vectors:
        copies = store.read(pipeline.chosen[-1])
        shutil.copy(copies.path / COPIES, folder / COPIES)
        facts, tables = facts | copies.facts, [SELECTION, COPIES]
    facts = {name: value for name, value in facts.items() if name != "flops"}
    chosen = f"{facts['images']:,} of {len(pool):,} pool images"
    of = str(e.query.path) if e.of_vectors else e.task.name
    similar, drawings = _drawings(features, vectors, table, e.seed)
    told = story(of, e.retriever.name, len(pool), facts, similar)
    if rows:
        rows += _without(e, pipeline, store, ids, table)
        _draw(folder, f"{of}: {chosen}", rows, facts, story=told, drawings=drawings, meaning=MEANING)
    lines = [f"selected {chosen} for {facts['queries']} {'vectors' if e.of_vectors else 'images'} of {of}"]
    lines += [f"  {sentence}" for sentences in told.values() for sentence in sentences]
    lines += [
        f"  {name.replace('_', ' '):<28}{format_value(value)}" for name, value in facts.items() if name != "queries"
    ]
    lines.append(_scan_time(features, vectors, selection.facts.get("depth", e.query.top), pipeline.runtime.accelerator))
    written = [*tables, *((PNG, HTML) if rows else ())]
    return "\n".join([*lines, *(f"  {folder / name}" for name in written), *exported])


def _drawings(
    features: Features, vectors: np.ndarray, table: pa.Table, seed: int
) -> tuple[float | None, dict[str, str]]:
    """The mean cosine of a query and a random image, and drawings by their titles; without lists no histogram."""
    rows = random_subset(features.rows, min(features.rows, MOST_DRAWN + len(features.skipped)), seed)
    pool = features.take(np.setdiff1d(rows, features.skipped)[:MOST_DRAWN])
    chosen = features.take(table["row"].to_numpy()[:: max(1, len(table) // MOST_DRAWN)])
    mean, axes = plane(pool)
    groups = {"pool": pool, "selection": chosen, "task": vectors[:MOST_DRAWN]}
    map_of = scatter({name: (each - mean) @ axes for name, each in groups.items()})
    drawings = {"Pool, selection and task on the plane on which the pool varies most": map_of}
    if table["similarity"].null_count:
        return None, drawings
    random = (vectors[: MOST_DRAWN // 4] @ pool.T).ravel()
    told = {"a selected image and its query": table["similarity"].to_numpy(), "a random image and a query": random}
    drawings = {"How similar they are (cosine)": histogram(told)} | drawings
    return float(random.mean()), drawings | {"Mean similarity of the images taken at each rank": curve(_by_rank(table))}


def _without(e: Experiment, pipeline: Pipeline, store: Store, ids: Sequence[str], table: pa.Table) -> list[Row]:
    """Queries that brought nothing, on a line of the gallery."""
    if table["query"].null_count:
        return []
    brought = set(table["query"].to_pylist())
    places = np.array([i for i, name in enumerate(ids) if name not in brought][: e.query.top + 1], dtype=int)
    if not len(places):
        return []
    images = _shown(e, pipeline, store, ids, places)
    shown = [Match(ids[i], image, None) for i, image in zip(places, images, strict=True)]
    return [Row(f"brought nothing: {shown[0].caption}", shown[0].image, shown[1:])]


def _has_images(pool: ConcatPool) -> bool:
    """False for existing vectors whose names are no paths."""
    try:
        pool.image(0)
    except ImageError:
        return True  # a broken one
    except DataError:
        return False
    return True


def _shown(e: Experiment, pipeline: Pipeline, store: Store, ids: Sequence[str], places: np.ndarray) -> Iterator[Pixels]:
    """The images of the queries at these indices; for vectors the images that their names are paths of, or a blank
    one."""
    queries = pipeline.queries
    if not isinstance(queries.spec, query_stage.QueriesSpec):
        for place in places:
            file = Path(str(e.query.path)).parent / ids[place]
            yield read_image(Example(ids[place], file, 0)) if file.is_file() else BLANK
        return
    _, _, read, _ = query_stage.images(store.read(pipeline.task), locate(e.task), queries.spec)
    yield from (read(int(place)) for place in places)


def _scan_time(features: Features, vectors: np.ndarray, depth: int, device: str) -> str:
    """The time of an exact scan for these queries on this machine, of this pool and of the paper's, from measured
    rates."""
    rates = measure(features, vectors, device)
    times = {
        rows: estimate(rows, features.dim, len(vectors), depth, rates, overlapped=device != "cpu")
        for rows in (features.rows, PAPER_POOL)
    }
    told = ", ".join(f"{seconds:,.1f} s for {rows:,} images" for rows, seconds in times.items())
    return f"  estimated exact scan on this machine, pool in memory: {told}"


def show_matches(e: Experiment, pipeline: Pipeline, store: Store, folder: Path) -> str:
    """Looks up the images at query.path, or the words of query.text, in the pool: names, similarities, the gallery."""
    asked, ranked = _matches(e, pipeline, store)
    pool = _pool(pipeline, store)
    rows = _rows([(name, picture()) for name, picture in asked], ranked, pool)
    what = str(e.query.path or e.query.text)
    folder = folder / f"matches-{Path(what).stem if e.query.path else _slug(what)}"
    folder.mkdir(parents=True, exist_ok=True)
    _draw(folder, f"{what} in {e.pool.name}", rows, {"pool images": len(pool), "queries": len(rows)})
    lines = []
    for row in rows:
        lines += [row.label, *(f"  {match.similarity:.4f}  {match.caption}" for match in row.matches)]
    return "\n".join([*lines, *(f"  {folder / name}" for name in (PNG, HTML))])


def _slug(text: str) -> str:
    """Words as a folder's name."""
    return re.sub(r"\W+", "-", text)[:SLUG_CHARS].strip("-")


def look_up(e: Experiment, pipeline: Pipeline, store: Store) -> pa.Table:
    """The matches of the queries: columns query, rank (from 0), pool_key and similarity."""
    asked, ranked = _matches(e, pipeline, store)
    pool, depth = _pool(pipeline, store), ranked.rows.shape[1]
    columns = {
        "query": [name for name, _ in asked for _ in range(depth)],
        "rank": [rank for _ in asked for rank in range(depth)],
        "pool_key": [pool.key(row) for row in ranked.rows.ravel().tolist()],
        "similarity": ranked.scores.ravel().astype(np.float32),
    }
    return pa.table(columns)


def _matches(e: Experiment, pipeline: Pipeline, store: Store) -> tuple[list[tuple[str, Callable[[], Pixels]]], Ranked]:
    """The images at query.path or the words of query.text, each as its name and a function that returns its picture,
    and their ranked lists."""
    r, runtime, text = e.retriever, pipeline.runtime, e.query.text
    examples = _looked_up(Path(str(e.query.path))) if text is None else []
    preprocess, retriever = r.resolved_preprocess(), store.read(pipeline.retriever)
    encoder = open_encoder(retriever, r.feature, preprocess, runtime, r.batch_size, runtime.precision)
    if text is not None:
        asked, vectors = [(text, partial(written, text))], encoder.texts([text])
    else:
        asked = [(example.id, partial(read_image, example)) for example in examples]
        vectors, _ = encoder(reader(examples, preprocess.resize), range(len(examples)))
    return [*asked], search(vectors, _features(pipeline, store), e.query.top)


def _pool(pipeline: Pipeline, store: Store) -> ConcatPool:
    made = {f"pool{i}": store.read(step) for i, step in enumerate(pipeline.pools)}
    return open_pool(made, pipeline.pool_locations)


def _features(pipeline: Pipeline, store: Store) -> Features:
    return Features.concatenate([Features.open(store.read(step).path) for step in pipeline.features])


def _looked_up(path: Path) -> list[Example]:
    if path.is_dir():
        return [Example(entry.key, path / entry.key, 0) for entry in list_folder(path, "query")]
    if not path.is_file():
        raise ConfigError(f"query={path}: no such image or folder")
    return [Example(path.name, path, 0)]


def _rows(queries: Sequence[tuple[str, Pixels]], ranked: Ranked, pool: ConcatPool) -> list[Row]:
    rows = []
    for (label, image), found, scores in zip(queries, ranked.rows, ranked.scores, strict=True):
        pairs = zip(found.tolist(), scores.tolist(), strict=True)
        matches = [match for row, similarity in pairs if (match := _match(pool, row, similarity)) is not None]
        rows.append(Row(label, image, matches))
    return rows


def _extremes(table: pa.Table, pool: ConcatPool, top: int) -> list[Row]:
    """The images selected last, and random ones of the pool, to compare with the best matches."""
    if table["similarity"].null_count:  # selectors other than Algorithm 1 have none
        last: list[tuple[int, float | None]] = [(row, None) for row in table["row"].to_pylist()[-top:]]
    else:
        worst = np.argsort(table["similarity"].to_numpy(), kind="stable")[:top]
        last = [(int(table["row"][i].as_py()), float(table["similarity"][i].as_py())) for i in worst.tolist()]
    random = [(row, None) for row in random_subset(len(pool), min(len(pool), top), 0).tolist()]
    found = []
    for label, picked in (("selected last", last), ("random images of the pool", random)):
        matches = [match for row, similarity in picked if (match := _match(pool, row, similarity)) is not None]
        if matches:
            found.append(Row(label, matches[0].image, matches[1:]))
    return found


def _match(pool: ConcatPool, row: int, similarity: float | None) -> Match | None:
    try:
        return Match(pool.key(row), pool.image(row), similarity)
    except DataError:  # images that could not be read for embedding either
        return None


def _by_rank(table: pa.Table) -> list[float]:
    """Mean similarity of the selected images at each rank of the lists that yielded any."""
    rank, similarity = table["rank"].to_numpy(), table["similarity"].to_numpy()
    counts, sums = np.bincount(rank), np.bincount(rank, similarity)
    return (sums[counts > 0] / counts[counts > 0]).tolist()


def _draw(folder: Path, title: str, rows: list[Row], facts: dict, **page: Any) -> None:
    write_png(folder / PNG, rows)
    write_html(folder / HTML, title, rows, facts, **page)
