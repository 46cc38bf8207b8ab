"""Plain values of a configuration with the place each came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fc4d_ray.errors import ConfigError

Location = tuple[Any, ...]


@dataclass
class ConfigSource:
    """Nested plain values, and for each option the file line or the override it came from."""

    origin: str = "defaults"
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Location, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path | None) -> ConfigSource:
        """Read a YAML file; None gives an empty source."""
        if path is None:
            return cls()
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration {path}: {error}") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, origin: str) -> ConfigSource:
        """Read YAML text; ``origin`` names it in messages."""
        import yaml

        source = cls(origin=origin)
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is None:
                return source
            source._note_places(root, ())
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{origin} is not valid YAML: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{origin} must hold sections, found {type(values).__name__}")
        source.values = values
        return source

    def _note_places(self, node: Any, location: Location) -> None:
        import yaml

        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                below = (*location, key.value)
                place = f"{self.origin}, line {key.start_mark.line + 1}"
                if below in self.places:
                    raise ConfigError(
                        f"{place}: {'.'.join(map(str, below))} is given twice "
                        f"(first in {self.places[below]})"
                    )
                self.places[below] = place
                self._note_places(value, below)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                below = (*location, index)
                self.places[below] = f"{self.origin}, line {item.start_mark.line + 1}"
                self._note_places(item, below)

    def where(self, location: Location) -> str:
        """Place of an option, or of the closest thing around it that was written down."""
        for length in range(len(location), 0, -1):
            place = self.places.get(location[:length])
            if place is not None:
                return place
        return self.origin

    def section(self, name: str) -> Mapping[str, Any]:
        """Values of one section; an empty one where it is absent."""
        values = self.values.get(name)
        if values is None:
            return {}
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{self.where((name,))}: {name} must be a section with options, found {values!r}"
            )
        return values

    def merge(self, values: Mapping[str, Any]) -> None:
        """Lay nested plain values over what is there."""
        _merge(self.values, values)

    def override(self, text: str) -> None:
        """Apply ``a.b=c``; c is read as YAML, so numbers, booleans, null and lists work."""
        import yaml

        option, separator, written = text.partition("=")
        parts = tuple(option.strip().split("."))
        if not separator or not all(parts):
            raise ConfigError(f"--set {text}: expected section.option=value")
        try:
            value = yaml.safe_load(written)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {text}: the value is not valid YAML: {error}") from error
        target = self.values
        for index, part in enumerate(parts[:-1]):
            inner = target.setdefault(part, {})
            if inner is None:
                inner = target[part] = {}
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {text}: {'.'.join(parts[: index + 1])} is no section")
            target = inner
        target[parts[-1]] = value
        self.places[parts] = f"--set {text}"


def _merge(target: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value
