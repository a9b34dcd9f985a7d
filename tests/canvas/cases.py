"""The canvas matrix: each case is run with the batch tasks and with their plain twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import chain, chord, group

from tests.canvas.conftest import Side

Case = Callable[[Side], Any]
CASES: dict[str, Case] = {}
CORE: set[str] = set()
TIMEOUT = 60


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def core(function: Case) -> Case:
    """A case that is run on every pool."""
    CORE.add(function.__name__)
    return case(function)


def get(result: Any, **options: Any) -> Any:
    return result.get(timeout=TIMEOUT, **options)


def failure(result: Any, **options: Any) -> tuple[str, str]:
    """The error that a result raises: its type and its text."""
    try:
        return "no error", repr(get(result, **options))
    except Exception as error:
        return type(error).__name__, str(error)


# ---------------------------------------------------------------- one task


@core
def single(c: Side) -> Any:
    result = c.summ.delay("a")
    return get(result), c.hooks(result, 2), result.state, result.successful()


@core
def fail(c: Side) -> Any:
    result = c.summ.delay("FAIL")
    return failure(result), result.state, bool(result.traceback), c.hooks(result, 2)


@case
def unbound_with_kwargs(c: Side) -> Any:
    result = c.unbound.apply_async(("a",), {"tail": "é\u2028b"})
    return get(result), result.args, result.kwargs


@core
def link(c: Side) -> Any:
    result = c.summ.apply_async(("a",), link=c.note())
    return get(result), c.notes(1), len(result.children or [])


@case
def several_links(c: Side) -> Any:
    links = [c.note(), c.suffix.s("z") | c.note(), group(c.note(), c.note())]
    return get(c.summ.apply_async(("a",), link=links)), c.notes(4)


@core
def link_error(c: Side) -> Any:
    result = c.summ.apply_async(("FAIL",), link_error=c.errback())
    return failure(result), c.notes(1)


@case
def link_error_of_old_style(c: Side) -> Any:
    result = c.summ.apply_async(("FAIL",), link_error=c.old_errback())
    return failure(result), c.notes(1)


@case
def immutable(c: Side) -> Any:
    return get(chain(c.suffix.s("ignored"), c.summ.si("a"), c.suffix.si("b"))())


@case
def custom_task_id(c: Side) -> Any:
    task_id = f"order/{c.key}/ü" + "x" * 80
    result = c.summ.apply_async(("a",), task_id=task_id)
    return get(result), result.id == task_id


@case
def result_ignored(c: Side) -> Any:
    result = c.summ.apply_async(("a",), ignore_result=True, link=c.note())
    return c.notes(1), c.world.app.AsyncResult(result.id).state


@case
def signals_sent(c: Side) -> Any:
    result = c.summ.delay("a")
    get(result)
    return [one for one in c.left(f"signals:{result.id}", 3) if "run" not in one]


@case
def signals_of_a_failure(c: Side) -> Any:
    result = c.summ.delay("FAIL")
    failure(result)
    return [one for one in c.left(f"signals:{result.id}", 3) if "run" not in one]


@core
def headers_and_stamps(c: Side) -> Any:
    sig = c.tells_headers.s("v", key=1)
    sig.stamp(tenant="acme", numbers=[1, 2])
    options = {"headers": {"trace": "t-1"}, "priority": 3, "shadow": "shade"}
    result = sig.apply_async(**options)
    meta = (get(result), result._get_task_meta())[1]
    kept = {
        key: meta.get(key)
        for key in ("args", "kwargs", "queue", "retries", "tenant", "stamped_headers")
    }
    return get(result), kept, meta["name"].removeprefix("plain_"), meta["worker"]


@case
def time_limits_kept(c: Side) -> Any:
    return get(c.tells_headers.apply_async(("v",), time_limit=50, soft_time_limit=40))


# ---------------------------------------------------------------- chains


@core
def chain_first(c: Side) -> Any:
    return get(chain(c.summ.s("a"), c.suffix.s("!"))())


@core
def chain_middle(c: Side) -> Any:
    return get(chain(c.suffix.s("a", "1"), c.summ.s(), c.suffix.s("!"))())


@case
def chain_last(c: Side) -> Any:
    return get(chain(c.suffix.s("a", "1"), c.summ.s())())


@core
def chain_of_all(c: Side) -> Any:
    result = chain(c.summ.s("a"), c.summ.s(), c.summ.s())()
    return get(result), get(result.parent), get(result.parent.parent)


@core
def chain_fails(c: Side) -> Any:
    result = chain(c.summ.s("FAIL"), c.suffix.s("!"), c.suffix.s("?")).apply_async(
        link_error=c.errback()
    )
    seen = failure(result), c.notes(1)
    return seen, result.state, result.parent.state, result.parent.parent.state


@case
def root_parent_stamps_and_priority(c: Side) -> Any:
    sig = chain(c.summ.s("a"), c.about_me.s())
    sig.stamp(tenant="acme")
    result = sig.apply_async(priority=3)
    told = get(result)
    ids = told.pop("root") == result.parent.id, told.pop("parent") == result.parent.id
    return told, ids


@case
def countdown_in_a_chain(c: Side) -> Any:
    return get(chain(c.summ.s("x").set(countdown=0.2), c.suffix.s("!"))())


# ---------------------------------------------------------------- groups


@core
def group_of_ours(c: Side) -> Any:
    result = group(c.summ.s(x) for x in "abc")()
    return get(result), result.completed_count(), result.successful()


@case
def group_mixed(c: Side) -> Any:
    return get(group(c.summ.s("a"), c.suffix.s("p"), c.summ.s("c"))())


@case
def group_with_a_failure(c: Side) -> Any:
    result = group(c.summ.s("a"), c.summ.s("FAIL"), c.summ.s("c"))()
    values = result.get(timeout=TIMEOUT, propagate=False)
    return [type(value).__name__ if isinstance(value, Exception) else value for value in values]


@case
def group_nested(c: Side) -> Any:
    return get(group(group(c.summ.s("a"), c.summ.s("b")), c.summ.s("d"))())


@case
def group_with_link(c: Side) -> Any:
    each = group(c.summ.s(text).set(link=c.note()) for text in "ab")
    return get(each()), c.notes(2)


# ---------------------------------------------------------------- chords


@core
def chord_header(c: Side) -> Any:
    return get(chord([c.summ.s(x) for x in "cab"], c.join.s())())


@case
def chord_mixed_header(c: Side) -> Any:
    return get(chord([c.summ.s("a"), c.suffix.s("p"), c.summ.s("c")], c.join.s())())


def body(c: Side) -> Any:
    """A body of ours: the list as text, then asked."""
    return c.join.s() | c.summ.s()


@case
def chord_body(c: Side) -> Any:
    return get(chord([c.suffix.s(x) for x in "abc"], body(c))())


@core
def chord_both(c: Side) -> Any:
    return get(chord([c.summ.s(x) for x in "abc"], body(c))())


@case
def chord_direct_body(c: Side) -> Any:
    return get(chord([c.summ.s("a")], c.listed.s())())


@case
def chain_of_group_and_task(c: Side) -> Any:
    return get(chain(group(c.summ.s(x) for x in "abc"), c.join.s(), c.suffix.s("!"))())


@case
def chord_of_chains(c: Side) -> Any:
    first = chain(c.summ.s("a"), c.suffix.s("!"))
    last = chain(c.suffix.s("a"), c.summ.s())
    both = chain(c.summ.s("b"), c.summ.s())
    return get(chord([first, c.summ.s("b"), last, both], c.join.s())())


@case
def task_group_task(c: Side) -> Any:
    return get(chain(c.summ.s("a"), group(c.summ.s(), c.suffix.s("2"), c.summ.s()), c.join.s())())


@core
def chord_of_chords(c: Side) -> Any:
    inner = chord([c.summ.s("a"), c.summ.s("b")], c.join.s())
    return get(chord([inner, c.summ.s("c")], c.join.s())())


@case
def chain_of_chords(c: Side) -> Any:
    first = chord([c.summ.s("a"), c.summ.s("b")], c.join.s())
    second = chord([c.summ.s(), c.suffix.s()], c.join.s())
    return get(chain(first, second)())


@case
def chord_nested_group(c: Side) -> Any:
    return get(chord([group(c.summ.s("a"), c.summ.s("b")), c.summ.s("c")], c.join.s())())


@core
def chord_header_fails(c: Side) -> Any:
    header = [c.summ.s("a"), c.summ.s("FAIL"), c.summ.s("c")]
    kind, text = failure(chord(header, c.join.s().on_error(c.errback()))())
    return kind, text.partition(" raised ")[2].partition(",")[0], c.notes(1)


@case
def chord_body_fails(c: Side) -> Any:
    return failure(chord([c.suffix.s("FA")], c.summ.s().on_error(c.errback()))()), c.notes(0)


@case
def chord_body_of_ours_fails(c: Side) -> Any:
    result = chord([c.suffix.s("x")], c.join.si("FAIL") | c.summ.si("FAIL").on_error(c.errback()))()
    return failure(result), c.notes(1)


@core
def chord_of_200_in_order(c: Side) -> Any:
    result = chord([c.summ.s(str(number)) for number in range(200)], c.join.s())()
    # Whoever follows parents asks for all 200 again whenever one has ended; the body fails with them.
    return get(result, follow_parents=False)


# ---------------------------------------------------------------- expiry and revoking


@case
def expires_before_the_answer(c: Side) -> Any:
    with c.held() as accepted:
        result = c.summ.apply_async(("e",), expires=1.0)
        accepted(result)
        c.settle_seconds(1.1)
    return get(result)


@case
def retried_after_it_expired(c: Side) -> Any:
    with c.held() as accepted:
        result = c.summ_retry.apply_async(("FLAKY",), expires=1.0)
        accepted(result)
        if not c.plain:
            c.settle_seconds(1.1)
    return get(result)


@case
def expired_before_it_came(c: Side) -> Any:
    result = c.summ.apply_async(("x",), expires=-1)
    return failure(result), result.state


@core
def revoked_before_it_came(c: Side) -> Any:
    task_id = f"revoked-{c.key}"
    c.world.app.control.revoke(task_id)
    c.world.app.control.ping(timeout=0.3)
    result = c.summ.apply_async(("x",), task_id=task_id)
    return failure(result)[0], result.state


@case
def revoked_by_stamp_before_it_came(c: Side) -> Any:
    c.world.app.control.revoke_by_stamped_headers({"case": [c.key]})
    c.world.app.control.ping(timeout=0.3)
    sig = c.summ.s("x")
    sig.stamp(case=c.key)
    result = sig.apply_async()
    return failure(result)[0], result.state


# ---------------------------------------------------------------- retries


@core
def autoretry_of_the_answer(c: Side) -> Any:
    result = c.summ_retry.apply_async(("FLAKY",), link=c.note())
    return get(result), c.notes(1), c.hooks(result, 3)


@case
def autoretry_exhausted(c: Side) -> Any:
    result = c.summ_retry.apply_async(("FAIL",), link_error=c.errback())
    return failure(result), c.notes(1), c.hooks(result, 4)


@case
def retry_in_a_chord(c: Side) -> Any:
    return get(chord([c.summ_retry.s("FLAKY"), c.summ.s("x")], c.join.s())())


@core
def retries_itself_with_the_answer(c: Side) -> Any:
    result = c.retries_itself.delay("a")
    return get(result), c.hooks(result, 3)


@core
def function_raises(c: Side) -> Any:
    result = c.bad_build.apply_async(("x",), link_error=c.errback())
    return failure(result), c.notes(1), c.hooks(result, 2), result.state


@case
def function_raises_in_a_chord(c: Side) -> Any:
    return failure(chord([c.bad_build.s("x"), c.summ.s("a")], c.join.s())())[0]


@case
def function_autoretried(c: Side) -> Any:
    return get(chain(c.flaky_build.s("x"), c.suffix.s("!"))())


@case
def function_retries_itself(c: Side) -> Any:
    result = c.explicit_retry.delay("x")
    return get(result), c.hooks(result, 2)


# ---------------------------------------------------------------- replacing


@case
def replaced_by_ours(c: Side) -> Any:
    return get(c.replacer.apply_async(("a",), link=c.note())), c.notes(1)


@case
def replaced_by_a_group_of_ours(c: Side) -> Any:
    return get(chain(c.replacer_group.s("a"), c.join.s())())


@core
def replaces_itself_with_the_answer(c: Side) -> Any:
    return get(c.replaces_late.apply_async(("a",), link=c.note())), c.notes(1)


@case
def replaces_itself_by_a_batch_task(c: Side) -> Any:
    return get(c.asks_twice.apply_async(("a",), link=c.note())), c.notes(1)


@case
def replaces_itself_in_a_chord(c: Side) -> Any:
    return get(chord([c.replaces_late.s("a"), c.summ.s("b")], c.join.s())())


# ---------------------------------------------------------------- called otherwise


@case
def called_directly(c: Side) -> Any:
    return c.summ("a")


@case
def applied_eagerly(c: Side) -> Any:
    eager = c.summ_retry.apply(("FLAKY",))
    failed = c.summ.apply(("FAIL",))
    return eager.get(), eager.state, type(failed.result).__name__, failed.state


@case
def chunks(c: Side) -> Any:
    return get(c.summ.chunks([("a",), ("b",), ("c",)], 2).group()())


@case
def mapped(c: Side) -> Any:
    return get(c.summ.map(["a", "b"]).delay())


# ---------------------------------------------------------------- many in one message


@core
def many_as_a_group(c: Side) -> Any:
    if c.plain:
        return get(group(c.summ.s(str(n)) for n in range(3))())
    return get(c.summ.delay_many(str(n) for n in range(3)))


@case
def many_as_a_chord(c: Side) -> Any:
    if c.plain:
        return get(chord([c.unbound.s(str(n), tail="t") for n in range(3)], c.join.s())())
    calls = [{"text": str(n), "tail": "t"} for n in range(3)]
    return get(c.unbound.delay_many(calls, chord=c.join.s()))


@case
def many_as_a_chord_that_fails(c: Side) -> Any:
    if c.plain:
        result = chord([c.summ.s("a"), c.summ.s("FAIL")], c.join.s().on_error(c.errback()))()
    else:
        result = c.summ.delay_many(["a", "FAIL"], chord=c.join.s().on_error(c.errback()))
    return failure(result)[0], c.notes(1)


@case
def many_with_links(c: Side) -> Any:
    if c.plain:
        result = group(
            c.summ.s(text).set(link=c.note(), link_error=c.errback()) for text in ("a", "b", "FAIL")
        )()
    else:
        result = c.summ.delay_many(
            [("a",), ("b",), ("FAIL",)], link=c.note(), link_error=c.errback()
        )
    values = result.get(timeout=TIMEOUT, propagate=False)
    return [str(value) for value in values], c.notes(3)


@case
def many_whose_function_raises(c: Side) -> Any:
    if c.plain:
        result = group(c.bad_build.s(text) for text in "ab")()
    else:
        result = c.bad_build.delay_many("ab")
    return [str(value) for value in result.get(timeout=TIMEOUT, propagate=False)]
