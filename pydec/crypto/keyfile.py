"""Files that hold one Ed25519 key: readable by their owner alone, with or without a passphrase.

A key file is one JSON object: ``format``, ``public``, and either ``seed``, or the seed sealed with
AES-256-GCM under a key that scrypt (RFC 7914) makes of the passphrase. Everything beside the sealed seed is
authenticated with it, so a weakened cost or a swapped public key is refused like a wrong passphrase.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import unicodedata
from pathlib import Path
from typing import Any

from pydec.crypto.signing import SEED_BYTES, SigningKey
from pydec.errors import ConfigError, SetupError

FORMAT = "pydec-key-1"
_MOST_BYTES = 4096
_SALT_BYTES, _NONCE_BYTES = 16, 12
_LOG_N, _R, _P = 16, 8, 1  # 64 MiB and about 0.15 s; RFC 7914 asks for as much as its user can wait
_MOST_LOG_N = 20  # 1 GiB: a file must not make its reader ask for any amount of memory


def create(path: Path, key: SigningKey, passphrase: str | None = None) -> None:
    """Write a new key file, whole or not at all; a file that is there already is never replaced.

    Args:
        path: where; its directory must exist.
        key: what it holds.
        passphrase: what opens it; without one the file's mode 0600 is all that protects it.

    Raises:
        ConfigError: the file exists, or the passphrase is empty.
        SetupError: it cannot be written.
    """
    content: dict[str, Any] = {"format": FORMAT, "public": key.public.hex()}
    if passphrase is None:
        content["seed"] = key.seed.hex()
    else:
        content |= {"scrypt": {"log_n": _LOG_N, "r": _R, "p": _P, "salt": os.urandom(_SALT_BYTES).hex()}}
        nonce = os.urandom(_NONCE_BYTES)
        sealed = _cipher(content["scrypt"], passphrase).encrypt(nonce, key.seed, _bound(content))
        content |= {"nonce": nonce.hex(), "sealed": sealed.hex()}
    data = (json.dumps(content, indent=1) + "\n").encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # unlike a rename, this fails where the name is taken
        _sync_directory(path.parent)
    except FileExistsError:
        raise ConfigError(f"key file {path} exists and is never replaced; choose another name") from None
    except OSError as error:
        raise SetupError(
            f"key file {path} cannot be written: {error.strerror or error}; choose another path"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def public_of(path: Path) -> tuple[bytes, bool]:
    """What a key file shows without its passphrase: the public key, and whether it is sealed.

    The public key of a sealed file is proved only when ``load`` opens it.

    Raises:
        ConfigError, SetupError: as for ``load``.
    """
    content = _read(path)
    return bytes.fromhex(content["public"]), "sealed" in content


def load(path: Path, passphrase: str | None = None) -> SigningKey:
    """The key in a file.

    Args:
        path: of the file; its mode must keep everybody but its owner out.
        passphrase: needed if the file is sealed, refused if it is not.

    Raises:
        ConfigError: passphrase missing, wrong or not wanted.
        SetupError: no such file, others may read it, or it is no key file.
    """
    content = _read(path)
    if "seed" in content:
        if passphrase is not None:
            raise ConfigError(f"key file {path} has no passphrase, but one was given; leave it out")
        seed = bytes.fromhex(content["seed"])
    else:
        if passphrase is None:
            raise ConfigError(f"key file {path} is sealed; give its passphrase")
        seed = _open(path, content, passphrase)
    key = SigningKey(seed)
    if key.public.hex() != content["public"]:
        raise SetupError(f"key file {path} is damaged: its seed is not that of its public key; use a copy")
    return key


def from_source(source: str, passphrase: str | None = None) -> SigningKey:
    """A key from wherever the launcher put it.

    Args:
        source: ``env:NAME`` or ``fd:NUMBER`` for 64 hexadecimal digits of seed in that environment variable
            or open file descriptor, which is closed; else the path of a key file.
        passphrase: of a sealed key file.

    Raises:
        ConfigError: no such variable or descriptor, or no seed in it; else as for ``load``.
        SetupError: as for ``load``.
    """
    if source.partition(":")[0] not in ("env", "fd"):
        return load(Path(source), passphrase)
    text = secret_from(source).strip()
    try:
        return SigningKey(_hex(text, SEED_BYTES))
    except ValueError:
        raise ConfigError(f"key source {source} must hold {2 * SEED_BYTES} hexadecimal digits") from None


def secret_from(source: str) -> str:
    """A secret from where a launcher put it, without the end of its line.

    Args:
        source: ``env:NAME`` or ``fd:NUMBER``: that environment variable, or open file descriptor, which is
        closed.

    Raises:
        ConfigError: there is none, it is too long, or another kind of source.
    """
    kind, _, name = source.partition(":")
    if kind == "env":
        text = os.environ.get(name)
        if text is None:
            raise ConfigError(f"key source {source}: there is no environment variable {name!r}")
    elif kind == "fd":
        try:
            with open(int(name), "rb") as file:
                data = file.read(_MOST_BYTES + 1)
            text = data.decode("utf-8", "replace")
        except (ValueError, OSError) as error:
            raise ConfigError(f"key source {source}: no open file descriptor {name!r} ({error})") from None
    else:
        raise ConfigError(f"a secret comes from env:NAME or fd:NUMBER, got {source!r}")
    if len(text) > _MOST_BYTES:
        raise ConfigError(f"key source {source} holds more than {_MOST_BYTES} characters")
    return text.rstrip("\r\n")


def _read(path: Path) -> dict[str, Any]:
    """The checked content of a key file."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        hint = "; make one with pydec keys new" if isinstance(error, FileNotFoundError) else ""
        raise SetupError(f"key file {path} cannot be read: {error.strerror or error}{hint}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise SetupError(
            f"key file {path} has mode {stat.S_IMODE(mode):04o}, so others may use it; run chmod 600 {path}, "
            "or make a new key if they may have read it"
        )
    try:
        return _checked(json.loads(data)) if len(data) <= _MOST_BYTES else _refuse("too long")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SetupError(f"{path} is no key file of pydec: {error}") from None


def _checked(content: Any) -> dict[str, Any]:
    """``content`` if it is a key file's; ValueError, KeyError or TypeError if not."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return _refuse(f"its format is not {FORMAT}")
    _hex(content["public"], SEED_BYTES)
    names = {"format", "public", *(("seed",) if "seed" in content else ("scrypt", "nonce", "sealed"))}
    if set(content) != names:
        return _refuse(f"its names are not {', '.join(sorted(names))}")
    if "seed" in content:
        _hex(content["seed"], SEED_BYTES)
        return content
    cost = content["scrypt"]
    if set(cost) != {"log_n", "r", "p", "salt"} or any(
        type(cost[name]) is not int for name in ("log_n", "r", "p")
    ):
        return _refuse("scrypt needs log_n, r, p and salt")
    if not (1 <= cost["log_n"] <= _MOST_LOG_N and cost["r"] == _R and cost["p"] == _P):
        return _refuse(f"scrypt needs log_n in [1, {_MOST_LOG_N}], r={_R}, p={_P}")
    _hex(cost["salt"], _SALT_BYTES)
    _hex(content["nonce"], _NONCE_BYTES)
    _hex(content["sealed"], SEED_BYTES + 16)
    return content


def _open(path: Path, content: dict[str, Any], passphrase: str) -> bytes:
    from cryptography.exceptions import InvalidTag

    bound = {name: content[name] for name in ("format", "public", "scrypt")}
    nonce, sealed = bytes.fromhex(content["nonce"]), bytes.fromhex(content["sealed"])
    try:
        return bytes(_cipher(content["scrypt"], passphrase).decrypt(nonce, sealed, _bound(bound)))
    except InvalidTag:
        raise ConfigError(f"wrong passphrase for key file {path}, or the file is damaged") from None


def _cipher(cost: dict[str, Any], passphrase: str) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    if not passphrase:
        raise ConfigError("a passphrase must not be empty; leave it out for a key file without one")
    salt = bytes.fromhex(cost["salt"])
    derive = Scrypt(salt=salt, length=32, n=1 << cost["log_n"], r=cost["r"], p=cost["p"])
    # NFKC: the same words typed on another machine's keyboard are the same passphrase.
    return AESGCM(derive.derive(unicodedata.normalize("NFKC", passphrase).encode()))


def _bound(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _hex(text: Any, n_bytes: int) -> bytes:
    if not isinstance(text, str) or len(text) != 2 * n_bytes:
        raise ValueError(f"expected {2 * n_bytes} hexadecimal digits")
    return bytes.fromhex(text)


def _refuse(reason: str) -> dict[str, Any]:
    raise ValueError(reason)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
