"""Files and batches over HTTP: the endpoints below ``/v1``."""

from __future__ import annotations

import secrets
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lowtide.simulator import parameters
from lowtide.simulator.engine import plan_phases
from lowtide.simulator.errors import (
    ApiError,
    bad_json,
    cannot_cancel,
    missing_key,
    no_such_batch,
    no_such_file,
    too_many_creations,
    wrong_key,
)
from lowtide.simulator.records import BatchRecord, FileRecord, new_batch_id, new_file_id
from lowtide.simulator.settings import Account
from lowtide.simulator.uploads import Upload, boundary_of
from lowtide.simulator.world import World

_HOUR = 3_600.0
_MAX_JSON = 64 * 1024 * 1024


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def authorize(request: Request, world: World) -> Account:
    """The account whose key the request shows.

    Raises:
        ApiError: 401 when there is none, or a wrong one.
    """
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise missing_key()
    account = world.settings.account(key.strip())
    if account is None:
        raise wrong_key(key.strip())
    return account


async def read_json(request: Request) -> Any:
    """The request's JSON body.

    Raises:
        ApiError: 400 when it is no JSON, 413 when it is too large.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_JSON:
            raise ApiError(413, "The request body is too large.")
    try:
        return orjson.loads(bytes(body))
    except orjson.JSONDecodeError as error:
        raise bad_json() from error


class FilesAndBatches:
    """The handlers, with the world that they act on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """All routes, without the ``/v1`` prefix."""
        return [
            Route(self._world.service.upload_path, self.upload, methods=["POST"]),
            Route("/files", self.list_files, methods=["GET"]),
            Route("/files/{file_id}", self.get_file, methods=["GET"]),
            Route("/files/{file_id}", self.delete_file, methods=["DELETE"]),
            Route("/files/{file_id}/content", self.content, methods=["GET"]),
            Route("/batches", self.create, methods=["POST"]),
            Route("/batches", self.list_batches, methods=["GET"]),
            Route("/batches/{batch_id}", self.get_batch, methods=["GET"]),
            Route("/batches/{batch_id}/cancel", self.cancel, methods=["POST"]),
        ]

    # ---- files
    async def upload(self, request: Request) -> Response:
        """``POST /v1/files``: stream the content to disk, then make the file visible."""
        world = self._world
        account = authorize(request, world)
        boundary = boundary_of(request.headers.get("content-type", ""))
        part = world.shelf.root / f"{secrets.token_hex(12)}.part"
        try:
            upload = Upload(part, world.settings.limits.max_file_bytes)
            await upload.receive(boundary, request.stream())
            with part.open("rb") as content:
                head = content.read(4096)
            purpose = parameters.check_upload(
                upload.fields, str(upload.filename), upload.size, head, world.service
            )
            if (
                purpose == world.service.batch_purpose
                and upload.size > world.settings.limits.max_bytes
            ):
                raise ApiError(400, "File is too large.", param="file")
            life = parameters.upload_life(purpose, upload.fields, world.service)
            now = world.clock.now()
            file = FileRecord(
                new_file_id(), account.name, upload.size, now, None if life is None else now + life,
                str(upload.filename), purpose,
            )  # fmt: skip
            part.replace(world.shelf.path(file.id))
        finally:
            part.unlink(missing_ok=True)
        world.store.add_file(file)
        return json_answer(file.render())

    async def list_files(self, request: Request) -> Response:
        """``GET /v1/files``."""
        account = authorize(request, self._world)
        query = request.query_params
        limit = parameters.page_limit(query.get("limit"), 10_000, 10_000)
        order = parameters.order_of(query.get("order"))
        after = query.get("after")
        try:
            page, more = self._world.store.list_files(
                account.name, after, limit, order, query.get("purpose")
            )
        except KeyError:
            raise no_such_file(str(after)) from None
        return json_answer(_page([file.render() for file in page], more=more, empty=""))

    async def get_file(self, request: Request) -> Response:
        """``GET /v1/files/{id}``."""
        return json_answer(self._file(request).render())

    async def delete_file(self, request: Request) -> Response:
        """``DELETE /v1/files/{id}``; a live batch keeps the content until its end."""
        file = self._file(request)
        self._world.store.delete_file(file.id)
        if not self._world.store.in_use(file.id):
            self._world.shelf.remove(file.id)
        return json_answer({"id": file.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> Response:
        """``GET /v1/files/{id}/content``, streamed with its length."""
        file = self._file(request)
        headers = {
            "Content-Length": str(self._world.shelf.path(file.id).stat().st_size),
            "Content-Disposition": _attachment(file.filename),
        }
        return StreamingResponse(
            self._world.shelf.stream(file.id),
            headers=headers,
            media_type="application/octet-stream",
        )

    def _file(self, request: Request) -> FileRecord:
        account = authorize(request, self._world)
        file_id = request.path_params["file_id"]
        file = self._world.store.file(file_id, account.name)
        now = self._world.clock.now()
        if file is None or (file.expires_at is not None and file.expires_at <= now):
            raise no_such_file(file_id)
        return file

    # ---- batches
    async def create(self, request: Request) -> Response:
        """``POST /v1/batches``: only the parameters are checked here, the file is later."""
        world = self._world
        account = authorize(request, world)
        wanted = parameters.create_batch(await read_json(request), world.service)
        now = world.clock.now()
        limit = world.settings.limits.creations_per_hour
        if world.store.creations_since(account.name, now - _HOUR) >= limit:
            raise too_many_creations(limit)
        batch = BatchRecord(
            id=new_batch_id(),
            account=account.name,
            endpoint=wanted.endpoint,
            input_file_id=wanted.input_file_id,
            created_at=now,
            completion_window=wanted.completion_window,
            metadata=wanted.metadata if world.service.keeps_metadata else None,
            output_expires_after=wanted.output_expires_after,
        )
        batch.quirks = world.quirks(batch)
        world.store.add_batch(batch, lambda made: plan_phases(made, world.settings))
        world.engine.wake()
        under = world.service.created_under
        return json_answer({under: batch.render()} if under else batch.render())

    async def list_batches(self, request: Request) -> Response:
        """``GET /v1/batches``, newest first."""
        account = authorize(request, self._world)
        after = request.query_params.get("after")
        limit = parameters.page_limit(request.query_params.get("limit"), 20, 100)
        plain = self._world.service.plain_lists
        if plain:
            after, limit = None, 1_000_000
        try:
            page, more = self._world.store.list_batches(account.name, after, limit)
        except KeyError:
            raise no_such_batch(str(after)) from None
        rows = [batch.render() for batch in page]
        return json_answer(rows if plain else _page(rows, more=more, empty=None))

    async def get_batch(self, request: Request) -> Response:
        """``GET /v1/batches/{id}``."""
        return json_answer(self._batch(request).render())

    async def cancel(self, request: Request) -> Response:
        """``POST /v1/batches/{id}/cancel``: a wish, that the engine fulfils."""
        batch = self._batch(request)
        if batch.status in ("completed", "failed", "expired"):
            raise cannot_cancel(batch.status)
        if batch.live:
            self._world.store.request_cancel(batch.id, self._world.clock.now())
            batch = self._batch(request)
            if batch.status in ("completed", "failed", "expired"):  # it ended in this instant
                raise cannot_cancel(batch.status)
            self._world.engine.wake()
        return json_answer(batch.render())

    def _batch(self, request: Request) -> BatchRecord:
        account = authorize(request, self._world)
        batch_id = request.path_params["batch_id"]
        batch = self._world.store.batch(batch_id, account.name)
        if batch is None:
            raise no_such_batch(batch_id)
        return batch


def _page(data: list[dict[str, Any]], *, more: bool, empty: str | None) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else empty,
        "last_id": data[-1]["id"] if data else empty,
        "has_more": more,
    }


def _attachment(filename: str) -> str:
    plain = "".join(c if 32 <= ord(c) < 127 and c not in '"\\' else "_" for c in filename)
    return f'attachment; filename="{plain}"'
