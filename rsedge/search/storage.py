"""Where a search keeps its trials: SQLite in its folder, any database by its URL, or a journal file. Whatever goes wrong there is
told with the place, a password in it hidden."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsedge.data.errors import MissingCapability, RequestError, RsedgeError

JOURNAL = "journal:"
FILE = "search.db"
WAIT_S = 100
"""For other processes that write to one SQLite file."""
_FORMS = "sqlite:////folder/search.db, postgresql://user@host/name, mysql://user@host/name, journal:/folder/search.log"


def default_url(folder: Path) -> str:
    """SQLite in the folder of the search."""
    return f"sqlite:///{folder.absolute() / FILE}"


def shown(url: str) -> str:
    """An address without its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)


def open_storage(url: str) -> Any:
    """Optuna's storage at an address.

    Raises:
        RequestError: it is no address, cannot be reached, or cannot be written.
        MissingCapability: Optuna, or the driver of that database, is not installed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with telling(url):
        if url.startswith(JOURNAL):
            return _journal(
                Path("/" + url.removeprefix(JOURNAL).lstrip("/")) if ":/" in url else Path(url.removeprefix(JOURNAL))
            )
        if "://" not in url:
            raise RequestError(f"--storage {shown(url)}: is no address of a storage; such are {_FORMS}")
        waits = {"connect_args": {"timeout": WAIT_S}} if url.startswith("sqlite:") else {}
        return optuna.storages.RDBStorage(url, engine_kwargs=waits)


def _journal(path: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if not path.absolute().parent.is_dir():
        raise RequestError(f"--storage {JOURNAL}{path}: there is no folder {path.absolute().parent}; make it first")
    return JournalStorage(JournalFileBackend(str(path)))


@contextlib.contextmanager
def telling(url: str) -> Iterator[None]:
    """What a storage refuses within the block, told as errors of ours.

    Raises:
        RequestError, MissingCapability: as :func:`open_storage`.
    """
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except RsedgeError:
        raise
    except (ModuleNotFoundError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise MissingCapability(
            f"--storage {shown(url)}: the driver of this database is not installed ({error}); install it, or use "
            f"another form: {_FORMS}"
        ) from error
    except ImportError as error:
        raise MissingCapability(f"--storage {shown(url)}: {' '.join(str(error).split())}") from error
    except sqlalchemy.exc.ArgumentError as error:
        raise RequestError(f"--storage {shown(url)}: is no address of a storage; such are {_FORMS}") from error
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, OSError) as error:
        raise RequestError(f"--storage {shown(url)}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The innermost words of a chain of errors, and what mends it."""
    inner = error
    while (below := getattr(inner, "orig", None) or inner.__cause__) is not None:
        inner = below
    words = " ".join(str(inner).split()) or type(inner).__name__
    if "readonly" in words or isinstance(inner, PermissionError):
        return f"cannot be written ({words}); choose a place that can"
    return f"cannot be reached or used ({words}); check the address and that the database is up"
