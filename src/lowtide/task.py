"""Batch tasks: what a user makes with `@batch_task`, and how Celery sees them.

A batch task runs in two phases. In the first, the user's function tells what to ask the model;
the request goes into its lane's buffer and the task ends without a result. In the second, on any
replica and maybe hours later, the answer is there and the task ends as any Celery task does.

Light to import, for apps that only send tasks.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from celery import Celery, Task, shared_task
from celery.result import GroupResult

from lowtide import carried, demands, hidden, lifetimes, listening
from lowtide.calls import CHAT, Call, to_call
from lowtide.carried import DEADLINE_HEADER, due_at
from lowtide.durations import parse_duration
from lowtide.errors import LowtideError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lowtide.answer import Answer
    from lowtide.result import BatchResult

_CELERYS = frozenset({"base", "bind", "lazy", "shared", "name", "app", "run", "build"})


class BatchTask(Task):
    """A Celery task whose result is made of a model's answers.

    Use it as `@app.task(base=BatchTask, model="gpt-5-mini")`, or through `batch_task`.

    Attributes:
        model: Model name; a call or a body may name another.
        account: Name of the provider account in the settings.
        endpoint: Path of the API that a returned prompt or body goes to.
        output: Pydantic model that answers validate against; the result is it as a dict.
        output_retries: How often the model is asked again, with what is wrong shown to it, when
            its answer does not validate against the output model. Each time is paid.
        errors_on: Which answers are errors: any of "refusal" (`Refused`), "content_filter"
            (`ContentFiltered`) and "length" (`Truncated`).
        moderate: Whether a moderation model sees the input of each request before it is sent;
            what it flags is not sent and ends in `Flagged`. True: by a batch of its own. "now":
            at once where the function is no generator, when the call is accepted.
        params: Other parameters of the API for every call, such as `{"temperature": 0}`.
        deadline: When the answer is needed, counted from the call: "6h" or seconds.
        tenant: Who pays, for the cost report and for fair shares; a call may name another.
        coalesce: Whether calls that ask the very same at the same time share one line, paid once.
        cache: How long an answer is given to later calls of the same, such as "7d"; None: never.
        max_wait: How long a call may wait for others before its batch is sent, such as "10s"; an
            urgent one says 0. None: as long as its lane allows.
        result_backend: Name of a result backend in the settings (`LOWTIDE_RESULTS`) into which
            results go besides the app's own, and from which `BatchResult` then reads.
        deliver_to: Name, or names, of destinations in the settings (`LOWTIDE_DESTINATIONS`) that
            are told of each result: webhooks and Redis streams.
        postprocess: Makes a plain function's result from the `Answer`.
        micro_batch: How many messages are accepted together at most.
        linger: Seconds that a message waits for others to be accepted with.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    # What the provider did is told in one line: a traceback would say where lowtide raised it.
    throws = (LowtideError,)
    Strategy = "lowtide.strategy:batching"
    Request = "lowtide.worker_request:BatchRequest"

    model: str | None = None
    account: str = "default"
    endpoint: str = CHAT
    output: type[BaseModel] | None = None
    output_retries: int = 0
    errors_on: str | Collection[str] = ()
    moderate: bool | Literal["now"] = False
    params: Mapping[str, Any] | None = None
    deadline: str | float | None = None
    tenant: str | None = None
    coalesce: bool = False
    cache: str | float | None = None
    max_wait: str | float | None = None
    result_backend: str | None = None
    deliver_to: str | Collection[str] | None = None
    postprocess: Callable[[Answer], Any] | None = None
    micro_batch = 64
    linger = 0.05

    build: Callable[..., Any]
    phased: Callable[..., Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Below autoretry, which wraps `run` later: so it works in both phases.
        super().__init_subclass__(**kwargs)
        own = cls.__dict__
        if "run" in own:
            _check_function(own["run"], cls.__name__)
            cls.build = own["run"]
            cls.run = cls.phased = _phased(own["run"])
        if own.get("_decorated") and inspect.isfunction(own.get("postprocess")):
            # Given as an option it is a function, not a method.
            cls.postprocess = staticmethod(own["postprocess"])
        if own.get("_decorated"):
            check_options(own, cls)
        if cls.deadline is not None:
            parse_duration(cls.deadline)
        carried.check(own)
        demands.check(own)

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Switches lowtide on in `app`; the first batch task that it binds does it."""
        from lowtide import bulk, runtime

        lifetimes.extend(app)
        runtime.install(app)
        bulk.register(app)

    def _run_phase(self, *args: Any, **kwargs: Any) -> Any:
        """The phase that is due, or both when the caller waits."""
        from lowtide import phases, turn

        mine = turn.take(self.request)
        if mine is not None:
            return phases.play(self, mine, args, kwargs)
        if turn.is_direct(self.request):
            return phases.run_now(self, args, kwargs)
        return phases.defer(self, args, kwargs)

    def to_call(self, returned: object) -> Call:
        """What the function returned or yielded, completed with the task's defaults.

        Raises:
            InvalidRequest: It cannot become a request.
        """
        return to_call(
            returned,
            endpoint=self.endpoint,
            model=self.model,
            output=self.output,
            params=self.params,
        )

    def complete(self, answer: Answer) -> Any:
        """The result of a plain function, made from the answer; subclasses may override it.

        It runs as the task: `self.request`, `self.retry` and `self.replace` work.
        """
        from lowtide import turn

        if self.postprocess is not None:
            return self.postprocess(answer)
        return answer.value(many=turn.many.get())

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        *positional: Any,
        deadline: str | float | datetime | None = None,
        **options: Any,
    ) -> BatchResult:
        """Sends the call, as `Task.apply_async` does.

        Args:
            args: Positional arguments of the function.
            kwargs: Keyword arguments of the function.
            positional: As Celery's.
            deadline: When the answer is needed: "6h" or seconds from now, or a point in time.
            options: Celery's options; and of the task's own `tenant`, `coalesce`, `cache`,
                `max_wait`, `result_backend` and `deliver_to`, as this call wants them.
        """
        due = due_at(self.deadline if deadline is None else deadline)
        # A retry carries what the call was given, in its headers.
        headers = {**(options.get("headers") or {}), **carried.take(options)}
        if due is not None and (deadline is not None or DEADLINE_HEADER not in headers):
            headers[DEADLINE_HEADER] = due
        if headers:
            options["headers"] = headers
        if not hidden.shows_prompts(self.app):
            options.setdefault("argsrepr", hidden.veil(args or ()))
            options.setdefault("kwargsrepr", hidden.veil(kwargs or {}))
        with listening.later(self.app.backend):
            result: BatchResult = super().apply_async(args, kwargs, *positional, **options)
        return carried.read_from(result, headers)

    def retry(self, *args: Any, max_retries: int | None = None, **options: Any) -> Any:
        """As Celery's. While a lost result is made again, nothing is sent a second time."""
        from lowtide import turn

        limit = self.max_retries if max_retries is None else max_retries
        left = limit is None or (self.request.retries or 0) < limit
        if left and turn.is_replay(self.request):
            raise turn.WentOn
        return super().retry(*args, max_retries=max_retries, **options)

    def replace(self, sig: Any) -> Any:
        """As Celery's. While a lost result is made again, nothing is sent a second time."""
        from lowtide import turn

        if turn.is_replay(self.request):
            raise turn.WentOn
        return super().replace(sig)

    def delay_many(self, calls: Iterable[Any], **options: Any) -> GroupResult:
        """Sends many calls in few messages; see `lowtide.bulk.delay_many`."""
        from lowtide import bulk

        return bulk.delay_many(self.app, self.name, calls, task=self, **options)

    def AsyncResult(self, task_id: str, **kwargs: Any) -> BatchResult:  # noqa: N802 - Celery's name
        """The result of a call, which also tells where its request is meanwhile."""
        from lowtide.result import BatchResult

        kwargs.setdefault("result_backend", self.result_backend)
        return BatchResult(
            task_id, backend=self.backend, task_name=self.name, app=self._get_app(), **kwargs
        )

    @property
    def resultrepr_maxsize(self) -> int:
        """How much of a result Celery's log may show: nothing, unless prompts may be shown."""
        return 1024 if hidden.shows_prompts(self.app) else 0


def batch_task(*function: Callable[..., Any], **options: Any) -> Any:
    """Makes a function a batch task of every Celery app, as `celery.shared_task` does.

    Args:
        function: The function, when used without parentheses.
        options: The attributes of `BatchTask` (`model=`, `output=`, `deadline=`, …) and every
            option of a Celery task (`name=`, `bind=`, `autoretry_for=`, …).

    Raises:
        TypeError: The function is async, or an option's name is misspelt.
        ValueError: `deadline`, `cache` or `max_wait` is not a duration, or `errors_on` names
            what is no reason.
    """
    options.setdefault("base", BatchTask)
    check_options(options, options["base"])
    due_at(options.get("deadline"))
    carried.check(options)
    demands.check(options)

    def decorate(fun: Callable[..., Any]) -> Any:
        _check_function(fun, getattr(fun, "__name__", "task"))
        return shared_task(**options)(fun)

    if function:
        return decorate(*function)
    return decorate


def _phased(build: Any) -> Callable[..., Any]:
    """What Celery calls as `run` of the tasks whose function is `build`."""

    def run(self: BatchTask, *args: Any, **kwargs: Any) -> Any:
        if type(self).phased is not run:
            # `super().run()` in the function of a class that is derived from this one.
            return build.__get__(self, type(self))(*args, **kwargs)
        return self._run_phase(*args, **kwargs)

    return run


def check_options(options: Iterable[str], base: type[Task]) -> None:
    """Refuses an option that is a misspelt one of lowtide's; Celery takes any name.

    Raises:
        TypeError: With the name that was probably meant.
    """
    ours = [name for name in BatchTask.__annotations__ if name not in ("build", "phased")]
    # Not `hasattr`: to ask a task class for its app binds it to one, to a new one if need be.
    kinds = (*BatchTask.__mro__, *base.__mro__[1:])
    for name in options:
        known = name in _CELERYS or any(name in vars(kind) for kind in kinds)
        if not known and not name.startswith("_"):
            near = difflib.get_close_matches(name, ours, n=1, cutoff=0.75)
            if near:
                raise TypeError(
                    f"Unknown option {name!r} of a batch task; did you mean {near[0]!r}?"
                )


def _check_function(function: Any, name: str) -> None:
    bare = inspect.unwrap(getattr(function, "__func__", function))
    if inspect.iscoroutinefunction(bare) or inspect.isasyncgenfunction(bare):
        raise TypeError(
            f"Batch task {name} is async, which Celery does not run; make it a plain function "
            "that returns its request, or a generator that yields its requests."
        )
