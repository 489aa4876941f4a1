"""Questions that only a person can answer: list the open ones, answer those of a table."""

from __future__ import annotations

from naviglio.flows.site import Site
from naviglio.model import Group, Question


def open_questions(site: Site, group: Group) -> list[Question]:
    """Return the group's unanswered questions: those at its head, and those about identity."""
    landing = site.landing(group)
    heads = sorted({0, landing.head().number})  # identity questions are bound to no head
    return [question for head in heads for question in landing.questions(head)]


def accept(site: Site, group: Group, questions: list[Question], by: str) -> None:
    """Answer these questions: what they found may land at the next run; `by` is kept."""
    landing = site.landing(group)
    for question in questions:
        landing.accept(question, by)
