"""Results of any protocol: one shape, one JSON layout, one way to join the parts of a run.

A result is made of extractors, and each extractor of parts: the sequences, scenes or bags it was
measured on. What a protocol adds is a dataclass for its settings, one for a part, and functions
that average; :class:`ReportFormat` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Protocol, TypeVar

from mdnet_ros.data.plain import from_plain, to_plain
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.reports.html import HtmlPage
from mdnet_ros.evaluation.reports.tables import Section

#: Version of the JSON layout. 1, which had no number, was of mdnet_ros before its first release.
LAYOUT = 2


class NamedPart(Protocol):
    """A sequence, scene or bag that an extractor was measured on."""

    @property
    def name(self) -> str:
        """Its name, unique within an extractor."""
        ...


PartT = TypeVar('PartT', bound=NamedPart)
SettingsT = TypeVar('SettingsT')


@dataclass(frozen=True)
class ExtractorResult(Generic[PartT]):
    """One extractor on a data set; protocols may add fields of their own.

    Attributes:
        name: name in tables and files.
        licence: licence of its code and weights.
        parts: one entry for each sequence, scene or bag that could be measured.
    """

    name: str
    licence: str
    parts: tuple[PartT, ...]


ExtractorT = TypeVar('ExtractorT', bound=ExtractorResult[Any])


@dataclass(frozen=True)
class EvaluationResult(Generic[SettingsT, ExtractorT]):
    """Everything that one evaluation measured.

    Attributes:
        settings: everything that decides the results besides extractors and data.
        extractors: one entry for each, in the order they were asked for.
        omitted: what could not be measured and why, one line each.
    """

    settings: SettingsT
    extractors: tuple[ExtractorT, ...]
    omitted: tuple[str, ...]

    def part_names(self) -> list[str]:
        """Names of all parts that were measured with any extractor, in order."""
        return list(dict.fromkeys(part.name for e in self.extractors for part in e.parts))

    def of_part(self, name: str) -> list[tuple[ExtractorT, Any]]:
        """Return the extractors that were measured on a part, each with that part."""
        return [(e, part) for e in self.extractors for part in e.parts if part.name == name]

    def omitted_lines(self) -> list[str]:
        """Lines for tables and pages that say what was left out."""
        return [f'left out: {line}' for line in self.omitted]


@dataclass(frozen=True)
class ReportFormat:
    """How one benchmark's results are averaged, saved and reported.

    Attributes:
        name: name on the command line and in files.
        result: type of its results, an :class:`EvaluationResult` with its parameters.
        extractor_metrics: averages of an extractor, as the JSON shows them.
        part_metrics: averages of one part, as the JSON shows them.
        sections: tables and lines of a result, with published results beside or not.
        page: builds the HTML report of a result, with published results beside or not, and with
            pictures from the measured data where there is some.
        published: published results, a dataclass each.
    """

    name: str
    result: Any
    extractor_metrics: Callable[[Any], dict[str, Any]]
    part_metrics: Callable[[Any], dict[str, Any]]
    sections: Callable[[Any, bool], list[Section]]
    page: Callable[[Any, bool, Any], HtmlPage]
    published: tuple[Any, ...] = ()

    def to_json(
        self, result: EvaluationResult[Any, Any], published: bool = False
    ) -> dict[str, Any]:
        """Turn a result into a JSON document that :meth:`from_json` reads.

        The averages under ``figures`` are for readers; everything else is the result itself, so
        that the parts of a run are joined exactly.

        Args:
            result: result of this protocol.
            published: add the published results, under a key of their own.
        """
        document: dict[str, Any] = {
            'protocol': self.name,
            'layout': LAYOUT,
            'settings': to_plain(result.settings),
            'omitted': list(result.omitted),
            'extractors': {
                extractor.name: {
                    **_without(to_plain(extractor), 'name', 'parts'),
                    'figures': self.extractor_metrics(extractor),
                    'parts': {
                        part.name: {
                            'figures': self.part_metrics(part),
                            **_without(to_plain(part), 'name'),
                        }
                        for part in extractor.parts
                    },
                }
                for extractor in result.extractors
            },
        }
        if published:
            document['published'] = to_plain(self.published)
        return document

    def from_json(self, document: dict[str, Any], where: str) -> Any:
        """Rebuild a result from its JSON document.

        Args:
            document: parsed JSON.
            where: what an error names, such as the file.

        Raises:
            DataError: it has another layout, or is not a result of this protocol.
        """
        layout = document.get('layout', 1)
        if layout != LAYOUT:
            raise DataError(
                f'{where}: written in layout {layout}, expected layout {LAYOUT}: run the '
                'evaluation again with this version'
            )
        extractors = _named(document.get('extractors'), f'{where}: extractors')
        for extractor in extractors:
            parts = f'{where}: extractors: {extractor["name"]}: parts'
            extractor['parts'] = _named(extractor.get('parts'), parts)
        values = {key: document.get(key) for key in ('settings', 'omitted')}
        return from_plain(self.result, {**values, 'extractors': extractors}, where)


ResultT = TypeVar('ResultT', bound=EvaluationResult[Any, Any])


def merge(results: Sequence[ResultT]) -> ResultT:
    """Join results of different parts or extractors.

    Args:
        results: at least one, all of the same protocol.

    Returns:
        One result; the parts of each extractor are sorted by name.

    Raises:
        DataError: settings differ, an extractor has a part twice, or its other fields differ.
    """
    first = results[0]
    extractors: dict[str, ExtractorResult[Any]] = {}
    parts: dict[str, dict[str, Any]] = {}
    for result in results:
        if result.settings != first.settings:
            difference = _difference(result.settings, first.settings)
            raise DataError(f'results: settings differ: {difference}')
        for extractor in result.extractors:
            known = extractors.setdefault(extractor.name, extractor)
            difference = _difference(replace(known, parts=()), replace(extractor, parts=()))
            if difference:
                raise DataError(f"results: '{extractor.name}' differs: {difference}")
            by_name = parts.setdefault(extractor.name, {})
            for part in extractor.parts:
                if part.name in by_name:
                    raise DataError(f"results: '{extractor.name}' has '{part.name}' twice")
                by_name[part.name] = part
    return replace(
        first,
        extractors=tuple(
            replace(extractor, parts=tuple(part for _, part in sorted(parts[name].items())))
            for name, extractor in extractors.items()
        ),
        omitted=tuple(dict.fromkeys(line for result in results for line in result.omitted)),
    )


def _difference(a: Any, b: Any) -> str:
    """Names and values of the fields in which two dataclasses of one type differ."""
    pairs = {f.name: (getattr(a, f.name), getattr(b, f.name)) for f in fields(a)}
    return ', '.join(f'{name} {x!r} and {y!r}' for name, (x, y) in pairs.items() if x != y)


def _without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}


def _named(entries: Any, where: str) -> list[dict[str, Any]]:
    """Turn a table of entries by name into a list of entries that hold their name."""
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise DataError(f'{where}: expected a table of tables by name')
    return [
        {**_without(values, 'figures'), 'name': name} for name, values in entries.items()
    ]
