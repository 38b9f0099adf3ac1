"""Errors as JSON that says which field, which value, what is wrong, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from transformers.utils import logging

from acebert.catalog.indexes.connection import IndexUnavailableError
from acebert.catalog.live_index import CatalogBusyError, ChangeKeptError
from acebert.serving.contract import ErrorAnswer, Problem

logger = logging.get_logger(__name__)

SHOWN = 80  # characters of a value
SEE = "See /docs for what a request holds."
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        401: "The key is missing or wrong.",
        403: "The key may not do that.",
        404: "There is no such product.",
        413: "The request is too large.",
        422: "A field is wrong.",
        503: "Busy, or the index can't be reached: try again.",
    }.items()
}


class ApiError(HTTPException):
    """An answer other than 2xx.

    Args:
        status: of HTTP.
        problem: what is wrong.
        remedy: what to do.
        field: of the request that is meant.
        value: what it held.
        retry_after: seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        problem: str,
        remedy: str = SEE,
        field: str | None = None,
        value: Any = None,
        retry_after: int | None = None,
    ):
        super().__init__(status, problem, {} if retry_after is None else {"Retry-After": str(retry_after)})
        shown = None if value is None else str(value)[:SHOWN]
        self.answer = ErrorAnswer(error=Problem(field=field, value=shown, problem=problem, remedy=remedy))

    def to_response(self) -> JSONResponse:
        return JSONResponse(self.answer.model_dump(), self.status_code, self.headers)


@contextmanager
def catalog_errors(field: str, value: Any = None, body: BaseModel | None = None) -> Iterator[None]:
    """Turns what the catalogue raises into answers.

    Args:
        field: of the request that the catalogue is given.
        value: what it holds.
        body: of the request; where the catalogue's message begins with another field of it, that one is meant.

    Raises:
        ApiError: for each of these errors.
    """
    try:
        yield
    except ChangeKeptError as error:
        raise ApiError(202, str(error), "Don't repeat the change: it is kept.", field) from error
    except (IndexUnavailableError, PermissionError, CatalogBusyError) as error:
        raise ApiError(503, str(error), "Try again.", field, retry_after=5) from error
    except KeyError as error:
        raise ApiError(404, str(error.args[0]), "Ask for the id of a product that is there.", field, value) from error
    except ValueError as error:
        named = str(error).split()[0].rstrip(":")
        if body is not None and named in type(body).model_fields:
            field, value = named, getattr(body, named)
        # Most of the catalogue's messages end with the remedy, which goes on in lower case after a colon.
        problem, _, remedy = str(error).rpartition(": ")
        if not (problem and remedy[:1].islower()):
            problem, remedy = str(error), SEE
        raise ApiError(422, problem, remedy, field, value) from error


def add_error_handlers(app: FastAPI) -> None:
    """Has the app answer every error in the form of [`ErrorAnswer`]."""

    @app.exception_handler(ApiError)
    async def tell(request: Request, error: ApiError) -> JSONResponse:
        return error.to_response()

    @app.exception_handler(RequestValidationError)
    async def tell_field(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = [] if first["type"] == "json_invalid" else first["loc"][1:]
        field = ".".join(map(str, place)) or "body"
        return ApiError(422, first["msg"], f"Correct {field}. {SEE}", field, first.get("input")).to_response()

    @app.exception_handler(HTTPException)
    async def tell_status(request: Request, error: HTTPException) -> JSONResponse:
        return ApiError(error.status_code, str(error.detail)).to_response()

    @app.exception_handler(Exception)
    async def tell_fault(request: Request, error: Exception) -> JSONResponse:
        logger.error(f"{request.method} {request.url.path} failed.", exc_info=error)
        return ApiError(500, "The service failed.", "Its log tells why.").to_response()
