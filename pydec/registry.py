"""Named parts and the specification strings that make them, ``name:key=value,key=value``.

A package that offers parts owns one ``Registry``; each part registers itself by name. The command
line, the contract tests and the benchmarks read the registries, so a new part is one new file.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, Generic, TypeVar, cast

from pydec.errors import ConfigError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_BOOLS = dict.fromkeys(("true", "1", "yes", "on"), True)
_BOOLS |= dict.fromkeys(("false", "0", "no", "off"), False)


@dataclass(frozen=True)
class Option:
    """One option of a registered part, as ``pydec list`` prints it."""

    name: str
    type: str
    default: Any
    required: bool


class Registry(Generic[T]):
    """Parts of one kind, by name.

    Args:
        kind: what the parts are, in the singular, for error messages ("compressor").
        context: parameters that the caller of ``make`` supplies (for example ``size``); they are
            not options of a specification string.
    """

    def __init__(self, kind: str, context: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self._context = context
        self._parts: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[F], F]:
        """Class or function decorator that makes its subject known as ``name``."""

        def add(part: F) -> F:
            if name in self._parts:
                raise ConfigError(f"{self.kind} {name!r} is registered twice")
            self._parts[name] = part
            return part

        return add

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def get(self, name: str) -> Callable[..., T]:
        """The class or function registered as ``name``; ConfigError lists the known names."""
        if name not in self._parts:
            known = ", ".join(self)
            raise ConfigError(f"unknown {self.kind} {name!r}; known: {known}")
        return self._parts[name]

    def summary(self, name: str) -> str:
        """First line of the part's docstring."""
        return (inspect.getdoc(self.get(name)) or "").partition("\n")[0]

    def options(self, name: str) -> list[Option]:
        """Options that a specification string may set for ``name``, in order."""
        part = self.get(name)
        hints = _hints(part)
        return [
            Option(p.name, _type_name(hints.get(p.name, str)), p.default, p.default is p.empty)
            for p in inspect.signature(part).parameters.values()
            if p.name not in self._context and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]

    def takes(self, spec: str, parameter: str) -> bool:
        """Whether the part that ``spec`` names wants that context parameter."""
        name = spec.partition(":")[0].strip()
        return parameter in self._context and parameter in inspect.signature(self.get(name)).parameters

    def make(self, spec: str, **context: Any) -> T:
        """Build the part that ``spec`` names.

        Args:
            spec: ``name`` or ``name:key=value,key=value``.
            **context: what the registry's context parameters are, for parts that take them.

        Raises:
            ConfigError: unknown name or option, a value of the wrong type or outside its range.
        """
        name, _, rest = spec.partition(":")
        name = name.strip()
        part = self.get(name)
        signature = inspect.signature(part).parameters
        hints = _hints(part)
        options = self.options(name)
        allowed = [option.name for option in options]
        values: dict[str, Any] = {key: value for key, value in context.items() if key in signature}
        given: set[str] = set()
        for item in filter(None, (piece.strip() for piece in rest.split(","))):
            key, equals, text = (piece.strip() for piece in item.partition("="))
            if not equals or not text:
                raise ConfigError(f"{self.kind} {spec!r}: {item!r} is not of the form key=value")
            if key not in allowed:
                known = ", ".join(allowed) or "none"
                raise ConfigError(f"{self.kind} {spec!r}: {name} has no option {key!r}; its options: {known}")
            if key in given:
                raise ConfigError(f"{self.kind} {spec!r}: option {key!r} is given twice")
            given.add(key)
            values[key] = self._convert(spec, key, text, hints.get(key, str))
        if missing := [option.name for option in options if option.required and option.name not in given]:
            raise ConfigError(
                f"{self.kind} {spec!r}: {name} needs {', '.join(f'{key}=...' for key in missing)}"
            )
        try:
            return part(**values)
        except ConfigError as error:
            raise ConfigError(f"{self.kind} {spec!r}: {error}") from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.kind} {spec!r}: {error}") from error

    def _convert(self, spec: str, key: str, text: str, hint: Any) -> Any:
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
            if text.lower() == "none" and len(kinds) < len(typing.get_args(hint)):
                return None
            hint = kinds[0]
        if typing.get_origin(hint) is typing.Literal:
            choices = {str(choice): choice for choice in typing.get_args(hint)}
            if text in choices:
                return choices[text]
            raise ConfigError(
                f"{self.kind} {spec!r}: {key} must be one of {', '.join(choices)}, got {text!r}"
            )
        try:
            if hint is bool:
                return _BOOLS[text.lower()]
            return hint(text) if hint in (int, float, str) else text
        except (KeyError, ValueError):
            wanted = _type_name(hint)
            raise ConfigError(f"{self.kind} {spec!r}: {key} must be {wanted}, got {text!r}") from None


def _hints(part: Callable[..., Any]) -> dict[str, Any]:
    if inspect.isclass(part) and not is_dataclass(part):
        return typing.get_type_hints(part.__init__)
    return typing.get_type_hints(part)  # of a dataclass, each field's in the module of the class that has it


def _type_name(hint: Any) -> str:
    return {int: "an integer", float: "a number", bool: "true or false", str: "text"}.get(
        hint, str(hint).replace("typing.", "")
    )


def imported(module_name: str, name: str, what: str) -> Callable[..., Any]:
    """The function ``module_name:name`` of the user, looked for in the current directory too.

    Args:
        module_name, name: where it is.
        what: what it is for, which begins every message.

    Raises:
        ConfigError: there is no such module or function, or it cannot be imported.
    """
    if "" not in sys.path:
        sys.path.insert(0, "")  # a console script does not look where the user stands
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing == module_name or module_name.startswith(missing + "."):
            raise ConfigError(
                f"{what}: no module named {missing!r} in the current directory or on the Python path"
            ) from None
        raise ConfigError(f"{what}: {module_name} imports {missing!r}, which is not installed") from error
    except (SyntaxError, ImportError) as error:
        raise ConfigError(f"{what}: {module_name} cannot be imported: {error}") from error
    function = getattr(module, name, None)
    if function is None:
        offered = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        own = [k for k in offered if getattr(getattr(module, k), "__module__", "") == module.__name__]
        raise ConfigError(
            f"{what}: module {module_name!r} has no {name!r}; it defines: "
            + (", ".join(own) or "no function")
        )
    if not callable(function):
        raise ConfigError(f"{what}: {name!r} is no function but {type(function).__name__}")
    return cast("Callable[..., Any]", function)
