"""Addresses of storages: what is kept and shown of one, and its password, which only this process knows.

A password is taken from the URL that the user gives, and used when the storage is opened. Nothing else sees it: run directories, study
attributes, messages and results hold the URL without. Where a URL has none, PostgreSQL's own means apply: PGPASSWORD and ``~/.pgpass``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

_passwords: dict[str, str] = {}

_USER = re.compile(r"^([\w+.-]+://[^:/@?#]*):(.*)@(?=[^@]*$)", re.DOTALL)
_SECRET = {"password", "passwd", "pwd", "sslpassword", "passphrase"}
_HIDDEN = "***"


def without_password(url: str) -> str:
    """Return an address as it is kept and shown; what is no URL is returned as it is."""
    head, _, query = url.partition("?")
    if "://" not in head:
        return url
    if "@" in query and not _USER.match(head) and _USER.match(url):  # a question mark in the password
        head, query = url, ""
    rest = "&".join(item for item in query.split("&") if item.partition("=")[0].lower() not in _SECRET)
    return _USER.sub(r"\1@", head) + (f"?{rest}" if rest else "")


def words_without_passwords(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, options that are written ``--name=URL`` included."""
    safe = []
    for word in words:
        option, mark, value = word.partition("=") if word.startswith("-") else ("", "", word)
        safe.append(f"{option}{mark}{without_password(value)}")
    return safe


def keep_password(url: str) -> str:
    """Remember the password of an address for `with_password`, and return the address without."""
    shown = without_password(url)
    if shown != url:
        _passwords[shown] = url
    return shown


def with_password(url: str) -> str:
    """Return the address that a storage is opened by: the one that was given to `keep_password`, where one was."""
    return _passwords.get(url, url)


def without_passwords(text: str) -> str:
    """Return a message of a library without the passwords of any address that this process was given."""
    for url in _passwords.values():
        match = _USER.match(url.partition("?")[0]) or _USER.match(url)
        secrets = [match[2]] if match else []
        secrets += [value for item in url.partition("?")[2].split("&") for key, _, value in [item.partition("=")] if key.lower() in _SECRET]
        for secret in secrets:
            for form in {secret, unquote(secret), quote(secret, safe="")}:
                if form:
                    text = text.replace(form, _HIDDEN)
    return " ".join(without_password(word) if "://" in word else word for word in text.split(" "))
