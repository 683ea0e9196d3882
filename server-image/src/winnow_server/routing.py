"""Which path answers: the first one that matches, also where it is for another method than the request's."""

from starlette.routing import Match, Route
from starlette.types import Scope


class PathRoute(Route):
    """A route with all methods of its path. With starlette's own a wrong method would lead on to a later route: a GET of
    /v2/models/spam/infer to /v2/models/{model}, for a model named spam/infer."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return Match.FULL if match is Match.PARTIAL else match, found
