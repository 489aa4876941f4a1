"""Many who ask the same thing at once are one question."""

from __future__ import annotations

import asyncio
import threading

import pytest

from naviglio_web.shared import Shared


def test_a_question_is_asked_once_for_all_and_again_when_it_is_old() -> None:
    """Ten at once share an answer, a failure too; later, or after `forget`, it is asked anew."""
    asked: list[str] = []

    def question(word: str) -> str:
        asked.append(word)
        if word == "bad":
            raise ValueError(word)
        return word.upper()

    async def many() -> None:
        shared = Shared(keep_s=0.2)
        assert (
            await asyncio.gather(*(shared.ask(1, question, "a") for _ in range(10))) == ["A"] * 10
        )
        assert await shared.ask(1, question, "a") == "A"
        assert asked == ["a"]
        shared.forget(1)
        await shared.ask(1, question, "a")
        await asyncio.sleep(0.3)
        await shared.ask(1, question, "a")
        assert asked == ["a"] * 3
        for _ in range(2):
            with pytest.raises(ValueError, match="bad"):
                await shared.ask(2, question, "bad")
        assert asked.count("bad") == 1

    asyncio.run(many())


def test_what_hangs_holds_no_second_thread() -> None:
    """Those who ask give up each for themselves; the question goes on once, and answers all."""
    end, asked = threading.Event(), []

    def question() -> str:
        asked.append(1)
        end.wait(10)
        return "late"

    async def many() -> None:
        shared = Shared(keep_s=10)
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(shared.ask(1, question), 0.02)
        assert await shared.ask(2, str.upper, "other") == "OTHER"
        end.set()
        assert await shared.ask(1, question) == "late"
        assert len(asked) == 1

    asyncio.run(many())
