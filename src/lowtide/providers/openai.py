"""OpenAI and compatible services, through the openai SDK."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import openai

from lowtide import lenient
from lowtide.errors import (
    AccountPaused,
    BatchFailed,
    LowtideError,
    ProviderError,
    ProviderUnavailable,
    RequestRejected,
)
from lowtide.providers.download import Download
from lowtide.providers.failures import translated, unreadable
from lowtide.providers.profiles import OPENAI, Profile
from lowtide.providers.protocol import RemoteBatch
from lowtide.providers.remote import remote_batch

METADATA_KEY = "lowtide_batch"

_CONNECT = 10.0
_CALL = httpx2.Timeout(60.0, connect=_CONNECT)
_UPLOAD = httpx2.Timeout(120.0, connect=_CONNECT)
# Flex processing may take a quarter of an hour.
_RUN = httpx2.Timeout(1_200.0, connect=_CONNECT)
_RUN_RETRIES = 2
# The boundary is added by the SDK.
_MULTIPART = {"Content-Type": "multipart/form-data"}
_PAGE = 100
_MOST_PAGES = 1_000
# Of a search through a long list: where one page in twenty fails, hardly any search of fifty
# pages would come to its end, and each new one begins at the first page.
_PAGE_RETRIES = 2


class OpenAIProvider:
    """A Batch API of OpenAI's shape. Safe to share between threads and greenlets, and to fork.

    Args:
        account: Name of the account, for messages.
        api_key: The key.
        base_url: Where the API is, with "/v1"; OpenAI's own when None.
        organization: OpenAI organisation.
        project: OpenAI project.
        profile: How the service differs.
        window: The completion window to ask for; the profile's usual one when None.

    Raises:
        SettingsError: The service does not offer the window.
    """

    def __init__(
        self,
        account: str,
        *,
        api_key: str | None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        profile: Profile = OPENAI,
        window: str | None = None,
    ) -> None:
        self.account = account
        self.profile = profile
        self._window = profile.window(window)
        self._api_key = api_key
        self._base_url = base_url
        self._organization = organization
        self._project = project
        # By process: connections must not be shared with a forked child, nor closed by it.
        self._clients: dict[int, openai.OpenAI] = {}

    def upload(self, path: Path, *, batch_id: str) -> str:
        doing = f"uploading batch {batch_id}"
        name = f"{batch_id}.jsonl"
        profile = self.profile
        form: dict[str, Any] = {"purpose": profile.purpose}
        form |= {key: value.format(name=name) for key, value in profile.upload_fields.items()}
        if profile.file_expiry is not None:
            form["expires_after"] = {"anchor": "created_at", "seconds": profile.file_expiry}
        client = self._client()
        # From an open handle: from a path or bytes the SDK reads the whole file into memory.
        with translated(self.account, doing, refused=BatchFailed), path.open("rb") as file:
            response = client.post(
                profile.upload_path,
                cast_to=httpx2.Response,
                body=form,
                files=[("file", (name, file))],
                options={"headers": _MULTIPART, "timeout": _UPLOAD},
            )
        file_id = self._object(response.content, doing).get("id")
        if not isinstance(file_id, str) or not file_id:
            raise unreadable(self.account, doing, creating=False)
        return file_id

    def create(self, file_id: str, *, endpoint: str, batch_id: str) -> RemoteBatch:
        doing = f"creating batch {batch_id}"
        body: dict[str, Any] = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": self._window,
        }
        if self.profile.keeps_metadata:
            body["metadata"] = {METADATA_KEY: batch_id}
        # Without retries: the API has no idempotency key, so each one may make a paid batch.
        data = self._call("POST", "/batches", doing, body=body, refused=BatchFailed, creating=True)
        remote = remote_batch(data.get(self.profile.created_under or "", data))
        if remote is None:
            raise unreadable(self.account, doing, creating=True)
        return remote

    def adopt(
        self, batch_id: str, *, since: float, input_file_id: str | None = None
    ) -> RemoteBatch | None:
        for page in self._pages(f"looking for batch {batch_id}", retries=_PAGE_RETRIES):
            for remote in page:
                if _is_ours(remote, batch_id, input_file_id):
                    return remote
            if _all_before([remote.created_at for remote in page], since):
                return None
        return None

    def uploaded(self, batch_id: str, *, since: float) -> list[str]:
        name, found = f"{batch_id}.jsonl", list[str]()
        doing = f"looking for files of batch {batch_id}"
        for rows in self._rows("/files", doing, retries=_PAGE_RETRIES):
            files = [row for row in rows if isinstance(row, dict)]
            found += [str(file["id"]) for file in files if file.get("filename") == name]
            if _all_before([file.get("created_at") for file in files], since):
                break
        return found

    def status(self, provider_batch_id: str) -> RemoteBatch:
        doing = f"reading batch {provider_batch_id}"
        remote = remote_batch(self._call("GET", f"/batches/{_quoted(provider_batch_id)}", doing))
        if remote is None:
            raise unreadable(self.account, doing, creating=False)
        return remote

    def statuses(self, provider_batch_ids: Iterable[str]) -> dict[str, RemoteBatch | ProviderError]:
        wanted = dict.fromkeys(provider_batch_ids)
        found: dict[str, RemoteBatch | ProviderError] = {}
        if len(wanted) > 1:
            found.update(self._listed(wanted))
        for each in wanted:
            if each in found:
                continue
            try:
                found[each] = self.status(each)
            except ProviderError as error:
                if not _is_about_one(error):
                    raise
                if error.details.get("status") != 404:
                    found[each] = error
        return found

    def _listed(self, wanted: Collection[str]) -> dict[str, RemoteBatch]:
        """Those of `wanted` that are found by listing, as long as that saves calls."""
        found: dict[str, RemoteBatch] = {}
        try:
            for calls, page in enumerate(self._pages("listing batches"), start=1):
                found.update({remote.id: remote for remote in page if remote.id in wanted})
                # One more page costs a call: worth it while it can save more than one.
                if len(wanted) - len(found) <= calls:
                    break
        except AccountPaused:
            raise
        except ProviderError:
            # A service without a usable list is asked for each batch.
            return found
        return found

    def download(self, file_id: str, path: Path) -> int:
        return Download(self._client(), self.account, file_id).to(path)

    def cancel(self, provider_batch_id: str) -> None:
        doing = f"cancelling batch {provider_batch_id}"
        self._forgiving("POST", f"/batches/{_quoted(provider_batch_id)}/cancel", doing)

    def delete_file(self, file_id: str) -> None:
        self._forgiving("DELETE", f"/files/{_quoted(file_id)}", f"deleting file {file_id}")

    def run(
        self, endpoint: str, body: dict[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        return self._call(
            "POST",
            endpoint.removeprefix("/v1"),
            f"a call of {endpoint}",
            body=body,
            refused=RequestRejected,
            timeout=_RUN
            if timeout is None
            else httpx2.Timeout(timeout, connect=min(timeout, _CONNECT)),
            retries=_RUN_RETRIES if timeout is None else 0,
        )

    def close(self) -> None:
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _client(self) -> openai.OpenAI:
        # Without a lock, which a fork could copy in its locked state: of two clients made at
        # once one is dropped before it connects.
        client = self._clients.get(os.getpid())
        if client is None:
            if not self._api_key:
                raise AccountPaused(
                    f"Account {self.account} has no API key; set OPENAI_API_KEY, or api_key_env "
                    "of the account in LOWTIDE_ACCOUNTS.",
                    {"account": self.account, "code": "missing_api_key"},
                )
            with translated(self.account, "connecting"):
                client = openai.OpenAI(
                    api_key=self._api_key,
                    base_url=self._base_url,
                    organization=self._organization,
                    project=self._project,
                    max_retries=0,
                    timeout=_CALL,
                )
            client = self._clients.setdefault(os.getpid(), client)
        return client

    def _call(
        self,
        method: str,
        path: str,
        doing: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        refused: type[LowtideError] = ProviderError,
        creating: bool = False,
        timeout: httpx2.Timeout | None = None,
        retries: int = 0,
    ) -> dict[str, Any]:
        """One call as raw JSON: the SDK's models would drop or refuse what they do not know."""
        options: openai.RequestOptions = {"max_retries": retries}
        if timeout is not None:
            options["timeout"] = timeout
        if query is not None:
            options["params"] = query
        client = self._client()
        with translated(self.account, doing, refused=refused, creating=creating):
            if method == "GET":
                response = client.get(path, cast_to=httpx2.Response, options=options)
            elif method == "DELETE":
                response = client.delete(path, cast_to=httpx2.Response, options=options)
            else:
                response = client.post(path, cast_to=httpx2.Response, body=body, options=options)
        return self._object(response.content, doing, creating=creating)

    def _object(self, content: bytes, doing: str, *, creating: bool = False) -> dict[str, Any]:
        data = lenient.loads(content)
        if isinstance(data, list):  # some services give a list as it is, whole
            data = {"data": data, "has_more": False}
        if not isinstance(data, dict):
            raise unreadable(self.account, doing, creating=creating)
        return data

    def _forgiving(self, method: str, path: str, doing: str) -> None:
        """A call whose subject may be gone or past changing."""
        try:
            self._call(method, path, doing)
        except ProviderError as error:
            if error.details.get("status") not in (404, 405, 409):
                raise

    def _pages(self, doing: str, *, retries: int = 0) -> Iterator[list[RemoteBatch]]:
        """All batches of the account, page by page; see `_rows`."""
        for rows in self._rows("/batches", doing, retries=retries):
            yield [remote for remote in map(remote_batch, rows) if remote is not None]

    def _rows(self, path: str, doing: str, *, retries: int = 0) -> Iterator[list[Any]]:
        """All that the account has at `path`, page by page as the service orders them.

        A page that fails is asked for again `retries` times, before the whole list counts as
        unread.

        Raises:
            ProviderUnavailable: The list cannot be read to its end.
        """
        query: dict[str, Any] = {"limit": _PAGE}
        seen: set[str] = set()
        for _ in range(_MOST_PAGES):
            data = self._call("GET", path, doing, query=query, retries=retries)
            rows = data.get("data")
            if not isinstance(rows, list):
                raise unreadable(self.account, doing, creating=False)
            yield rows
            if not data.get("has_more", len(rows) >= _PAGE):
                return
            last = rows[-1] if rows and isinstance(rows[-1], dict) else {}
            after = data.get("last_id") or last.get("id")
            if not isinstance(after, str) or after in seen:
                break
            seen.add(after)
            query["after"] = after
        raise ProviderUnavailable(
            f"Account {self.account}: {doing} did not come to the end of the list; trying again.",
            {"account": self.account, "code": "endless_list"},
        )


def _is_about_one(error: ProviderError) -> bool:
    """Whether the failure to read one batch tells nothing of others: the service did answer."""
    if isinstance(error, AccountPaused):
        return False
    status = error.details.get("status")
    return error.code == "unreadable_answer" if status is None else status not in (408, 429)


def _is_ours(remote: RemoteBatch, batch_id: str, input_file_id: str | None) -> bool:
    """Whether a batch was made by `create(input_file_id, batch_id=batch_id)`."""
    noted = remote.metadata.get(METADATA_KEY)
    if input_file_id is None or remote.input_file_id is None:
        return noted == batch_id
    # Not a batch of an earlier upload, and also on services that forget metadata.
    return remote.input_file_id == input_file_id and noted in (batch_id, None)


def _all_before(created: Sequence[Any], since: float) -> bool:
    """Whether this page of a list, newest first, shows that what follows is older than `since`."""
    times = [each for each in created if isinstance(each, int | float)]
    newest_first = len(times) == len(created) and times == sorted(times, reverse=True)
    return newest_first and bool(times) and times[-1] < since


def _quoted(provider_id: str) -> str:
    return quote(provider_id, safe="")
