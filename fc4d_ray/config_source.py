"""Plain values of a configuration with the place each came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fc4d_ray.errors import ConfigError

Location = tuple[Any, ...]
DEFAULT_REGISTRY = "fc4d_ray.stages:REGISTRY"
DEFAULT_BASE = "embedded"
NO_BASE = "none"


@dataclass
class ConfigSource:
    """Nested plain values, and for each option the file line or the override it came from."""

    origin: str = "defaults"
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Location, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> ConfigSource:
        """Read a YAML file, or a profile by its name."""
        if str(path) in profile_names():
            path = profile_path(str(path))
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

    def with_base(self) -> ConfigSource:
        """These values over those of the profile or file they are based on.

        A section that chooses another variant by ``name`` takes nothing from the base's section.
        """
        is_foreign = self.values.get("registry", DEFAULT_REGISTRY) != DEFAULT_REGISTRY
        name = self.values.get("base", NO_BASE if is_foreign else DEFAULT_BASE)
        if name in (None, NO_BASE):
            return self
        if not isinstance(name, str):
            raise ConfigError(f"{self.where(('base',))}: base must be a name or a file")
        base = self._read_base(name)
        base = base.with_base() if "base" in base.values else base
        values = dict(base.values)
        for key, section in self.values.items():
            below = values.get(key)
            if isinstance(section, Mapping) and isinstance(below, Mapping):
                same = section.get("name", below.get("name")) == below.get("name")
                values[key] = _laid_over(below if same else {}, section)
            else:
                values[key] = section
        return ConfigSource(self.origin, values, base.places | self.places)

    def _read_base(self, name: str) -> ConfigSource:
        if name in profile_names():
            return ConfigSource.read(profile_path(name))
        return ConfigSource.read(Path(self.origin).parent / name)

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
        self.values = _laid_over(self.values, values)

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
        for length in range(1, len(parts)):
            self.places.setdefault(parts[:length], f"--set {text}")


def profile_names() -> tuple[str, ...]:
    """Names of the configurations that come with the package."""
    return tuple(sorted(path.stem for path in profile_directory().glob("*.yaml")))


def profile_path(name: str) -> Path:
    """File of a configuration that comes with the package."""
    return profile_directory() / f"{name}.yaml"


def profile_directory() -> Path:
    """``configs/``: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested merge; values of ``above`` win."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = _laid_over(under, value) if both else value
    return merged
