"""`evenflow demo`: five misbehaviours of an upstream, each shown straight and through evenflow, and each checked."""

from __future__ import annotations

from .run import run_demo

__all__ = ["run_demo"]
