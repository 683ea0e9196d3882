"""Which path answers: the first one that matches, also where it is for another method than the request's."""

from starlette.routing import Match, Route
from starlette.types import Scope


class PathRoute(Route):
    """Has to have all methods of its path. starlette would look on for one that takes the method, and /v2/models/{model} takes
    a GET of /v2/models/spam/infer: as of a model named spam/infer."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return Match.FULL if match is Match.PARTIAL else match, found
