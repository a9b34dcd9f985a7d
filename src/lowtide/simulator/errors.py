"""The errors that the service answers, with its own texts, types and codes.

Source: the API reference and guide, and recorded answers. One class, one function a case.
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer with an error body: ``{"error": {message, type, param, code}}``.

    Args:
        status: HTTP status, 400 to 599 (0 only inside a batch line, as seen live).
        message: the text a client shows.
        kind: the ``type`` field, e.g. ``invalid_request_error``.
        param: the parameter at fault, or None.
        code: a machine-readable code, or None.
        headers: extra response headers, e.g. ``Retry-After``.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def missing_key() -> ApiError:
    """No key was shown."""
    return ApiError(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization "
        "header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
    )


def wrong_key(key: str) -> ApiError:
    """The key opens no account; it is not shown in full."""
    shown = f"{key[:4]}***{key[-4:]}" if len(key) > 12 else "***"
    return ApiError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


def no_such_file(file_id: str) -> ApiError:
    """The file is not there, or of another account."""
    return ApiError(404, f"No such File object: {file_id}", param="id")


def no_such_batch(batch_id: str) -> ApiError:
    """The batch is not there, or of another account."""
    return ApiError(404, f"No batch found with id '{batch_id}'.")


def unknown_url(method: str, path: str) -> ApiError:
    """Nothing is served there."""
    return ApiError(404, f"Invalid URL ({method} {path})", code="unknown_url")


def wrong_method(method: str, path: str) -> ApiError:
    """Something else is served there."""
    return ApiError(405, f"Not allowed to {method} on {path}.", code="method_not_supported")


def missing(param: str) -> ApiError:
    """A required parameter is absent."""
    return ApiError(
        400,
        f"Missing required parameter: '{param}'.",
        param=param,
        code="missing_required_parameter",
    )


def invalid_type(param: str, expected: str, got: Any) -> ApiError:
    """A parameter is of another JSON type."""
    return ApiError(
        400,
        f"Invalid type for '{param}': expected {expected}, but got {_kind_of(got)} instead.",
        param=param,
        code="invalid_type",
    )


def invalid_value(param: str, message: str) -> ApiError:
    """A parameter has a value that is not allowed."""
    return ApiError(400, message, param=param, code="invalid_value")


def unknown_param(param: str) -> ApiError:
    """A parameter that does not exist."""
    return ApiError(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def bad_json() -> ApiError:
    """The body is no JSON."""
    return ApiError(
        400,
        "We could not parse the JSON body of your request. The server expected a JSON object.",
    )


def model_not_found(model: str) -> ApiError:
    """The model does not exist."""
    return ApiError(
        404,
        f"The model '{model}' does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def cannot_cancel(status: str) -> ApiError:
    """The batch is at its end."""
    return ApiError(409, f"Cannot cancel a batch with status '{status}'.")


def too_many_creations(limit: int) -> ApiError:
    """More batches an hour than allowed."""
    return ApiError(
        429,
        f"Rate limit reached for batch creation. Limit: {limit:,} batches per hour.",
        kind="requests",
        code="rate_limit_exceeded",
        headers={"Retry-After": "60"},
    )


def rate_limited(retry_after: float) -> ApiError:
    """Too many requests; ``retry_after`` is in seconds."""
    return ApiError(
        429,
        f"Rate limit reached. Please try again in {retry_after:g}s.",
        kind="requests",
        code="rate_limit_exceeded",
        headers={"Retry-After": f"{max(0, round(retry_after))}"},
    )


def billing_limit(status: int = 400) -> ApiError:
    """The hard limit of spending is reached; 400, and 403 has been seen."""
    return ApiError(
        status, "Billing hard limit has been reached.", code="billing_hard_limit_reached"
    )


def insufficient_quota() -> ApiError:
    """Nothing is left to spend."""
    return ApiError(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        kind="insufficient_quota",
        code="insufficient_quota",
    )


def server_error(status: int = 500) -> ApiError:
    """The service has failed."""
    return ApiError(
        status,
        "The server had an error while processing your request. Sorry about that!",
        kind="server_error",
    )


def _kind_of(value: Any) -> str:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), "something else")
